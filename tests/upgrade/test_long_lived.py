"""An agent of the release before keeps a conversation open for longer than its period, and its
messages for all of it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtenant.stores import ExpiryScan
from memtenant.tenancy import keys
from tests.functions.tenants import in_ms
from tests.memory.bindings import Provisioned
from tests.stores.operators import ACME, leading
from tests.support.servers import Server
from tests.upgrade.released import releases

DAY = 86_400_000
DAYS = 40
PERIOD = 30 * DAY


class LongLived:
    """The agent, and what is stored of its conversation."""

    def __init__(self, server: Server, folder: Path) -> None:
        made = Provisioned(server, folder)
        made.provision()
        self.server = server
        package = releases()[-1].unpack(folder / "package")
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "long_lived.py", made.bind().name, str(DAYS)],
            env={**os.environ, "PYTHONPATH": str(package), "SERVICE_BINDING_ROOT": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def append(self) -> str:
        """One message; the writer's id."""
        return self.say("hello").split()[1]

    def say(self, text: str) -> str:
        """One message; what the agent answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def age(self, writer: str) -> str:
        """The server's half of an older writer; its id."""
        raw = bytes.fromhex(writer)
        old = (int.from_bytes(raw[:4], "big") - DAYS * 86_400).to_bytes(4, "big") + raw[4:]
        with self.server.admin() as admin:
            head = self.key.removesuffix(b"l") + b"h"
            writers = admin.hget(head, "writers")
            admin.hset(head, "writers", writers.replace(raw, old))
        return old.hex()

    @property
    def key(self) -> bytes:
        """Its list."""
        with self.server.admin() as admin:
            (found,) = admin.scan_iter(f"{keys.records(ACME)}*:l", count=1000)
        return bytes(found)

    @property
    def times(self) -> list[int]:
        """Of its messages."""
        with self.server.admin() as admin:
            entries = admin.lrange(self.key, 0, -1)
        return [int.from_bytes(entry[6:12], "big") for entry in entries]

    def passes(self) -> int:
        """A whole pass of the operator's; how many records it dated back."""

        async def run() -> int:
            async with leading(self.server) as store:
                scan = ExpiryScan()
                while not await store.expire_scanned(scan, most=1000):
                    pass
                return sum(one.redated for one in scan.removed.values())

        return asyncio.run(run())

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


@pytest.fixture
def old(redis_server: Server, tmp_path: Path) -> Iterator[LongLived]:
    agent = LongLived(redis_server, tmp_path)
    yield agent
    agent.close()


def test_what_a_long_lived_agent_of_the_release_before_says_is_kept_for_its_period(
    old: LongLived,
) -> None:
    writer = old.age(old.append())
    assert old.append() == writer  # the server takes more of a writer of forty days
    said = old.times
    with old.server.admin() as admin:
        admin.hset(keys.limits(ACME), "cutoff_content", in_ms() - PERIOD)
    assert old.passes() == 0
    closed = in_ms()
    assert old.append() != writer  # and the pass has it go on under another
    assert old.passes() == 0
    assert old.times[: len(said)] == said
    with old.server.admin() as admin:  # nor is anything kept by its date
        entry = admin.lindex(old.key, 1)
        moved = entry[:6] + (in_ms() + 50_000).to_bytes(6, "big") + entry[12:]
        admin.lset(old.key, 1, moved)
    assert old.passes() == 1
    assert said[1] <= old.times[1] <= closed


def test_a_reply_that_is_lost_while_the_writer_is_closed_leaves_the_agent_unsure_and_one_message(
    old: LongLived,
) -> None:
    """It may have been stored under a writer that the server knows no more: an agent that took
    another for its second try would store it twice."""
    writer = old.age(old.append())
    assert old.append() == writer
    with old.server.admin() as admin:
        admin.hset(keys.limits(ACME), "cutoff_content", in_ms() - PERIOD)
    assert old.say("lost") == "stored"
    old.passes()
    assert old.say("and tries again") == "WriterUnknown"
    assert len(old.times) == 3
    assert old.append() != writer
    assert len(old.times) == 4
