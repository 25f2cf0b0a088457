"""What the Functions of a thread's checkpoints answer, read into types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from memtenant.crypto.header import Header, peek_header
from memtenant.errors import RecordMalformed
from memtenant.functions.replies import (
    Entry,
    Status,
    binary,
    items,
    not_understood,
    number,
    status_of,
)

__all__ = [
    "ID_BYTES",
    "NAMESPACE_BYTES",
    "CheckpointEntry",
    "CheckpointPage",
    "CheckpointRemoved",
    "CheckpointSaved",
    "FoundCheckpoint",
    "FoundList",
    "Reference",
    "parse_found",
    "parse_page",
    "parse_removed",
    "parse_saved",
]

ID_BYTES: Final = 16
NAMESPACE_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Reference:
    """To a value, or to a list of values."""

    id: bytes
    is_list: bool

    def to_bytes(self) -> bytes:
        """17 bytes."""
        return (b"n" if self.is_list else b"e") + self.id


@dataclass(frozen=True, slots=True)
class CheckpointEntry:
    """A checkpoint as it is stored: its clear header and references, and the record behind them."""

    header: Header
    references: tuple[Reference, ...]
    record: bytes = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> CheckpointEntry:
        """`RecordMalformed` for bytes that are no checkpoint."""
        header = peek_header(raw)
        size = ID_BYTES + 1
        count = int.from_bytes(raw[header.length : header.length + 2], "big")
        start = header.length + 2
        end = start + count * size
        if len(raw) < end or header.tombstone:
            raise RecordMalformed(
                "A checkpoint of a thread is not what memtenant writes: it was written around it. "
                "Delete the thread"
            )
        parts = (raw[at : at + size] for at in range(start, end, size))
        references = tuple(Reference(part[1:], part[:1] == b"n") for part in parts)
        return cls(header, references, raw[end:])


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """``missing``: what the call relied on is gone; nothing was stored, send all of it. The share
    is thousandths of the tenant's memory in use (0: no limit)."""

    time: int
    missing: bool = False
    memory_share: int = 0


@dataclass(frozen=True, slots=True)
class CheckpointRemoved:
    """How many were removed."""

    removed: int
    time: int


@dataclass(frozen=True, slots=True)
class FoundList:
    """The ids of a list, and from how many parts they were joined."""

    ids: tuple[bytes, ...]
    parts: int


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """A checkpoint (``entry`` is None where there is none) with what it refers to.

    lists: in the order of the references that are lists. values and writes: by id and by place; a
    value that has expired is a tombstone. remaining: ids and places that did not fit, to be asked
    for.
    """

    time: int
    name: str
    entry: CheckpointEntry | None
    lists: tuple[FoundList, ...]
    values: dict[bytes, Entry]
    writes: dict[bytes, Entry]
    remaining: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    """Some of the checkpoints: (namespace's alias, name, entry), the newest first."""

    time: int
    more: bool
    found: tuple[tuple[bytes, str, CheckpointEntry], ...]

    @property
    def end(self) -> bytes:
        """Where the page ends: `ListCheckpoints.after` of the next one."""
        if not self.found:
            return b""
        namespace, name, _ = self.found[-1]
        return namespace + name.encode()


def parse_saved(reply: object) -> CheckpointSaved:
    """The reply of ``checkpoint_put`` and ``checkpoint_writes``."""
    status, rest = status_of(reply)
    if status is Status.OK:
        return CheckpointSaved(number(rest, 0), memory_share=number(rest, 1))
    if status is Status.MISSED:
        return CheckpointSaved(number(rest, 0), missing=True)
    raise not_understood()


def parse_removed(reply: object) -> CheckpointRemoved:
    """The reply of ``checkpoint_delete``."""
    status, rest = status_of(reply)
    if status is not Status.OK:
        raise not_understood()
    return CheckpointRemoved(number(rest, 0), number(rest, 1))


def parse_found(reply: object) -> FoundCheckpoint:
    """The reply of ``checkpoint_get``."""
    status, rest = status_of(reply)
    if status not in (Status.OK, Status.EMPTY):
        raise not_understood()
    raw, lists = binary(rest, 2), items(rest, 3)
    rest_ids = items(rest, 6)
    return FoundCheckpoint(
        time=number(rest, 0),
        name=_name(binary(rest, 1)),
        entry=CheckpointEntry.parse(raw) if raw else None,
        lists=tuple(
            FoundList(_ids(binary(lists, at)), number(lists, at + 1))
            for at in range(0, len(lists), 2)
        ),
        values=_entries(items(rest, 4)),
        writes=_entries(items(rest, 5)),
        remaining=tuple(binary(rest_ids, at) for at in range(len(rest_ids))),
    )


def parse_page(reply: object) -> CheckpointPage:
    """The reply of ``checkpoint_list``."""
    status, rest = status_of(reply)
    if status is not Status.OK:
        raise not_understood()
    raw = items(rest, 2)
    places = [binary(raw, at) for at in range(0, len(raw), 2)]
    entries = [CheckpointEntry.parse(binary(raw, at)) for at in range(1, len(raw), 2)]
    return CheckpointPage(
        time=number(rest, 0),
        more=number(rest, 1) == 1,
        found=tuple(
            (place[:NAMESPACE_BYTES], _name(place[NAMESPACE_BYTES:]), entry)
            for place, entry in zip(places, entries, strict=True)
        ),
    )


def _entries(raw: Sequence[object]) -> dict[bytes, Entry]:
    return {binary(raw, at): Entry.parse(binary(raw, at + 1)) for at in range(0, len(raw), 2)}


def _ids(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES))


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
