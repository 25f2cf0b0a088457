"""The workers: the one place where an error becomes a retry or a Stalled object."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass

from memtenant.controller import logs
from memtenant.controller.backoff import Backoff
from memtenant.controller.breakers import Breakers
from memtenant.controller.failures import PATIENCE, ReconcileTimedOut, UnexpectedError, judge
from memtenant.controller.metrics import Metrics
from memtenant.controller.queue import WorkQueue
from memtenant.controller.schedule import Schedule
from memtenant.errors import MemtenantError, ResourceUnavailable, StoreUnavailable
from memtenant.reconcile.outcome import Outcome, Reconciler
from memtenant.resources.port import Kind, ObjectKey

__all__ = ["Limits", "Workers"]

_log = logging.getLogger(__name__)

_STUCK_MARGIN = 60.0
"""Seconds beyond the timeout after which a worker that ignores its cancellation counts as dead."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many reconciles at once, and seconds for one and between its tries.

    ``first_pause`` and ``longest_pause``: how long all workers rest while the API server is away.
    """

    workers: int
    timeout: float
    first_delay: float
    longest_delay: float
    longest_probe_delay: float
    first_pause: float = 0.5
    longest_pause: float = 10.0


class Workers:
    """Takes keys from the queue and reconciles them, ``limits.workers`` at once."""

    def __init__(
        self,
        queue: WorkQueue[ObjectKey, ObjectKey],
        schedule: Schedule,
        breakers: Breakers,
        reconciler: Reconciler,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._queue = queue
        self._schedule = schedule
        self._breakers = breakers
        self._reconciler = reconciler
        self._metrics = metrics
        self._limits = limits
        self._backoff: Backoff[ObjectKey] = Backoff(limits.first_delay, limits.longest_delay)
        self._probes: Backoff[ObjectKey] = Backoff(limits.first_delay, limits.longest_probe_delay)
        self._api: Backoff[None] = Backoff(limits.first_pause, limits.longest_pause)
        self._tasks: list[asyncio.Task[None]] = []
        self._since: dict[ObjectKey, float] = {}

    def start(self) -> None:
        """Begin to work."""
        self._tasks = [
            asyncio.create_task(self._work(), name=f"worker-{number}")
            for number in range(self._limits.workers)
        ]

    async def drain(self, deadline: float) -> bool:
        """Start nothing more; let what runs finish within ``deadline`` seconds, then cancel it.

        Returns whether all of it finished.
        """
        self._queue.close()
        if not self._tasks:
            return True
        _, unfinished = await asyncio.wait(self._tasks, timeout=deadline)
        await self.abort()
        return not unfinished

    async def abort(self) -> None:
        """Start nothing more and cancel what runs."""
        self._queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def dead(self) -> list[str]:
        """What is wrong with the pool, in words; empty while it is sound."""
        ended = [f"{task.get_name()} ended" for task in self._tasks if task.done()]
        longest = self._limits.timeout + _STUCK_MARGIN
        now = time.monotonic()
        stuck = [
            f"{key} has been worked on for {now - since:.0f} s"
            for key, since in self._since.items()
            if now - since > longest
        ]
        return ended + stuck

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            self._since[key] = time.monotonic()
            try:
                await self._reconcile(key)
            finally:
                del self._since[key]
                self._queue.done(key)
            # A look that finds no reason to wait for anything would not let others go on.
            await asyncio.sleep(0)

    async def _reconcile(self, key: ObjectKey) -> None:
        reconcile_id = secrets.token_hex(4)
        with logs.reconciling(key, reconcile_id):
            started = time.monotonic()
            try:
                outcome = await self._within_time(key, reconcile_id)
            except MemtenantError as error:
                await self._failed(key, error, time.monotonic() - started)
            else:
                self._succeeded(key, outcome, time.monotonic() - started)

    async def _within_time(self, key: ObjectKey, reconcile_id: str) -> Outcome:
        """The reconcile; what it raises that is no `MemtenantError` becomes one."""
        try:
            async with asyncio.timeout(self._limits.timeout):
                return await self._reconciler.reconcile(key, reconcile_id)
        except MemtenantError:
            raise
        except TimeoutError as error:
            raise ReconcileTimedOut(
                f"{key} was not reconciled within {self._limits.timeout:.0f} s and is tried again"
            ) from error
        except Exception as error:
            _log.exception("unexpected error while reconciling %s", key)
            raise UnexpectedError(
                f"an unexpected error ({type(error).__name__}) ended the reconcile: this is a "
                "defect of memtenant; its log has the details"
            ) from error

    def _succeeded(self, key: ObjectKey, outcome: Outcome, seconds: float) -> None:
        self._metrics.reconciled(key.kind, outcome, seconds)
        if outcome.changed:
            _log.info("reconciled %s in %.0f ms", key, seconds * 1000)
        self._backoff.forget(key)
        self._api.forget(None)
        if key.kind is Kind.STORE:
            self._probes.forget(key)
            self._breakers.store_answered(key)
            self._metrics.store_away(key, away=False)
        elif (store := self._schedule.store_of(key)) is not None:
            self._breakers.tenant_answered(store)
        self._schedule.follow(outcome)
        for counting, wait in outcome.recount:
            self._schedule.later(counting, wait)
        if outcome.requeue_after is not None:
            self._schedule.later(key, outcome.requeue_after)

    async def _failed(self, key: ObjectKey, error: MemtenantError, seconds: float) -> None:
        self._note_what_is_away(key, error)
        away = isinstance(error, StoreUnavailable) and key.kind is Kind.STORE
        backoff = self._probes if away else self._backoff
        delay = backoff.failed(key)
        verdict = judge(key, error, backoff.failures(key))
        self._metrics.failed(key.kind, error, seconds, retried=verdict.retry)
        if verdict.tell:
            await self._tell(key, error)
        if verdict.retry:
            _log.info("%s: %s (%s); next try in %.1f s", key, error, error.reason, delay)
            self._schedule.later(key, delay)
        else:
            _log.warning("%s: %s (%s); waits for a change", key, error, error.reason)
            backoff.forget(key)

    def _note_what_is_away(self, key: ObjectKey, error: MemtenantError) -> None:
        """Open the store's breaker, or let all workers rest while the API server is away."""
        if isinstance(error, ResourceUnavailable):
            if self._queue.paused():
                return  # it began before the pause that its like brought about
            pause = self._api.failed(None)
            if self._api.failures(None) >= PATIENCE:
                _log.warning("the API server does not answer: no reconcile for %.1f s", pause)
                self._queue.pause(pause)
            return
        self._api.forget(None)
        if not isinstance(error, StoreUnavailable):
            return
        store = key if key.kind is Kind.STORE else self._schedule.store_of(key)
        if store is None:
            return
        if key.kind is Kind.STORE:
            self._breakers.store_failed(store)
        else:
            self._breakers.tenant_failed(store)
        self._metrics.store_away(store, away=self._breakers.is_open(store))

    async def _tell(self, key: ObjectKey, error: MemtenantError) -> None:
        """Put the failure into the object's status. That may fail too, and is not tried again."""
        try:
            async with asyncio.timeout(self._limits.timeout):
                await self._reconciler.record_failure(key, error)
        except MemtenantError as untold:
            _log.warning("the status of %s could not be written: %s", key, untold)
        except TimeoutError:
            _log.warning("the status of %s could not be written in time", key)
        except Exception:  # noqa: BLE001 -- a defect there must not end the worker
            _log.exception("unexpected error while writing the status of %s", key)
