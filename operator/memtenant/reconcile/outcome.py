"""What a reconcile tells its worker, and what a worker may ask of a reconcile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from memtenant.errors import MemtenantError
from memtenant.jobs.expire import Removal
from memtenant.resources.port import ObjectKey
from memtenant.rules.sealing import SealView
from memtenant.tenancy.identity import TenantId

__all__ = ["Lane", "Measured", "Outcome", "Reconciler", "merged"]


class Lane(IntEnum):
    """Which work goes first: lower before higher (a new tenant never waits for a resync)."""

    DELETION = 0
    FIRST = 1
    CHANGE = 2
    REFRESH = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one reconcile that did not fail.

    ``requeue_after`` is in seconds from now (None: at the next event or resync); ``enqueue`` names
    the objects whose state depends on what was just done, ``in_time`` those to be looked at too, so
    many that it is not done at once, ``recount`` those that only count it, each with the seconds
    after which one count tells of many; ``changed`` says whether anything was written anywhere, and
    ``did`` what was done beyond the object itself, in words for a person.
    ``unfinished`` counts what a round has begun and goes on with in the next.
    ``removal`` is what a round removed because it had expired, ``seals`` what it saw of the audit.
    """

    requeue_after: float | None = None
    enqueue: tuple[ObjectKey, ...] = ()
    in_time: tuple[ObjectKey, ...] = ()
    recount: tuple[tuple[ObjectKey, float], ...] = ()
    changed: bool = False
    did: tuple[str, ...] = ()
    unfinished: int = 0
    removal: Removal | None = None
    seals: SealView | None = None


def merged(outcomes: Iterable[Outcome]) -> Outcome:
    """What a round did that looked at several servers."""
    found = list(outcomes)
    if len(found) == 1:
        return found[0]
    removals = [one.removal for one in found if one.removal is not None]
    return Outcome(
        enqueue=tuple(dict.fromkeys(key for one in found for key in one.enqueue)),
        in_time=tuple(dict.fromkeys(key for one in found for key in one.in_time)),
        changed=any(one.changed for one in found),
        did=tuple(words for one in found for words in one.did),
        unfinished=sum(one.unfinished for one in found),
        removal=Removal.of_all(removals) if removals else None,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a tenant used at the last measurement, in bytes and conversations, and its quota;
    ``oldest``: the time of its oldest record in milliseconds since 1970, after the last pass."""

    tenant: TenantId
    memory: int
    memory_limit: int | None
    conversations: int
    conversations_limit: int | None
    oldest: int | None = None


class Reconciler(Protocol):
    """The port between the controller's workers and the reconciles of all kinds."""

    async def reconcile(self, key: ObjectKey, reconcile_id: str) -> Outcome:
        """Bring one object to what is declared; raises `MemtenantError` when it cannot."""
        ...

    async def record_failure(self, key: ObjectKey, error: MemtenantError) -> None:
        """Say in the object's status why its last reconcile failed (stable text, no-op if told)."""
        ...

    async def repair(self, store: ObjectKey) -> Outcome:
        """Find users that drifted on any node of the store and put them back."""
        ...

    async def measure(self, store: ObjectKey) -> Outcome:
        """Measure the memory of all tenants of the store in one paced scan."""
        ...

    async def rewrap(self, store: ObjectKey) -> Outcome:
        """Wrap the data keys anew of all tenants of the store whose key turned."""
        ...

    async def erase(self, store: ObjectKey) -> Outcome:
        """Go on with the erasures that were asked for on the store."""
        ...

    async def expire(self, store: ObjectKey) -> Outcome:
        """Remove from the store what has passed its period."""
        ...

    async def audit(self, store: ObjectKey) -> Outcome:
        """Look at what the sealer does on the store."""
        ...

    def measured(self) -> Iterable[Measured]:
        """The live figures of all tenants that were measured since the start."""
        ...

    def lane(self, key: ObjectKey) -> Lane:
        """Which lane the object's next reconcile belongs to, as the mirror knows it."""
        ...

    def store_of(self, key: ObjectKey) -> ObjectKey | None:
        """The store whose concurrency limit and circuit breaker the object's work counts on."""
        ...
