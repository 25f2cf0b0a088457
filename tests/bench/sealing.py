"""`python -m tests.bench.sealing [EVENTS]`: from the queue of a real Valkey into a sealed archive.

The whole way of the sealer: read, check every MAC, append, fsync, take away; a seal at the end.
Two queues, so that what is shared is shared; then one with a few entries for each of many tenants,
in their second round: the first makes their files. The disk is that of the temporary folder.
"""

import asyncio
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from memtenant.jobs.sealing import Sealing
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.archive.making import LOG, NEIGHBOUR, Agent
from tests.bench.report import Row, table
from tests.jobs.sealers import admit, sealer
from tests.support.servers import Flavour, Server, running

_WRITERS = 8
_AT_ONCE = 10_000
_LIMIT = 100_000
_TENANTS = 10_000
_EACH = 3


def fill(server: Server, log: str, events: int) -> None:
    """Push so many events of several writers, in turns."""
    opened = int(time.time()) - 5
    agents = [Agent(number=number, opened=opened, log_id=log) for number in range(_WRITERS)]
    with server.admin() as admin:
        for first in range(0, events, _AT_ONCE):
            here = min(_AT_ONCE, events - first)
            entries = [agents[place % _WRITERS].next() for place in range(here)]
            admin.rpush(keys.audit_queue(TenantId.parse(log)), *entries)


@dataclass(frozen=True, slots=True)
class SealerCost:
    """Of so many events: seconds until all are taken and sealed, the process' own CPU of them, and
    the megabytes that it grew by meanwhile. many: seconds of a round over the queues of many
    tenants; first: of the round that made their files."""

    events: int
    seconds: float
    cpu: float
    grown: int
    many: float
    first: float


def measure(events: int) -> SealerCost:
    """Over a Valkey of its own."""
    return asyncio.run(_measure(events))


async def _round(server: Server, agents: dict[TenantId, Agent], sealing: Sealing) -> float:
    """Seconds until what a few calls of each tenant left is sealed."""
    with server.admin() as admin:
        pushes = admin.pipeline(transaction=False)
        for tenant, agent in agents.items():
            pushes.rpush(keys.audit_queue(tenant), *agent.some(_EACH))
        pushes.execute()
    started = time.perf_counter()
    step = await sealing.step()
    spent = time.perf_counter() - started
    assert step.failures == {}
    assert step.sealed is not None
    assert step.sealed.events == len(agents) * _EACH
    return spent


async def _measure_many(folder: Path) -> list[float]:
    """Of two rounds."""
    with running(Flavour.VALKEY_9) as server:
        tenants = [TenantId("sales", f"t{number}") for number in range(_TENANTS)]
        stores = await admit(server, *tenants)
        opened = int(time.time()) - 5
        agents = {one: Agent(opened=opened, log_id=str(one)) for one in tenants}
        async with sealer(folder, stores) as sealing:
            return [await _round(server, agents, sealing) for _ in range(2)]


def rows(cost: SealerCost) -> list[Row]:
    """As lines of the report."""
    rate, own = cost.events / cost.seconds, cost.events / cost.cpu
    return [
        Row(
            "drain a Valkey's queues into the log: read, take, take away, seal",
            "≥ 100k events/s",
            f"{rate / 1000:.0f}k/s ({own / 1000:.0f}k in a second of its own CPU)",
            rate >= _LIMIT,
        ),
        Row(
            f"memory that the sealer grows by over {cost.events:,} events",
            "constant",
            f"{cost.grown} MiB",
            None,
        ),
        Row(
            f"a round over {_TENANTS:,} tenants with {_EACH} events each, and its seal",
            "",
            f"{cost.many:.1f} s ({cost.first:.0f} s where their files are made)",
            None,
        ),
    ]


async def _measure(events: int) -> SealerCost:
    with running(Flavour.VALKEY_9) as server, tempfile.TemporaryDirectory() as folder:
        tenants = [TenantId.parse(log) for log in (LOG, NEIGHBOUR)]
        stores = await admit(server, *tenants)
        for log in (LOG, NEIGHBOUR):
            fill(server, log, events // 2)
        async with sealer(Path(folder), stores) as sealing:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started, own = time.perf_counter(), time.process_time()
            step = await sealing.step()
            taken, own = time.perf_counter() - started, time.process_time() - own
        assert step.sealed is not None
        assert step.sealed.events == events // 2 * 2
        assert step.failures == {}
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    with tempfile.TemporaryDirectory() as folder:
        first, many = await _measure_many(Path(folder))
    return SealerCost(events, taken, own, grown, many, first)


def main() -> None:
    """Print a table."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(table(rows(measure(events))))


if __name__ == "__main__":
    main()
