"""Time that passes no faster than the API server stores what it is told.

An election is decided by who is late. On a slow or busy machine everybody is, and a leader would
lose by the machine's doing what no test took from it. Here a tenth of a second has passed when this
event loop has slept for one and the API server has stored a write since: in the two seconds that a
leader has for a renewal, it has stored twenty of ours.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from memtenant.clock import Clock
from memtenant.errors import ResourceUnavailable
from memtenant.resources.connection import Connection, Request, path

_STEP = 0.1
_PATIENCE = 300.0
_NAME = "served-time"


@dataclass
class ServedTime:
    """The seconds since it began, for whoever is given its `clock`."""

    _passed: float = 0.0
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    def clock(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Clock:
        """A clock whose intervals are those of this time."""
        return Clock(now=now, monotonic=lambda: self._passed)

    async def passes(self, seconds: float) -> None:
        """Wait until so much of it has passed."""
        until = self._passed + seconds
        async with asyncio.timeout(_PATIENCE), self._moved:
            await self._moved.wait_for(lambda: self._passed >= until)

    async def run(self, connection: Connection, namespace: str) -> None:
        """Let it pass, until it is cancelled."""
        folder, what = ("api", "v1", "namespaces", namespace, "configmaps"), f"ConfigMap/{_NAME}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _NAME}}
        await connection.call(Request("POST", path(*folder), what, body))
        while True:
            await asyncio.sleep(_STEP)
            written = body | {"data": {"passed": str(self._passed)}}
            with suppress(ResourceUnavailable):
                await connection.call(Request("PUT", path(*folder, _NAME), what, written))
                async with self._moved:
                    self._passed += _STEP
                    self._moved.notify_all()


@asynccontextmanager
async def served_time(connection: Connection, namespace: str) -> AsyncIterator[ServedTime]:
    """Passes to the end of the block."""
    time = ServedTime()
    running = asyncio.create_task(time.run(connection, namespace))
    try:
        yield time
    finally:
        running.cancel()
        await asyncio.wait({running})
