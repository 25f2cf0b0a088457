"""What comes round again and again for each store, each in a loop of its own; and the resync."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from memtenant.controller.backoff import Backoff
from memtenant.controller.breakers import Breakers
from memtenant.controller.metrics import Metrics, Round
from memtenant.controller.schedule import Schedule
from memtenant.errors import MemtenantError, StoreRefused, StoreUnavailable
from memtenant.reconcile.outcome import Outcome, Reconciler
from memtenant.resources.mirror import Mirror, Relisting
from memtenant.resources.port import RECONCILED, Kind, ObjectKey, Resources

__all__ = ["Resync", "StoreRounds"]

_log = logging.getLogger(__name__)

_LOOK_FOR_STORES = 1.0
_LONGEST_RETRY = 300.0
_LONGEST_FIRST_RETRY = 10.0
_SPREAD = 0.5
"""Over which part of the interval a resync spreads its reconciles."""


class StoreRounds:
    """A loop a round for each declared store, which come and go with it.

    Times are seconds between the end of one round and the start of the next. A store that is away
    is left alone: its own reconcile finds out when it is back.
    """

    def __init__(
        self,
        mirror: Mirror,
        reconciler: Reconciler,
        schedule: Schedule,
        breakers: Breakers,
        metrics: Metrics,
        *,
        intervals: dict[Round, float],
    ) -> None:
        self._mirror = mirror
        self._reconciler = reconciler
        self._schedule = schedule
        self._breakers = breakers
        self._metrics = metrics
        self._intervals = intervals
        self._loops: dict[ObjectKey, list[asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Follow the declared stores until cancelled."""
        try:
            while True:
                await self._follow(self._mirror.keys(Kind.STORE))
                await asyncio.sleep(_LOOK_FOR_STORES)
        finally:
            await _end(task for tasks in self._loops.values() for task in tasks)

    async def _follow(self, stores: frozenset[ObjectKey]) -> None:
        for gone in self._loops.keys() - stores:
            await _end(self._loops.pop(gone))
            self._metrics.store_gone(gone)
        for new in stores - self._loops.keys():
            self._loops[new] = [
                asyncio.create_task(self._again_and_again(new, which), name=f"{which}-{new.name}")
                for which in Round
            ]

    async def _again_and_again(self, store: ObjectKey, which: Round) -> None:
        interval = self._intervals[which]
        backoff: Backoff[ObjectKey] = Backoff(interval, max(interval, _LONGEST_RETRY))
        # Not all stores at once, also after a restart.
        await asyncio.sleep(interval * random.random())  # noqa: S311
        while True:
            wait = interval
            if not self._breakers.is_open(store):
                if await self._once(store, which):
                    backoff.forget(store)
                else:
                    wait = max(interval, backoff.failed(store))
            await asyncio.sleep(wait)

    async def _once(self, store: ObjectKey, which: Round) -> bool:
        """One round; whether it went well. Nothing but its cancellation ends the loop."""
        step = self._step(which)
        started = time.monotonic()
        try:
            outcome: Outcome = await step(store)
        except MemtenantError as error:
            self._metrics.round_failed(store, which)
            _log.warning("%s of %s: %s (%s)", which, store, error, error.reason)
            if isinstance(error, StoreUnavailable):
                self._breakers.tenant_failed(store)
            elif isinstance(error, StoreRefused):
                self._schedule.probe(store)  # what it refuses the operator, its status says
            return False
        except Exception:  # noqa: BLE001 -- a defect in one round must not end all later ones
            self._metrics.round_failed(store, which)
            _log.exception("unexpected error in the %s of %s", which, store)
            return False
        self._metrics.round_ended(store, which, outcome, time.monotonic() - started)
        self._schedule.follow(outcome)
        return True

    def _step(self, which: Round) -> Callable[[ObjectKey], Awaitable[Outcome]]:
        match which:
            case Round.REPAIR:
                return self._reconciler.repair
            case Round.MEASURE:
                return self._reconciler.measure
            case Round.REWRAP:
                return self._reconciler.rewrap
            case Round.ERASE:
                return self._reconciler.erase
            case Round.EXPIRE:
                return self._reconciler.expire
            case Round.AUDIT:
                return self._reconciler.audit


class Resync:
    """The net under lost events: lists everything, and has everything looked at again.

    A watch can miss a deletion across a relist (reference), and of unwatched Secrets there is no
    event at all. What a list shows and no event had is reconciled at once; everything else is
    spread over half of the interval. A standby lists too, and has nothing looked at.
    """

    def __init__(
        self, resources: Resources, mirror: Mirror, metrics: Metrics, *, interval: float
    ) -> None:
        self._resources = resources
        self._mirror = mirror
        self._metrics = metrics
        self._interval = interval
        self._schedule: Schedule | None = None

    async def first(self) -> None:
        """Fill the mirror, however long it takes."""
        await _however_long(self._list_all)

    async def rules(self) -> None:
        """What all tenants go by, and is short, as it is now, however long it takes: holds above
        all and whom they select. What went without one, no later list gives back."""
        await _however_long(partial(self._list_with_namespaces, (Kind.POLICY, Kind.STORE)))

    def lead(self, schedule: Schedule, breakers: Breakers) -> None:
        """Have everything looked at, each in its lane; and from now on what lists show."""
        for store in self._mirror.keys(Kind.STORE):
            breakers.store_unseen(store)
        schedule.now(self._in_order())
        self._schedule = schedule

    async def run(self, wait: float) -> None:
        """Again after ``wait`` seconds, then after each interval, until cancelled."""
        backoff: Backoff[None] = Backoff(1.0, self._interval)
        while True:
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))  # noqa: S311
            try:
                changed = await self._list_all()
            except MemtenantError as error:
                wait = min(self._interval, backoff.failed(None))
                _log.warning("the resync failed and is tried again in %.0f s: %s", wait, error)
                continue
            backoff.forget(None)
            wait = self._interval
            self._note(changed)
            self._mirror.doubted = False
            if self._schedule is not None:
                self._schedule.now(changed)
                self._schedule.spread(self._everything() - changed, self._interval * _SPREAD)

    async def _list_all(self) -> frozenset[ObjectKey]:
        """List into the mirror; what that changed. Policies and stores before their tenants."""
        return await self._list_with_namespaces((*RECONCILED, Kind.REPORT))

    async def _list_with_namespaces(self, kinds: Iterable[Kind]) -> frozenset[ObjectKey]:
        changed = self._mirror.replace_namespaces(await self._resources.list_namespaces())
        for kind in kinds:
            relisting = Relisting(self._mirror, kind)
            async for page in self._resources.pages(kind):
                relisting.add(page)
            changed |= relisting.finish()
        return changed

    def _note(self, changed: frozenset[ObjectKey]) -> None:
        for kind in Kind:
            self._metrics.corrected(kind, sum(key.kind is kind for key in changed))

    def _in_order(self) -> list[ObjectKey]:
        """As lists of Secrets are ordered, which run ahead (`memtenant.resources.secretsahead`)."""
        return [
            key
            for kind in RECONCILED
            for key in sorted(self._mirror.keys(kind), key=lambda key: (key.namespace, key.name))
        ]

    def _everything(self) -> frozenset[ObjectKey]:
        return frozenset(key for kind in RECONCILED for key in self._mirror.keys(kind))


async def _however_long(lists: Callable[[], Awaitable[object]]) -> None:
    backoff: Backoff[None] = Backoff(0.5, _LONGEST_FIRST_RETRY)
    while True:
        try:
            await lists()
        except MemtenantError as error:
            wait = backoff.failed(None)
            _log.warning("the first list failed, the next follows in %.0f s: %s", wait, error)
            await asyncio.sleep(wait)
        else:
            return


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
