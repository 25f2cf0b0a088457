"""What another client of a store waits for one small value while something goes on there.

It is a process of its own that asks every millisecond. What goes on, nothing at all, and a client
that sends PING at the same rhythm and uses as much CPU (the floor: what any second client costs on
this machine) take turns of some tenths of a second, so that all three saw the same machine.

What goes on is to run `elsewhere`: nobody has an operator or an agent take the store's cores from
it, as it would here, where both share two.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Awaitable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from memtenant.stores import Pace
from tests.support.servers import Server

__all__ = ["ASKED_FOR", "OTHERS", "Bystander", "Turns", "Waits", "elsewhere", "watching"]

ASKED_FOR = "mt:{bulk.t}:r:0"
OTHERS = 2.0
"""How many times as long as idle others may wait."""

_TURN = 0.4

_PROBE = """
import socket, sys, time
host, port, user, password, key, out = sys.argv[1:]
link = socket.create_connection((host, int(port)))
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def ask(*words):
    parts = b"".join(b"$%d\\r\\n%b\\r\\n" % (len(w), w) for w in (one.encode() for one in words))
    link.sendall(b"*%d\\r\\n" % len(words) + parts)
    return link.recv(4096)
ask("AUTH", user, password)
with open(out, "w", buffering=1) as file:
    while True:
        began = time.monotonic()
        ask("GET", key)
        file.write(f"{began} {time.monotonic() - began}\\n")
        time.sleep(0.001)
"""

_Spans = list[tuple[float, float]]
_T = TypeVar("_T")


def elsewhere(work: Coroutine[Any, Any, _T]) -> _T:
    """Run it as on another machine: in a thread that gets a core when nobody else wants it."""

    def run() -> _T:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # of this thread alone
        return asyncio.run(work)

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(run).result()


@dataclass(frozen=True, slots=True)
class Waits:
    """The p99 of waiting, in seconds: ``meanwhile``, with nothing going on, and beside PINGs.
    ``samples`` are those meanwhile, ``worked`` how long it went on."""

    quiet: float
    floor: float
    meanwhile: float
    samples: int
    worked: float

    @property
    def ratio(self) -> float:
        """How much longer others wait than with nothing going on."""
        return self.meanwhile / self.quiet

    def __str__(self) -> str:
        return (
            f"{self.meanwhile * 1e3:.2f} ms (idle {self.quiet * 1e3:.2f}, beside PINGs at the same "
            f"rhythm {self.floor * 1e3:.2f})"
        )


@dataclass(slots=True)
class Turns:
    """Whose turn was when."""

    server: Server
    working: _Spans = field(default_factory=list)
    quiet: _Spans = field(default_factory=list)
    floor: _Spans = field(default_factory=list)
    _began: float = 0.0
    _cpu: float = 0.0
    _pieces: int = 0

    def begin(self) -> None:
        """The work goes on now."""
        self._began, self._cpu, self._pieces = time.monotonic(), time.thread_time(), 0

    @property
    def worked(self) -> float:
        """Seconds of work so far, without the turns of the others."""
        return sum(end - began for began, end in self.working)

    async def end(self, *, least: float = 0.0) -> None:
        """The work has a break, if it went on for so long: the others have their turn."""
        now = time.monotonic()
        lasted = now - self._began
        if lasted < least:
            return
        cpu = time.thread_time() - self._cpu
        self.working.append((self._began, now))
        await asyncio.sleep(lasted)
        self.quiet.append((now, time.monotonic()))
        self.floor.append(await _pinging(self.server, lasted, max(self._pieces, 1), cpu))
        self.begin()

    async def over(self, work: Awaitable[object], *, pieces: int = 1) -> None:
        """All of the work, which is about so many requests, is one turn."""
        self.begin()
        await work
        self._pieces = pieces
        await self.end()

    def pace(self) -> Pace:
        """The usual one, for a pass that makes way for the others now and then."""
        turns = self

        class _Interrupted(Pace):
            async def rest(self, busy: float) -> None:
                turns._pieces += 1
                await super().rest(busy)
                await turns.end(least=_TURN)

        return _Interrupted()


async def _pinging(server: Server, seconds: float, times: int, cpu: float) -> tuple[float, float]:
    """Send so many PINGs in the time, and use so much CPU behind the replies."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(f"AUTH {server.admin_user} {server.admin_password}\r\n".encode())
    await reader.readline()
    began, used = time.monotonic(), time.thread_time()
    for number in range(1, times + 1):
        writer.write(b"PING\r\n")
        await reader.readline()
        while time.thread_time() - used < cpu * number / times:
            pass
        await asyncio.sleep(began + seconds * number / times - time.monotonic())
    writer.close()
    return began, time.monotonic()


class Bystander:
    """The client that waits."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def waited(self, turns: Turns) -> Waits:
        """In all turns."""
        found = [tuple(map(float, line.split())) for line in self._lines()]
        starts = [began for began, _ in found]

        def during(spans: _Spans) -> list[float]:
            return [
                wait
                for first, last in spans
                for _, wait in found[bisect_left(starts, first) : bisect_left(starts, last)]
            ]

        meanwhile = during(turns.working)
        return Waits(
            quiet=_p99(during(turns.quiet)),
            floor=_p99(during(turns.floor)),
            meanwhile=_p99(meanwhile),
            samples=len(meanwhile),
            worked=turns.worked,
        )

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines()[:-1]


@contextmanager
def watching(server: Server, folder: Path) -> Iterator[Bystander]:
    """Another process that notes when it asked for a value, and how long it waited."""
    file = folder / "waits"
    address = (server.host, str(server.port), server.admin_user, server.admin_password)
    probe = subprocess.Popen([sys.executable, "-c", _PROBE, *address, ASKED_FOR, str(file)])
    try:
        while not file.exists() or file.stat().st_size == 0:
            time.sleep(0.05)
        yield Bystander(file)
    finally:
        probe.kill()
        probe.wait()


def _p99(waited: list[float]) -> float:
    return statistics.quantiles(waited, n=100)[98] if len(waited) > 1 else max(waited, default=0.0)
