"""Removing what has expired: how fast at the operator's usual pace, and what others notice of it.

Half of the conversations of a store have passed their period, and no tenant's list tells so: the
pass over all keys has to find them. Another process asks for a small value all the while.
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from memtenant.functions.keyspace import ConversationKeys
from memtenant.stores import ExpiryScan, Pace, StoreAdmin
from memtenant.tenancy import keys
from tests.bench.erasure import p99, probing, span
from tests.bench.report import Row
from tests.functions.tenants import in_ms, provision
from tests.stores.operators import ACME, INSTALLATION, next_term, settings_for
from tests.support import servers
from tests.support.servers import Flavour, Options, Server

__all__ = ["SweepCost", "measure", "rows"]

_MESSAGES = 10
_FILL = 2_000
_IDLE = 5.0
_HOUR = 3_600_000
_OTHERS = 2.0


@dataclass(frozen=True, slots=True)
class SweepCost:
    """Seconds; each p99 is what other clients waited for one GET meanwhile. ``look`` is a pass that
    finds nothing to do, as on most days."""

    conversations: int
    messages: int
    idle_p99: float
    sweep: float
    sweep_p99: float
    look: float
    look_p99: float

    @property
    def rate(self) -> float:
        """Messages looked at a second, of which half are removed."""
        return self.messages / self.sweep

    @property
    def ratio(self) -> float:
        """How much longer others wait: the worse of both passes."""
        return max(self.sweep_p99, self.look_p99) / self.idle_p99


def measure(conversations: int = 100_000) -> SweepCost:
    """A pass over a store with so many conversations of ten messages, then one more."""
    with (
        tempfile.TemporaryDirectory(prefix="memtenant-bench-") as folder,
        servers.running(Flavour.VALKEY_9, Options(appendonly=True)) as server,
    ):
        provision(server)
        _fill(server, conversations)
        return asyncio.run(_measure(server, Path(folder), conversations))


def rows(cost: SweepCost) -> list[Row]:
    """The table's lines about it."""
    return [
        Row(
            f"remove half of {cost.messages:,} messages that nobody reads: messages a second",
            "",
            f"{cost.rate:,.0f} at the usual pace; {cost.messages / cost.look:,.0f} where there is "
            "nothing to remove",
            None,
        ),
        Row(
            "… what others wait meanwhile (p99 of a GET), beside idle",
            f"≤ {_OTHERS:g} x",
            f"{cost.ratio:.2f} x: idle {cost.idle_p99 * 1e3:.2f} ms, removing "
            f"{cost.sweep_p99 * 1e3:.2f} ms, looking {cost.look_p99 * 1e3:.2f} ms",
            cost.ratio <= _OTHERS,
        ),
    ]


def _fill(server: Server, conversations: int) -> None:
    now = in_ms()
    with server.admin() as admin:
        admin.set("mt:{bulk.t}:r:0", "x" * 100)  # what the others ask for
        admin.hset(keys.limits(ACME), "cutoff_content", now - _HOUR)
        for first in range(0, conversations, _FILL):
            with admin.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + _FILL, conversations)):
                    time = now - (2 * _HOUR if number % 2 else 0)
                    entry = b"\x10" + bytes(5) + time.to_bytes(6, "big") + bytes(3) + b"x" * 205
                    talk = ConversationKeys.of(ACME, "_", str(number))
                    pipeline.rpush(talk.list, *[entry] * _MESSAGES)
                pipeline.execute()


async def _measure(server: Server, folder: Path, conversations: int) -> SweepCost:
    waits = folder / "waits"
    term = next_term()
    admin = StoreAdmin(
        settings_for(server), installation=INSTALLATION, fence=lambda: term, pace=Pace()
    )
    async with admin:
        await admin.discover()
        await admin.lead()
        with probing(server, waits):
            idle = await span(asyncio.sleep(_IDLE))
            sweep = await span(_passed(admin))
            look = await span(_passed(admin))
            await asyncio.sleep(0.1)
    found = [tuple(map(float, line.split())) for line in waits.read_text().splitlines()[:-1]]
    return SweepCost(
        conversations=conversations,
        messages=conversations * _MESSAGES,
        idle_p99=p99(found, idle),
        sweep=sweep[1] - sweep[0],
        sweep_p99=p99(found, sweep),
        look=look[1] - look[0],
        look_p99=p99(found, look),
    )


async def _passed(admin: StoreAdmin) -> None:
    scan = ExpiryScan()
    while not await admin.expire_scanned(scan, most=1_000_000):
        pass
