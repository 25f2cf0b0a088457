"""Frames of a segment: a month of leaves in one file, one after another.

A frame is the leaf's length (4 bytes, big-endian), the CRC-32 of the leaf (4 bytes), the leaf. The
checksum proves nothing against somebody who means it, the tree does that. It tells a write that a
crash tore from one that was whole, and says which leaf a flipped bit is in.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from zlib import crc32

__all__ = ["FRAME_BYTES", "MAX_LEAF_BYTES", "Cut", "Damage", "frames", "split", "whole"]

FRAME_BYTES: Final = 8
"""What a frame adds to its leaf."""

MAX_LEAF_BYTES: Final = 16 * 1024

_HEADER: Final = struct.Struct(">II")
_LENGTH: Final = struct.Struct(">I")


class Cut(NamedTuple):
    """The bytes end within a frame, at ``offset``: there is more to come, or a write was torn."""

    offset: int


class Damage(NamedTuple):
    """At ``offset`` is no frame that anything wrote."""

    offset: int
    what: str


def frames(leaves: Iterable[bytes]) -> bytes:
    """The leaves, framed."""
    pack = _HEADER.pack
    return b"".join([pack(len(leaf), crc32(leaf)) + leaf for leaf in leaves])


def split(data: bytes) -> tuple[list[bytes], Cut | Damage | None, int]:
    """The whole leaves that ``data`` begins with, what ended them, and where they end."""
    leaves: list[bytes] = []
    add, unpack, end, offset = leaves.append, _HEADER.unpack_from, len(data), 0
    while offset != end:
        start = offset + FRAME_BYTES
        if start > end:
            return leaves, Cut(offset), offset
        length, checksum = unpack(data, offset)
        if not 2 <= length <= MAX_LEAF_BYTES:
            return leaves, Damage(offset, f"a frame says that its leaf has {length} bytes"), offset
        after = start + length
        if after > end:
            return leaves, Cut(offset), offset
        leaf = data[start:after]
        if crc32(leaf) != checksum:
            return leaves, Damage(offset, "a leaf does not match its checksum"), offset
        add(leaf)
        offset = after
    return leaves, None, offset


def whole(data: bytes) -> int | None:
    """Where the whole frames end with which ``data`` begins, by their lengths alone; None where one
    cannot be."""
    unpack, end, offset = _LENGTH.unpack_from, len(data), 0
    while (start := offset + FRAME_BYTES) <= end:
        (length,) = unpack(data, offset)
        if not 2 <= length <= MAX_LEAF_BYTES:
            return None
        if start + length > end:
            break
        offset = start + length
    return offset


def offsets(leaves: Iterable[bytes], start: int) -> Iterator[int]:
    """Where the frame of each leaf begins, the first at ``start``."""
    for leaf in leaves:
        yield start
        start += FRAME_BYTES + len(leaf)
