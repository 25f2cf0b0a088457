"""What a reconcile asks for, and when that comes."""

from memtenant.controller.queue import WorkQueue
from memtenant.controller.schedule import Schedule
from memtenant.reconcile.outcome import Lane, Outcome
from memtenant.resources.port import ObjectKey
from tests.controller.recording import Recorder


class Times(WorkQueue[ObjectKey, ObjectKey]):
    """A queue that remembers after how many seconds each is to be looked at."""

    def __init__(self) -> None:
        super().__init__(lanes=len(Lane), group_limit=1)
        self.after: list[float] = []

    def add(
        self, key: ObjectKey, *, lane: int, group: ObjectKey | None = None, after: float = 0.0
    ) -> None:
        self.after.append(after)


def test_many_that_are_not_urgent_are_spread_by_how_many_they_are() -> None:
    queue = Times()
    latest = Schedule(queue, Recorder(), uniform=lambda: 1.0)
    tenants = tuple(ObjectKey.tenant("support", f"t{number}") for number in range(200))
    latest.follow(Outcome(enqueue=tenants[:1], in_time=tenants[1:]))
    assert queue.after == [0.0, *[199 / 50] * 199]
