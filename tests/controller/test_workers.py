"""What workers make of the outcomes and errors of reconciles."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from memtenant.controller.breakers import Breakers
from memtenant.controller.failures import PATIENCE, ReconcileTimedOut, UnexpectedError
from memtenant.controller.metrics import Metrics
from memtenant.controller.queue import WorkQueue
from memtenant.controller.schedule import Schedule
from memtenant.controller.workers import Limits, Workers
from memtenant.errors import (
    FencedOut,
    InvalidResource,
    KeyUnavailable,
    MemtenantError,
    ResourceConflict,
    ResourceUnavailable,
    StoreUnavailable,
)
from memtenant.reconcile.outcome import Lane, Outcome
from memtenant.resources.port import Declared, ObjectKey
from tests.controller.recording import Recorder

ACME = ObjectKey.tenant("support", "acme")
BETA = ObjectKey.tenant("support", "beta")
EU = ObjectKey.store("eu")


@dataclass
class Pool:
    recorder: Recorder
    queue: WorkQueue[ObjectKey, ObjectKey]
    schedule: Schedule
    breakers: Breakers
    workers: Workers
    metrics: Metrics

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"memtenant_{name}", labels) or 0.0


@asynccontextmanager
async def pool(
    recorder: Recorder, *, workers: int = 4, within: float = 30.0
) -> AsyncIterator[Pool]:
    queue: WorkQueue[ObjectKey, ObjectKey] = WorkQueue(lanes=len(Lane), group_limit=4)
    schedule = Schedule(queue, recorder)
    metrics = Metrics()
    limits = Limits(
        workers,
        within,
        first_delay=0.002,
        longest_delay=0.02,
        longest_probe_delay=0.02,
        first_pause=0.002,
        longest_pause=0.02,
    )
    breakers = Breakers(queue, schedule)
    crew = Workers(queue, schedule, breakers, recorder, metrics, limits)
    crew.start()
    try:
        yield Pool(recorder, queue, schedule, breakers, crew, metrics)
        assert crew.dead() == []
    finally:
        await crew.abort()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 -- what is waited for is not ours to signal
            await asyncio.sleep(0.002)


def failing(*errors: Exception) -> Recorder:
    """A reconciler that raises each of these once, for whichever object, and then does well."""
    left = list(errors)

    async def act(key: ObjectKey) -> Outcome:
        if left:
            raise left.pop(0)
        return Outcome(changed=True)

    return Recorder(act=act)


async def test_what_may_pass_by_itself_is_tried_again_and_not_told_at_once() -> None:
    async with pool(failing(KeyError("x"), ResourceConflict("lost a race"))) as crew:
        crew.schedule.now([ACME])
        await until(lambda: crew.recorder.finished == [ACME])
        assert crew.recorder.told == []
        assert crew.sample("reconciliations_total", kind="MemoryTenant") == 3
        assert (
            crew.sample("reconciliations_failed_total", kind="MemoryTenant", reason="Conflict") == 1
        )
        assert crew.sample("reconciliations_changed_total", kind="MemoryTenant") == 1


async def test_what_lasts_is_told_although_it_may_pass() -> None:
    errors = [UnexpectedError("again") for _ in range(PATIENCE)]
    async with pool(failing(*errors)) as crew:
        crew.schedule.now([ACME])
        await until(lambda: crew.recorder.finished == [ACME])
        assert crew.recorder.told == [(ACME, errors[-1])]


async def test_what_cannot_pass_is_told_once_and_waits_for_a_change() -> None:
    stuck = InvalidResource("spec.quota is too large", field="spec.quota")
    async with pool(failing(stuck)) as crew:
        crew.schedule.now([ACME])
        await until(lambda: crew.recorder.told == [(ACME, stuck)])
        await until(lambda: crew.queue.agenda.running() == 0)
        assert crew.queue.agenda.delayed() == 0
        assert crew.sample("reconciliations_stalled_total", kind="MemoryTenant") == 1
        crew.schedule.now([ACME])  # an event
        await until(lambda: crew.recorder.finished == [ACME])


async def test_a_defect_is_retried_and_its_words_are_not_shown_to_people() -> None:
    recorder = failing(*(ZeroDivisionError("password=hunter2") for _ in range(PATIENCE)))
    async with pool(recorder) as crew:
        crew.schedule.now([ACME])
        await until(lambda: recorder.finished == [ACME])
    ((_, told),) = recorder.told
    assert told.reason == "InternalError"
    assert "hunter2" not in str(told)


async def test_a_reconcile_that_hangs_is_cancelled_and_tried_again() -> None:
    tries = 0

    async def act(key: ObjectKey) -> Outcome:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        return Outcome()

    async with pool(Recorder(act=act), within=0.02) as crew:
        crew.schedule.now([ACME])
        await until(lambda: crew.recorder.finished == [ACME])
        reason = ReconcileTimedOut.reason
        assert crew.sample("reconciliations_failed_total", kind="MemoryTenant", reason=reason) == 1


async def test_a_status_that_cannot_be_written_does_not_end_the_worker() -> None:
    class Untellable(Recorder):
        async def record_failure(self, key: ObjectKey, error: MemtenantError) -> None:
            raise ResourceUnavailable("away") if key == ACME else ZeroDivisionError

    async def act(key: ObjectKey) -> Outcome:
        raise KeyUnavailable("the key is gone")

    async with pool(Untellable(act=act), workers=1) as crew:
        crew.schedule.now([ACME, BETA])
        await until(lambda: crew.recorder.started == [ACME, BETA])


async def test_an_outcome_asks_for_more_now_and_later() -> None:
    async def act(key: ObjectKey) -> Outcome:
        if key == ACME and len(crew.recorder.started) == 1:
            return Outcome(requeue_after=0.01, enqueue=(EU,))
        return Outcome()

    async with pool(Recorder(act=act)) as crew:
        crew.schedule.now([ACME])
        await until(lambda: crew.recorder.finished == [ACME, EU, ACME])


async def test_who_only_counts_is_asked_once_for_many() -> None:
    tenants = [ObjectKey.tenant("support", f"t{number}") for number in range(20)]

    async def act(key: ObjectKey) -> Outcome:
        return Outcome(recount=((EU, 0.5),) if key != EU else ())

    async with pool(Recorder(act=act)) as crew:
        crew.schedule.now(tenants)
        await until(lambda: EU in crew.recorder.finished)
        assert Counter(crew.recorder.finished)[EU] == 1
        assert set(tenants) <= set(crew.recorder.finished)


async def test_tenants_wait_until_their_store_was_looked_at() -> None:
    recorder = Recorder(stores={ACME: EU})
    recorder.mirror.put(Declared(ACME, "acme", "1", 1, datetime(2026, 1, 1, tzinfo=UTC)))
    async with pool(recorder) as crew:
        crew.breakers.store_unseen(EU)
        crew.schedule.now([ACME])
        await asyncio.sleep(0.05)
        assert crew.recorder.started == []
        crew.schedule.now([EU])
        await until(lambda: crew.recorder.finished == [EU, ACME])


async def test_a_store_that_is_away_is_tried_by_itself_and_not_by_its_tenants() -> None:
    tenants = [ObjectKey.tenant("support", f"t{number}") for number in range(300)]
    away = True
    tries: Counter[str] = Counter()

    async def act(key: ObjectKey) -> Outcome:
        tries[key.kind.value] += 1
        await asyncio.sleep(0)
        if away:
            raise StoreUnavailable("eu does not answer")
        return Outcome()

    recorder = Recorder(act=act, stores=dict.fromkeys(tenants, EU))
    for key in tenants:  # declared: what is not counts as a deletion, which no store holds back
        recorder.mirror.put(Declared(key, key.name, "1", 1, datetime(2026, 1, 1, tzinfo=UTC)))
    async with pool(recorder) as crew:
        crew.schedule.now(tenants)
        await until(lambda: tries["MemoryStore"] >= 10)
        # PATIENCE failures open the breaker; what ran beside them may still fail.
        assert tries["MemoryTenant"] <= PATIENCE + 4
        assert crew.sample("store_circuit_open", store="eu") == 1
        assert {key for key, _ in recorder.told} == {EU}
        away = False
        await until(lambda: set(tenants) <= set(recorder.finished))
        assert crew.sample("store_circuit_open", store="eu") == 0


async def test_one_tenant_that_gets_no_answer_does_not_close_the_store_to_others() -> None:
    others = [ObjectKey.tenant("support", f"t{number}") for number in range(50)]

    async def act(key: ObjectKey) -> Outcome:
        if key == ACME:
            raise StoreUnavailable("timed out")
        return Outcome()

    recorder = Recorder(act=act, stores=dict.fromkeys([ACME, *others], EU))
    async with pool(recorder, workers=1) as crew:
        crew.schedule.now([ACME])
        for other in others:
            crew.schedule.now([other])
            await until(partial(recorder.finished.__contains__, other))
        await until(lambda: recorder.started.count(ACME) >= PATIENCE)


async def test_all_rest_while_the_api_server_is_away_and_nobody_is_blamed() -> None:
    keys = [ObjectKey.tenant("support", f"t{number}") for number in range(20)]
    left = 8

    async def act(key: ObjectKey) -> Outcome:
        nonlocal left
        if left:
            left -= 1
            raise ResourceUnavailable("HTTP 500")
        return Outcome()

    async with pool(Recorder(act=act)) as crew:
        crew.schedule.now(keys)
        await until(lambda: len(crew.recorder.started) >= 4)
        await until(lambda: set(keys) == set(crew.recorder.finished))
        assert crew.recorder.told == []


async def test_a_fence_is_no_verdict_on_the_object() -> None:
    async with pool(failing(FencedOut("term 7 leads"))) as crew:
        crew.schedule.now([ACME])
        await until(lambda: crew.recorder.finished == [ACME])
        assert crew.recorder.told == []


async def test_one_object_is_never_worked_on_twice_at_once() -> None:
    inside: defaultdict[ObjectKey, int] = defaultdict(int)
    most = 0

    async def act(key: ObjectKey) -> Outcome:
        nonlocal most
        inside[key] += 1
        most = max(most, inside[key])
        await asyncio.sleep(0.001)
        inside[key] -= 1
        return Outcome()

    async with pool(Recorder(act=act), workers=8) as crew:
        for _ in range(30):
            crew.schedule.now([ACME, BETA])
            await asyncio.sleep(0.0005)
        await until(lambda: crew.queue.agenda.running() == 0)
        assert most == 1
        assert sum(crew.queue.agenda.ready_by_lane()) == 0


async def test_a_drain_finishes_what_runs_and_starts_nothing() -> None:
    go_on = asyncio.Event()

    async def act(key: ObjectKey) -> Outcome:
        await go_on.wait()
        return Outcome()

    recorder = Recorder(act=act)
    async with pool(recorder, workers=1) as crew:
        crew.schedule.now([ACME, BETA])
        await until(lambda: recorder.started == [ACME])
        draining = asyncio.create_task(crew.workers.drain(10.0))
        await asyncio.sleep(0)
        go_on.set()
        assert await draining
        assert recorder.finished == [ACME]
        assert recorder.started == [ACME]
        crew.workers._tasks.clear()


async def test_a_drain_does_not_wait_for_ever() -> None:
    async def act(key: ObjectKey) -> Outcome:
        await asyncio.Event().wait()
        return Outcome()

    recorder = Recorder(act=act)
    async with pool(recorder, workers=1) as crew:
        crew.schedule.now([ACME])
        await until(lambda: recorder.started == [ACME])
        assert not await crew.workers.drain(0.01)
        crew.workers._tasks.clear()


async def test_a_worker_that_ended_is_reported_dead() -> None:
    async with pool(Recorder(), workers=2) as crew:
        crew.workers._tasks[0].cancel()
        await until(lambda: crew.workers.dead() == ["worker-0 ended"])
        del crew.workers._tasks[0]
