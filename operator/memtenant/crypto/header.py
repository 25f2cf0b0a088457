"""The clear header of an entry in a conversation's list: what the server and the operator may see.

Sequence and time are the server's word (a Function writes them); the operator reads the age of a
record from it without any key. 15 bytes, big-endian, 23 with a subject tag:

======  =====  ==============================================================
offset  bytes  meaning
======  =====  ==============================================================
0       1      0x10 | flags; bit 0: a subject tag follows; bit 1: a tombstone
1       5      sequence in the conversation, from 1
6       6      time of the append, milliseconds since 1970-01-01T00:00:00Z
12      3      tokens, by the writer's counter
15      8      subject tag, if bit 0 is set (Minimal isolation)
======  =====  ==============================================================
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from memtenant.errors import RecordMalformed

__all__ = ["Header", "peek_header"]

HEADER_BYTES = 15
TAG_BYTES = 8

_VERSION = 0x10
_TAGGED = 0x01
_TOMBSTONE = 0x02
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)


class Header(NamedTuple):
    """``time`` is in milliseconds since 1970; a tombstone has no record behind it."""

    sequence: int
    time: int
    tokens: int
    subject_tag: bytes | None = None
    tombstone: bool = False

    @property
    def written(self) -> datetime:
        """When the server stored the entry; saturates at the last moment ``datetime`` knows."""
        seconds, milliseconds = divmod(self.time, 1000)
        try:
            return _EPOCH + timedelta(0, seconds, milliseconds * 1000)
        except OverflowError:
            return _LATEST

    @property
    def length(self) -> int:
        """Bytes of the header; the record begins there."""
        return HEADER_BYTES + (0 if self.subject_tag is None else TAG_BYTES)

    def to_bytes(self) -> bytes:
        """The header's bytes. ``OverflowError`` for a number that its field cannot hold."""
        if self.subject_tag is not None and len(self.subject_tag) != TAG_BYTES:
            raise ValueError(f"a subject tag has {TAG_BYTES} bytes")
        flags = (_TAGGED if self.subject_tag is not None else 0) | (
            _TOMBSTONE if self.tombstone else 0
        )
        return b"".join(
            (
                bytes([_VERSION | flags]),
                self.sequence.to_bytes(5, "big"),
                self.time.to_bytes(6, "big"),
                self.tokens.to_bytes(3, "big"),
                self.subject_tag or b"",
            )
        )


def peek_header(entry: bytes) -> Header:
    """The header of an entry; needs no key, and only the entry's first 23 bytes.

    Raises `RecordMalformed` for bytes that are no entry of this format.
    """
    if len(entry) < HEADER_BYTES or entry[0] & ~(_TAGGED | _TOMBSTONE) != _VERSION:
        raise _no_entry()
    flags = entry[0]
    tag = None
    if flags & _TAGGED:
        tag = entry[HEADER_BYTES : HEADER_BYTES + TAG_BYTES]
        if len(tag) < TAG_BYTES:
            raise _no_entry()
    # One number of all three fields: a read parses a thousand headers.
    packed = int.from_bytes(entry[1:HEADER_BYTES], "big")
    return Header(
        packed >> 72, packed >> 24 & 0xFFFFFFFFFFFF, packed & 0xFFFFFF, tag, flags & _TOMBSTONE != 0
    )


def _no_entry() -> RecordMalformed:
    return RecordMalformed(
        "An entry of a conversation does not begin with a header that this memtenant reads: "
        "something else wrote it, or a newer memtenant did; update, or delete the entry"
    )
