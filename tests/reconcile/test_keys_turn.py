"""A tenant's key turns under agents that write and read all the time: not one call fails."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from memtenant import Message, Tenant
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.keyring import Keyring
from memtenant.memory.source import BindingSource
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


def bound_versions(ground: Ground, agent: str) -> list[int]:
    data = (folder_of(ground, agent) / "keyring.json").read_bytes()
    return [kek.version for kek in AgentKeyring.from_json(data).keks]


async def check_turned(ground: Ground, version: int) -> None:
    """The earlier versions are nowhere any more."""
    assert await versions_of(ground) == [version]
    assert wrapped_under(ground) == {version}
    for agent in ("one", "two", "three"):
        assert bound_versions(ground, agent) == [version]
    with ground.server.admin() as admin:
        assert admin.hget(keys.limits(ACME), "least_kek") == str(version).encode()
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
                await asyncio.sleep(0.01)

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
                time.sleep(0.01)


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
        time.sleep(0.01)
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
        await acme.settle()
        assert await versions_of(acme) == [1, 2], "what retired is kept for the grace"
        assert wrapped_under(acme) == {2}
        await acme.settle(AFTER_THE_GRACE)
        assert await versions_of(acme) == [2]
        await asyncio.sleep(1.2)
        agents.stop.set()
        await asyncio.gather(*tasks)
    assert agents.problems == []
    await check_turned(acme, 2)
    texts: dict[str, list[str]] = {}
    for user, text in agents.written:
        texts.setdefault(user, []).append(text)
    assert len(texts) > 20
    async with Tenant(BindingSource(folder_of(acme, "one"))) as tenant:
        for user, expected in texts.items():
            found = [one.text for one in await tenant.conversation("s", user=user).messages()]
            assert found[: len(expected)] == expected
