"""Entries that were sealed before and come again in the order in which they were: a server that was
rolled back, or a sealer that ended before it shortened the queue.

Where the first of them stands is looked for as bytes, at the speed of the disk; from there on the
log's leaves are read beside the queue. What does not match is judged as any other entry: this is a
short cut for what is the same byte for byte, and decides nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from memtenant.archive.port import Archive
from memtenant.archive.segments import blocks, months, segment_name
from memtenant.audit.leaf import LONGEST_ENTRY
from memtenant.audit.segment import FRAME_BYTES

__all__ = ["Again"]

_ENTRY: Final = 9
"""Where the entry begins in its leaf."""
_CHUNK: Final = 4 * 1024 * 1024
_WALK: Final = 256 * 1024
_LENGTH: Final = struct.Struct(">I")


@dataclass(slots=True)
class Again:
    """A place in a log: what was sealed from there on is expected to come next."""

    archive: Archive
    folder: str
    month: str
    offset: int

    @classmethod
    def find(
        cls, archive: Archive, folder: str, known: Iterable[str], entry: bytes
    ) -> Again | None:
        """Where the very entry was sealed, in one of the months."""
        for month in known:
            name, begin = segment_name(folder, month), 0
            while (found := _search(archive, name, entry, begin)) is not None:
                frame = found - _ENTRY - FRAME_BYTES
                # An agent may push what looks like a part of a log: only whole frames count.
                if _is_frame(archive, name, frame):
                    return cls(archive, folder, month, frame)
                begin = found + 1
        return None

    def passed(self, entries: Sequence[bytes]) -> int:
        """How many of the entries, from the first on, are the next that were sealed."""
        count = 0
        for month in [one for one in months(self.archive, self.folder) if one >= self.month]:
            offset = self.offset if month == self.month else 0
            for block in blocks(self.archive, self.folder, month, offset):
                place = block.offset
                for leaf in block.leaves:
                    if count == len(entries):
                        return count
                    place += FRAME_BYTES + len(leaf)
                    if leaf[1] == 2:
                        continue  # a gap: no entry of the queue
                    if leaf[_ENTRY:] != entries[count]:
                        return count
                    count += 1
                    self.month, self.offset = month, place
        return count


def _search(archive: Archive, name: str, entry: bytes, begin: int) -> int | None:
    """Where the bytes stand in a file, from a byte on."""
    if not entry or len(entry) > LONGEST_ENTRY:
        return None
    while True:
        data = archive.read(name, begin, _CHUNK)
        found = data.find(entry)
        if found >= 0:
            return begin + found
        if len(data) < _CHUNK:
            return None
        begin += len(data) - len(entry) + 1


def _is_frame(archive: Archive, name: str, place: int) -> bool:
    """Whether a frame begins there, as one hops from frame to frame."""
    offset = 0
    while offset < place:
        data = archive.read(name, offset, _WALK)
        at, end = 0, min(len(data) - _LENGTH.size, place - offset - 1)
        while at <= end:
            at += FRAME_BYTES + _LENGTH.unpack_from(data, at)[0]
        if not at:
            return False
        offset += at
    return offset == place
