"""A tenant's events against its records: which record no event tells, which event no record.

Events come one after another, in the order of the log, and are not kept. What lives is
`memtenant.reports.living`, what is gone `memtenant.reports.absent`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from memtenant.archive import SealedEntry, SealedGap
from memtenant.archive.reads import SEALER
from memtenant.audit import OPERATOR, Entry, Event, Operation, Outcome, parse_sequences
from memtenant.audit.leaf import Verdict
from memtenant.clock import rfc3339
from memtenant.errors import AuditEventMalformed
from memtenant.reports.absent import MOST_FOLLOWED, Absent, Fate, Part
from memtenant.reports.changes import Changes
from memtenant.reports.evidence import (
    CLOCKS_APART,
    Coverage,
    Missing,
    Period,
    TenantEvents,
    ToldReport,
    moment,
)
from memtenant.reports.floor import Floor
from memtenant.reports.lapses import Lapses
from memtenant.reports.living import NOBODY, Living
from memtenant.rules.policy import chosen_of
from memtenant.rules.systemusers import SystemRole

__all__ = ["EventLedger"]

_ONE_BY_ONE: Final = frozenset({Operation.POP, Operation.REMOVE})
_WHOLE: Final = frozenset({Operation.CLEAR, Operation.DELETE})
_REMOVALS: Final = _ONE_BY_ONE | _WHOLE | {Operation.CONTEXT_DELETE, Operation.CHECKPOINT_DELETE}
_EXAMPLES: Final = 5
_ALL: Final = Part()


@dataclass(slots=True)
class EventLedger:
    """One tenant's. ``runs`` are the live records as `TenantRecords` tells them; None where they
    could not be read. ``expired_before`` is the cut-off of content in milliseconds, ``lapses`` what
    it was at other times, ``floor`` the minimum that content is under. ``held_since`` is the begin
    of the first hold that stands. Who was asked to be forgotten before ``asked_before``
    (milliseconds) has a request or receipt by now. What was stored from ``read_from`` on, when the
    records began to be read, by the server's clock, need not be among them. ``part`` and ``most``
    say which messages that are gone are followed, and how many."""

    period: Period
    runs: bytes | None = None
    expired_before: int = 0
    lapses: Lapses = field(default_factory=Lapses)
    held_since: datetime | None = None
    asked_before: int = 0
    read_from: datetime | None = None
    policy: str = ""
    floor: Floor | None = None
    part: Part = _ALL
    most: int = MOST_FOLLOWED
    _living: Living = field(init=False)
    _absent: Absent = field(init=False)
    _changes: Changes = field(init=False)
    _asked: set[bytes] = field(default_factory=set)
    _subjects: set[bytes] = field(default_factory=set)
    _by_operation: Counter[str] = field(default_factory=Counter)
    _by_agent: Counter[str] = field(default_factory=Counter)
    _destroyed: list[str] = field(default_factory=list)
    _destroyed_total: int = 0
    _reports: list[ToldReport] = field(default_factory=list)
    _held_at: int = 0
    _refused: int = 0
    _gaps: int = 0
    _bad: int = 0
    _forged: int = 0
    _total: int = 0
    _first: int = 0
    _last: int = 0
    _begins: int | None = None
    _lapsed: int = 0
    _dropped: int = 0
    _put_back: int = 0
    _not_drained: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._living = Living(self.runs or b"")
        self._absent = Absent(self._living.where, self.floor, self.part, self.most)
        self._changes = Changes(self.period)

    def add(self, leaf: SealedEntry | SealedGap) -> None:
        """The next leaf of the tenant's sealed log."""
        lately = leaf.sealed_at in self.period
        if self._begins is None:
            self._begins = leaf.place.index
        if isinstance(leaf, SealedGap):
            self._gaps += lately * (leaf.last - leaf.first + 1)
            return
        self._total += 1
        if leaf.verdict is Verdict.FORGED:
            self._forged += lately
            return
        if leaf.verdict is not Verdict.GOOD:
            self._bad += lately
            return
        try:
            entry, event = leaf.entry(), leaf.event()
        except AuditEventMalformed:
            # Its MAC is right, and its operation is none that this version knows.
            self._bad += lately
            return
        self._first = min(self._first or entry.time, entry.time)
        self._last = max(self._last, entry.time)
        self._count(entry, event)
        self._lapse(entry.time)
        if event.agent == OPERATOR and event.binding_version == 0:
            self._told(entry, event)
        elif event.agent == SEALER and event.binding_version == 0:
            if lately:
                self._lost(event)
        elif event.operation is Operation.REPORT:
            self._report(entry, event)
        elif entry.outcome is Outcome.DONE:
            self._stored(entry, event, leaf.sealed_at)
            self._removed(entry, event)

    def waiting(self, raw: bytes) -> None:
        """An entry that stands in the queue, and is not sealed yet."""
        try:
            entry = Entry.parse(raw)
            event = Event.parse(entry.event)
        except AuditEventMalformed:
            return
        if entry.outcome is Outcome.DONE:
            self._living.waiting(event)
            self._removed(entry, event)

    def ended(self, now: int) -> Fate:
        """All of it was read, by this time: what became of the messages that are not there."""
        self.lapses.ended(now)
        self._changes.ended(now)
        self._absent.expired(self.lapses.before)
        self._absent.may_have_expired(self.lapses.assumed)
        return self._absent.fate()

    def result(self, fate: Fate) -> TenantEvents:
        """What all of it comes to; ``fate`` is that of all parts."""
        changes = self._changes
        forgotten, records, places = self._living.owed()
        coverage: Coverage | Missing = Missing("coverage", "the tenant's records were not read")
        if fate.lost:
            why = f"more messages are gone than could be followed in the log, by {fate.lost}"
            coverage = Missing("coverage", why)
        elif self.runs is not None:
            # Of who was audited from the first day on, no record is older than the log.
            begin = 0 if changes.was_new else self._first
            coverage = self._living.coverage(begin, fate)
        floor = self.floor
        return TenantEvents(
            by_operation=dict(self._by_operation),
            by_agent=dict(self._by_agent),
            refused=self._refused,
            subjects=len(self._subjects),
            gaps=self._gaps,
            bad=self._bad,
            forged=self._forged,
            total=self._total,
            first=moment(self._first) if self._first else None,
            last=moment(self._last) if self._last else None,
            destroyed=tuple(self._destroyed),
            destroyed_total=self._destroyed_total,
            held_at=moment(self._held_at) if self._held_at else None,
            released=tuple(changes.released),
            specs=dict(changes.specs),
            acted=dict(changes.acted),
            revisions={name: tuple(told) for name, told in changes.revisions.items()},
            unnamed=changes.unnamed,
            unaudited=tuple(changes.unaudited),
            unread=tuple(changes.unread),
            audited_since=changes.audited_since,
            untold_until=changes.untold_until,
            policies=tuple(changes.policies),
            erasures_asked=len(self._asked),
            forgotten_alive=forgotten,
            forgotten_records=records,
            forgotten_places=places,
            reports=tuple(self._reports),
            early=fate.early_at,
            early_total=fate.early,
            dropped=self._dropped,
            put_back=self._put_back,
            not_drained=tuple(self._not_drained),
            floor_since=None if floor is None or floor.since is None else moment(floor.since),
            coverage=coverage,
        )

    def _count(self, entry: Entry, event: Event) -> None:
        when = moment(entry.time)
        if when not in self.period:
            return
        self._by_operation[event.operation.name] += 1
        self._by_agent[event.agent] += 1
        self._refused += entry.outcome is Outcome.REFUSED
        if event.subject != NOBODY:
            self._subjects.add(event.subject)

    def _lost(self, event: Event) -> None:
        """What left no event, as the sealer saw it."""
        match event.operation, _detail(event):
            case Operation.EVENTS_DROPPED, {"was": int(was), "counted": int(counted)}:
                self._dropped += max(counted - was, 0)
                self._put_back += counted < was
            case Operation.NOT_DRAINED, {"since": int(since), "until": int(until)}:
                if len(self._not_drained) < _EXAMPLES:
                    told = f"from {rfc3339(moment(since))} to {rfc3339(moment(until))}"
                    self._not_drained.append(told)
            case _:
                pass

    def _report(self, entry: Entry, event: Event) -> None:
        detail = _detail(event)
        if not self.policy or detail.get("policy") != self.policy:
            return
        if event.agent == SystemRole.REPORTER.value:
            run, manifest = str(detail.get("run", "")), str(detail.get("manifest", ""))
            self._reports.append(ToldReport(run, manifest, moment(entry.time)))

    def _stored(self, entry: Entry, event: Event, sealed_at: datetime) -> None:
        """Records were: where they are not there, something has to say why."""
        gone = self._living.told(event, entry.time)
        if event.operation is not Operation.APPEND or self.runs is None:
            return
        if self._came_meanwhile(entry, sealed_at):
            return
        offset = entry.sequence - (event.counter + max(event.count, 1) - 1)
        expired = entry.time < max(self.expired_before, self.lapses.before)
        for a, b in gone:
            self._absent.told(event, a + offset, b + offset, entry.time, expired=expired)

    def _came_meanwhile(self, entry: Entry, sealed_at: datetime) -> bool:
        """Whether it may have come after its conversation was read. Whoever administers the store
        can write any time into an event, but not when that is sealed."""
        began = self.read_from
        if began is None or moment(entry.time) < began:
            return False
        return sealed_at > began - CLOCKS_APART

    def _told(self, entry: Entry, event: Event) -> None:
        """What the operator did."""
        detail, changes = _detail(event), self._changes
        match event.operation:
            case Operation.SPEC_SEEN | Operation.PROVISIONED:
                self._named(entry, detail)
                changes.spec(detail, entry.time)
                if event.operation is Operation.PROVISIONED:
                    changes.provisioned(is_whole=not self._begins)
            case Operation.AUDIT_STARTED:
                self._named(entry, detail)
                changes.audit_started(detail, entry.time, is_whole=not self._begins)
            case Operation.AUDIT_STOPPED:
                changes.audit_stopped(entry.time)
            case Operation.HOLD_SET:
                self._held_at = self._held_at or entry.time
                # There is no cut-off while it stands: what had expired by then is rightly gone.
                self.lapses.held(detail.get("matter"), entry.time)
                self._lapse(entry.time)
            case Operation.EXPIRED:
                before = detail.get("before")
                content = before.get("content") if isinstance(before, dict) else None
                self._absent.expired(content if isinstance(content, int) else 0, entry.time)
            case Operation.HOLD_RELEASED | Operation.OVERRIDE:
                self.lapses.released(detail.get("matter"), entry.time)
                changes.hold_ended(detail, entry.time)
            case Operation.DEPROVISIONED if detail.get("deletionPolicy") == "Retain":
                pass  # everything stays
            case Operation.PURGED | Operation.DEPROVISIONED:
                self._absent.deleted(entry.time)
                self._living.purged()
                self._asked.clear()  # the receipts went with all else
            case _:
                pass

    def _named(self, entry: Entry, detail: Mapping[str, object]) -> None:
        """Under which policy the tenant is from then on, and what it chose."""
        if "policy" not in detail:
            return
        self._changes.named(detail["policy"], entry.time)
        if self.floor is not None:
            self.floor.named(detail["policy"], entry.time)
        self.lapses.named(detail["policy"], chosen_of(detail.get("retention")), entry.time)
        self._lapse(entry.time)

    def _lapse(self, at: int) -> None:
        """What was past its period when a rule changed, up to this time, is rightly gone."""
        self.lapses.until(at)
        if self.lapses.before > self._lapsed:
            self._lapsed = self.lapses.before
            self._absent.expired(self._lapsed)

    def _removed(self, entry: Entry, event: Event) -> None:
        if event.operation is Operation.FORGET and event.subject != NOBODY:
            self._absent.forgotten(event.subject, entry.time)
            if entry.time < self.asked_before:
                self._asked.add(event.subject)
                self._living.forgotten(event.subject)
        if event.operation not in _REMOVALS:
            return
        when = moment(entry.time)
        held = self.held_since is not None and when >= self.held_since
        # A hold may say that it began before anybody declared it.
        if held and entry.time >= self._held_at and entry.sequence:
            self._destroyed_total += 1
            if len(self._destroyed) < _EXAMPLES:
                self._destroyed.append(
                    f"{event.operation.name} by agent {event.agent} at {rfc3339(when)}"
                )
        why = f"{event.operation.name} by agent {event.agent}"
        if event.operation in _WHOLE:
            self._absent.cleared(event.place, entry.time, why)
        elif event.operation in _ONE_BY_ONE:
            self._absent.removed(event.place, _sequences(entry, event), entry.time, why)


def _detail(event: Event) -> Mapping[str, object]:
    """Of an event of the operator: a JSON object; empty where there is none that can be read."""
    try:
        found = json.loads(event.detail)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sequences(entry: Entry, event: Event) -> tuple[int, ...]:
    if event.operation is Operation.POP:
        return (entry.sequence,)
    try:
        return parse_sequences(event.detail)
    except AuditEventMalformed:
        return ()
