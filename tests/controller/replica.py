"""One replica of the operator as a process of its own, with a reconciler that only remembers.

`python -m tests.controller.replica RECORD`: settings come from the environment. Each start and end
of a reconcile is a line of RECORD with the term of the leadership.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from memtenant.controller.main import run
from memtenant.controller.settings import load
from memtenant.controller.wiring import Leadership
from memtenant.reconcile.outcome import Outcome, Reconciler
from memtenant.resources.port import ObjectKey
from tests.controller.recording import Recorder

SECONDS = float(os.environ.get("RECONCILE_SECONDS", "0"))


def main() -> int:
    record = Path(sys.argv[1])

    def note(what: str, key: ObjectKey, term: int) -> None:
        with record.open("a") as lines:
            lines.write(f"{what} {key} {term}\n")

    @asynccontextmanager
    async def build(leadership: Leadership) -> AsyncIterator[Reconciler]:
        async def act(key: ObjectKey) -> Outcome:
            note("start", key, leadership.term)
            await asyncio.sleep(SECONDS)
            note("end", key, leadership.term)
            return Outcome(requeue_after=0.2 if "AGAIN" in os.environ else None)

        async with Recorder(act=act).build(leadership) as recorder:
            yield recorder

    return run(load(), build)


if __name__ == "__main__":
    sys.exit(main())
