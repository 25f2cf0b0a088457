"""Drain the audit queues of the stores into the logs, and seal: the work of the sealer.

An entry leaves its queue only after it is on the archive's disk. What is killed in between is taken
again by the next round, and recognised. The heartbeat, on which agents depend, follows a round
that the archive took; a round without entries writes to the archive too, to see that it would.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from memtenant.archive import Allowance, Space, Taken
from memtenant.audit import Deed
from memtenant.clock import Clock, system_clock
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import ArchiveFull, ArchiveInconsistent, ArchiveMalformed, MemtenantError
from memtenant.jobs.budget import DAILY_SHARE, Budget, daily_share
from memtenant.jobs.engine import Engine
from memtenant.jobs.losses import PATIENCE, count_changed, not_drained
from memtenant.jobs.turn import PAGE, Drained, Turn, groups
from memtenant.rules.sealing import LogReport, SealerReport
from memtenant.stores.sealing import Page, Queue, Roster, SealingStore
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId

__all__ = ["BEAT_EVERY", "DEFAULT_WINDOW", "StoreDrain"]

_TURN = 2.0
"""Seconds after which it is the next queue's turn, whatever is left: an agent may fill its own with
what takes long to judge."""

BEAT_EVERY = 10.0
"""Seconds between two heartbeats: agents are refused 60 seconds after the last."""

DEFAULT_WINDOW = 60
"""Seconds between two seals where no policy asks for fewer."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class StoreDrain:
    """One store that is drained again and again, and told of it.

    ``share`` is how much of the archive's room a tenant may fill in a day, in percent.
    ``left`` is how long each queue was when the last round was over: nobody else shortens one.
    ``seen`` is what was last told of each log. ``heard`` are the tenants that were audited at any
    time since the last seal.
    """

    store: SealingStore
    engine: Engine
    clock: Clock = system_clock
    share: int = DAILY_SHARE
    audited: dict[str, Audited] = field(default_factory=dict)
    heard: dict[str, Audited] = field(default_factory=dict)
    failure: MemtenantError | None = None
    left: dict[str, int] = field(default_factory=dict)
    seen: dict[str, LogReport] = field(default_factory=dict)
    _told: dict[str, dict[str, str]] = field(default_factory=dict)
    _budgets: dict[str, Budget] = field(default_factory=dict)
    _faulty: set[str] = field(default_factory=set)
    _beaten: float = -BEAT_EVERY
    _beaten_for: frozenset[TenantId] = frozenset()
    _beat_at: int = 0
    _all_beaten_at: int = 0
    _allowance: Allowance = field(default_factory=lambda: Allowance(0))

    async def round(self) -> Drained:
        """Take what is in the queues, then say so. Raises what keeps it from that; the entries stay
        where they are."""
        roster = await self.store.roster()
        self.audited = {one.log: one.audited for one in roster.queues if one.audited is not None}
        self.heard |= self.audited
        self.left = {one.log: self.left.get(one.log, 0) for one in roster.queues}
        # Who comes back begins anew: what was told of it is in the store, if it is the same.
        self.seen = {log: one for log, one in self.seen.items() if log in self.left}
        self._budgets = {log: one for log, one in self._budgets.items() if log in self.left}
        drained = Drained(unreadable=roster.unreadable, space=await self.engine.space())
        await self._recall(roster)
        self._allowance = Allowance(self.engine.read_back)
        since, looked_at = self.clock.monotonic(), set[str]()
        for group in groups(roster.queues):
            drained = await self._drain(group, drained)
            looked_at.update(one.log for one in group)
            if self.clock.monotonic() - since >= BEAT_EVERY:
                await self._beat_meanwhile(looked_at, drained.silent)
                since = self.clock.monotonic()
        if not daily_share(drained.space, self.share):
            raise _full(drained.space)
        self.failure = None
        await self._beat(drained.silent)
        await self._tell_logs(roster)
        return drained

    async def _drain(self, group: Sequence[Queue], drained: Drained) -> Drained:
        """Page by page of all these queues together, until each has nothing more, or its turn is
        over."""
        budgets = await self._allowed(group, drained.space)
        turns = [
            Turn(
                queue=queue,
                report=self.seen[queue.log],
                budget=budgets.get(queue.log),
                shrunk=queue.length < self.left[queue.log],
            )
            for queue in group
        ]
        until = self.clock.monotonic() + _TURN
        while going := [turn for turn in turns if turn.goes_on]:
            if any(turn.taken for turn in going) and self.clock.monotonic() >= until:
                break
            pages = await self.store.pages([turn.log for turn in going], PAGE)
            if pages is None:
                return await self._apart(group, drained)
            drained = await self._take(dict(zip(going, pages, strict=True)), drained)
        for turn in turns:
            drained = self._end(turn, drained)
        return drained

    async def _apart(self, group: Sequence[Queue], drained: Drained) -> Drained:
        """Queues that have too many bytes to be read together. They were not begun with: those
        that share a turn are read at once."""
        for queue in group:
            drained = await self._drain([queue], drained)
        return drained

    async def _take(self, read: Mapping[Turn, Page], drained: Drained) -> Drained:
        """A page of each queue: archived, then taken away."""
        given = {turn.log: page.entries for turn, page in read.items() if page.entries}
        taken = await self.engine.take(given, self._allowance)
        archived: dict[str, Page] = {}
        for turn, page in read.items():
            done = taken.get(turn.log)
            turn.is_over = done is None  # it was emptied since it was looked at
            if isinstance(done, Exception):
                turn.refused = True
                self._note_fault(turn.log, done)
            elif done is not None:
                turn.is_read_back = turn.is_over = done.waits
                if not done.entries:
                    continue
                page = replace(page, entries=page.entries[: done.entries])
                archived[turn.log] = page
                drained = drained.plus(done, done.entries)
                turn.took(done, page, self._now())
                self.seen[turn.log] = turn.report
                # Before it is tried: whether a trim whose answer is lost was done, nobody knows.
                least = max(turn.waiting - done.entries, 0)
                self.left[turn.log] = min(self.left[turn.log], least)
        trimmed = await self.store.trim(archived)
        for turn in read:
            if trimmed.get(turn.log):
                turn.taken += len(archived[turn.log].entries)
            elif turn.log in archived:
                turn.shrunk = turn.is_over = True
        return drained

    def _note_fault(self, log: str, error: Exception) -> None:
        """A defect that one entry brings out is one log's."""
        if isinstance(error, (ArchiveInconsistent, ArchiveMalformed)) or log in self._faulty:
            return
        self._faulty.add(log)
        _log.error("nothing is added to the log of %s", log, exc_info=error)

    def _end(self, turn: Turn, drained: Drained) -> Drained:
        """The turn of a queue is over."""
        self.left[turn.log] = turn.waiting
        report = replace(turn.report, queue=turn.waiting, stopped=turn.is_stopped)
        if turn.budget is not None:
            report = replace(report, filled=turn.budget.filled, day=turn.budget.day)
        if turn.shrunk:
            report = replace(report, irregular_at=self._now())
        since = (report.read_back_since or self._now()) if turn.is_read_back else 0
        report = replace(report, read_back_since=since)
        self.seen[turn.log] = report
        waits = turn.is_flooded or turn.is_stopped
        return replace(
            drained,
            waiting=drained.waiting + turn.waiting,
            held=drained.held + (turn.waiting if waits else 0),
            refused=(*drained.refused, *([turn.log] if turn.refused else ())),
            shrunk=(*drained.shrunk, *([turn.log] if turn.shrunk else ())),
            flooded=(*drained.flooded, *([turn.log] if turn.waiting and turn.is_flooded else ())),
            stopped=(*drained.stopped, *([turn.log] if turn.is_stopped else ())),
            read_back=(*drained.read_back, *([turn.log] if turn.is_read_back else ())),
        )

    async def _allowed(self, group: Sequence[Queue], space: Space) -> dict[str, Budget]:
        """What may be taken of each tenant's queue now. That of the installation, on which no agent
        can push, is taken whole: nobody would stop what is left there."""
        asked = [one.log for one in group if one.length and one.log != INSTALLATION_LOG]
        writes = await self.store.writes_per_second([TenantId.parse(log) for log in asked])
        moment, today = self.clock.monotonic(), self.clock.now().toordinal()
        share = daily_share(space, self.share)
        for log, many in zip(asked, writes, strict=True):
            budget = self._budgets.get(log)
            if budget is None:
                budget = self._budgets[log] = Budget.of(many, moment)
                # Of an earlier process: who is stopped begins no day anew by a start.
                budget.filled, budget.day = self.seen[log].filled, self.seen[log].day
            budget.allow(many, moment)
        for one in group:
            if one.log in self._budgets:
                self._budgets[one.log].have(share, today)
        return {one.log: self._budgets[one.log] for one in group if one.log in self._budgets}

    async def _recall(self, roster: Roster) -> None:
        """What was told of the logs before; by an earlier process, what the store has of them."""
        logs = [one.log for one in roster.queues if one.log not in self.seen]
        asked = [log for log in logs if log != INSTALLATION_LOG]
        told = await self.store.told([_report_key(log) for log in asked])
        self.seen |= {log: LogReport() for log in logs}
        self.seen |= {
            log: LogReport.from_fields(fields) for log, fields in zip(asked, told, strict=True)
        }

    def _live(self, silent: Iterable[str]) -> frozenset[TenantId]:
        return frozenset(
            TenantId.parse(log)
            for log, audited in self.audited.items()
            if not audited.closing and log not in silent
        )

    async def _beat_meanwhile(self, looked_at: Collection[str], silent: Iterable[str]) -> None:
        """In a round that takes long, which is no reason to refuse anybody: of who had a heartbeat
        before, and whose queue was looked at by now."""
        if self.engine.refuses:
            return
        chosen = {
            tenant
            for tenant in self._live(silent)
            if tenant in self._beaten_for or str(tenant) in looked_at
        }
        await self._beat_for(chosen)
        await self.tell_sealer()

    async def _beat(self, silent: Iterable[str]) -> None:
        """All tenants every `BEAT_EVERY` seconds; those that are new at once: their agents wait."""
        if self.engine.refuses:
            return
        live = self._live(silent)
        moment = self.clock.monotonic()
        due = moment - self._beaten >= BEAT_EVERY
        chosen = live if due else live - self._beaten_for
        if not due and not chosen:
            return
        self._beaten_for = live - await self._beat_for(chosen)
        if due:
            self._beaten, self._all_beaten_at = moment, self._beat_at
            await self._count_dropped(sorted(map(TenantId.parse, self.audited)))
        await self.tell_sealer()

    async def _beat_for(self, tenants: Collection[TenantId]) -> set[TenantId]:
        """Of whose queue was not drained for so long that events were to be dropped, the log is
        told before the heartbeat that ends it. Whose log did not take that gets none, and is
        returned."""
        await self.engine.try_archive()
        now = await self.store.time()
        # What is read back of thousands of tenants every ten seconds has to be told of few.
        known = self._beaten_for if now - self._all_beaten_at < PATIENCE // 2 else frozenset()
        beats = await self.store.heartbeats(sorted(set(tenants) - known))
        lapses = {str(one): not_drained(beat.at, now) for one, beat in beats.items() if beat.drops}
        due = {log: lapse for log, lapse in lapses.items() if lapse is not None}
        told = set(await self._tell(due))
        untold = {one for one in tenants if str(one) in due.keys() - told}
        self._beat_at = await self.store.beat(sorted(set(tenants) - untold))
        return untold

    async def _count_dropped(self, tenants: list[TenantId]) -> None:
        counts = {str(one): many for one, many in (await self.store.dropped(tenants)).items()}
        for log, dropped in counts.items():
            report = self.seen[log]
            if dropped != report.dropped:
                irregular_at = self._now() if dropped > report.dropped else report.irregular_at
                self.seen[log] = replace(report, dropped=dropped, irregular_at=irregular_at)
        changed = {
            log: count_changed(self.seen[log].dropped_told, many)
            for log, many in counts.items()
            if self._is_news(log, many)
        }
        for log in await self._tell(changed):
            self.seen[log] = replace(self.seen[log], dropped_told=counts[log])

    def _is_news(self, log: str, dropped: int) -> bool:
        """Whether the log says another number. Of a tenant that is gone its counters go too."""
        told = self.seen[log].dropped_told
        return dropped > told or (dropped < told and not self.audited[log].closing)

    async def _tell(self, deeds: Mapping[str, Deed]) -> list[str]:
        """Write into logs what was seen of them; which took it. Another is told as refused."""
        taken = await self.engine.tell({log: (deed,) for log, deed in deeds.items()})
        told = []
        for log, done in taken.items():
            if isinstance(done, Taken):
                self.seen[log] = replace(self.seen[log], size=done.size)
                told.append(log)
        return told

    async def tell_sealer(self) -> None:
        """Say on the store which seal is the last, and what keeps the next one from being made."""
        sealed, failure = self.engine.sealed, self.failure or self.engine.failure
        trouble = "" if failure is None else str(failure)
        report = SealerReport(beat_at=self._beat_at, trouble=trouble)
        if sealed is not None:
            checkpoint = sealed.checkpoint.checkpoint
            report = replace(
                report,
                origin=checkpoint.origin,
                window=sealed.window,
                size=checkpoint.size,
                root=checkpoint.root.hex(),
                sealed_at=sealed.time,
            )
        await self.store.tell({keys.STORE_SEALER: report.to_fields()})

    async def _tell_logs(self, roster: Roster) -> None:
        """What changed of each log since it was last told."""
        sealed_at = 0 if self.engine.sealed is None else self.engine.sealed.time
        told = {
            _report_key(one.log): replace(self.seen[one.log], sealed_at=sealed_at).to_fields()
            for one in roster.queues
            if one.log != INSTALLATION_LOG
        }
        changed = {key: fields for key, fields in told.items() if self._told.get(key) != fields}
        await self.store.tell(changed)
        self._told = told

    def window(self) -> int:
        """Seconds between two seals, as the tenants' policies ask for them."""
        return min((one.seal_every for one in self.audited.values()), default=DEFAULT_WINDOW)

    @property
    def answers(self) -> bool:
        """Whether the last round went well, and the store's clock is known."""
        return self.failure is None and self._beat_at > 0

    @property
    def store_time(self) -> datetime:
        """The store's clock at the last heartbeat; 1970 before the first."""
        return datetime.fromtimestamp(self._beat_at / 1000, UTC)

    async def say_trouble(self, error: MemtenantError) -> None:
        """Say on the store why nothing is drained; without a heartbeat, which says that it is."""
        self.failure = error
        await self.tell_sealer()

    def _now(self) -> int:
        return int(self.clock.now().timestamp() * 1000)


def _full(space: Space) -> ArchiveFull:
    free, size = space.free // 2**20, space.size // 2**20
    return ArchiveFull(
        f"The archive has {free} MiB left of {size}, and keeps them for seals: no tenant's events "
        "are taken. Enlarge the archive's volume, or move away what fills it"
    )


def _report_key(log: str) -> str:
    return keys.sealer_report(TenantId.parse(log))
