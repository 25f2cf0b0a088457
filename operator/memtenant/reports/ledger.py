"""A tenant's events against its records: which record no event tells, which event no record.

Events come one after another, in the order of the log, and are not kept. Kept are runs of counters
of the writers whose records live, and the places of records that are not there and that no later
event has explained yet.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from memtenant.archive import SealedEntry, SealedGap
from memtenant.archive.reads import SEALER
from memtenant.audit import OPERATOR, Entry, Event, Operation, Outcome, parse_sequences
from memtenant.audit.leaf import Verdict
from memtenant.clock import rfc3339
from memtenant.errors import AuditEventMalformed
from memtenant.reports.counters import Runs, extend, merged, without
from memtenant.reports.evidence import (
    Coverage,
    Missing,
    Period,
    TenantEvents,
    ToldReport,
    moment,
)
from memtenant.reports.floor import Floor
from memtenant.reports.places import place_of
from memtenant.reports.records import RUN
from memtenant.rules.systemusers import SystemRole

__all__ = ["EventLedger"]


_ONE_BY_ONE: Final = frozenset({Operation.POP, Operation.REMOVE})
_WHOLE: Final = frozenset({Operation.CLEAR, Operation.DELETE})
_REMOVALS: Final = _ONE_BY_ONE | _WHOLE | {Operation.CONTEXT_DELETE, Operation.CHECKPOINT_DELETE}
_TOLD_BY_COUNTER: Final = frozenset({Operation.CONTEXT_CREATE, Operation.CONTEXT_UPDATE})
_EXAMPLES: Final = 5
_NOBODY: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class _Gone:
    """Messages that were stored and are not there: first and last sequence of them."""

    first: int
    last: int
    time: int
    subject: bytes
    writer: bytes

    def among(self, first: int, last: int) -> _Gone:
        """Those of them from one sequence to another."""
        return replace(self, first=first, last=last)

    @property
    def many(self) -> int:
        """How many messages."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class _Run:
    """Counters of a writer whose records live, in one place."""

    first: int
    last: int
    time: int
    place: bytes


@dataclass(slots=True)
class EventLedger:
    """One tenant's. ``runs`` are the live records as `TenantRecords` tells them; None where they
    could not be read. ``expired_before`` is the cut-off of content in milliseconds, ``cut_off``
    what it is at a time, ``floor`` the minimum that content is under. ``held_since`` is the begin
    of the first hold that stands. Who was asked to be forgotten before ``asked_before``
    (milliseconds) has a request or receipt by now."""

    period: Period
    runs: bytes | None = None
    expired_before: int = 0
    cut_off: Callable[[int], int] = lambda _at: 0
    held_since: datetime | None = None
    asked_before: int = 0
    policy: str = ""
    floor: Floor | None = None
    _live: dict[bytes, list[_Run]] = field(default_factory=dict)
    _ranges: dict[bytes, Runs] = field(default_factory=dict)
    _sealed: dict[bytes, Runs] = field(default_factory=lambda: defaultdict(list))
    _queued: dict[bytes, Runs] = field(default_factory=lambda: defaultdict(list))
    _gone: dict[bytes, list[_Gone]] = field(default_factory=lambda: defaultdict(list))
    _forgotten: set[bytes] = field(default_factory=set)
    _alive: Counter[bytes] = field(default_factory=Counter)
    _owed: dict[bytes, int] = field(default_factory=dict)
    _where: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    _asked: set[bytes] = field(default_factory=set)
    _subjects: set[bytes] = field(default_factory=set)
    _by_operation: Counter[str] = field(default_factory=Counter)
    _by_agent: Counter[str] = field(default_factory=Counter)
    _destroyed: list[str] = field(default_factory=list)
    _destroyed_total: int = 0
    _released: list[str] = field(default_factory=list)
    _specs: dict[tuple[str, str], int] = field(default_factory=dict)
    _acted: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _unnamed: int = 0
    _reports: list[ToldReport] = field(default_factory=list)
    _held_at: int = 0
    _refused: int = 0
    _gaps: int = 0
    _bad: int = 0
    _forged: int = 0
    _total: int = 0
    _first: int = 0
    _last: int = 0
    _oldest: int = 0
    _oldest_at: str = ""
    _explained: int = 0
    _dropped: int = 0
    _put_back: int = 0
    _not_drained: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        found: dict[bytes, list[_Run]] = defaultdict(list)
        for writer, time, first, last, place in RUN.iter_unpack(self.runs or b""):
            found[writer].append(_Run(first, last, time, place))
        self._live = {
            writer: sorted(runs, key=lambda one: (one.first, one.last))
            for writer, runs in found.items()
        }
        self._ranges = {
            writer: merged((one.first, one.last) for one in runs)
            for writer, runs in self._live.items()
        }

    def add(self, leaf: SealedEntry | SealedGap) -> None:
        """The next leaf of the tenant's sealed log."""
        lately = leaf.sealed_at in self.period
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
        if event.agent == OPERATOR and event.binding_version == 0:
            self._told(entry, event)
        elif event.agent == SEALER and event.binding_version == 0:
            if lately:
                self._lost(event)
        elif event.operation is Operation.REPORT:
            self._report(entry, event)
        elif entry.outcome is Outcome.DONE:
            self._sealed_run(entry, event)
            self._removed(entry, event)

    def waiting(self, raw: bytes) -> None:
        """An entry that stands in the queue, and is not sealed yet."""
        try:
            entry = Entry.parse(raw)
            event = Event.parse(entry.event)
        except AuditEventMalformed:
            return
        if entry.outcome is Outcome.DONE:
            for first, last in _told(event):
                extend(self._queued[event.writer], first, last)
                self._note_alive(event, first, last)
            self._removed(entry, event)

    def result(self) -> TenantEvents:
        """What all of it comes to."""
        owed = {subject: many for subject, many in self._owed.items() if many}
        coverage: Coverage | Missing = Missing("coverage", "the tenant's records were not read")
        if self.runs is not None:
            coverage = self._coverage()
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
            released=tuple(self._released),
            specs=dict(self._specs),
            acted=dict(self._acted),
            unnamed=self._unnamed,
            erasures_asked=len(self._asked),
            forgotten_alive=len(owed),
            forgotten_records=sum(owed.values()),
            forgotten_places=tuple(
                self._place(*self._where[one]) for one in sorted(owed)[:_EXAMPLES]
            ),
            reports=tuple(self._reports),
            early=() if floor is None else tuple(floor.examples),
            early_total=0 if floor is None else floor.total,
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
        if event.subject != _NOBODY:
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

    def _sealed_run(self, entry: Entry, event: Event) -> None:
        live = self._ranges.get(event.writer, [])
        for first, last in _told(event):
            absent = self._note_alive(event, first, last)
            if live:
                extend(self._sealed[event.writer], first, last)
                if absent != [(first, last)] and entry.time < (self._oldest or entry.time + 1):
                    self._oldest = entry.time
                    at = next(iter(without([(first, last)], absent)))[0]
                    self._oldest_at = self._place(event.writer, at)
            if event.operation is not Operation.APPEND or self.runs is None:
                continue
            offset = entry.sequence - last
            for a, b in absent:
                if entry.time < self.expired_before:
                    self._explained += b - a + 1
                    continue
                self._gone[event.place].append(
                    _Gone(a + offset, b + offset, entry.time, event.subject, event.writer)
                )

    def _note_alive(self, event: Event, first: int, last: int) -> Runs:
        """Count whose records live, of those that an event tells; which are absent."""
        live = self._ranges.get(event.writer, [])
        absent = list(without([(first, last)], live))
        many = last - first + 1 - sum(b - a + 1 for a, b in absent)
        if many and event.subject != _NOBODY:
            self._alive[event.subject] += many
            at = next(iter(without([(first, last)], absent)))[0]
            self._where[event.subject] = (event.writer, at)
        return absent

    def _place(self, writer: bytes, counter: int) -> str:
        runs = self._live.get(writer, [])
        return next((place_of(one.place) for one in runs if one.first <= counter <= one.last), "")

    def _told(self, entry: Entry, event: Event) -> None:
        """What the operator did."""
        detail = _detail(event)
        match event.operation:
            case Operation.SPEC_SEEN | Operation.PROVISIONED:
                self._spec(entry, detail)
            case Operation.HOLD_SET:
                self._held_at = self._held_at or entry.time
                # There is no cut-off while it stands: what had expired by then is rightly gone.
                self._expire(self.cut_off(entry.time), entry.time)
            case Operation.EXPIRED:
                before = detail.get("before")
                content = before.get("content") if isinstance(before, dict) else None
                self._expire(content if isinstance(content, int) else 0, entry.time)
            case Operation.HOLD_RELEASED | Operation.OVERRIDE:
                when = moment(entry.time)
                if when in self.period and len(self._released) < _EXAMPLES:
                    what = detail.get("matter") or detail.get("what") or ""
                    by = f" by {detail['by']}" if detail.get("by") else ""
                    self._released.append(f"{what} at {rfc3339(when)}{by}")
            case Operation.DEPROVISIONED if detail.get("deletionPolicy") == "Retain":
                pass  # everything stays
            case Operation.PURGED | Operation.DEPROVISIONED:
                for place, gone in self._gone.items():
                    self._went(place, gone, entry.time, "deleted with the tenant")
                self._gone.clear()
                self._asked.clear()  # the receipts went with all else
                self._owed.clear()
            case _:
                pass

    def _spec(self, entry: Entry, detail: Mapping[str, object]) -> None:
        generation = detail.get("generation")
        if not isinstance(generation, int):
            return
        kind, name = detail.get("kind", "MemoryTenant"), detail.get("name", "")
        parts = (kind, detail.get("namespace", ""), name)
        if self.floor is not None:
            self.floor.named(detail.get("policy"), entry.time)
        seen = "/".join(str(part) for part in parts if part), str(detail.get("uid", ""))
        if generation > self._specs.get(seen, -1):
            self._acted[seen] = moment(entry.time)
        self._specs[seen] = max(generation, self._specs.get(seen, 0))
        if moment(entry.time) in self.period and not detail.get("by"):
            self._unnamed += 1

    def _expire(self, before: int, at: int) -> None:
        for place, gone in self._gone.items():
            self._went(place, [one for one in gone if one.time < before], at, "expired")
            self._gone[place] = [one for one in gone if one.time >= before]

    def _went(self, place: bytes, gone: Iterable[_Gone], at: int, why: str) -> None:
        """These are gone because of what an event tells."""
        for one in gone:
            self._explained += one.many
            if self.floor is not None:
                self.floor.went(self._named(place, one), one.many, one.time, at, why)

    def _named(self, place: bytes, gone: _Gone) -> str:
        """Which records: by their key where others of their writer live, else as the log has it."""
        runs = self._live.get(gone.writer)
        where = place_of(runs[0].place) if runs else f"place {place.hex()}"
        which = str(gone.first) if gone.many == 1 else f"{gone.first} to {gone.last}"
        return f"{which} of {where}, told at {rfc3339(moment(gone.time))}"

    def _removed(self, entry: Entry, event: Event) -> None:
        if event.operation is Operation.FORGET and event.subject != _NOBODY:
            self._forgotten.add(event.subject)
            if self.floor is not None:
                self.floor.forgotten(event.subject, entry.time)
            if entry.time < self.asked_before:
                self._asked.add(event.subject)
                # What is told from here on is of who came back.
                self._owed[event.subject] = self._alive[event.subject]
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
            self._went(event.place, self._gone.pop(event.place, []), entry.time, why)
        elif event.operation in _ONE_BY_ONE:
            self._explain(event.place, _sequences(entry, event), entry.time, why)

    def _explain(self, place: bytes, sequences: Iterable[int], at: int, why: str) -> None:
        gone = self._gone.get(place)
        if not gone:
            return
        taken = merged((one, one) for one in sequences)
        kept = []
        for one in gone:
            left = list(without([(one.first, one.last)], taken))
            went = without([(one.first, one.last)], left)
            self._went(place, [one.among(a, b) for a, b in went], at, why)
            kept += [one.among(a, b) for a, b in left]
        self._gone[place] = kept

    def _coverage(self) -> Coverage:
        records = covered = waiting = before = 0
        places: dict[str, None] = {}
        for writer, runs in self._live.items():
            sealed = merged(self._sealed.get(writer, []))
            queued = merged(self._queued.get(writer, []))
            for one in runs:
                many = one.last - one.first + 1
                records += many
                open_ = list(without([(one.first, one.last)], sealed))
                missing = sum(b - a + 1 for a, b in open_)
                covered += many - missing
                left = sum(b - a + 1 for a, b in without(open_, queued))
                waiting += missing - left
                if self._first and one.time < self._first:
                    before += left
                elif left and len(places) < _EXAMPLES:
                    places[place_of(one.place)] = None
        vanished, explained = 0, self._explained
        for place, several in self._gone.items():
            for gone in several:
                if gone.subject in self._forgotten:
                    explained += gone.many
                else:
                    vanished += gone.many
                if self.floor is not None:
                    what = self._named(place, gone)
                    self.floor.missing(what, gone.many, gone.time, gone.subject)
        return Coverage(
            records=records,
            covered=covered,
            waiting=waiting,
            before=before,
            uncovered=records - covered - waiting - before,
            explained=explained,
            vanished=vanished,
            oldest=moment(self._oldest) if self._oldest else None,
            oldest_at=self._oldest_at,
            places=tuple(places),
        )


def _told(event: Event) -> Iterator[tuple[int, int]]:
    """The counters of the records that an event tells: those of messages one each; all values of
    a context's update have the event's own."""
    if event.operation is Operation.APPEND:
        yield event.counter, event.counter + max(event.count, 1) - 1
    elif event.operation in _TOLD_BY_COUNTER:
        yield event.counter, event.counter


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
