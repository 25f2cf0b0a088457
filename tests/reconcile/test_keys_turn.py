"""A tenant's key turns under agents that write and read all the time: not one call fails."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from memtenant import Message, Tenant
from memtenant.clock import Clock, system_clock
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.keyring_record import Keyring
from memtenant.crypto.names import user_alias
from memtenant.memory.source import BindingSource
from memtenant.reconcile.once import local_world, settle
from memtenant.rules.record import TenantRecord
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground, told

ACME = TenantId("support", "acme")
SECRET = {"mode": "Enabled", "keySecretRef": {"name": "acme-key", "key": "root"}}
AFTER_THE_GRACE = timedelta(minutes=6)


def bring_root(ground: Ground, first: int) -> None:
    """The user's key Secret, made or replaced."""
    root = bytes((first + n) % 256 for n in range(32))
    ground.resources.declare_secret("support", "acme-key", {"root": root})


@pytest.fixture
async def acme(ground: Ground) -> Ground:
    """A tenant with a root key of its own and three agents."""
    bring_root(ground, 0)
    agents = [{"name": name} for name in ("one", "two", "three")]
    ground.tenant("acme", encryption=SECRET, agents=agents)
    await ground.settle()
    return ground


def folder_of(ground: Ground, agent: str) -> Path:
    return ground.folder / "bindings" / "support" / f"acme-{agent}"


async def record_of(ground: Ground) -> TenantRecord:
    stored = await ground.resources.get_secret(ground.resources.home, f"{ACME}-keyring")
    assert stored is not None
    return TenantRecord.from_data(stored.data, stored.name)


async def versions_of(ground: Ground) -> list[int]:
    keyring = Keyring.from_json((await record_of(ground)).keyring, ACME)
    return [kek.version for kek in keyring.keks]


def wrapped_under(ground: Ground) -> set[int]:
    """The versions that stand in front of the tenant's data keys."""
    with ground.server.admin() as admin:
        stored = [admin.hget(name, "dek") for name in admin.scan_iter(keys.dek(ACME, "*"))]
    return {int.from_bytes(one[:4], "big") for one in stored if one is not None}


def least_on(ground: Ground) -> bytes | None:
    """The least version that the Functions accept."""
    with ground.server.admin() as admin:
        stored: bytes | None = admin.hget(keys.limits(ACME), "least_kek")
    return stored


def bound_versions(ground: Ground, agent: str) -> list[int]:
    data = (folder_of(ground, agent) / "keyring.json").read_bytes()
    return [kek.version for kek in AgentKeyring.from_json(data).keks]


async def check_turned(ground: Ground, version: int) -> None:
    """The earlier versions are nowhere any more."""
    assert await versions_of(ground) == [version]
    assert wrapped_under(ground) == {version}
    for agent in ("one", "two", "three"):
        assert bound_versions(ground, agent) == [version]
    assert least_on(ground) == str(version).encode()
    status = await ground.tenant_status("acme")
    assert (status.key_version, status.keys) == (version, None)
    assert told(status, "Ready")[0] == "True"


@dataclass
class Busy:
    """Agents that begin with a new user every few messages, and read what they wrote before."""

    stop: threading.Event = field(default_factory=threading.Event)
    written: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    async def write(self, folder: Path, name: str) -> None:
        """As a task of this process."""
        async with Tenant(BindingSource(folder)) as tenant:
            case = tenant.shared_context("case")
            number = 0
            while not self.stop.is_set():
                user, text = f"{name}-{number // 4}", f"{name}-{number}"
                try:
                    await tenant.conversation("s", user=user).append(Message.human(text))
                    self.written.append((user, text))
                    earlier, _ = random.choice(self.written)
                    assert await tenant.conversation("s", user=earlier).messages()
                    await case.update({name: number})
                except Exception as error:  # noqa: BLE001 -- whatever it is, it is a failed call
                    self.problems.append(f"{text}: {error!r}")
                number += 1
                await asyncio.sleep(0.1)

    def write_in_a_thread(self, folder: Path, name: str) -> None:
        """With the twin that blocks."""
        with SyncTenant(BindingSource(folder)) as tenant:
            number = 0
            while not self.stop.is_set():
                user, text = f"{name}-{number // 4}", f"{name}-{number}"
                try:
                    tenant.conversation("s", user=user).append(Message.human(text))
                    self.written.append((user, text))
                except Exception as error:  # noqa: BLE001 -- as above
                    self.problems.append(f"{text}: {error!r}")
                number += 1
                time.sleep(0.1)


_PROCESS = """
import sys, time
from pathlib import Path
from memtenant import Message
from memtenant.memory.source import BindingSource
from memtenant.sync import Tenant

with Tenant(BindingSource(Path(sys.argv[1]))) as tenant:
    number = 0
    while True:
        user = f"process-{number // 4}"
        chat = tenant.conversation("s", user=user)
        chat.append(Message.human(f"process-{number}"))
        assert chat.messages()
        print(user, f"process-{number}", flush=True)
        number += 1
        time.sleep(0.1)
"""


@contextmanager
def busy(ground: Ground, log: Path) -> Iterator[Busy]:
    """Agents of a thread and a process, until the end; those of tasks are the test's."""
    agents = Busy()
    thread = threading.Thread(target=agents.write_in_a_thread, args=(folder_of(ground, "two"), "t"))
    thread.start()
    with log.open("wb") as out:
        command = [sys.executable, "-c", _PROCESS, str(folder_of(ground, "three"))]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield agents
    finally:
        agents.stop.set()
        thread.join()
        ended = process.poll()
        process.kill()
        process.wait()
    assert ended is None, log.read_text()
    agents.written += [
        (user, text) for user, text in map(str.split, log.read_text().split("\n")[:-1])
    ]


async def test_a_root_is_replaced_and_the_old_key_destroyed_without_one_failed_call(
    acme: Ground, tmp_path: Path
) -> None:
    with busy(acme, tmp_path / "process.log") as agents:
        tasks = [
            asyncio.create_task(agents.write(folder_of(acme, "one"), name)) for name in ("a", "b")
        ]
        await asyncio.sleep(0.5)
        bring_root(acme, 100)
        await acme.settle(agents_run=True)
        assert await versions_of(acme) == [1, 2], "what retired is kept for the grace"
        # What an agent that was held up wrapped behind the pass, the next one finds.
        assert least_on(acme) == b"2", "and refused"
        await acme.settle(AFTER_THE_GRACE, agents_run=True)
        assert await versions_of(acme) == [2]
        await asyncio.sleep(1.2)
        async with asyncio.timeout(120):
            while len({user for user, _ in agents.written}) <= 15:  # noqa: ASYNC110 - others' work
                await asyncio.sleep(0.1)
        agents.stop.set()
        await asyncio.gather(*tasks)
    assert agents.problems == []
    await check_turned(acme, 2)
    texts: dict[str, list[str]] = {}
    for user, text in agents.written:
        texts.setdefault(user, []).append(text)
    async with Tenant(BindingSource(folder_of(acme, "one"))) as tenant:
        for user, expected in texts.items():
            found = [one.text for one in await tenant.conversation("s", user=user).messages()]
            assert found[: len(expected)] == expected


class Hurrying:
    """A clock that is five seconds further at each look: whatever is waited for came due before."""

    def __init__(self) -> None:
        self._now = system_clock.now()

    def __call__(self) -> datetime:
        self._now += timedelta(seconds=5)
        return self._now


async def test_a_step_that_came_due_while_a_run_did_other_things_is_taken_by_that_run(
    acme: Ground,
) -> None:
    await write(acme, "ada")
    ask(acme, "now")
    async with local_world(acme.resources, clock=Clock(now=Hurrying())) as world:
        await settle(world)
    assert wrapped_under(acme) == {2}
    assert least_on(acme) == b"2"
    assert await read(acme, "ada") == ["of ada"]


# -- asked for, stopped, killed --------------------------------------------------------------------


def ask(ground: Ground, token: str) -> None:
    """The annotation beside the one that rotates credentials."""
    agents = [{"name": name} for name in ("one", "two", "three")]
    ground.tenant("acme", {"memtenant.dev/rotate-keys": token}, encryption=SECRET, agents=agents)


async def write(ground: Ground, *users: str) -> None:
    async with Tenant(BindingSource(folder_of(ground, "one"))) as tenant:
        for user in users:
            await tenant.conversation("s", user=user).append(Message.human(f"of {user}"))


async def read(ground: Ground, user: str) -> list[str]:
    async with Tenant(BindingSource(folder_of(ground, "one"))) as tenant:
        return [one.text for one in await tenant.conversation("s", user=user).messages()]


async def test_a_data_key_that_does_not_open_is_told_and_keeps_the_old_version(
    acme: Ground,
) -> None:
    await write(acme, "ada", "bob")
    name = keys.dek(ACME, await alias_of(acme, "bob"))
    with acme.server.admin() as admin:
        before = admin.hget(name, "dek")
        assert before is not None
        admin.hset(name, "dek", before[:-1] + bytes([before[-1] ^ 1]))
    ask(acme, "now")
    await acme.settle()
    await acme.settle(AFTER_THE_GRACE)
    status = await acme.tenant_status("acme")
    state, reason, message = told(status, "DataKeysUnreadable")
    assert (state, reason) == ("True", "DataKeyDamaged")
    assert f"k:{await alias_of(acme, 'bob')}" in message
    assert status.keys is not None
    assert (status.keys.data_keys, status.keys.remaining, status.keys.unreadable) == (2, 1, 1)
    assert await versions_of(acme) == [1, 2]
    assert await read(acme, "ada") == ["of ada"], "the others were wrapped anew"

    with acme.server.admin() as admin:
        admin.hset(name, "dek", before)  # from a backup
    await acme.settle()
    await acme.settle(AFTER_THE_GRACE)
    await check_turned(acme, 2)
    assert told(await acme.tenant_status("acme"), "DataKeysUnreadable")[0] == ""
    assert await read(acme, "bob") == ["of bob"]


async def test_what_an_agent_writes_around_the_functions_does_not_bring_a_version_back(
    acme: Ground,
) -> None:
    await write(acme, "ada")
    with acme.server.admin() as admin:
        old = admin.hget(keys.dek(ACME, await alias_of(acme, "ada")), "dek")
        assert old is not None
    ask(acme, "now")
    await acme.settle()
    agent = await acme.login("acme", "one")
    agent.hsetnx(keys.dek(ACME, "x" * 22), "dek", old)
    await acme.settle(AFTER_THE_GRACE)
    assert await versions_of(acme) == [1, 2]
    with acme.server.admin() as admin:
        admin.delete(keys.dek(ACME, "x" * 22))
    await acme.settle(AFTER_THE_GRACE)
    await check_turned(acme, 2)


async def test_what_a_late_agent_wrapped_behind_the_pass_is_found_before_its_version_goes(
    acme: Ground,
) -> None:
    await write(acme, "ada")
    name = keys.dek(ACME, await alias_of(acme, "ada"))
    with acme.server.admin() as admin:
        old = admin.hget(name, "dek")
        assert old is not None
        ask(acme, "now")
        await acme.settle()
        assert least_on(acme) == b"2"
        admin.hset(name, "dek", old)  # as if it had come between the pass and the refusal
    await acme.settle(AFTER_THE_GRACE)
    await check_turned(acme, 2)
    assert await read(acme, "ada") == ["of ada"]


async def test_an_erasures_day_ends_with_a_new_key(acme: Ground) -> None:
    await write(acme, "ada")
    stored = await acme.resources.get_secret(acme.resources.home, f"{ACME}-keyring")
    assert stored is not None
    record = TenantRecord.from_data(stored.data, stored.name)
    due = system_clock.now() + timedelta(hours=23)
    erased = replace(record, shred_through=1, shred_due=due)
    await acme.resources.replace_secret(stored, erased.to_data())
    await acme.settle()
    assert await versions_of(acme) == [1]
    await acme.settle(timedelta(hours=24))
    await acme.settle(timedelta(hours=25))
    await check_turned(acme, 2)
    assert (await record_of(acme)).shred_through == 0
    assert await read(acme, "ada") == ["of ada"]


_OPERATOR = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.world import Timing
from memtenant.resources.folder import FolderResources

async def main():
    with FolderResources.open(Path(sys.argv[1])) as resources:
        async with local_world(resources) as world:
            nothing = timedelta(0)
            world.timing = Timing(kubelet_lag=nothing, agent_look=nothing, key_grace=nothing)
            print("begun", flush=True)
            await settle(world)

asyncio.run(main())
"""


async def test_an_operator_that_is_killed_anywhere_ends_in_the_same_state(
    acme: Ground,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    users = [f"user-{number}" for number in range(30)]
    await write(acme, *users)
    bring_root(acme, 100)
    ask(acme, "now")
    acme.close()
    for _ in range(5):
        command = [sys.executable, "-c", _OPERATOR, str(acme.folder)]
        running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert running.stdout is not None
        assert await running.stdout.readline() == b"begun\n"
        await asyncio.sleep(chance.uniform(0.02, 0.5))
        if running.returncode is None:
            running.kill()
        await running.wait()
    acme.open()
    await acme.settle()
    await acme.settle(AFTER_THE_GRACE)
    await acme.settle(2 * AFTER_THE_GRACE)
    [version] = await versions_of(acme)
    await check_turned(acme, version)
    assert [await read(acme, user) for user in users] == [[f"of {user}"] for user in users]


async def alias_of(ground: Ground, user: str) -> str:
    data = (folder_of(ground, "one") / "keyring.json").read_bytes()
    return user_alias(AgentKeyring.from_json(data).name_key, user)
