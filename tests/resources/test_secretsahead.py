"""Secrets that lists brought before they were asked for."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import pytest

from memtenant.clock import Clock
from memtenant.errors import ResourceForbidden
from memtenant.resources import secretsahead
from memtenant.resources.port import StoredSecret
from memtenant.resources.secretsahead import SecretsAhead


def stored(name: str, version: str = "listed") -> StoredSecret:
    return StoredSecret("home", name, f"uid-{name}", version, {}, {}, "Opaque", {})


class Server:
    """Secrets of one namespace, in pages of ten; counts what it is asked."""

    def __init__(self, count: int) -> None:
        self.names = [f"s-{number:04}" for number in range(count)]
        self.pages = 0
        self.asked: list[str] = []

    async def list(
        self, _namespace: str, _labels: Mapping[str, str]
    ) -> AsyncIterator[tuple[StoredSecret, ...]]:
        for at in range(0, len(self.names), 10):
            self.pages += 1
            yield tuple(stored(name) for name in self.names[at : at + 10])

    async def get_secret(self, _namespace: str, name: str) -> StoredSecret | None:
        self.asked.append(name)
        return stored(name, "asked for") if name in self.names else None


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secretsahead, "_AHEAD", 15)
    monkeypatch.setattr(secretsahead, "_LOOK_AGAIN", 0.01)


async def reading(server: Server, moment: list[float]) -> tuple[SecretsAhead, "asyncio.Task[None]"]:
    clock = Clock(monotonic=lambda: moment[0])
    ahead = SecretsAhead(server, clock=clock)  # type: ignore[arg-type]
    task = asyncio.create_task(ahead.run(server.list, "records", [("home", {})]))
    await asyncio.sleep(0.02)
    return ahead, task


async def test_who_asks_in_the_order_of_the_list_is_answered_from_it_once() -> None:
    server = Server(100)
    ahead, task = await reading(server, [0.0])
    try:
        assert server.pages == 2  # no more than a little ahead
        for name in server.names:
            found = await ahead.get("home", name)
            assert found is not None
            assert found.resource_version == "listed"
            await asyncio.sleep(0)
        assert server.pages == 10
        assert server.asked == []
        again = await ahead.get("home", server.names[0])
        assert again is not None
        assert again.resource_version == "asked for"
        assert await ahead.get("home", "never-was") is None
    finally:
        await _end(task)


async def test_what_changed_or_lay_there_for_long_is_asked_for() -> None:
    server, moment = Server(10), [0.0]
    ahead, task = await reading(server, moment)
    try:
        ahead.changed("home", "s-0000")
        found = await ahead.get("home", "s-0000")
        assert found is not None
        assert found.resource_version == "asked for"
        moment[0] += 60.0
        found = await ahead.get("home", "s-0001")
        assert found is not None
        assert found.resource_version == "asked for"
    finally:
        await _end(task)


async def test_secrets_that_nobody_asks_for_do_not_stop_the_list() -> None:
    server, moment = Server(100), [0.0]
    _, task = await reading(server, moment)
    try:
        moment[0] += 60.0
        await asyncio.sleep(0.05)
        assert server.pages > 2
    finally:
        await _end(task)


async def test_a_list_that_may_not_be_made_is_no_failure() -> None:
    async def forbidden(
        _namespace: str, _labels: Mapping[str, str]
    ) -> AsyncIterator[tuple[StoredSecret, ...]]:
        raise ResourceForbidden("no")
        yield ()

    server = Server(1)
    ahead = SecretsAhead(server)  # type: ignore[arg-type]
    task = asyncio.create_task(ahead.run(forbidden, "records", [("home", {}), ("other", {})]))
    await asyncio.sleep(0.01)
    try:
        assert not task.done()  # it lets go of what was found, later
        assert await ahead.get("home", "s-0000") == stored("s-0000", "asked for")
    finally:
        await _end(task)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
