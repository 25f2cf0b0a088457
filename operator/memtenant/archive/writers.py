"""What was sealed of each writer: by it an entry that comes again is known, and a gap is seen.

In memory are the writers that were heard last, and of each only where it is. Who is not there was
never heard, unless its opening time says that it may have been forgotten; then, and where an
entry is older than what is in memory, the archive itself is asked (`History`). So memory is
bounded, and the answer is exact.

A writer is known by its 8 bytes and the name of the agent that its MAC proves (`writer_of`): no
agent fills what is missing of another, or uses its counters up.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from memtenant.archive.leaps import DAY
from memtenant.audit.leaf import Verdict

__all__ = [
    "LAST_COUNTER",
    "MOST_PENDING",
    "NEVER_HEARD",
    "NUMBERS",
    "SHORTEST",
    "History",
    "Range",
    "Sighting",
    "Standing",
    "Writers",
    "odd_id",
    "sighting",
    "sightings",
    "writer_of",
]

MOST_PENDING: Final = 8
"""Refusals and conflicts of one counter that are known without asking the archive."""

_MOST_ODD: Final = 10_000
"""More than are taken at a time: a batch of nothing else is known when it comes again."""

NUMBERS: Final = struct.Struct(">IH")
"""Counter and count, from byte 14 of an event on."""

SHORTEST: Final = 85 + 12
"""Bytes that an entry has at least which is an event."""

LAST_COUNTER: Final = 2**32 - 1
"""Whatever a lying agent says."""

Range = tuple[int, int]
"""The first and the last counter."""

_DONE: Final = ord("O")
_APPEND: Final = 0x01

_ENTRY: Final = 9
"""Where the entry begins in its leaf."""
_OF_AGENTS: Final = frozenset({Verdict.GOOD, Verdict.FORGED})
_GAP_AGENT: Final = 24
"""Where the agent begins in the leaf of a gap."""


class Standing(NamedTuple):
    """Where a writer is.

    top: the last counter that is done with. done: the mark of the event that was. pending: marks
    of the refusals and conflicts of the counter after it. heard: when, in milliseconds.
    """

    top: int
    done: bytes
    pending: tuple[bytes, ...]
    heard: int


NEVER_HEARD: Final = Standing(0, b"", (), 0)


class Sighting(NamedTuple):
    """What of an entry tells it from others. ``mark``: its MAC and its outcome."""

    writer: bytes
    first: int
    last: int
    mark: bytes

    @property
    def is_done(self) -> bool:
        """Whether the call was done."""
        return self.mark[16] == _DONE


def writer_of(entry: bytes, start: int = 0) -> bytes:
    """The writer of an event that begins there: its 8 bytes, and its agent's name."""
    name = start + 69
    return entry[start + 6 : start + 14] + entry[name : name + entry[name - 1]]


def _writer_of_gap(leaf: bytes) -> bytes:
    return leaf[8:16] + leaf[_GAP_AGENT:]


def sighting(entry: bytes) -> Sighting:
    """Of an entry that is an event, whatever its MAC."""
    first, count = NUMBERS.unpack_from(entry, 14)
    last = min(first + count - 1, LAST_COUNTER) if count > 1 and entry[1] == _APPEND else first
    return Sighting(writer_of(entry), first, last, entry[-28:-11])


def odd_id(entry: bytes) -> bytes:
    """What an entry that is no event of its agent is known by."""
    return sha256(entry).digest()[:8]


def sightings(leaves: Iterable[bytes], wanted: Mapping[bytes, Range]) -> list[bytes]:
    """The leaves that are about one of the writers, and its counters in the range."""
    found = []
    for leaf in leaves:
        if leaf[1] == 2:
            if _writer_of_gap(leaf) in wanted:
                found.append(leaf)
            continue
        if leaf[8] not in _OF_AGENTS:
            continue  # it may be of any length
        counters = wanted.get(writer_of(leaf, _ENTRY))
        if counters is None:
            continue
        _, first, last, _ = sighting(leaf[_ENTRY:])
        if first <= counters[1] and last >= counters[0]:
            found.append(leaf)
    return found


class Writers:
    """The writers of one log that were heard last.

    forgotten: who was opened before (ms) and is not here may have been heard. earliest: which time
    a leaf has at the earliest that was sealed at a moment.
    """

    def __init__(self, most: int, forgotten: int = 0) -> None:
        self._most = most
        self.known: dict[bytes, Standing] = {}
        self.forgotten = forgotten
        self.odd: OrderedDict[bytes, None] = OrderedDict()
        self.earliest: Callable[[int], int] = int

    def may_be_forgotten(self, writer: bytes) -> bool:
        """Whether a writer that is not known may have been heard all the same."""
        if not self.forgotten:
            return False
        return self.earliest(int.from_bytes(writer[:4], "big") * 1000) <= self.forgotten

    def note(self, writer: bytes, standing: Standing) -> None:
        """This is where the writer is now."""
        self.known.pop(writer, None)  # to the end: the first in line is forgotten first
        self.known[writer] = standing

    def note_odd(self, mark: bytes) -> None:
        """An entry that is no event of its agent was sealed."""
        self.odd[mark] = None
        if len(self.odd) > _MOST_ODD:
            self.odd.popitem(last=False)

    def forget(self) -> None:
        """Bound the memory: a quarter of the writers go, those that were silent for longest."""
        if len(self.known) <= self._most:
            return
        for writer in list(self.known)[: len(self.known) - self._most * 3 // 4]:
            heard = self.known.pop(writer).heard
            opened = int.from_bytes(writer[:4], "big") * 1000
            # A clock that is ahead is allowed for, a lie about it is not.
            self.forgotten = max(self.forgotten, heard, min(opened, heard + DAY))

    def replay(self, leaves: Iterable[bytes]) -> None:
        """Learn from leaves of the archive, in their order."""
        for leaf in leaves:
            heard = int.from_bytes(leaf[2:8], "big")
            if leaf[1] == 2:
                writer, last = _writer_of_gap(leaf), int.from_bytes(leaf[20:_GAP_AGENT], "big")
                before = self.known.get(writer, NEVER_HEARD)
                if last > before.top:
                    self.note(writer, Standing(last, b"", (), heard))
            elif leaf[8] == Verdict.GOOD:
                self.advance(sighting(leaf[_ENTRY:]), heard)
            elif leaf[8] != Verdict.FORGED:
                self.note_odd(odd_id(leaf[_ENTRY:]))
        self.forget()

    def advance(self, seen: Sighting, heard: int) -> None:
        """An entry of the writer was sealed."""
        writer, first, last, mark = seen
        before = self.known.get(writer, NEVER_HEARD)
        if seen.is_done:
            if last > before.top:
                self.note(writer, Standing(last, mark, (), heard))
        elif first > before.top:
            pending = before.pending if first == before.top + 1 else ()
            top = max(first - 1, before.top)
            done = before.done if top == before.top else b""
            self.note(writer, Standing(top, done, (*pending, mark)[-MOST_PENDING:], heard))


class History:
    """What the archive (and what is about to be added to it) has of some writers: where they are,
    and what of it is asked for these sightings. However much an agent had sealed of its writers,
    in memory is no more than grows with what is asked."""

    def __init__(self, asked: Iterable[Sighting]) -> None:
        self._asked: set[tuple[bytes, bytes]] = set()
        self._marks: set[tuple[bytes, bytes]] = set()
        self._writers = Writers(most=2**62)
        spans: dict[bytes, set[int]] = {}
        for writer, first, last, mark in asked:
            self._asked.add((writer, mark))
            spans.setdefault(writer, set()).update((first, last + 1))
        self._used = {writer: _Used(sorted(cuts)) for writer, cuts in spans.items()}

    def add(self, leaves: Iterable[bytes]) -> None:
        """Leaves in their order."""
        for leaf in leaves:
            if leaf[1] == 1 and leaf[8] in _OF_AGENTS:
                seen = sighting(leaf[_ENTRY:])
                if (seen.writer, seen.mark) in self._asked:
                    self._marks.add((seen.writer, seen.mark))
                if leaf[8] == Verdict.GOOD and seen.is_done and seen.writer in self._used:
                    self._used[seen.writer].add(seen.first, seen.last)
        self._writers.replay(leaves)

    def tells_of(self, asked: Iterable[Sighting]) -> bool:
        """Whether these were among what was asked."""
        return all((one.writer, one.mark) in self._asked for one in asked)

    def standing(self, writer: bytes) -> Standing:
        """Where the writer was after the last of them."""
        return self._writers.known.get(writer, NEVER_HEARD)

    def has(self, seen: Sighting) -> bool:
        """Whether the very event with the very outcome is there."""
        return (seen.writer, seen.mark) in self._marks

    def covers(self, seen: Sighting) -> bool:
        """Whether one of its counters was used for what was done."""
        used = self._used.get(seen.writer)
        return used is not None and used.any(seen.first, seen.last)


class _Used:
    """Which counters of a writer were used, as far as it is asked: ``cuts`` are where runs of
    counters begin of which each was asked for as a whole, or not."""

    def __init__(self, cuts: list[int]) -> None:
        self._cuts = cuts
        self._runs: list[int] = []

    def add(self, first: int, last: int) -> None:
        """These were used."""
        begin = max(bisect_right(self._cuts, first) - 1, 0)
        for run in range(begin, bisect_right(self._cuts, last)):
            place = bisect_left(self._runs, run)
            if place == len(self._runs) or self._runs[place] != run:
                self._runs.insert(place, run)

    def any(self, first: int, last: int) -> bool:
        """Whether one of these was; both are what was asked for."""
        place = bisect_left(self._runs, bisect_left(self._cuts, first))
        return place < len(self._runs) and self._runs[place] < bisect_left(self._cuts, last + 1)
