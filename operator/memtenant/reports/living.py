"""Records that are there, held against the events that tell records.

Of a writer whose records live, runs of counters are kept: those that live, those that a sealed
event tells, and those that one in the queue does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from memtenant.audit import Event, Operation
from memtenant.reports.absent import Fate
from memtenant.reports.counters import Runs, extend, merged, without
from memtenant.reports.evidence import Coverage, moment
from memtenant.reports.places import place_of
from memtenant.reports.records import RUN

__all__ = ["NOBODY", "Living", "told_by"]

NOBODY: Final = bytes(16)
"""The subject of an event that is about nobody."""

_TOLD_BY_COUNTER: Final = frozenset({Operation.CONTEXT_CREATE, Operation.CONTEXT_UPDATE})
_EXAMPLES: Final = 5


def told_by(event: Event) -> Iterator[tuple[int, int]]:
    """The counters of the records that an event tells: those of messages one each; all values of
    a context's update have the event's own."""
    if event.operation is Operation.APPEND:
        yield event.counter, event.counter + max(event.count, 1) - 1
    elif event.operation in _TOLD_BY_COUNTER:
        yield event.counter, event.counter


@dataclass(frozen=True, slots=True)
class _Run:
    """Counters of a writer whose records live, in one place."""

    first: int
    last: int
    time: int
    place: bytes


@dataclass(slots=True)
class Living:
    """One tenant's. ``runs`` are the live records as `memtenant.reports.records` tells them."""

    runs: bytes
    _live: dict[bytes, list[_Run]] = field(default_factory=dict)
    _ranges: dict[bytes, Runs] = field(default_factory=dict)
    _sealed: dict[bytes, Runs] = field(default_factory=lambda: defaultdict(list))
    _queued: dict[bytes, Runs] = field(default_factory=lambda: defaultdict(list))
    _alive: Counter[bytes] = field(default_factory=Counter)
    _where: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    _owed: dict[bytes, int] = field(default_factory=dict)
    _oldest: int = 0
    _oldest_at: str = ""

    def __post_init__(self) -> None:
        found: dict[bytes, list[_Run]] = defaultdict(list)
        for writer, time, first, last, place in RUN.iter_unpack(self.runs):
            found[writer].append(_Run(first, last, time, place))
        self._live = {
            writer: sorted(runs, key=lambda one: (one.first, one.last))
            for writer, runs in found.items()
        }
        self._ranges = {
            writer: merged((one.first, one.last) for one in runs)
            for writer, runs in self._live.items()
        }

    def told(self, event: Event, time: int) -> Runs:
        """A sealed event tells records; which counters of them are not there."""
        gone: Runs = []
        live = self._ranges.get(event.writer)
        for first, last in told_by(event):
            absent = self._note_alive(event, first, last)
            gone += absent
            if not live:
                continue
            extend(self._sealed[event.writer], first, last)
            if absent != [(first, last)] and time < (self._oldest or time + 1):
                self._oldest = time
                at = next(iter(without([(first, last)], absent)))[0]
                self._oldest_at = self._place(event.writer, at)
        return gone

    def waiting(self, event: Event) -> None:
        """An event that stands in the queue tells records."""
        for first, last in told_by(event):
            extend(self._queued[event.writer], first, last)
            self._note_alive(event, first, last)

    def forgotten(self, subject: bytes) -> None:
        """An agent asked for it, of a person. What is told from here on is of who came back."""
        self._owed[subject] = self._alive[subject]

    def purged(self) -> None:
        """Everything of the tenant was removed, receipts of erasures with it."""
        self._owed.clear()

    def owed(self) -> tuple[int, int, tuple[str, ...]]:
        """Persons who were forgotten and of whom records live that were told before; how many
        records, and where the first ones are."""
        owed = {subject: many for subject, many in self._owed.items() if many}
        places = tuple(self._place(*self._where[one]) for one in sorted(owed)[:_EXAMPLES])
        return len(owed), sum(owed.values()), places

    def where(self, writer: bytes, place: bytes) -> str:
        """A place by its key, where others of that writer live, else as the log has it."""
        runs = self._live.get(writer)
        return place_of(runs[0].place) if runs else f"place {place.hex()}"

    def coverage(self, begin: int, fate: Fate) -> Coverage:
        """What all of it comes to. ``begin``: records may be from before, when nothing was told."""
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
                if begin and one.time < begin:
                    before += left
                elif left and len(places) < _EXAMPLES:
                    places[place_of(one.place)] = None
        return Coverage(
            records=records,
            covered=covered,
            waiting=waiting,
            before=before,
            uncovered=records - covered - waiting - before,
            explained=fate.explained,
            vanished=fate.vanished,
            assumed=fate.assumed,
            oldest=moment(self._oldest) if self._oldest else None,
            oldest_at=self._oldest_at,
            places=tuple(places),
        )

    def _note_alive(self, event: Event, first: int, last: int) -> Runs:
        """Count whose records live, of those that an event tells; which are absent."""
        live = self._ranges.get(event.writer, [])
        absent = list(without([(first, last)], live))
        many = last - first + 1 - sum(b - a + 1 for a, b in absent)
        if many and event.subject != NOBODY:
            self._alive[event.subject] += many
            at = next(iter(without([(first, last)], absent)))[0]
            self._where[event.subject] = (event.writer, at)
        return absent

    def _place(self, writer: bytes, counter: int) -> str:
        runs = self._live.get(writer, [])
        return next((place_of(one.place) for one in runs if one.first <= counter <= one.last), "")
