"""Messages that the sealed log tells and that are not there, until a later event says why.

Kept are their places, and only up to a number. Where there are more, the log is read again in
parts, each of which follows some of them: so memory stays flat, and none is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from memtenant.audit import Event
from memtenant.clock import rfc3339
from memtenant.reports.counters import merged, without
from memtenant.reports.evidence import moment
from memtenant.reports.floor import Floor

__all__ = ["MOST_FOLLOWED", "Absent", "Fate", "Part"]

MOST_FOLLOWED: Final = 100_000
"""Runs of messages, some 200 bytes each."""

_EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Part:
    """Which of the messages are followed: one part of several."""

    index: int = 0
    of: int = 1

    def has(self, event: Event) -> bool:
        """Whether the event's are among them."""
        if self.of == 1:
            return True
        return crc32(event.writer + event.counter.to_bytes(4, "big")) % self.of == self.index


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of them. ``early`` are those that went, or are gone, while their minimum stood;
    ``early_at`` some of them, in words. ``lost``: runs of them that found no room, and of which
    nothing is said. ``assumed`` went by a rule of which the log tells only later."""

    explained: int = 0
    vanished: int = 0
    early: int = 0
    early_at: tuple[str, ...] = ()
    lost: int = 0
    assumed: int = 0

    def with_part(self, other: Fate) -> Fate:
        """Of two parts."""
        return Fate(
            self.explained + other.explained,
            self.vanished + other.vanished,
            self.early + other.early,
            (*self.early_at, *other.early_at)[:_EXAMPLES],
            self.lost + other.lost,
            self.assumed + other.assumed,
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """Messages that were stored and are not there: first and last sequence of them."""

    first: int
    last: int
    time: int
    subject: bytes
    writer: bytes

    def among(self, first: int, last: int) -> _Run:
        """Those of them from one sequence to another."""
        return replace(self, first=first, last=last)

    @property
    def many(self) -> int:
        """How many messages."""
        return self.last - self.first + 1


@dataclass(slots=True)
class Absent:
    """One tenant's. ``where`` names a place by a writer and its alias, ``floor`` is the minimum
    that they are under, if they are."""

    where: Callable[[bytes, bytes], str]
    floor: Floor | None = None
    part: Part = Part()
    most: int = MOST_FOLLOWED
    _runs: dict[bytes, list[_Run]] = field(default_factory=lambda: defaultdict(list))
    _followed: int = 0
    _lost: int = 0
    _explained: int = 0
    _assumed: int = 0
    _forgotten: set[bytes] = field(default_factory=set)
    _same: dict[bytes, bytes] = field(default_factory=dict)

    def told(self, event: Event, first: int, last: int, time: int, *, expired: bool) -> None:
        """The event tells these sequences, and they are not there. ``expired``: rightly so."""
        if not self.part.has(event):
            return
        if expired:
            self._explained += last - first + 1
            return
        if self._followed >= self.most:
            self._lost += 1
            return
        self._followed += 1
        subject, writer = self._once(event.subject), self._once(event.writer)
        self._runs[event.place].append(_Run(first, last, time, subject, writer))

    def forgotten(self, subject: bytes, at: int) -> None:
        """An agent asked for it."""
        self._forgotten.add(subject)
        if self.floor is not None:
            self.floor.forgotten(subject, at)

    def cleared(self, place: bytes, at: int, why: str) -> None:
        """All of a conversation was removed."""
        self._went(place, self._taken(place), at, why)

    def removed(self, place: bytes, sequences: Iterable[int], at: int, why: str) -> None:
        """Some messages of a conversation were."""
        gone = self._taken(place)
        taken = merged((one, one) for one in sequences)
        kept = []
        for one in gone:
            left = list(without([(one.first, one.last)], taken))
            went = without([(one.first, one.last)], left)
            self._went(place, [one.among(a, b) for a, b in went], at, why)
            kept += [one.among(a, b) for a, b in left]
        self._keep(place, kept)

    def expired(self, before: int, at: int | None = None) -> None:
        """What was told before had passed its period: at a time at which the operator removed it,
        or by a rule that was another then, so that today's minimum says nothing of it."""
        for place, went in self._past(before):
            if at is None:
                self._explained += sum(one.many for one in went)
            else:
                self._went(place, went, at, "expired")

    def may_have_expired(self, before: int) -> None:
        """As `expired`, by a rule of which the log tells only later that the tenant is under it."""
        self._assumed += sum(one.many for _, went in self._past(before) for one in went)

    def deleted(self, at: int) -> None:
        """Everything of the tenant was."""
        for place in list(self._runs):
            self._went(place, self._taken(place), at, "deleted with the tenant")

    def fate(self) -> Fate:
        """What all of it comes to: nothing more explains what is left."""
        vanished, explained = 0, self._explained
        for place, several in self._runs.items():
            for one in several:
                if one.subject in self._forgotten:
                    explained += one.many
                else:
                    vanished += one.many
                if self.floor is not None:
                    what = self._named(place, one)
                    self.floor.missing(what, one.many, one.time, one.subject)
        early, early_at = (0, ()) if self.floor is None else self.floor.result()
        return Fate(explained, vanished, early, early_at, self._lost, self._assumed)

    def _past(self, before: int) -> Iterator[tuple[bytes, list[_Run]]]:
        """By place, those that were told before: they are followed no more."""
        for place in list(self._runs):
            gone = self._taken(place)
            self._keep(place, [one for one in gone if one.time >= before])
            yield place, [one for one in gone if one.time < before]

    def _taken(self, place: bytes) -> list[_Run]:
        found = self._runs.pop(place, [])
        self._followed -= len(found)
        return found

    def _keep(self, place: bytes, left: list[_Run]) -> None:
        room = max(2 * self.most - self._followed, 0)  # a removal may have split them
        self._lost += len(left[room:])
        if left[:room]:
            self._runs[place] = left[:room]
            self._followed += len(left[:room])

    def _went(self, place: bytes, gone: Iterable[_Run], at: int, why: str) -> None:
        """These are gone because of what an event tells."""
        for one in gone:
            self._explained += one.many
            if self.floor is not None:
                self.floor.went(self._named(place, one), one.many, one.time, at, why)

    def _named(self, place: bytes, gone: _Run) -> str:
        """Which records: by their key where others of their writer live, else as the log has it."""
        which = str(gone.first) if gone.many == 1 else f"{gone.first} to {gone.last}"
        where = self.where(gone.writer, place)
        return f"{which} of {where}, told at {rfc3339(moment(gone.time))}"

    def _once(self, known: bytes) -> bytes:
        """The same bytes for the same person or writer."""
        if len(self._same) > self.most:
            self._same.clear()
        return self._same.setdefault(known, known)
