"""A reconciler that changes nothing and remembers what it was asked."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from memtenant.controller.wiring import Leadership
from memtenant.errors import MemtenantError
from memtenant.reconcile.outcome import Lane, Measured, Outcome, Reconciler
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Kind, ObjectKey

Act = Callable[[ObjectKey], Awaitable[Outcome]]


async def nothing_to_do(key: ObjectKey) -> Outcome:
    return Outcome()


@dataclass
class Recorder:
    """What is asked of it, in order. `act` and `round_act` decide how it ends.

    Lanes are as the real reconciler's; the stores of tenants are given by hand.
    """

    act: Act = nothing_to_do
    round_act: Act = nothing_to_do
    stores: dict[ObjectKey, ObjectKey] = field(default_factory=dict)
    mirror: Mirror = field(default_factory=Mirror)
    started: list[ObjectKey] = field(default_factory=list)
    finished: list[ObjectKey] = field(default_factory=list)
    told: list[tuple[ObjectKey, MemtenantError]] = field(default_factory=list)
    rounds: Counter[str] = field(default_factory=Counter)
    leadership: Leadership | None = None

    async def reconcile(self, key: ObjectKey, reconcile_id: str) -> Outcome:
        self.started.append(key)
        outcome = await self.act(key)
        self.finished.append(key)
        return outcome

    async def record_failure(self, key: ObjectKey, error: MemtenantError) -> None:
        self.told.append((key, error))

    async def repair(self, store: ObjectKey) -> Outcome:
        self.rounds[f"repair {store.name}"] += 1
        return await self.round_act(store)

    async def measure(self, store: ObjectKey) -> Outcome:
        self.rounds[f"measure {store.name}"] += 1
        return await self.round_act(store)

    async def rewrap(self, store: ObjectKey) -> Outcome:
        self.rounds[f"rewrap {store.name}"] += 1
        return await self.round_act(store)

    async def erase(self, store: ObjectKey) -> Outcome:
        self.rounds[f"erase {store.name}"] += 1
        return Outcome()

    async def expire(self, store: ObjectKey) -> Outcome:
        self.rounds[f"expire {store.name}"] += 1
        return await self.round_act(store)

    async def audit(self, store: ObjectKey) -> Outcome:
        self.rounds[f"audit {store.name}"] += 1
        return Outcome()

    def measured(self) -> Iterable[Measured]:
        return ()

    def lane(self, key: ObjectKey) -> Lane:
        declared = self.mirror.get(key)
        if declared is None or declared.deleting:
            return Lane.DELETION
        observed = declared.status.get("observedGeneration")
        if observed is None or key.kind is not Kind.TENANT:
            return Lane.FIRST
        return Lane.REFRESH if observed == declared.generation else Lane.CHANGE

    def store_of(self, key: ObjectKey) -> ObjectKey | None:
        return self.stores.get(key)

    @asynccontextmanager
    async def build(self, leadership: Leadership) -> AsyncIterator[Reconciler]:
        """As a `ReconcilerFactory`."""
        self.leadership = leadership
        self.mirror = leadership.mirror
        yield self
