"""`python -m tests.bench.sealing [EVENTS]`: from the queue of a real Valkey into a sealed archive.

The whole way of the sealer: read, check every MAC, append, fsync, take away; a seal at the end.
Two queues, so that what is shared is shared; the disk is that of the temporary folder.
"""

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.archive.making import LOG, NEIGHBOUR, Agent
from tests.jobs.sealers import admit, sealer
from tests.support.servers import Flavour, Server, running

_WRITERS = 8
_AT_ONCE = 10_000


def fill(server: Server, log: str, events: int) -> None:
    """Push so many events of several writers, in turns."""
    opened = int(time.time()) - 5
    agents = [Agent(number=number, opened=opened, log_id=log) for number in range(_WRITERS)]
    with server.admin() as admin:
        for first in range(0, events, _AT_ONCE):
            here = min(_AT_ONCE, events - first)
            entries = [agents[place % _WRITERS].next() for place in range(here)]
            admin.rpush(keys.audit_queue(TenantId.parse(log)), *entries)


async def measure(events: int) -> tuple[float, float, int]:
    """Seconds until everything is taken and sealed, the process' own of them, and how many
    megabytes the process grew meanwhile."""
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
        return taken, own, grown


def main() -> None:
    """Print a line."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    taken, own, grown = asyncio.run(measure(events))
    print(
        f"{events:,} events drained, archived and sealed in {taken:.1f} s: {events / taken:,.0f} a "
        f"second ({events / own:,.0f} a second of the sealer's own CPU), {grown} MB more memory"
    )


if __name__ == "__main__":
    main()
