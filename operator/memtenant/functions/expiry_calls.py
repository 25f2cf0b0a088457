"""The calls by which the operator removes what has expired, and asks what would go.

Agents may send them too: a Function runs with its caller's rights, and without a cut-off in
``o:limits`` (a legal hold) nothing goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from memtenant.errors import CallInvalid
from memtenant.functions.fcall import Words, fcall, optional
from memtenant.functions.keyspace import ContextKeys, ConversationKeys
from memtenant.functions.passes import Passes
from memtenant.functions.replies import Status, binary, number, status_of
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = [
    "MAX_COMPACT",
    "MAX_LOOK",
    "CompactIndex",
    "Expire",
    "ExpireContext",
    "Expired",
    "Expiring",
    "ExpiringContext",
    "Part",
    "Passed",
]

MAX_LOOK = 2000
"""Entries that one call looks at."""

MAX_COMPACT = 64
"""Entries of an index that one call judges."""


class Part(StrEnum):
    """What of a conversation is looked at, in the order in which it goes: the messages end it."""

    GRAPH = "g"
    SUMMARIES = "s"
    MESSAGES = "l"


@dataclass(frozen=True, slots=True)
class Expired:
    """What one call removed, or would remove.

    next: where the next call of the same key goes on; None at its end. live: entries that a reader
    could have seen before they expired; entries: tombstones too. ends: the whole conversation or
    context goes. redated: entries that bore a time which they cannot have. undated: entries
    that tell no time, and stay. kept: those that have not expired, the undated among them. oldest:
    time of the first of these in milliseconds, 0 where there is none. summaries: those that went
    with a conversation. closes: writers were closed, or would be, that were opened a day ago.
    """

    next: int | bytes | None
    live: int
    entries: int
    size: int
    ends: bool
    redated: int
    undated: int
    kept: int
    oldest: int
    time: int
    summaries: int
    closes: bool

    @property
    def changes(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.entries or self.ends or self.redated or self.closes)


@dataclass(frozen=True, slots=True)
class Expiring:
    """What would go of a conversation: at the cut-offs of ``o:limits``, or at those given."""

    conversation: ConversationKeys
    part: Part = Part.MESSAGES
    start: int = 0
    content: int | None = None
    derived: int | None = None
    most: int = MAX_LOOK

    @property
    def words(self) -> Words:
        """``FCALL_RO expiring …``"""
        cut_offs = (optional(self.content), optional(self.derived))
        arguments: Words = (self.part.value, self.start, self.most, *cut_offs)
        return fcall("FCALL_RO", "expiring", _keys(self.conversation), arguments)

    def read(self, reply: object) -> Expired:
        """What would go."""
        return _of_conversation(reply)


@dataclass(frozen=True, slots=True)
class Expire:
    """Remove what has expired of a conversation; the whole of it where nothing else is left."""

    conversation: ConversationKeys
    part: Part = Part.MESSAGES
    start: int = 0
    most: int = MAX_LOOK

    @property
    def words(self) -> Words:
        """``FCALL expire …``"""
        arguments: Words = (self.part.value, self.start, self.most)
        return fcall("FCALL", "expire", _keys(self.conversation), arguments)

    def read(self, reply: object) -> Expired:
        """What went."""
        return _of_conversation(reply)


@dataclass(frozen=True, slots=True)
class ExpiringContext:
    """What would go of a shared context: at the cut-off of ``o:limits``, or at the one given."""

    context: ContextKeys
    start: bytes = b""
    content: int | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO context_expiring …``"""
        arguments: Words = (self.start, optional(self.content))
        return fcall("FCALL_RO", "context_expiring", self.context.writing, arguments)

    def read(self, reply: object) -> Expired:
        """What would go."""
        return _of_context(reply)


@dataclass(frozen=True, slots=True)
class ExpireContext:
    """Remove the values of a shared context that have expired, and what was logged before."""

    context: ContextKeys
    start: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL context_expire …``"""
        return fcall("FCALL", "context_expire", self.context.writing, (self.start,))

    def read(self, reply: object) -> Expired:
        """What went."""
        return _of_context(reply)


@dataclass(frozen=True, slots=True)
class CompactIndex:
    """Remove entries of a subject's index that lead to nothing; ``entries`` are those to judge, and
    how often each is there beyond once."""

    index: bytes
    limits: bytes
    entries: tuple[tuple[bytes, int], ...]

    @property
    def words(self) -> Words:
        """``FCALL compact …``"""
        arguments: Words = tuple(word for entry in self.entries for word in entry)
        return fcall("FCALL", "compact", (self.index, self.limits), arguments)

    def read(self, reply: object) -> int:
        """How many went."""
        return number(_ok(reply), 0)


@dataclass(frozen=True, slots=True)
class Passed:
    """Write when the operator looked at all that the tenant has (`memtenant.functions.passes`)."""

    tenant: TenantId
    passes: Passes

    @property
    def words(self) -> Words:
        """``FCALL passed …``"""
        key = keys.passes(self.tenant).encode()
        return fcall("FCALL", "passed", (key,), (self.passes.to_bytes(),))

    def read(self, reply: object) -> None:
        """Raises what was refused."""
        _ok(reply)


def _keys(conversation: ConversationKeys) -> tuple[bytes, ...]:
    return (*conversation.writing, conversation.summaries, conversation.checkpoints)


def _of_conversation(reply: object) -> Expired:
    values = _ok(reply)
    position = number(values, 0)
    return _expired(values, None if position < 0 else position)


def _of_context(reply: object) -> Expired:
    values = _ok(reply)
    return _expired(values, binary(values, 0) or None)


def _expired(values: tuple[object, ...], position: int | bytes | None) -> Expired:
    live, entries, size, ends, redated, undated, kept, oldest, time, summaries, closes = (
        number(values, place) for place in range(1, 12)
    )
    return Expired(
        position,
        live,
        entries,
        size,
        ends == 1,
        redated,
        undated,
        kept,
        oldest,
        time,
        summaries,
        closes == 1,
    )


def _ok(reply: object) -> tuple[object, ...]:
    status, values = status_of(reply)
    if status is not Status.OK:
        raise CallInvalid(f"A Function answered {status.value!r}, which this call cannot bring")
    return tuple(values)
