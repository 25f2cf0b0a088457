"""All stores drained, and sealed once a window, until it is told to stop: the sealer's loop.

A store that does not answer holds nobody up for long. An archive or a signer that does not take
what it is given stops everything: the stores say so, and agents are refused or go on as the policy
says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from memtenant.archive import Sealed, Space
from memtenant.clock import Clock, system_clock
from memtenant.errors import ArchiveUnavailable, MemtenantError, StoreUnavailable
from memtenant.jobs.budget import DAILY_SHARE
from memtenant.jobs.engine import Engine
from memtenant.jobs.keeping import told_months, what_may_go
from memtenant.jobs.seal import DEFAULT_WINDOW, StoreDrain
from memtenant.jobs.turn import Drained
from memtenant.stores.sealing import SealingStore
from memtenant.tenancy.storesfile import StoreAccess, StoresFile

__all__ = ["Observer", "Sealing", "Step"]

_EVERY = 1.0
"""Seconds between two rounds: how long an event waits in its queue."""

_LONGEST_WAIT = 30.0
"""Seconds between two tries of what fails."""

_PRUNE_EVERY = 3600.0

_log = logging.getLogger(__name__)

StoresSource = Callable[[], Awaitable[StoresFile]]


class Observer(Protocol):
    """Who is told what was done: metrics, or a person."""

    def drained(self, store: str, drained: Drained) -> None:
        """A round over a store came to its end."""

    def room(self, space: Space) -> None:
        """How much room the archive has, once a window."""

    def sealed(self, sealed: Sealed) -> None:
        """A window was sealed."""

    def failed(self, store: str, error: MemtenantError) -> None:
        """Something failed: of one store, or (``""``) of the archive or the signer."""


@dataclass(slots=True)
class Step:
    """One step over everything: what each store came to, the seal, and what failed."""

    drained: dict[str, Drained] = field(default_factory=dict)
    sealed: Sealed | None = None
    failures: dict[str, MemtenantError] = field(default_factory=dict)

    @property
    def failure(self) -> MemtenantError | None:
        """The first."""
        return next(iter(self.failures.values()), None)

    @property
    def is_whole(self) -> bool:
        """Whether all that was in the queues is sealed."""
        left = any(one.waiting or one.silent for one in self.drained.values())
        return not self.failures and not left


@dataclass(slots=True)
class _Pause:
    """Of one thing that fails: twice as long from time to time."""

    until: float = 0.0
    wait: float = _EVERY

    def after_failure(self, now: float) -> None:
        self.until, self.wait = now + self.wait, min(self.wait * 2, _LONGEST_WAIT)

    def after_success(self) -> None:
        self.until, self.wait = 0.0, _EVERY


class Sealing:
    """The sealer over all stores that ``stores`` names, which may change at any time."""

    def __init__(
        self,
        engine: Engine,
        stores: StoresSource,
        observer: Observer,
        clock: Clock = system_clock,
        *,
        share: int = DAILY_SHARE,
    ) -> None:
        self._engine = engine
        self._stores = stores
        self._observer = observer
        self._clock = clock
        self._share = share
        self._known = StoresFile()
        self._drains: dict[str, StoreDrain] = {}
        self._pauses: dict[str, _Pause] = {}
        self._said: dict[str, tuple[str, ...]] = {}
        self._sealed_at: float | None = None
        self._pruned_at: float | None = None
        self.turned_at = clock.monotonic()

    async def close(self) -> None:
        """Close every connection, and the engine."""
        for drain in self._drains.values():
            await drain.store.close()
        self._drains.clear()
        await self._engine.close()

    async def step(self) -> Step:
        """Drain everything until the queues are empty or wait for their budget, and seal."""
        return await self._step(_is_done)

    async def _step(self, is_done: Callable[[Drained], bool]) -> Step:
        step = Step()
        await self._follow()
        for name, drain in sorted(self._drains.items()):
            while await self._round(name, drain, step):
                if is_done(step.drained[name]):
                    break
        if "" not in step.failures:
            await self._seal(step)
        return step

    async def run(self, stopping: asyncio.Event) -> None:
        """Round after round; at the end, once more, so that little waits for the next start."""
        while not stopping.is_set():
            await self._turn()
            self.turned_at = self._clock.monotonic()
            try:
                async with asyncio.timeout(_EVERY):
                    await stopping.wait()
            except TimeoutError:
                continue
        await self._step(_is_done_for_now)

    async def _turn(self) -> None:
        step = Step()
        now = self._clock.monotonic()
        await self._follow()
        await asyncio.gather(
            *(
                self._round(name, drain, step)
                for name, drain in self._drains.items()
                if self._pause(name).until <= now
            )
        )
        due = self._sealed_at is None or now - self._sealed_at >= self.window()
        if due and self._pause("").until <= now:
            await self._seal(step)

    def window(self) -> int:
        """Seconds between two seals: the shortest that any policy asks for."""
        return min((drain.window() for drain in self._drains.values()), default=DEFAULT_WINDOW)

    async def _follow(self) -> None:
        """Begin with stores that are new, and let go those that are gone."""
        try:
            self._known = await self._stores()
        except MemtenantError as error:
            _log.warning("the stores are as they were: %s", error)
        names = {one.name for one in self._known}
        for gone in self._drains.keys() - names:
            await self._drains.pop(gone).store.close()
        for new in names - self._drains.keys():
            store = SealingStore(lambda name=new: self._access(name))  # type: ignore[misc]
            self._drains[new] = StoreDrain(store, self._engine, self._clock, self._share)

    def _access(self, name: str) -> StoreAccess:
        access = self._known.get(name)
        if access is None:
            raise StoreUnavailable(f"store {name} is no longer among the sealer's")
        return access

    async def _round(self, name: str, drain: StoreDrain, step: Step) -> bool:
        """Whether it went well."""
        try:
            step.drained[name] = await drain.round()
        except MemtenantError as error:
            drain.failure = error
            await self._failed(name, error, step)
            if not isinstance(error, StoreUnavailable):
                await self._say(drain, error)
            return False
        self._pause(name).after_success()
        self._note(name, step.drained[name])
        self._observer.drained(name, step.drained[name])
        return True

    def _note(self, name: str, drained: Drained) -> None:
        """What is wrong, once: a round comes every second."""
        wrong = (
            *(f"the log of {log} is not what was sealed" for log in drained.refused),
            *(f"the queue of {log} lost entries" for log in drained.shrunk),
            *(f"the queue of {log} grows faster than it may: a flood" for log in drained.flooded),
            *(
                f"the log of {log} had its share of the archive for today"
                for log in drained.stopped
            ),
            *(
                f"the log of {log} is read back, to know what was sealed of old writers"
                for log in drained.read_back
            ),
            *(f"the roster's entry of {log} cannot be read" for log in drained.unreadable),
        )
        for words in wrong:
            if words not in self._said.get(name, ()):
                _log.warning("store %s: %s", name, words)
        self._said[name] = wrong

    async def _seal(self, step: Step) -> None:
        try:
            self._observer.room(await self._engine.space())
            await self._take_reads()
            await self._prune()
            step.sealed = await self._engine.seal()
        except MemtenantError as error:
            await self._failed("", error, step)
            await self._tell_all(step)
            return
        self._sealed_at = self._clock.monotonic()
        for drain in self._drains.values():
            drain.heard = dict(drain.audited)
        self._pause("").after_success()
        self._observer.sealed(step.sealed)
        await self._tell_all(step)

    async def _take_reads(self) -> None:
        """Notes that cannot be looked at keep nothing from being sealed: a person who reads the
        archive as another user may have made their folder."""
        try:
            await self._engine.take_reads()
        except ArchiveUnavailable as error:
            words = (f"who read the log is told nowhere: {error}",)
            if self._said.get("") != words:
                _log.warning("%s", *words)
            self._said[""] = words
        else:
            self._said.pop("", None)

    async def _tell_all(self, step: Step) -> None:
        """Which seal is the last, or why there is none."""
        for name, drain in self._drains.items():
            if name in step.failures:
                continue
            try:
                await drain.tell_sealer()
            except MemtenantError as error:
                await self._failed(name, error, step)

    async def _prune(self) -> None:
        """Say for how long logs are kept, and let go once an hour what is older. Nothing brings it
        back: of the clocks of the stores that answer, and the sealer's, the last to come counts;
        and what a store that does not answer says of its logs by now, nobody knows."""
        drains = self._drains.values()
        told = told_months((one.heard for one in drains), await self._engine.keep({}))
        kept = await self._engine.keep(told)
        now = self._clock.monotonic()
        answering = [drain for drain in drains if drain.answers]
        if not answering or (self._pruned_at is not None and now - self._pruned_at < _PRUNE_EVERY):
            return
        may_go = what_may_go(told, kept)
        if len(answering) < len(drains):
            silent = {log for one in drains if not one.answers for log in one.heard}
            known = {log for one in answering for log in one.heard} - silent
            may_go = {log: months for log, months in may_go.items() if log in known}
        for log in await self._engine.prune(may_go, min(one.store_time for one in answering)):
            _log.info("months of the log of %s that are older than they are kept go", log)
        self._pruned_at = now

    async def _failed(self, name: str, error: MemtenantError, step: Step) -> None:
        step.failures[name] = error
        self._pause(name).after_failure(self._clock.monotonic())
        self._observer.failed(name, error)
        _log.warning("%s: %s (%s)", name or "the archive", error, error.reason)

    async def _say(self, drain: StoreDrain, error: MemtenantError) -> None:
        try:
            await drain.say_trouble(error)
        except MemtenantError as silence:
            _log.debug("a store was not told: %s", silence)

    def _pause(self, name: str) -> _Pause:
        return self._pauses.setdefault(name, _Pause())


def _is_done(drained: Drained) -> bool:
    return drained.waiting <= drained.held or bool(drained.refused)


def _is_done_for_now(drained: Drained) -> bool:
    """Who ends waits for no log that is read back: the next start does so from its beginning."""
    return _is_done(drained) or bool(drained.read_back)
