"""The same reconciles without an operator: everything that is declared, once, until it is settled.

Policies first, then stores, then tenants; what a reconcile asks to be looked at again is looked at
again. Memory is measured before the tenants are looked at; after it users are repaired, what has
expired is removed, and data keys are wrapped anew. So one run does for quotas, drift, retention and
keys what the operator's rounds do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import uuid4

from memtenant.clock import Clock, system_clock
from memtenant.errors import MemtenantError, StoreUnavailable
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import InstanceHost, Timing, World
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import RECONCILED, Declared, Kind, ObjectKey, Resources

__all__ = ["Happened", "fill", "local_world", "settle"]

_AT_ONCE = 8
_MOST_LOOKS = 16
"""At one object in one run: a rotation of credentials takes three, one of keys eight."""

_MOST_STEPS = 8
"""Of keys in motion in one run."""

_PATIENCE = 5.0
"""Seconds that a step of keys in motion is waited for."""

_TRIES = 3
_FIRST_DELAY = 0.1

Progress = Callable[[int, int], None]
"""Told how many reconciles are done, and how many are known to be due."""


@dataclass(frozen=True, slots=True)
class Happened:
    """What became of one object: ``did`` in words and in order; the ``error`` that ended its last
    reconcile; the object as it is now, None where it is gone."""

    key: ObjectKey
    did: tuple[str, ...] = ()
    error: MemtenantError | None = None
    declared: Declared | None = None


@asynccontextmanager
async def local_world(
    resources: Resources, *, clock: Clock = system_clock, instances: InstanceHost | None = None
) -> AsyncIterator[World]:
    """A world over a state folder, whose one writer is this process.

    The folder's versions grow from run to run and never repeat, so they number the terms that
    fence a store; the home namespace's uid is the installation, as in a cluster. No kubelet hands
    bindings over: only `minOverlap` delays the end of a rotated credential. ``instances`` is where
    those of Strict tenants run.
    """
    home = await resources.get_namespace(resources.home)
    term = int((await resources.list_namespaces()).resource_version) + 1
    world = World(
        resources=resources,
        mirror=Mirror(),
        installation=home.uid if home else "",
        fence=lambda: term,
        clock=clock,
        instances=instances,
        timing=Timing(kubelet_lag=timedelta(0), files_pause=timedelta(0)),
    )
    try:
        await fill(world.mirror, resources)
        yield world
    finally:
        await world.close()


async def fill(mirror: Mirror, resources: Resources) -> None:
    """Everything that is declared, into the mirror."""
    mirror.replace_namespaces(await resources.list_namespaces())
    for kind in Kind:
        mirror.replace(kind, await resources.list(kind))


async def settle(world: World, progress: Progress = lambda _done, _due: None) -> list[Happened]:
    """Reconcile everything in the world's mirror until nothing asks for another look.

    Bounded: an object that never settles has that as its ``error``. Failures of one object never
    stop the others.
    """
    return await _Settling(world, progress).run()


class _Settling:
    def __init__(self, world: World, progress: Progress) -> None:
        self._world = world
        self._progress = progress
        self._reconciler = WorldReconciler(world)
        self._due: set[ObjectKey] = set()
        self._looks: dict[ObjectKey, int] = {}
        self._happened: dict[ObjectKey, Happened] = {}
        self._overdue: set[tuple[ObjectKey, datetime]] = set()
        self._done = 0

    async def run(self) -> list[Happened]:
        mirror = self._world.mirror
        self._ask(key for kind in RECONCILED for key in mirror.keys(kind))
        await self._drain(Kind.POLICY, Kind.STORE)
        for store in sorted(mirror.keys(Kind.STORE)):
            await self._round(store, self._reconciler.measure)
        await self._drain(*Kind)
        await self._measure_instances()
        for store in sorted(mirror.keys(Kind.STORE)):
            await self._round(store, self._reconciler.audit)
            await self._round(store, self._reconciler.repair)
            await self._round(store, self._reconciler.erase)
            await self._expire(store)
        await self._drain(*Kind)
        await self._turn_keys()
        order = sorted(self._happened, key=lambda key: (RECONCILED.index(key.kind), key))
        return [self._happened[key] for key in order]

    async def _measure_instances(self) -> None:
        """Which were only connected to when their tenants were looked at."""
        stores = {link.store for link in self._world.links.values() if link.store != link.name}
        for store in sorted(stores):
            await self._round(ObjectKey.store(store), self._reconciler.measure)
        if stores:
            await self._drain(*Kind)

    async def _turn_keys(self) -> None:
        """Keys in motion go as far as seconds take them; what takes minutes is a later run's."""
        for _ in range(_MOST_STEPS):
            for store in sorted(self._world.mirror.keys(Kind.STORE)):
                await self._round(store, self._reconciler.rewrap)
            if not self._due:
                waiting = self._soon()
                if not waiting:
                    return
                await asyncio.sleep(max(waiting.values()))
                self._ask(waiting)
            await self._drain(*Kind)

    def _soon(self) -> dict[ObjectKey, float]:
        """The tenants whose keys' next step is due in seconds, and in how many. One that came due
        while other things were done is due at once, and once: what it waits for is not time."""
        now = self._world.clock.now()
        due = {
            (ObjectKey.tenant(tenant.namespace, tenant.name), live.keys_due)
            for link in self._world.links.values()
            for tenant, live in link.tenants.items()
            if live.keys_due is not None
        }
        overdue = {(key, at) for key, at in due - self._overdue if at <= now}
        self._overdue |= overdue
        soon = {key: (at - now).total_seconds() for key, at in due if at > now}
        return {
            **{key: wait for key, wait in soon.items() if wait <= _PATIENCE},
            **{key: 0.0 for key, _ in overdue},
        }

    def _ask(self, keys: Iterable[ObjectKey]) -> None:
        self._due |= set(keys)

    async def _drain(self, *kinds: Kind) -> None:
        """Reconcile what is due of these kinds: policies before stores before tenants, so that a
        tenant finds both as they are now.
        """
        order = [kind for kind in RECONCILED if kind in kinds]
        while batch := next(filter(None, map(self._due_of, order)), None):
            self._due -= batch
            # A count is due at once: there is no later look that could write it.
            self._world.counted_at.clear()
            at_once = asyncio.Semaphore(_AT_ONCE)
            try:
                async with asyncio.TaskGroup() as group:
                    for key in sorted(batch):
                        group.create_task(self._within(at_once, key))
            except* MemtenantError as errors:
                # The state itself cannot be written: nothing of the rest can be done either.
                raise _first(errors) from None

    def _due_of(self, kind: Kind) -> set[ObjectKey]:
        return {key for key in self._due if key.kind is kind}

    async def _within(self, at_once: asyncio.Semaphore, key: ObjectKey) -> None:
        async with at_once:
            await self._look(key)
            self._done += 1
            self._progress(self._done, self._done + len(self._due))

    async def _look(self, key: ObjectKey) -> None:
        self._looks[key] = self._looks.get(key, 0) + 1
        if self._looks[key] > _MOST_LOOKS:
            error = MemtenantError(
                f"{key} did not settle within {_MOST_LOOKS} reconciles: run the command again",
                reason="NotSettled",
            )
            self._tell(key, (), error, self._world.mirror.get(key))
            return
        outcome, error_or_none = await self._reconcile(key)
        if error_or_none is not None:
            await self._reconciler.record_failure(key, error_or_none)
        declared = await self._refresh(key)
        self._tell(key, outcome.did, error_or_none, declared)
        counting = (key for key, _ in outcome.recount)
        self._ask((*outcome.enqueue, *outcome.in_time, *counting))
        if outcome.requeue_after is not None and outcome.requeue_after <= 0:
            self._ask([key])

    async def _reconcile(self, key: ObjectKey) -> tuple[Outcome, MemtenantError | None]:
        failure: MemtenantError | None = None
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_FIRST_DELAY * 2**attempt)
            try:
                return await self._reconciler.reconcile(key, str(uuid4())), None
            except StoreUnavailable as error:
                return Outcome(), error
            except MemtenantError as error:
                failure = error
                if not error.retryable:
                    break
        return Outcome(), failure

    async def _refresh(self, key: ObjectKey) -> Declared | None:
        """The object as it is now; what depends on its change is due."""
        resources, mirror = self._world.resources, self._world.mirror
        declared = await resources.get(key)
        if declared is not None:
            self._ask(mirror.put(declared))
        elif mirror.get(key) is not None:
            self._ask(mirror.replace(key.kind, await resources.list(key.kind)))
        return declared

    async def _round(
        self, store: ObjectKey, step: Callable[[ObjectKey], Awaitable[Outcome]]
    ) -> None:
        """One round of one store; where it fails, the store says so."""
        did: tuple[str, ...] = ()
        failure: MemtenantError | None = None
        try:
            outcome = await step(store)
            did = outcome.did
            self._ask((*outcome.enqueue, *outcome.in_time))
        except MemtenantError as error:
            failure = error
            await self._reconciler.record_failure(store, error)
        before = self._happened.get(store, Happened(store))
        self._tell(store, did, failure or before.error, await self._refresh(store))

    async def _expire(self, store: ObjectKey) -> None:
        """Rounds until a pass over all keys is at its end: the next run may be far away."""
        while any(
            link.ready and link.expiry.passed_at is None
            for link in self._world.links_of(store.name)
        ):
            before = self._happened.get(store, Happened(store)).error
            await self._round(store, self._reconciler.expire)
            if self._happened[store].error is not before:
                return

    def _tell(
        self,
        key: ObjectKey,
        did: tuple[str, ...],
        error: MemtenantError | None,
        declared: Declared | None,
    ) -> None:
        before = self._happened.get(key, Happened(key))
        self._happened[key] = replace(before, did=before.did + did, error=error, declared=declared)


def _first(errors: BaseExceptionGroup[MemtenantError]) -> MemtenantError:
    found = errors.exceptions[0]
    return found if isinstance(found, MemtenantError) else _first(found)
