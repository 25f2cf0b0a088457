"""A circuit breaker per store: a store that does not answer is tried by one, not by thousands."""

from __future__ import annotations

from memtenant.controller.failures import PATIENCE
from memtenant.controller.queue import WorkQueue
from memtenant.controller.schedule import Schedule
from memtenant.resources.port import ObjectKey

__all__ = ["Breakers"]


class Breakers:
    """Which stores are away. While one is, the queue starts nothing that belongs to it but
    deletions: a tenant of a store that is gone must be able to go.

    `PATIENCE` failures of its tenants in a row, or one of the store's own reconcile, open the
    breaker. From then on the store's own reconcile alone tries, with backoff, and closes it.
    """

    def __init__(self, queue: WorkQueue[ObjectKey, ObjectKey], schedule: Schedule) -> None:
        self._queue = queue
        self._schedule = schedule
        self._failures: dict[ObjectKey, int] = {}
        self._open: set[ObjectKey] = set()

    def is_open(self, store: ObjectKey) -> bool:
        """Whether the store counts as away."""
        return store in self._open

    def tenant_failed(self, store: ObjectKey) -> None:
        """A tenant's reconcile, a repair or a measurement got no answer from the store."""
        self._failures[store] = self._failures.get(store, 0) + 1
        if self._failures[store] >= PATIENCE and store not in self._open:
            self.store_failed(store)
            self._schedule.probe(store)

    def tenant_answered(self, store: ObjectKey) -> None:
        """The store answered somebody: what failed was not the whole store."""
        self._failures.pop(store, None)

    def store_failed(self, store: ObjectKey) -> None:
        """The store's own reconcile got no answer; its worker tries it again."""
        self._open.add(store)
        self._queue.hold(store)

    def store_unseen(self, store: ObjectKey) -> None:
        """Nobody looked at the store since the start: its tenants wait until somebody has."""
        self._open.add(store)
        self._queue.hold(store)

    def store_answered(self, store: ObjectKey) -> None:
        """The store's own reconcile ended well (or the store is not declared any more)."""
        self._failures.pop(store, None)
        if store in self._open:
            self._open.discard(store)
            self._queue.release(store)
