"""Entries that were sealed before and come again in the order in which they were: a server that was
rolled back, or a sealer that ended before it shortened the queue.

Where the first of them stands is looked for as bytes, at the speed of the disk; from there on the
log's leaves are read beside the queue. What does not match is judged as any other entry: this is a
short cut for what is the same byte for byte, and decides nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from memtenant.archive.port import Archive
from memtenant.archive.segments import blocks, months, segment_name
from memtenant.audit.leaf import LONGEST_ENTRY
from memtenant.audit.segment import FRAME_BYTES

__all__ = ["Again"]

_ENTRY: Final = 9
"""Where the entry begins in its leaf."""
_CHUNK: Final = 1024 * 1024
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
    ) -> Generator[int, None, Again | None]:
        """Where the very entry was sealed, in one of the months; as steps of a `ReadBack`."""
        if not entry or len(entry) > LONGEST_ENTRY:
            return None
        for month in known:
            name, begin = segment_name(folder, month), 0
            frames = _Frames(archive, name)
            while True:
                data = archive.read(name, begin, _CHUNK)
                yield len(data)
                at = data.find(entry)
                while at >= 0:
                    place = begin + at - _ENTRY - FRAME_BYTES
                    # An agent may push what looks like a part of a log: only whole frames count.
                    yield from frames.reach(place)
                    if frames.at == place:
                        return cls(archive, folder, month, place)
                    at = data.find(entry, at + 1)
                if len(data) < _CHUNK:
                    break
                begin += len(data) - len(entry) + 1
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


@dataclass(slots=True)
class _Frames:
    """Where the frames of a month begin, as one hops from one to the next: never back, however
    often an agent hid an entry in others."""

    archive: Archive
    name: str
    at: int = 0
    _data: bytes = b""
    _begin: int = 0

    def reach(self, place: int) -> Generator[int, None, None]:
        """Hop until a frame begins there, or behind it."""
        while self.at < place:
            hop = self.at - self._begin
            if hop + _LENGTH.size > len(self._data):
                self._data, self._begin = self.archive.read(self.name, self.at, _WALK), self.at
                yield len(self._data)
                hop = 0
            end = min(len(self._data) - _LENGTH.size, place - self._begin - 1)
            if hop > end:
                return  # the file ends
            while hop <= end:
                hop += FRAME_BYTES + _LENGTH.unpack_from(self._data, hop)[0]
            self.at = self._begin + hop
