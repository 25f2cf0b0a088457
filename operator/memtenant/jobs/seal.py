"""Drain the audit queues of the stores into the logs, and seal: the work of the sealer.

An entry leaves its queue only after it is on the archive's disk. What is killed in between is taken
again by the next round, and recognised. The heartbeat, on which agents depend, follows a round
that the archive took; a round without entries writes to the archive too, to see that it would.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from memtenant.archive import Archive, LogWriter, MacKeys, Sealed, Taken
from memtenant.clock import Clock, system_clock
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import (
    ArchiveInconsistent,
    ArchiveMalformed,
    InvalidResource,
    KeyInvalid,
    MemtenantError,
)
from memtenant.jobs.budget import Budget
from memtenant.rules.sealing import LogReport, SealerReport
from memtenant.stores.sealing import Queue, Roster, SealingStore
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.period import Period

__all__ = ["BEAT_EVERY", "DEFAULT_WINDOW", "Drained", "Engine", "StoreDrain"]

PAGE = 5000
"""Entries that are read, archived and removed together: some 600 KB, and one wait for the disk."""

MOST_A_ROUND = 100_000
"""Entries of one queue before the next queue has its turn."""

_TURN = 2.0
"""Seconds after which it is the next queue's turn, whatever is left: an agent may fill its own with
what takes long to judge."""

BEAT_EVERY = 10.0
"""Seconds between two heartbeats: agents are refused 60 seconds after the last."""

DEFAULT_WINDOW = 60
"""Seconds between two seals where no policy asks for fewer."""

_ALIVE = "state/alive"

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drained:
    """What one round over a store did. ``waiting`` are entries that are left, ``refused`` logs that
    are not what was sealed, and ``shrunk`` queues that lost entries, by whomever. ``flooded`` are
    logs whose queue waits for its budget, ``held`` the entries in them."""

    entries: int = 0
    events: int = 0
    bad: int = 0
    gaps: int = 0
    duplicates: int = 0
    waiting: int = 0
    refused: tuple[str, ...] = ()
    shrunk: tuple[str, ...] = ()
    flooded: tuple[str, ...] = ()
    held: int = 0
    unreadable: tuple[str, ...] = ()

    def plus(self, taken: Taken, entries: int) -> Drained:
        """And a page more."""
        return replace(
            self,
            entries=self.entries + entries,
            events=self.events + taken.events,
            bad=self.bad + taken.bad,
            gaps=self.gaps + taken.gaps,
            duplicates=self.duplicates + taken.duplicates,
        )


class Engine:
    """The one `LogWriter` of a process, in a thread of its own: the disk holds nobody up, and what
    several stores bring goes in one after the other."""

    def __init__(
        self,
        archive: Archive,
        open_writer: Callable[[], LogWriter],
        audit_root: SecretKey,
        clock: Clock = system_clock,
    ) -> None:
        self._archive = archive
        self._open_writer = open_writer
        self._root = audit_root
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._writer: LogWriter | None = None
        self._keys: dict[str, MacKeys] = {}
        self.sealed: Sealed | None = None
        self.failure: MemtenantError | None = None

    async def close(self) -> None:
        """Write down what makes the next start fast, and end the thread."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                await self._run(writer.close)
        finally:
            self._thread.shutdown(wait=True)

    async def open(self) -> None:
        """Read the archive: everything else does that too, where it was not done."""
        await self._run(self._opened)

    @property
    def refuses(self) -> bool:
        """Whether nothing is sealed before somebody acts. An API server that is away, where the
        signer's state is, is no reason to refuse agents: what they did is in the archive."""
        return self.failure is not None and not self.failure.retryable

    async def take(self, log: str, entries: Sequence[bytes]) -> Taken:
        """See `LogWriter.take`."""
        mac_keys = self._keys.get(log) or self._keys.setdefault(log, self._mac_keys(log))
        now = self._clock.now()
        return await self._run(lambda: self._opened().take(log, entries, mac_keys, now))

    async def seal(self) -> Sealed:
        """See `LogWriter.seal`."""
        now = self._clock.now()
        try:
            self.sealed = await self._run(lambda: self._opened().seal(now))
        except MemtenantError as error:
            self.failure = error
            raise
        self.failure = None
        return self.sealed

    async def size(self, log: str) -> int:
        """How many leaves a log has."""
        return await self._run(lambda: self._opened().size(log))

    async def prune(self, kept: Mapping[str, int], store_time: datetime) -> tuple[str, ...]:
        """Let months of logs go that are older than so many months; of which logs there were any.
        They go with the next seal. Nothing brings them back, so it is the sealer's clock and the
        store's that say so: of two, one may be years ahead."""
        now = min(self._clock.now(), store_time)

        def work() -> tuple[str, ...]:
            writer = self._opened()
            return tuple(
                log
                for log, months in kept.items()
                if log not in writer.refused and writer.prune(log, Period(months, "mo").before(now))
            )

        return await self._run(work)

    async def try_archive(self) -> None:
        """Write to the archive, opened. Raises `ArchiveUnavailable`, and what `open` raises."""
        now = str(self._clock.now()).encode()

        def work() -> None:
            self._opened()
            self._archive.replace(_ALIVE, now)

        await self._run(work)

    def _opened(self) -> LogWriter:
        if self._writer is None:
            self._writer = self._open_writer()
        return self._writer

    def _mac_keys(self, log: str) -> MacKeys:
        def key(agent: str, version: int) -> SecretKey | None:
            try:
                return audit_mac_key(self._root, log, agent, version)
            except (InvalidResource, KeyInvalid):
                return None

        return key

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


@dataclass(slots=True)
class StoreDrain:
    """One store that is drained again and again, and told of it.

    ``left`` is how long each queue was when the last round was over: nobody else shortens one.
    ``seen`` is what was last told of each log.
    """

    store: SealingStore
    engine: Engine
    clock: Clock = system_clock
    audited: dict[str, Audited] = field(default_factory=dict)
    failure: MemtenantError | None = None
    left: dict[str, int] = field(default_factory=dict)
    seen: dict[str, LogReport] = field(default_factory=dict)
    _told: dict[str, dict[str, str]] = field(default_factory=dict)
    _budgets: dict[str, Budget] = field(default_factory=dict)
    _faulty: set[str] = field(default_factory=set)
    _beaten: float = -BEAT_EVERY
    _beaten_for: frozenset[TenantId] = frozenset()
    _beat_at: int = 0

    async def round(self) -> Drained:
        """Take what is in the queues, then say so. Raises what keeps it from that; the entries stay
        where they are."""
        roster = await self.store.roster()
        self.audited = {one.log: one.audited for one in roster.queues if one.audited is not None}
        self.left = {one.log: self.left.get(one.log, 0) for one in roster.queues}
        drained = Drained(unreadable=roster.unreadable)
        self._budgets = {log: one for log, one in self._budgets.items() if log in self.left}
        since, looked_at = self.clock.monotonic(), set[str]()
        for queue in roster.queues:
            drained = await self._drain(queue, drained)
            looked_at.add(queue.log)
            if self.clock.monotonic() - since >= BEAT_EVERY:
                await self._beat_meanwhile(looked_at, drained.refused)
                since = self.clock.monotonic()
        self.failure = None
        await self._beat(drained.refused)
        await self._tell_logs(roster)
        return drained

    async def _drain(self, queue: Queue, drained: Drained) -> Drained:
        report = await self._report(queue.log)
        shrunk = queue.length < self.left[queue.log]
        budget = await self._budget(queue)
        taken_here, until = 0, self.clock.monotonic() + _TURN
        try:
            while taken_here < min(queue.length, MOST_A_ROUND):
                if taken_here and self.clock.monotonic() >= until:
                    break
                if budget is not None and budget.spent:
                    break
                page = await self.store.page(queue.log, PAGE)
                if not page.entries:
                    break
                taken = await self.engine.take(queue.log, page.entries)
                drained = drained.plus(taken, len(page.entries))
                if budget is not None:
                    budget.spend(page.entries)
                irregular = bool(taken.gaps or taken.bad)
                report = replace(
                    report,
                    size=taken.size,
                    gaps=report.gaps + taken.gaps,
                    bad=report.bad + taken.bad,
                    irregular_at=self._now() if irregular else report.irregular_at,
                )
                self.seen[queue.log] = report
                # Before it is tried: whether a trim whose answer is lost was done, nobody knows.
                least = queue.length - taken_here - len(page.entries)
                self.left[queue.log] = min(self.left[queue.log], max(least, 0))
                if not await self.store.trim(queue.log, page):
                    shrunk = True
                    break
                taken_here += len(page.entries)
        except (ArchiveInconsistent, ArchiveMalformed):
            drained = replace(drained, refused=(*drained.refused, queue.log))
        except MemtenantError:
            raise
        except Exception:  # noqa: BLE001 - a defect that one entry brings out is one log's
            if queue.log not in self._faulty:
                _log.exception("nothing is added to the log of %s", queue.log)
            self._faulty.add(queue.log)
            drained = replace(drained, refused=(*drained.refused, queue.log))
        waiting = max(queue.length - taken_here, 0)
        if waiting and budget is not None and budget.spent:
            drained = replace(
                drained,
                flooded=(*drained.flooded, queue.log),
                held=drained.held + waiting,
            )
        self.left[queue.log] = waiting
        irregular_at = self._now() if shrunk else report.irregular_at
        self.seen[queue.log] = replace(report, queue=waiting, irregular_at=irregular_at)
        return replace(
            drained,
            waiting=drained.waiting + waiting,
            shrunk=(*drained.shrunk, queue.log) if shrunk else drained.shrunk,
        )

    async def _budget(self, queue: Queue) -> Budget | None:
        """What may be taken of a tenant's queue now. That of the installation, on which no agent
        can push, is taken whole: nobody would stop what is left there."""
        if queue.log == INSTALLATION_LOG or not queue.length:
            return None
        now = self.clock.monotonic()
        budget = self._budgets.get(queue.log)
        writes = await self.store.writes_per_second(TenantId.parse(queue.log))
        if budget is None:
            budget = self._budgets[queue.log] = Budget.of(writes, now)
        budget.allow(writes, now)
        return budget

    async def _report(self, log: str) -> LogReport:
        """What was told of the log before; by an earlier process, what the store has of it."""
        if log not in self.seen:
            fields = {} if log == INSTALLATION_LOG else await self.store.told(_report_key(log))
            self.seen[log] = LogReport.from_fields(fields)
        return self.seen[log]

    def _live(self, refused: Iterable[str]) -> frozenset[TenantId]:
        return frozenset(
            TenantId.parse(log)
            for log, audited in self.audited.items()
            if not audited.closing and log not in refused
        )

    async def _beat_meanwhile(self, looked_at: Collection[str], refused: Iterable[str]) -> None:
        """In a round that takes long, which is no reason to refuse anybody: of who had a heartbeat
        before, and whose queue was looked at by now."""
        if self.engine.refuses:
            return
        chosen = {
            tenant
            for tenant in self._live(refused)
            if tenant in self._beaten_for or str(tenant) in looked_at
        }
        await self.engine.try_archive()
        self._beat_at = await self.store.beat(sorted(chosen))
        await self.tell_sealer()

    async def _beat(self, refused: Iterable[str]) -> None:
        """All tenants every `BEAT_EVERY` seconds; those that are new at once: their agents wait."""
        if self.engine.refuses:
            return
        live = self._live(refused)
        moment = self.clock.monotonic()
        due = moment - self._beaten >= BEAT_EVERY
        chosen = live if due else live - self._beaten_for
        if not due and not chosen:
            return
        await self.engine.try_archive()
        self._beat_at = await self.store.beat(sorted(chosen))
        self._beaten_for = live
        if due:
            self._beaten = moment
            await self._count_dropped(sorted(live))
        await self.tell_sealer()

    async def _count_dropped(self, tenants: list[TenantId]) -> None:
        for tenant, dropped in (await self.store.dropped(tenants)).items():
            report = self.seen[str(tenant)]
            if dropped != report.dropped:
                irregular_at = self._now() if dropped > report.dropped else report.irregular_at
                changed = replace(report, dropped=dropped, irregular_at=irregular_at)
                self.seen[str(tenant)] = changed

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

    def kept_months(self) -> dict[str, int]:
        """The logs whose old months are to go, and how many stay."""
        found = {log: audited.keep_months for log, audited in self.audited.items()}
        return {log: months for log, months in found.items() if months is not None}

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


def _report_key(log: str) -> str:
    return keys.sealer_report(TenantId.parse(log))
