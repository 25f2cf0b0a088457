"""`python -m tests.bench.sealing [EVENTS]`: from the queue of a real Valkey into a sealed archive.

The whole way of the sealer: read, check every MAC, append, fsync, take away; a seal at the end.
Two queues, so that what is shared is shared; the disk is that of the temporary folder.
"""

import asyncio
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.archive.making import LOG, NEIGHBOUR, Agent
from tests.bench.report import Row, table
from tests.jobs.sealers import admit, sealer
from tests.support.servers import Flavour, Server, running

_WRITERS = 8
_AT_ONCE = 10_000
_LIMIT = 100_000


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
    the megabytes that it grew by meanwhile."""

    events: int
    seconds: float
    cpu: float
    grown: int


def measure(events: int) -> SealerCost:
    """Over a Valkey of its own."""
    return asyncio.run(_measure(events))


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
    return SealerCost(events, taken, own, grown)


def main() -> None:
    """Print a table."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(table(rows(measure(events))))


if __name__ == "__main__":
    main()
