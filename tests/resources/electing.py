"""A candidate in a process of its own, to be frozen: says when it leads and when it lost.

Usage: python -m tests.resources.electing KUBECONFIG NAMESPACE IDENTITY
"""

import asyncio
import sys
from pathlib import Path

from memtenant.resources.connection import Connection, Limits
from memtenant.resources.lease import Elector, LeadershipLost, LeaseTimes

NAME = "memtenant-operator"
TIMES = LeaseTimes(duration=3.0, renew_deadline=2.0, retry=0.3)
LIMITS = Limits(concurrency=2, attempts=1, request_timeout=1.0, connect_timeout=1.0)


async def lead(kubeconfig: str, namespace: str, identity: str) -> None:
    async with Connection.open(kubeconfig=Path(kubeconfig), limits=LIMITS) as connection:
        elector = Elector(
            connection, namespace=namespace, name=NAME, identity=identity, times=TIMES
        )

        async def leading(term: int) -> None:
            print(f"leads {term}", flush=True)
            await asyncio.Event().wait()

        try:
            await elector.run(leading)
        except LeadershipLost:
            print(f"lost, term now {elector.term}", flush=True)


if __name__ == "__main__":
    asyncio.run(lead(*sys.argv[1:]))
