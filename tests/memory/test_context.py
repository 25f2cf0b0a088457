"""Shared contexts: versions, conflicts, many writers, what a watcher sees."""

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from memtenant import Options, Tenant
from memtenant.audit import Operation
from memtenant.errors import (
    MessageTooLarge,
    RecordTampered,
    StoreUnavailable,
    UsageError,
    VersionConflict,
)
from memtenant.memory.contexts import ContextEvent, EventKind, Snapshot
from memtenant.memory.source import BindingSource
from memtenant.sync import Tenant as SyncTenant
from tests.memory.bindings import PATIENT, Provisioned
from tests.memory.conftest import Open
from tests.memory.queue import audit, check_writers, drained
from tests.memory.thorough import thoroughness
from tests.support.relay import Proxy

PROCESSES, UPDATES = 16, 12 * thoroughness()


async def test_values_come_back_with_their_versions(acme: Provisioned, opened: Open) -> None:
    one, other = opened(acme), opened(acme, "other")
    context = one.shared_context("case")
    assert await context.read() == Snapshot(0, {}, {})
    assert await context.create({"a": 1, "b": {"deep": [None, True, 1.5, "é"]}}) == 1
    assert await context.update({"a": 2, "c": "new"}) == 2
    snapshot = await other.shared_context("case").read()
    assert snapshot.revision == 2
    assert snapshot.values == {"a": 2, "b": {"deep": [None, True, 1.5, "é"]}, "c": "new"}
    assert snapshot.versions == {"a": 2, "b": 1, "c": 2}
    assert (await context.read("a", "none")).values == {"a": 2}
    assert await context.update({"a": None}) == 3
    assert (await context.read()).values.keys() == {"b", "c"}


async def test_a_context_is_made_once(tenant: Tenant) -> None:
    context = tenant.shared_context("case")
    await context.create({"a": 1})
    with pytest.raises(VersionConflict):
        await context.create({"a": 2})
    assert await context.delete(expected=1)
    assert not await context.delete()
    assert (await context.read()).revision == 0
    revision = await context.create({"a": 3})
    assert revision > 1
    with pytest.raises(VersionConflict):
        await context.delete(expected=1)


async def test_a_conflict_tells_what_stands_there(acme: Provisioned, opened: Open) -> None:
    one, other = (opened(acme, name).shared_context("case") for name in ("default", "other"))
    await one.create({"a": 1, "b": 1})
    await other.update({"a": "theirs"}, expected={"a": 1})
    with pytest.raises(VersionConflict) as conflict:
        await one.update({"a": "ours", "b": 2}, expected={"a": 1, "b": 1})
    current = conflict.value.current
    assert isinstance(current, Snapshot)
    assert (current.values, current.versions) == ({"a": "theirs"}, {"a": 2})
    assert (await one.read()).values == {"a": "theirs", "b": 1}
    with pytest.raises(VersionConflict):
        await one.update({"a": "again"}, expected={"a": 0})
    await one.update({"new": 1}, expected={"new": 0})
    # Somebody who comes with a key of its own making is told the same.
    with pytest.raises(VersionConflict):
        await opened(acme).shared_context("case").create({"x": 1})


async def test_two_that_make_a_context_at_once_agree_on_one_key(
    acme: Provisioned, opened: Open
) -> None:
    contexts = [opened(acme).shared_context("case") for _ in range(6)]
    results = await asyncio.gather(
        *(context.create({"winner": n}) for n, context in enumerate(contexts)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in results) == ["VersionConflict"] * 5 + ["int"]
    values = [(await context.read()).values for context in contexts]
    assert values == [values[0]] * 6


async def test_a_key_that_was_replaced_is_read_again(acme: Provisioned, opened: Open) -> None:
    """A failover lost the context, and somebody else made it anew."""
    reader, writer, other = (opened(acme).shared_context("case") for _ in range(3))
    await reader.create({"a": 1})
    assert (await writer.read()).values == {"a": 1}
    with acme.server.admin() as admin:
        admin.delete(*admin.scan_iter("*:r:c:*"), *admin.scan_iter("*:k:*"))
    await other.create({"a": 2})
    assert (await reader.read()).values == {"a": 2}
    with pytest.raises(VersionConflict) as conflict:
        await writer.update({"a": 3}, expected={"a": 7})
    assert isinstance(conflict.value.current, Snapshot)
    assert conflict.value.current.values == {"a": 2}


async def test_names_and_sizes_are_checked_before_anything_is_sent(tenant: Tenant) -> None:
    context = tenant.shared_context("case")
    for name in ("ada@example.org", "", "a b", "x" * 65):
        with pytest.raises(UsageError, match="1 to 64"):
            await context.update({name: 1})
    with pytest.raises(UsageError, match="1 to 256"):
        await context.update({})
    with pytest.raises(UsageError, match=r"about=\['…'\]"):
        await context.update({"a": 1}, about="ada@example.org")
    with pytest.raises(UsageError, match="a text that is not empty"):
        await context.update({"a": 1}, about=[""])
    with pytest.raises(UsageError, match="not changed"):
        await context.update({"a": 1}, expected={"b": 1})
    noise = [n * 7919 % 1_000_003 for n in range(150_000)]
    with pytest.raises(MessageTooLarge):
        await context.update({"a": noise})
    with pytest.raises(UsageError, match="needs an id"):
        tenant.shared_context("")


async def test_a_function_is_applied_again_when_another_update_came_between(
    acme: Provisioned, opened: Open
) -> None:
    one, other = (opened(acme, name).shared_context("case") for name in ("default", "other"))
    calls = []

    def add(values: dict[str, Any]) -> dict[str, Any]:
        calls.append(values)
        return {"n": values.get("n", 0) + 1}

    await asyncio.gather(*(context.update(add) for context in (one, other) for _ in range(10)))
    assert (await one.read()).values == {"n": 20}
    assert len(calls) >= 20
    assert await one.update(lambda values: None) == 20
    with pytest.raises(UsageError):
        await one.update(add, expected={"n": 1})


def test_every_update_of_many_processes_is_accounted_for(on_valkey: Provisioned) -> None:
    folder = on_valkey.bind()
    audit(on_valkey.server)
    children = []
    for number in range(PROCESSES):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _count_up(folder, f"by-{number}")
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * PROCESSES
    total = PROCESSES * UPDATES
    with SyncTenant(BindingSource(folder)) as tenant:
        snapshot = tenant.shared_context("counter").read()
        log = tenant.shared_context("counter").access_log()
    own = {f"by-{number}": UPDATES for number in range(PROCESSES)}
    assert (snapshot.revision, dict(snapshot.values)) == (total, {"n": total, **own})
    versions = [one.version for one in log if one.name == "n"]
    assert versions == list(range(total - len(versions) + 1, total + 1))
    left = drained(on_valkey.server)
    check_writers(left)
    changes = (Operation.CONTEXT_CREATE, Operation.CONTEXT_UPDATE)
    done = [one for one in left if one.event.operation in changes and one.told[1] == "O"]
    assert len(done) == total


def _count_up(folder: Path, own: str) -> None:
    def one_more(values: dict[str, Any]) -> dict[str, Any]:
        return {"n": values.get("n", 0) + 1, own: values.get(own, 0) + 1}

    with SyncTenant(BindingSource(folder)) as tenant:
        context = tenant.shared_context("counter")
        for _ in range(UPDATES):
            context.update(one_more, budget=60)


async def test_a_lost_reply_does_not_change_twice(acme: Provisioned, stack: ExitStack) -> None:
    proxy = stack.enter_context(Proxy.to(acme.server.host, acme.server.port))
    async with Tenant(acme.source(port=proxy.port), options=PATIENT) as tenant:
        context = tenant.shared_context("case")
        await context.create({"n": 0})
        for number in range(1, 5):
            proxy.delay(0.05)
            pending = asyncio.create_task(context.update({"n": number}, expected={"n": number}))
            await asyncio.sleep(0.07)
            proxy.cut()
            proxy.delay(0)
            assert await pending == number + 1
        assert len(await context.access_log()) == 5


async def test_a_watcher_sees_names_and_versions_and_what_it_missed(
    acme: Provisioned, opened: Open, stack: ExitStack
) -> None:
    proxy = stack.enter_context(Proxy.to(acme.server.host, acme.server.port))
    options = Options(retry_budget=0.5)
    writer = opened(acme).shared_context("case")
    await writer.create({"a": 1})
    seen: list[ContextEvent] = []
    async with Tenant(acme.source("other", port=proxy.port), options=options) as tenant:

        async def watch() -> None:
            async for event in tenant.shared_context("case").watch(interval=0.02):
                seen.append(event)  # noqa: PERF401 - others look at it meanwhile

        before = acme.calls("fcall_ro")
        watching = asyncio.create_task(watch())
        await _until(lambda: acme.calls("fcall_ro") > before)  # it has looked for the first time
        await writer.update({"a": 2, "b": 1})
        await writer.update({"b": None})
        await _until(lambda: sum(len(event.changes) for event in seen) == 3)
        changes = [change for event in seen for change in event.changes]
        assert [(one.name, one.version, one.deleted, one.agent) for one in changes] == [
            ("a", 2, False, "default"),
            ("b", 2, False, "default"),
            ("b", 3, True, "default"),
        ]
        proxy.refuse()
        await writer.update({"a": 3})
        proxy.accept()
        await _until(lambda: seen[-1].revision == 4)
        await writer.delete()
        await _until(lambda: seen[-1].kind is EventKind.DELETED)
        await writer.create({"a": 1})
        await _until(lambda: seen[-1].kind is EventKind.MISSED)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [event.kind for event in seen[-2:]] == [EventKind.DELETED, EventKind.MISSED]


async def test_values_cannot_be_exchanged(acme: Provisioned, tenant: Tenant) -> None:
    context = tenant.shared_context("case")
    await context.create({"mine": "one", "theirs": "two"})
    with acme.server.admin() as admin:
        key = next(name for name in admin.scan_iter("*:r:c:*") if name.count(b":") == 4)
        mine, theirs = admin.hmget(key, ["mine", "theirs"])
        admin.hset(key, mapping={"mine": theirs or b"", "theirs": mine or b""})
    with pytest.raises(RecordTampered):
        await context.read()


async def test_a_store_that_is_away_is_told(acme: Provisioned, stack: ExitStack) -> None:
    proxy = stack.enter_context(Proxy.to(acme.server.host, acme.server.port))
    options = Options(timeout=0.3, connect_timeout=0.3, retry_budget=0.5)
    async with Tenant(acme.source(port=proxy.port), options=options) as tenant:
        proxy.refuse()
        with pytest.raises(StoreUnavailable):
            await tenant.shared_context("case").update({"a": 1})


async def _until(true: Any) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_a_function_that_returns_no_mapping_is_refused(tenant: Tenant) -> None:
    context = tenant.shared_context("c")
    await context.create({"a": 1})

    async def later(values: dict[str, Any]) -> dict[str, Any]:
        return values

    for function in (later, lambda values: ["a"]):
        with pytest.raises(UsageError, match="without async"):
            await context.update(function)  # type: ignore[arg-type]
    assert (await context.read()).revision == 1
