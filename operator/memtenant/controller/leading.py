"""What a replica runs: from its start on watches and mirror, while it leads queue, workers, rounds.

Whoever takes over lists all but tenants and reports first (controller-runtime too fills its caches
before it asks for the lead), so a new tenant does not wait until thousands of others were listed.
It lists anew beside its work, as its watches may be behind what the former leader did last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from memtenant.controller.breakers import Breakers
from memtenant.controller.events import NAMESPACES, cluster_source
from memtenant.controller.handlers import Handlers
from memtenant.controller.metrics import Metrics, Round
from memtenant.controller.queue import WorkQueue
from memtenant.controller.rounds import Resync, StoreRounds
from memtenant.controller.schedule import Schedule
from memtenant.controller.secretwatches import SecretWatches
from memtenant.controller.settings import Settings
from memtenant.controller.watches import Watches
from memtenant.controller.wiring import Leadership, ReconcilerFactory
from memtenant.controller.workers import Limits, Workers
from memtenant.errors import UsageError
from memtenant.reconcile.outcome import Lane, Measured, Reconciler
from memtenant.reconcile.world import InstanceHost
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import (
    MANAGED_BY_LABEL,
    MANAGED_BY_VALUE,
    Kind,
    ObjectKey,
    Resources,
)
from memtenant.resources.secretsahead import Pages, SecretsAhead
from memtenant.rules.record import LABEL_PHASE, RECORD_COMPONENT, RECORD_LABEL, Phase

__all__ = ["Leader"]

_log = logging.getLogger(__name__)


class Leader:
    """The work of one replica: it follows what is declared, and acts on it while it leads.

    `run` is given to the elector, within `following`: it ends after ``stopping`` is set and what
    ran has finished; its cancellation (the Lease is lost) cancels what runs at once.
    """

    def __init__(
        self,
        settings: Settings,
        resources: Resources,
        metrics: Metrics,
        build: ReconcilerFactory,
        *,
        stopping: asyncio.Event,
        instances: InstanceHost | None = None,
        pages: Pages | None = None,
    ) -> None:
        """``pages`` reads lists of Secrets ahead of the first looks; None: each is asked for."""
        self.mirror = Mirror()
        self.queue: WorkQueue[ObjectKey, ObjectKey] = WorkQueue(
            lanes=len(Lane), group_limit=settings.store_concurrency
        )
        self._settings = settings
        self._resources = resources
        self._metrics = metrics
        self._build = build
        self._stopping = stopping
        self._instances = instances
        self._ahead = SecretsAhead(resources)
        self._pages = pages
        self._watches = Watches()
        self._source = cluster_source(self._watches)
        self._handlers = Handlers(
            self.mirror, metrics, home=settings.home_namespace, changed=self._ahead.changed
        )
        self._resync = Resync(resources, self.mirror, metrics, interval=settings.resync_interval)
        self._workers: Workers | None = None
        self._reconciler: Reconciler | None = None
        self._following: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []
        self._reading: asyncio.Task[None] | None = None

    def dead(self) -> list[str]:
        """What is wrong with the leader's work, one sentence each."""
        found = [
            f"nothing was heard on the watch of {name} for more than "
            f"{self._settings.watch_silence:.0f} s"
            for name in self._watches.silent(self._settings.watch_silence)
        ]
        if self._following and not self._source.alive():
            found.append("the thread that watches ended")
        tasks = (*self._following, *self._background)
        found += [f"{task.get_name()} ended" for task in tasks if task.done()]
        return found + ([] if self._workers is None else self._workers.dead())

    def watch_ages(self) -> dict[str, float]:
        """Seconds since each watch was heard."""
        return self._watches.ages()

    def measured(self) -> Iterable[Measured]:
        """The live figures of all tenants; none before this replica leads."""
        return () if self._reconciler is None else self._reconciler.measured()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """While it lasts the mirror is true; at its beginning everything was listed once."""
        await self._resync.first()
        self._source.start(self._handlers.seen, _listed(self.mirror))
        self._list_again_in(self._settings.resync_interval)
        try:
            yield
        finally:
            await self._end_lists()
            await self._source.stop()

    async def run(self, term: int) -> None:
        """Lead until asked to stop, or cancelled."""
        installation = self._settings.installation_id or self._home_uid()
        leadership = Leadership(
            self._settings,
            self._resources,
            self.mirror,
            term,
            installation,
            self._instances,
            self._ahead,
        )
        async with self._build(leadership) as reconciler:
            self._reconciler = reconciler
            await self._lead(reconciler)

    def _home_uid(self) -> str:
        home = self._settings.home_namespace
        namespace = self.mirror.namespace(home)
        if namespace is None:
            raise UsageError(
                f"the home namespace {home} does not exist: create it, or name another"
            )
        return namespace.uid

    async def _lead(self, reconciler: Reconciler) -> None:
        settings = self._settings
        schedule = Schedule(self.queue, reconciler)
        breakers = Breakers(self.queue, schedule)
        workers = Workers(
            self.queue, schedule, breakers, reconciler, self._metrics, _limits(settings)
        )
        rounds = StoreRounds(
            self.mirror,
            reconciler,
            schedule,
            breakers,
            self._metrics,
            intervals={
                Round.REPAIR: settings.repair_interval,
                Round.MEASURE: settings.measure_interval,
                Round.REWRAP: settings.measure_interval,
                Round.ERASE: settings.erase_interval,
                Round.EXPIRE: settings.expiry_interval,
                Round.AUDIT: settings.audit_interval,
            },
        )
        secrets = SecretWatches(
            self._resources, settings.secret_namespaces, self._watches, self._handlers.seen
        )
        try:
            await self._end_lists()  # one that began before the lead tells nothing of its moment
            self.mirror.doubted = True
            if not await self._rules_before_stop():
                return
            self._handlers.lead(schedule)
            self._resync.lead(schedule, breakers)
            self._list_again_in(0.0)
            self._workers = workers
            self._reading = asyncio.create_task(self._read_ahead(), name="lists of Secrets")
            workers.start()
            self._background = [
                _in_background(rounds.run(), "the rounds of the stores"),
                _in_background(secrets.run(), "the watches of Secrets"),
            ]
            await self._stopping.wait()
            await self._drain(workers)
        except asyncio.CancelledError:
            _log.warning("leadership is over: what runs is cancelled")
            await asyncio.gather(self._end_background(), workers.abort())
            raise

    async def _read_ahead(self) -> None:
        """List the records of all tenants, and the bindings where there are tenants."""
        if self._pages is None:
            return
        ours = {MANAGED_BY_LABEL: MANAGED_BY_VALUE}
        records = {RECORD_LABEL: RECORD_COMPONENT, LABEL_PHASE: Phase.ACTIVE.value}
        where = sorted({key.namespace for key in self.mirror.keys(Kind.TENANT)})
        home = self._settings.home_namespace
        await asyncio.gather(
            self._ahead.run(self._pages, "records", [(home, records)]),
            self._ahead.run(self._pages, "bindings", [(name, ours) for name in where]),
        )

    async def _rules_before_stop(self) -> bool:
        """Whether what tenants go by is known as it is before anybody asked to stop."""
        listing = asyncio.create_task(self._resync.rules(), name="list of rules")
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({listing, stop}, return_when=asyncio.FIRST_COMPLETED)
            if listing.done():
                await listing
            return listing.done()
        finally:
            await _cancelled([listing, stop])

    async def _drain(self, workers: Workers) -> None:
        """Nothing begins any more, then what makes work ends, then what runs gets its time."""
        _log.info("asked to stop: running reconciles may finish")
        self.queue.close()
        await self._end_background()
        finished = await workers.drain(self._settings.drain_deadline)
        if not finished:
            _log.warning("some reconciles did not finish in time and were cancelled")
        self._workers = None

    def _list_again_in(self, seconds: float) -> None:
        self._following = [_in_background(self._resync.run(seconds), "the resync")]

    async def _end_lists(self) -> None:
        ending, self._following = self._following, []
        await _cancelled(ending)

    async def _end_background(self) -> None:
        ending, self._background = self._background, []
        if self._reading is not None:
            ending.append(self._reading)
        await _cancelled(ending)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _in_background(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """A task that should never end; liveness fails if it does, and the log says why."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s ended", name, exc_info=error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    return task


def _listed(mirror: Mirror) -> dict[str, str]:
    """As of which resourceVersions the mirror is, by plural: the watches go on from there."""
    versions = {kind.plural: mirror.listed_at(kind) for kind in Kind}
    return {name: str(at) for name, at in (*versions.items(), (NAMESPACES, mirror.namespaces_at))}


def _limits(settings: Settings) -> Limits:
    return Limits(
        workers=settings.workers,
        timeout=settings.reconcile_timeout,
        first_delay=settings.backoff_first,
        longest_delay=settings.backoff_longest,
        longest_probe_delay=settings.store_probe_longest,
    )
