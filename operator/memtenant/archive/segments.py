"""A log in files of a month each: ``<YYYY-MM>.log`` has its frames, ``<YYYY-MM>.head`` what was
before it. So one month is read without the others, and old ones can go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from memtenant.archive.port import Archive, Part
from memtenant.audit.merkle import HASH_BYTES, Frontier, leaf_hashes
from memtenant.audit.segment import Cut, Damage, frames, split, whole
from memtenant.errors import ArchiveInconsistent, ArchiveMalformed
from memtenant.tenancy.document import DocumentInvalid, canonical_json, read_json

__all__ = [
    "Block",
    "Head",
    "Tail",
    "blocks",
    "first_months",
    "follow",
    "head_name",
    "month_of",
    "months",
    "read_head",
    "segment_name",
]

_HEAD: Final = re.compile(r"([0-9]{4}-(?:0[1-9]|1[0-2]))\.head")
_MOST_PEAKS: Final = 64
_CHUNK: Final = 256 * 1024


def month_of(milliseconds: int) -> str:
    """``2026-11``, UTC."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m")


def months(archive: Archive, folder: str) -> list[str]:
    """Which months there are, in their order."""
    return [found[1] for name in archive.names(folder) if (found := _HEAD.fullmatch(name))]


def first_months(archive: Archive, folders: Iterable[str]) -> dict[str, list[str]]:
    """With which month each folder begins, if there is one: another where months were let go."""
    return {folder: months(archive, folder)[:1] for folder in folders}


def head_name(folder: str, month: str) -> str:
    """The file that says what was before the month."""
    return f"{folder}/{month}.head"


def segment_name(folder: str, month: str) -> str:
    """The file of the month's leaves."""
    return f"{folder}/{month}.log"


@dataclass(frozen=True, slots=True)
class Head:
    """What was before a month: how many leaves, and the peaks of their tree."""

    frontier: Frontier

    @property
    def first(self) -> int:
        """The number of the month's first leaf."""
        return self.frontier.size

    def to_json(self) -> bytes:
        """Canonical."""
        peaks = [peak.hex() for peak in self.frontier.peaks]
        return canonical_json({"first": self.first, "frontier": peaks})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises `ArchiveMalformed` for anything that `to_json` did not write."""
        try:
            fields = read_json(data, limit=16 * 1024)
            peaks = fields.texts("frontier", _MOST_PEAKS, 2 * HASH_BYTES)
            head = cls(Frontier(fields.integer("first"), [bytes.fromhex(one) for one in peaks]))
            fields.no_more()
        except DocumentInvalid as error:
            raise ArchiveMalformed(f"the head of a month cannot be read: {error}") from None
        except ValueError as error:
            raise ArchiveMalformed(f"the head of a month cannot be right: {error}") from None
        if head.to_json() != data:
            raise ArchiveMalformed("the head of a month is not written as memtenant writes it")
        return head


def read_head(archive: Archive, folder: str, month: str) -> Head:
    """Raises `ArchiveMalformed`, which names the file."""
    name = head_name(folder, month)
    try:
        return Head.parse(archive.read(name))
    except ArchiveMalformed as error:
        raise ArchiveMalformed(f"{name}: {error}") from None


class Block(NamedTuple):
    """Leaves that stand one after another in a file, from ``offset`` to ``end``; ``fault`` is what
    stands there instead of the next one."""

    offset: int
    leaves: list[bytes]
    end: int
    fault: Cut | Damage | None


def blocks(
    archive: Archive,
    folder: str,
    month: str,
    offset: int = 0,
    chunk: int = _CHUNK,
    words: Collection[bytes] = (),
) -> Iterator[Block]:
    """The leaves of a month from a frame on, some at a time: memory does not grow with the file.
    Of those in which none of the ``words`` stands (if any are given) many are passed over: the
    block is there, without its leaves."""
    name, left = segment_name(folder, month), b""
    while True:
        read = archive.read(name, offset + len(left), chunk)
        data = left + read
        if not data:
            return
        if read and words and not any(word in data for word in words):
            passed = whole(data)
            if passed is not None:
                yield Block(offset, [], offset + passed, None)
                offset, left = offset + passed, data[passed:]
                continue
        leaves, fault, end = split(data)
        if fault is not None:
            fault = fault._replace(offset=offset + fault.offset)
        if isinstance(fault, Damage) or not read:
            yield Block(offset, leaves, offset + end, fault)
            return
        yield Block(offset, leaves, offset + end, None)
        offset, left = offset + end, data[end:]


@dataclass(slots=True)
class Tail:
    """Where a log ends, and its tree."""

    archive: Archive
    folder: str
    month: str
    offset: int
    frontier: Frontier
    fault: Cut | Damage | None = None

    @property
    def size(self) -> int:
        """How many leaves the log has, those that were pruned included."""
        return self.frontier.size

    def append(self, leaves: Sequence[bytes], month: str) -> None:
        """Durable when it returns. After a failure the tail is to be read anew."""
        part = self.part(leaves, month)
        self.archive.append([part])
        self.went_on(part, leaves)

    def part(self, leaves: Sequence[bytes], month: str) -> Part:
        """What is to be written for these leaves."""
        before = None
        if month > self.month:
            before = head_name(self.folder, month), Head(self.frontier).to_json()
            self.month, self.offset = month, 0
        name = segment_name(self.folder, self.month)
        return Part(name, self.offset, frames(leaves), before)

    def went_on(self, part: Part, leaves: Sequence[bytes]) -> None:
        """It was written."""
        self.offset += len(part.data)
        self.frontier.extend(leaf_hashes(leaves))

    def roll(self, month: str) -> None:
        """Begin a month, if it is a later one."""
        if month > self.month:
            head = Head(self.frontier).to_json()
            self.archive.replace(head_name(self.folder, month), head)
            self.month, self.offset = month, 0

    def cut(self) -> None:
        """Take away what a crash left behind the last whole leaf. Where it is more than a torn
        frame, its bytes are kept in ``cut/``."""
        name = segment_name(self.folder, self.month)
        if isinstance(self.fault, Damage):
            kept = f"cut/{self.folder.replace('/', '-')}-{self.month}-{self.offset}"
            self.archive.replace(kept, self.archive.read(name, self.offset))
        if (self.archive.size(name) or 0) > self.offset:
            self.archive.cut(name, self.offset)
        self.fault = None


def follow(tail: Tail, known: Sequence[str], stop: int) -> Iterator[list[bytes]]:
    """Go on from ``tail`` to where the log ends, through the months that are ``known``; leaves that
    stand before and behind size ``stop`` come apart. ``tail`` is where they end when they come, and
    at last where the whole leaves end: what stands there instead of the next is `Tail.fault`.

    Raises `ArchiveInconsistent` where a month does not go on as the one before it ended.
    """
    for month in (month for month in known if month >= tail.month):
        if month != tail.month:
            if tail.fault is not None:
                raise ArchiveInconsistent(
                    f"{segment_name(tail.folder, tail.month)} is damaged at byte "
                    f"{tail.fault.offset}, and a later month follows it"
                )
            if read_head(tail.archive, tail.folder, month).frontier != tail.frontier:
                raise ArchiveInconsistent(
                    f"{head_name(tail.folder, month)} does not go on as the month before ended"
                )
            tail.month, tail.offset = month, 0
        for block in blocks(tail.archive, tail.folder, month, tail.offset):
            leaves, before = block.leaves, stop - tail.size
            if 0 < before < len(leaves):
                tail.offset += len(frames(leaves[:before]))
                tail.frontier.extend(leaf_hashes(leaves[:before]))
                yield leaves[:before]
                leaves = leaves[before:]
            tail.offset, tail.fault = block.end, block.fault
            tail.frontier.extend(leaf_hashes(leaves))
            yield leaves
