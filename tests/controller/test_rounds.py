"""The loops of each store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from memtenant.controller.breakers import Breakers
from memtenant.controller.metrics import Metrics, Round
from memtenant.controller.queue import WorkQueue
from memtenant.controller.rounds import StoreRounds
from memtenant.controller.schedule import Schedule
from memtenant.errors import StoreRefused, StoreUnavailable
from memtenant.reconcile.outcome import Lane, Outcome
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Declared, Kind, Listing, ObjectKey
from tests.controller.recording import Recorder

EU = ObjectKey.store("eu")
ACME = ObjectKey.tenant("support", "acme")


@dataclass
class Rounds:
    mirror: Mirror
    recorder: Recorder
    queue: WorkQueue[ObjectKey, ObjectKey]
    breakers: Breakers


@asynccontextmanager
async def rounds(recorder: Recorder) -> AsyncIterator[Rounds]:
    mirror = Mirror()
    mirror.put(Declared(EU, "eu", "1", 1, datetime(2026, 1, 1, tzinfo=UTC)))
    queue: WorkQueue[ObjectKey, ObjectKey] = WorkQueue(lanes=len(Lane), group_limit=4)
    schedule = Schedule(queue, recorder)
    breakers = Breakers(queue, schedule)
    loops = StoreRounds(
        mirror,
        recorder,
        schedule,
        breakers,
        Metrics(),
        intervals=dict.fromkeys(Round, 0.005),
    )
    task = asyncio.create_task(loops.run())
    try:
        yield Rounds(mirror, recorder, queue, breakers)
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 -- what is waited for is not ours to signal
            await asyncio.sleep(0.002)


async def test_each_store_is_repaired_and_measured_again_and_again_until_it_goes() -> None:
    async with rounds(Recorder()) as running:
        seen = running.recorder.rounds
        await until(lambda: all(seen[f"{which} eu"] > 2 for which in Round))
        running.mirror.replace(Kind.STORE, Listing((), "9"))
        await until(lambda: len(asyncio.all_tasks()) == 2)
        before = seen.total()
        await asyncio.sleep(0.05)
        assert seen.total() == before


async def test_what_a_round_found_is_reconciled() -> None:
    async def act(store: ObjectKey) -> Outcome:
        return Outcome(enqueue=(ACME,))

    async with rounds(Recorder(round_act=act)) as running:
        assert await running.queue.get() == ACME


async def test_a_defect_in_one_round_does_not_end_the_next() -> None:
    async def act(store: ObjectKey) -> Outcome:
        raise ZeroDivisionError

    async with rounds(Recorder(round_act=act)) as running:
        await until(lambda: running.recorder.rounds["repair eu"] > 2)


async def test_what_a_store_refuses_a_round_is_for_its_own_reconcile_to_tell() -> None:
    async def act(store: ObjectKey) -> Outcome:
        raise StoreRefused("eu does not let the operator", reason="StorePermissionMissing")

    async with rounds(Recorder(round_act=act)) as running:
        assert await running.queue.get() == EU
        assert not running.breakers.is_open(EU)


async def test_a_store_that_is_away_is_left_to_its_own_reconcile() -> None:
    async def act(store: ObjectKey) -> Outcome:
        raise StoreUnavailable("eu does not answer")

    async with rounds(Recorder(round_act=act)) as running:
        await until(lambda: running.breakers.is_open(EU))
        assert await running.queue.get() == EU
        before = running.recorder.rounds.total()
        await asyncio.sleep(0.05)
        assert running.recorder.rounds.total() <= before + 1
        running.breakers.store_answered(EU)
        await until(lambda: running.recorder.rounds.total() > before + 2)
