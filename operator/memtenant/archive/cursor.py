"""Going through a log from root to root, as a verifier does: what was read is not kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from memtenant.archive.port import Archive
from memtenant.archive.segments import head_name, month_of, months, read_head, segment_name
from memtenant.audit.event import Event
from memtenant.audit.leaf import (
    LOG_LEAF,
    EntryLeaf,
    GapLeaf,
    Keeping,
    LogRoot,
    Seal,
    parse_log_leaf,
    parse_tree_leaf,
)
from memtenant.audit.merkle import Frontier, leaf_hashes
from memtenant.audit.segment import FRAME_BYTES, Cut, Damage, split
from memtenant.errors import ArchiveMalformed, AuditEventMalformed

__all__ = ["Cursor", "Finding", "described"]

_CHUNK: Final = 1024 * 1024
_LEAST: Final = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and where: a file of the archive, the byte in it, the number of the leaf.

    tampered: what was sealed is not there as it was sealed. Else it cannot be looked at whole.
    event: what the leaf says, as far as it can still be read.
    """

    file: str
    what: str
    offset: int | None = None
    leaf: int | None = None
    event: str = ""
    tampered: bool = True

    def __str__(self) -> str:
        where = [self.file]
        if self.offset is not None:
            where.append(f"byte {self.offset}")
        if self.leaf is not None:
            where.append(f"leaf {self.leaf}")
        event = f" ({self.event})" if self.event else ""
        return f"{', '.join(where)}: {self.what}{event}"


@dataclass(slots=True)
class Cursor:
    """Where the reading of a log is. ``finding`` ends it: nothing behind it is known.

    first: the first leaf that is there.
    """

    archive: Archive
    folder: str
    read: Callable[[int], None] = lambda _bytes: None
    first: int = 0
    month: str = ""
    offset: int = 0
    frontier: Frontier = field(default_factory=Frontier)
    finding: Finding | None = None
    torn: Finding | None = None
    _months: list[str] = field(default_factory=list)
    _mean: int = 160

    def __post_init__(self) -> None:
        self._months = months(self.archive, self.folder)
        if self._months:
            self._enter(self._months[0])
            self.first = self.frontier.size

    @property
    def size(self) -> int:
        """How many leaves were read, or were before the first."""
        return self.frontier.size

    @property
    def file(self) -> str:
        """The file that is read."""
        return segment_name(self.folder, self.month) if self.month else self.folder

    def leaves(self, until: int) -> list[bytes]:
        """The next leaves, some of them, and at most to size ``until``; none at the end, or where
        something is wrong."""
        while self.finding is None and self.month and self.size < until:
            wanted = until - self.size
            chunk = min(max(wanted * self._mean, _LEAST), _CHUNK)
            data = self.archive.read(self.file, self.offset, chunk)
            found, fault, _ = split(data)
            if len(found) > wanted:
                found, fault = found[:wanted], None
            if found and not self._are_of_its_month(found):
                return []
            if found:
                took = sum(map(len, found)) + FRAME_BYTES * len(found)
                self._mean = took // len(found) + 1
                self.offset += took
                self.frontier.extend(leaf_hashes(found))
                self.read(took)
                return found
            if isinstance(fault, Damage):
                self._damaged(fault, data)
            elif isinstance(fault, Cut) and len(data) == chunk:
                self._mean = max(self._mean * 2, _LEAST)  # a long leaf
            elif not self._next_month(fault is not None):
                return []
        return []

    def _are_of_its_month(self, found: list[bytes]) -> bool:
        """Where a month ends is told by its leaves alone: who moved some to another month, with a
        head that fits, would hide them from whoever reads a period. Times never go back."""
        if found[0][0] != LOG_LEAF:
            return True  # of the tree, whoever reads its windows knows their times
        for leaf in (found[0], found[-1]):
            month = month_of(int.from_bytes(leaf[2:8], "big"))
            if month != self.month:
                what = f"a leaf of {month} stands here: it was moved to another month"
                self.finding = Finding(self.file, what, self.offset, self.size, described(leaf))
        return self.finding is None

    def advance(self, until: int) -> bool:
        """Read on to a size; whether it is reached."""
        while self.size < until:
            if not self.leaves(until):
                return False
        return self.size == until

    def _next_month(self, is_cut: bool) -> bool:
        """Go on with the next month, where the last one ends whole."""
        later = [month for month in self._months if month > self.month]
        if is_cut:
            what = "a leaf is cut off" if later else "the last leaf is not written to its end"
            finding = Finding(self.file, what, self.offset, self.size, tampered=bool(later))
            self.finding, self.torn = (finding, None) if later else (None, finding)
        if is_cut or not later:
            return False
        self._enter(later[0])
        return self.finding is None

    def _enter(self, month: str) -> None:
        name = head_name(self.folder, month)
        try:
            frontier = read_head(self.archive, self.folder, month).frontier
        except ArchiveMalformed as error:
            self.finding = Finding(name, str(error).partition(": ")[2])
            return
        if self.month and frontier != self.frontier:
            what = "the month before does not end where this one begins"
            self.finding = Finding(name, what, leaf=self.size)
            return
        self.month, self.offset, self.frontier = month, 0, frontier

    def _damaged(self, fault: Damage, data: bytes) -> None:
        start = FRAME_BYTES + fault.offset
        length = int.from_bytes(data[fault.offset : fault.offset + 4], "big")
        event = described(data[start : start + length])
        self.finding = Finding(self.file, fault.what, self.offset, self.size, event)


def described(leaf: bytes) -> str:
    """What a leaf says, in words; empty where it cannot be read."""
    try:
        return _of_tree(leaf) if leaf[:1] == b"\xe3" else _of_log(leaf)
    except (ArchiveMalformed, AuditEventMalformed):
        return ""


def _of_log(leaf: bytes) -> str:
    parsed = parse_log_leaf(leaf)
    if isinstance(parsed, GapLeaf):
        counters = f"counters {parsed.first} to {parsed.last}"
        return f"gap of {parsed.agent}, writer {parsed.writer.hex()}, {counters}"
    assert isinstance(parsed, EntryLeaf)  # noqa: S101 - the other one of two
    event = Event.parse(parsed.entry[:-12])
    operation = event.operation.name.lower().replace("_", " ")
    return f"{operation} by {event.agent}, writer {event.writer.hex()}, counter {event.counter}"


def _of_tree(leaf: bytes) -> str:
    parsed = parse_tree_leaf(leaf)
    if isinstance(parsed, LogRoot):
        return f"root of log {parsed.log_id} with {parsed.size} leaves"
    if isinstance(parsed, Seal):
        return f"seal of window {parsed.window}"
    if isinstance(parsed, Keeping):
        return f"{parsed.log_id} is kept for {parsed.months or 'all'} months"
    return f"pruning of {parsed.log_id} before leaf {parsed.first}"
