"""What turns "this object needs a look" into a place in the queue."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from memtenant.controller.queue import WorkQueue
from memtenant.reconcile.outcome import Lane, Outcome, Reconciler
from memtenant.resources.port import Kind, ObjectKey

__all__ = ["Schedule"]

_IN_TIME = 50.0
"""Objects a second of those that are not looked at all at once: a failover has every binding of the
store written anew."""


class Schedule:
    """Puts keys on the queue with the lane and the store that the reconciler knows for them.

    A store's own reconciles belong to no group: they are what finds out that it answers again.
    """

    def __init__(
        self,
        queue: WorkQueue[ObjectKey, ObjectKey],
        reconciler: Reconciler,
        *,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._uniform = uniform

    def now(self, keys: Iterable[ObjectKey]) -> None:
        """As soon as their turn comes."""
        for key in keys:
            self.later(key, 0.0)

    def later(self, key: ObjectKey, seconds: float) -> None:
        """Once, in so many seconds; at once if an event comes first."""
        self._queue.add(
            key, lane=self._reconciler.lane(key), group=self.store_of(key), after=seconds
        )

    def follow(self, outcome: Outcome) -> None:
        """Look at what an outcome says is to be looked at."""
        self.now(outcome.enqueue)
        self.spread(outcome.in_time, len(outcome.in_time) / _IN_TIME)

    def probe(self, store: ObjectKey) -> None:
        """Find out now whether the store answers: its tenants wait for it."""
        self._queue.add(store, lane=Lane.FIRST)

    def spread(self, keys: Iterable[ObjectKey], over: float) -> None:
        """Each at a random moment of the next ``over`` seconds."""
        for key in keys:
            self.later(key, self._uniform() * over)

    def store_of(self, key: ObjectKey) -> ObjectKey | None:
        """The store whose limit and whose absence the key's work is subject to."""
        return None if key.kind is Kind.STORE else self._reconciler.store_of(key)
