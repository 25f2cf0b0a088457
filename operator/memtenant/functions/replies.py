"""What the Functions of a conversation answer, read into types.

A reply that is not understood raises `CallInvalid`; times are milliseconds since 1970, as the
server saw them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from memtenant.crypto.header import Header, peek_header
from memtenant.errors import CallInvalid, HistoryRewound, VersionConflict

__all__ = [
    "AgentUsage",
    "Appended",
    "Changed",
    "Entries",
    "Entry",
    "Head",
    "Lease",
    "Marked",
    "Popped",
    "Status",
    "Summarised",
    "TenantUsage",
    "binary",
    "items",
    "not_understood",
    "number",
    "parse_appended",
    "parse_changed",
    "parse_entries",
    "parse_lease",
    "parse_popped",
    "parse_summarised",
    "parse_usage",
    "status_of",
]


_AGENT_BYTES = 12


class Status(StrEnum):
    """The first word of a reply."""

    OK = "ok"
    DUPLICATE = "duplicate"
    MARKED = "marked"
    CONFLICT = "conflict"
    EMPTY = "empty"
    STALE = "stale"
    REWOUND = "rewound"
    BUSY = "busy"
    MISSED = "missed"
    DELETED = "deleted"


_STATUSES = {status.encode(): status for status in Status}


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """Where a conversation stands: its epoch, then its last sequence. 0, 0 where there is none."""

    epoch: int
    last: int

    def check_not_behind(self, remembered: Head) -> None:
        """Raise `HistoryRewound` where the server knows less than it once did.

        A conversation that was deleted and forgotten has no epoch; it is no rewind.
        """
        if self.epoch and self < remembered:
            raise HistoryRewound(
                f"The conversation ends at sequence {self.last} (epoch {self.epoch}), but this "
                f"process saw sequence {remembered.last} (epoch {remembered.epoch}): the server "
                "lost writes or was restored. Append again what is missing"
            )


@dataclass(frozen=True, slots=True)
class Appended:
    """An append. ``first`` to ``head.last`` are its sequences in the order of its records.

    duplicate: it was stored by an earlier try; ``first`` and ``last`` are 0 where that is so long
    ago that the server forgot them. Shares are thousandths of the limit in use (0: no limit).
    """

    epoch: int
    first: int
    last: int
    time: int
    duplicate: bool = False
    memory_share: int = 0
    conversations_share: int = 0

    @property
    def head(self) -> Head:
        """Where the conversation stood after it."""
        return Head(self.epoch, self.last)


@dataclass(frozen=True, slots=True)
class Marked:
    """The record at ``index`` (from 0) has an idempotency mark that is known: nothing was stored.

    mac: what the first append gave with the mark; the caller compares it with its own.
    """

    epoch: int
    index: int
    sequence: int
    time: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class Changed:
    """A removal, update, clear or deletion. Whoever holds a copy of ``epoch_before`` may keep it if
    it makes the same change there; any other copy is to be dropped.

    affected: how many messages were removed, or the sequence that was updated.
    """

    epoch_before: int
    epoch: int
    affected: int
    time: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Popped:
    """``entry`` is None where nothing was there, and on a repeated call."""

    epoch_before: int
    epoch: int
    sequence: int
    time: int
    entry: Entry | None
    duplicate: bool = False


class Entry(NamedTuple):
    """One entry of a list: its clear header, and the record behind it (empty: a tombstone)."""

    header: Header
    record: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Entry:
        """`RecordMalformed` for bytes that are no entry."""
        header = peek_header(raw)
        return cls(header, raw[header.length :])


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries in the order of their sequences, without what has expired.

    status: OK; STALE (another epoch: drop what is cached and read again); REWOUND (the server has
    less than the caller saw: `HistoryRewound`). more: further entries in the direction of reading.
    """

    status: Status
    head: Head
    first: int
    time: int
    more: bool
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to summarise, if ``held``; ``until`` is when it (or the other's) ends."""

    held: bool
    epoch: int
    covered: int
    last: int
    time: int
    until: int


@dataclass(frozen=True, slots=True)
class Summarised:
    """A summary that is kept; it covers the conversation up to ``covered``."""

    epoch: int
    covered: int
    time: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class AgentUsage:
    """How much an agent wrote, and when it did last."""

    writes: int
    last_update: int


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """The tenant's counters beside its limits (None: no limit). Advisory: measurement decides."""

    time: int
    memory_limit: int | None
    conversations_limit: int | None
    writes_per_second: int | None
    held: bool
    bytes: int
    messages: int
    conversations: int
    dropped_events: int
    agents: dict[str, AgentUsage]


def parse_appended(reply: object) -> Appended | Marked:
    """The reply of ``append``. Raises `VersionConflict` with the current `Head`."""
    status, rest = status_of(reply)
    if status is Status.OK:
        epoch, first, last, time, memory, conversations = numbers(rest, 6)
        return Appended(epoch, first, last, time, False, memory, conversations)
    if status is Status.DUPLICATE:
        epoch, first, last, time = numbers(rest, 4)
        return Appended(epoch, first, last, time, duplicate=True)
    if status is Status.MARKED:
        epoch, index, sequence, time = numbers(rest, 4)
        return Marked(epoch, index - 1, sequence, time, binary(rest, 4))
    raise _conflict(status, rest)


def parse_changed(reply: object) -> Changed:
    """The reply of remove, update, clear and delete. Raises `VersionConflict` with the `Head`."""
    status, rest = status_of(reply)
    if status in (Status.OK, Status.DUPLICATE):
        before, epoch, affected, time = numbers(rest, 4)
        return Changed(before, epoch, affected, time, status is Status.DUPLICATE)
    raise _conflict(status, rest)


def parse_popped(reply: object) -> Popped:
    """The reply of ``pop``. Raises `VersionConflict` with the current `Head`."""
    status, rest = status_of(reply)
    if status in (Status.OK, Status.DUPLICATE, Status.EMPTY):
        before, epoch, sequence, time = numbers(rest, 4)
        entry = Entry.parse(binary(rest, 4)) if status is Status.OK else None
        return Popped(before, epoch, sequence, time, entry, status is Status.DUPLICATE)
    raise _conflict(status, rest)


def parse_entries(reply: object) -> Entries:
    """The reply of read, delta, tail and summaries."""
    status, rest = status_of(reply)
    if status not in (Status.OK, Status.STALE, Status.REWOUND):
        raise not_understood()
    epoch, first, last, time, more = numbers(rest, 5)
    raw = items(rest, 5)
    return Entries(
        status=status,
        head=Head(epoch, last),
        first=first,
        time=time,
        more=more == 1,
        entries=tuple(Entry.parse(binary(raw, at)) for at in range(len(raw))),
    )


def parse_lease(reply: object) -> Lease:
    """The reply of ``lease``."""
    status, rest = status_of(reply)
    if status not in (Status.OK, Status.BUSY):
        raise not_understood()
    return Lease(status is Status.OK, *numbers(rest, 5))


def parse_summarised(reply: object) -> Summarised:
    """The reply of ``summarise``. Raises `VersionConflict` with the current `Head`."""
    status, rest = status_of(reply)
    if status in (Status.OK, Status.DUPLICATE):
        epoch, covered, time = numbers(rest, 3)
        return Summarised(epoch, covered, time, status is Status.DUPLICATE)
    raise _conflict(status, rest)


def parse_usage(reply: object) -> TenantUsage:
    """The reply of ``usage``."""
    status, rest = status_of(reply)
    if status is not Status.OK:
        raise not_understood()
    time, memory, conversations, rate, held = numbers(rest, 5)
    raw = items(rest, 5)
    counters = {
        binary(raw, at).decode("utf-8", "replace"): binary(raw, at + 1)
        for at in range(0, len(raw) - 1, 2)
    }
    agents = {
        name.removeprefix("a:"): AgentUsage(
            int.from_bytes(value[:6], "big"), int.from_bytes(value[6:], "big")
        )
        for name, value in counters.items()
        if name.startswith("a:") and len(value) == _AGENT_BYTES
    }
    return TenantUsage(
        time=time,
        memory_limit=_limit(memory),
        conversations_limit=_limit(conversations),
        writes_per_second=_limit(rate),
        held=held == 1,
        bytes=_counter(counters.get("bytes")),
        messages=_counter(counters.get("messages")),
        conversations=_counter(counters.get("conversations")),
        dropped_events=_counter(counters.get("dropped")),
        agents=agents,
    )


def status_of(reply: object) -> tuple[Status, Sequence[object]]:
    """The first word of a reply, and the rest."""
    if not isinstance(reply, (list, tuple)) or not reply:
        raise not_understood()
    word = reply[0]
    status = _STATUSES.get(word) if isinstance(word, bytes) else None
    if status is None:
        raise not_understood()
    return status, reply[1:]


def numbers(values: Sequence[object], count: int) -> list[int]:
    """The integers with which it begins."""
    found = [value for value in values[:count] if isinstance(value, int)]
    if len(found) < count:
        raise not_understood()
    return found


def number(values: Sequence[object], place: int) -> int:
    """The integer in this place."""
    value = values[place] if place < len(values) else None
    if not isinstance(value, int):
        raise not_understood()
    return value


def binary(values: Sequence[object], place: int) -> bytes:
    """The bytes in this place."""
    value = values[place] if place < len(values) else None
    if not isinstance(value, bytes):
        raise not_understood()
    return value


def items(values: Sequence[object], place: int) -> Sequence[object]:
    """The list in this place."""
    value = values[place] if place < len(values) else None
    if not isinstance(value, (list, tuple)):
        raise not_understood()
    return value


def not_understood() -> CallInvalid:
    """The error for a reply of another shape."""
    return CallInvalid(
        "A Function answered in a way that this version does not understand: SDK and operator may "
        "be too far apart; update both"
    )


def _conflict(status: Status, rest: Sequence[object]) -> Exception:
    if status is not Status.CONFLICT:
        return not_understood()
    head = Head(number(rest, 0), number(rest, 1))
    return VersionConflict(
        f"The conversation is at sequence {head.last} (epoch {head.epoch}), which is not what the "
        "call expected: read again and decide again",
        current=head,
    )


def _limit(value: int) -> int | None:
    return None if value < 0 else value


def _counter(value: bytes | None) -> int:
    """Agents may write the counters: what is no number counts as 0."""
    text = value.decode("ascii", "replace") if value is not None else ""
    return int(text) if text.isdecimal() and text.isascii() else 0
