"""What the Functions of shared contexts answer, read into types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memtenant.crypto.header import Header, peek_header
from memtenant.errors import RecordMalformed, VersionConflict
from memtenant.functions.replies import (
    Status,
    binary,
    items,
    not_understood,
    number,
    status_of,
)

__all__ = [
    "REVISION_FIELD",
    "Change",
    "Changes",
    "ContextConflict",
    "ContextFields",
    "ContextUpdated",
    "Field",
    "parse_changes",
    "parse_context_updated",
    "parse_deleted",
    "parse_fields",
    "revision_of",
]

REVISION_FIELD = "#"
"""The field of a context's versions that holds its revision."""

_MARK_BYTES = 16


@dataclass(frozen=True, slots=True)
class Field:
    """A field as it stands: ``version`` 0 and no record where it does not exist.

    A deleted field keeps the version of its deletion in ``version``, and has no record.
    """

    name: str
    version: int
    time: int
    record: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ContextConflict:
    """What stands in the way of an update: ``VersionConflict.current`` of a shared context.

    ``revision`` is 0 where the context does not exist. ``fields`` are those that have another
    version than the caller expected; empty where it was the revision that differed.
    """

    revision: int
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class ContextUpdated:
    """An update (or deletion). ``revision`` is the version of every field that it changed."""

    revision: int
    time: int
    duplicate: bool = False
    existed: bool = True


@dataclass(frozen=True, slots=True)
class ContextFields:
    """Fields of a context. ``remaining`` did not fit into one reply: read them by name.

    deleted: the context was deleted; ``revision`` 0 where it never was.
    """

    revision: int
    time: int
    deleted: bool
    fields: tuple[Field, ...]
    remaining: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One field's change, as the context's log tells it (a convenience: the audit is evidence)."""

    revision: int
    time: int
    mark: bytes
    deletes: bool
    agent: str
    field: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed after a revision, if ``status`` is OK.

    MISSED: more changed than the log still holds; DELETED: the context is gone; REWOUND: the
    server has less than the caller saw. In each case, read the context again.
    """

    status: Status
    revision: int
    time: int
    changes: tuple[Change, ...]


def parse_context_updated(reply: object) -> ContextUpdated:
    """The reply of ``context_update``. Raises `VersionConflict` with a `ContextConflict`."""
    status, rest = status_of(reply)
    if status in (Status.OK, Status.DUPLICATE):
        return ContextUpdated(number(rest, 0), number(rest, 1), status is Status.DUPLICATE)
    raise _conflict(status, rest)


def parse_deleted(reply: object) -> ContextUpdated:
    """The reply of ``context_delete``. Raises `VersionConflict` with a `ContextConflict`."""
    status, rest = status_of(reply)
    if status in (Status.OK, Status.EMPTY):
        return ContextUpdated(number(rest, 0), number(rest, 1), existed=status is Status.OK)
    raise _conflict(status, rest)


def parse_fields(reply: object) -> ContextFields:
    """The reply of ``context_read``."""
    status, rest = status_of(reply)
    if status not in (Status.OK, Status.DELETED):
        raise not_understood()
    remaining = items(rest, 3)
    return ContextFields(
        revision=number(rest, 0),
        time=number(rest, 1),
        deleted=status is Status.DELETED,
        fields=_fields(items(rest, 2)),
        remaining=tuple(_text(binary(remaining, at)) for at in range(len(remaining))),
    )


def parse_changes(reply: object) -> Changes:
    """The reply of ``context_changes``."""
    status, rest = status_of(reply)
    if status not in (Status.OK, Status.MISSED, Status.DELETED, Status.REWOUND):
        raise not_understood()
    raw = items(rest, 2)
    changes = tuple(_change(binary(raw, at)) for at in range(len(raw)))
    return Changes(status, number(rest, 0), number(rest, 1), changes)


def revision_of(entry: object) -> int:
    """The revision that `REVISION_FIELD` tells; 0 where there is none that can be read."""
    try:
        return peek_header(entry).sequence if isinstance(entry, bytes) else 0
    except RecordMalformed:
        return 0


def _fields(raw: Sequence[object]) -> tuple[Field, ...]:
    return tuple(
        _field(_text(binary(raw, at)), binary(raw, at + 1)) for at in range(0, len(raw), 2)
    )


def _field(name: str, entry: bytes) -> Field:
    if not entry:
        return Field(name, 0, 0, None)
    header = peek_header(entry)
    record = None if header.tombstone else entry[header.length :]
    return Field(name, header.sequence, header.time, record)


def _change(entry: bytes) -> Change:
    header: Header = peek_header(entry)
    body = entry[header.length :]
    mark, operation, rest = body[:_MARK_BYTES], body[_MARK_BYTES:][:1], body[_MARK_BYTES + 1 :]
    if not rest or len(rest) <= rest[0] + 1 or operation not in (b"S", b"D"):
        raise RecordMalformed(
            "A change of a shared context is not one that memtenant wrote: the log was written "
            "around it"
        )
    agent, name = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    return Change(header.sequence, header.time, mark, operation == b"D", _text(agent), _text(name))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _conflict(status: Status, rest: Sequence[object]) -> Exception:
    if status is not Status.CONFLICT:
        return not_understood()
    current = ContextConflict(number(rest, 0), _fields(items(rest, 2)))
    return VersionConflict(
        f"The shared context is at revision {current.revision} and does not hold what the update "
        "expected: look at `current`, and decide again",
        current=current,
    )
