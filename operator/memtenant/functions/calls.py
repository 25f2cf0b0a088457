"""The calls on a conversation: arguments in, the words of one FCALL out, its reply read back.

A call knows nothing of connections: `Call.words` is what to send, `Call.read` what its reply means.
Error replies are `memtenant.functions.refusals`. Every call but a read may be repeated as it is: a
second try of a stored write answers ``duplicate``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, Self, TypeVar

from memtenant.functions.keyspace import ConversationKeys, SubjectKeys, TenantKeys
from memtenant.functions.replies import (
    Appended,
    Changed,
    Entries,
    Lease,
    Marked,
    Popped,
    Summarised,
    TenantUsage,
    parse_appended,
    parse_changed,
    parse_entries,
    parse_lease,
    parse_popped,
    parse_summarised,
    parse_usage,
)

__all__ = [
    "MAX_BATCH",
    "MAX_BATCH_BYTES",
    "MAX_RECORD_BYTES",
    "MAX_REPLY_BYTES",
    "Append",
    "Audited",
    "Call",
    "Clear",
    "Delta",
    "Leaving",
    "NewRecord",
    "Pop",
    "ReadRange",
    "ReadSummaries",
    "ReadUsage",
    "Reader",
    "Reading",
    "Remove",
    "Summarise",
    "Tail",
    "TakeLease",
    "Update",
    "Words",
    "changing",
    "fcall",
    "optional",
    "reading",
]

MAX_RECORD_BYTES = 256 * 1024
MAX_BATCH = 1000
"""Records of one append, and entries of one reply."""

MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024
"""Bytes of the entries of one reply; one entry is always answered."""

Word = bytes | str | int
Words = tuple[Word, ...]
"""A command, ready for a client to pack."""

R_co = TypeVar("R_co", covariant=True)


class Call(Protocol[R_co]):
    """One call of a Function."""

    @property
    def words(self) -> Words:
        """The command."""
        ...

    def read(self, reply: object) -> R_co:
        """What the reply means. Raises `VersionConflict`, `CallInvalid` or `RecordMalformed`."""
        ...


class Audited(Call[R_co], Protocol):
    """A call that may leave an event in the audit queue."""

    def with_event(self, agent: str, event: bytes) -> Self:
        """The same call, which leaves this event."""
        ...


class Leaving:
    """A change with the fields ``agent`` and ``event``."""

    __slots__ = ()

    def with_event(self, agent: str, event: bytes) -> Self:
        """The same call, which leaves this event."""
        # As dataclasses.replace, which takes a quarter of an append's time for fifteen fields.
        made = object.__new__(type(self))
        names: tuple[str, ...] = type(self).__slots__
        for name in names:
            object.__setattr__(made, name, getattr(self, name))
        object.__setattr__(made, "agent", agent)
        object.__setattr__(made, "event", event)
        return made


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, and the event to leave, for a tenant whose reads are audited."""

    agent: str
    event: bytes


class Reading:
    """A read with the field ``reader``."""

    __slots__ = ()

    def with_event(self, agent: str, event: bytes) -> Self:
        """The same call, which leaves this event."""
        return replace(self, reader=Reader(agent, event))  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A sealed record to append. ``mark`` is an idempotency key's 16 bytes, with the 16 bytes of a
    MAC over the content beside it: a later append with the same mark is answered with that MAC."""

    record: bytes = field(repr=False)
    tokens: int = 0
    mark: bytes = b""
    mac: bytes = b""

    @property
    def words(self) -> Words:
        """Its three arguments."""
        return (self.tokens, self.mark + self.mac, self.record)


@dataclass(frozen=True, slots=True)
class Append(Leaving):
    """Records of one writer, stored all or not at all.

    writer, counter: the lane and the counter of the first record; the others count on from it.
    data_key: the 44 bytes under which the subject's key is stored; ``new_data_key`` where the
    caller has just made it. expected_epoch, expected_last: refuse unless the conversation stands
    there (epoch 0: unless it is new). meta: the encrypted title, where it is to be set. index: the
    subject is new to this conversation (Minimal isolation; a new conversation is always indexed).
    """

    conversation: ConversationKeys
    subject: SubjectKeys
    writer: bytes
    counter: int
    records: tuple[NewRecord, ...]
    data_key: bytes = field(repr=False)
    agent: str
    event: bytes = b""
    new_data_key: bool = False
    index: bool = False
    tag: bytes = b""
    meta: bytes = b""
    expected_epoch: int | None = None
    expected_last: int | None = None

    @property
    def words(self) -> Words:
        """``FCALL mt1_append …``"""
        return (
            "FCALL",
            "mt1_append",
            8,
            *self.conversation.writing,
            self.subject.data_key,
            self.subject.index,
            self.writer,
            self.counter,
            optional(self.expected_epoch),
            optional(self.expected_last),
            self.tag,
            self.data_key,
            ("n" if self.new_data_key else "") + ("i" if self.index else ""),
            self.meta,
            self.agent,
            self.event,
            *(
                word
                for one in self.records
                for word in (one.tokens, one.mark + one.mac, one.record)
            ),
        )

    def read(self, reply: object) -> Appended | Marked:
        """Where it was stored; see `parse_appended`."""
        return parse_appended(reply)


@dataclass(frozen=True, slots=True)
class ReadRange(Reading):
    """Entries from sequence ``start`` to ``end`` (0: the last), oldest first."""

    conversation: ConversationKeys
    start: int = 1
    end: int = 0
    limit: int = MAX_BATCH
    max_bytes: int = MAX_REPLY_BYTES
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO mt1_read …``, or ``FCALL mt1_read_audited …``"""
        arguments = (self.start, self.end, self.limit, self.max_bytes)
        return reading("read", self.conversation, arguments, self.reader)

    def read(self, reply: object) -> Entries:
        """The entries."""
        return parse_entries(reply)


@dataclass(frozen=True, slots=True)
class Delta(Reading):
    """What was appended after ``since``, if ``epoch`` is still the conversation's."""

    conversation: ConversationKeys
    epoch: int
    since: int
    limit: int = MAX_BATCH
    max_bytes: int = MAX_REPLY_BYTES
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO mt1_delta …``, or ``FCALL mt1_delta_audited …``"""
        arguments = (self.epoch, self.since, self.limit, self.max_bytes)
        return reading("delta", self.conversation, arguments, self.reader)

    def read(self, reply: object) -> Entries:
        """The entries; STALE or REWOUND where the caller's copy is not the server's past."""
        return parse_entries(reply)


@dataclass(frozen=True, slots=True)
class Tail(Reading):
    """The last entries, before sequence ``before`` (0: from the end): as many as fit into
    ``max_tokens`` (0: any), by the token counts in the headers."""

    conversation: ConversationKeys
    before: int = 0
    max_tokens: int = 0
    limit: int = MAX_BATCH
    max_bytes: int = MAX_REPLY_BYTES
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO mt1_tail …``, or ``FCALL mt1_tail_audited …``"""
        arguments = (self.before, self.max_tokens, self.limit, self.max_bytes)
        return reading("tail", self.conversation, arguments, self.reader)

    def read(self, reply: object) -> Entries:
        """The entries, oldest first; ``more`` says that older ones were left out."""
        return parse_entries(reply)


@dataclass(frozen=True, slots=True)
class Pop(Leaving):
    """Take the last message away. ``mark``: 16 random bytes that make a second try harmless."""

    conversation: ConversationKeys
    agent: str
    mark: bytes = b""
    expected_sequence: int | None = None
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL mt1_pop …``"""
        arguments = (self.mark, optional(self.expected_sequence), self.agent, self.event)
        return changing("pop", self.conversation, (), arguments)

    def read(self, reply: object) -> Popped:
        """What was taken."""
        return parse_popped(reply)


@dataclass(frozen=True, slots=True)
class Remove(Leaving):
    """Replace messages by tombstones; sequences that are gone already are passed over."""

    conversation: ConversationKeys
    sequences: tuple[int, ...]
    agent: str
    mark: bytes = b""
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL mt1_remove …``"""
        arguments: Words = (self.mark, self.agent, self.event, *self.sequences)
        return changing("remove", self.conversation, (), arguments)

    def read(self, reply: object) -> Changed:
        """How many there were."""
        return parse_changed(reply)


@dataclass(frozen=True, slots=True)
class Update(Leaving):
    """Put another record in the place of a message; its sequence and time stay. A second try is
    known by the record itself, which no other call seals to the same bytes."""

    conversation: ConversationKeys
    subject: SubjectKeys
    sequence: int
    record: bytes = field(repr=False)
    data_key: bytes = field(repr=False)
    agent: str
    tokens: int = 0
    tag: bytes = b""
    expected_epoch: int | None = None
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL mt1_update …``"""
        arguments = (
            self.sequence,
            optional(self.expected_epoch),
            self.tokens,
            self.tag,
            self.data_key,
            self.agent,
            self.event,
            self.record,
        )
        return changing("update", self.conversation, (self.subject.data_key,), arguments)

    def read(self, reply: object) -> Changed:
        """The epochs before and after."""
        return parse_changed(reply)


@dataclass(frozen=True, slots=True)
class Clear(Leaving):
    """Remove all messages, summaries and checkpoints; ``delete``: the conversation as well."""

    conversation: ConversationKeys
    agent: str
    delete: bool = False
    mark: bytes = b""
    expected_epoch: int | None = None
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL mt1_clear …`` or ``FCALL mt1_delete …``"""
        arguments = (self.mark, optional(self.expected_epoch), self.agent, self.event)
        name = "delete" if self.delete else "clear"
        return changing(name, self.conversation, (self.conversation.checkpoints,), arguments)

    def read(self, reply: object) -> Changed:
        """How many messages there were."""
        return parse_changed(reply)


@dataclass(frozen=True, slots=True)
class TakeLease:
    """Take, prolong or (0 ms) give back the right to summarise; at most 10 minutes."""

    conversation: ConversationKeys
    holder: bytes
    milliseconds: int

    @property
    def words(self) -> Words:
        """``FCALL mt1_lease …``"""
        return changing("lease", self.conversation, (), (self.holder, self.milliseconds))

    def read(self, reply: object) -> Lease:
        """Whether it is held, and up to where summaries cover the conversation."""
        return parse_lease(reply)


@dataclass(frozen=True, slots=True)
class Summarise(Leaving):
    """Keep a summary of what follows ``covered_before`` up to ``covered``, if the lease is held and
    nothing changed since ``epoch``. folds: the summary before is part of it, and goes."""

    conversation: ConversationKeys
    subject: SubjectKeys
    holder: bytes
    epoch: int
    covered_before: int
    covered: int
    record: bytes = field(repr=False)
    data_key: bytes = field(repr=False)
    agent: str
    tokens: int = 0
    folds: bool = False
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL mt1_summarise …``"""
        arguments = (
            self.holder,
            self.epoch,
            self.covered_before,
            self.covered,
            self.tokens,
            self.data_key,
            "f" if self.folds else "",
            self.agent,
            self.event,
            self.record,
        )
        return changing("summarise", self.conversation, (self.subject.data_key,), arguments)

    def read(self, reply: object) -> Summarised:
        """Up to where summaries cover the conversation now."""
        return parse_summarised(reply)


@dataclass(frozen=True, slots=True)
class ReadSummaries(Reading):
    """The last summaries; an entry's sequence is the last that it covers."""

    conversation: ConversationKeys
    limit: int = 8
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO mt1_summaries …``, or ``FCALL mt1_summaries_audited …``"""
        further = (self.conversation.summaries,)
        return reading("summaries", self.conversation, (self.limit,), self.reader, further)

    def read(self, reply: object) -> Entries:
        """The summaries, oldest first."""
        return parse_entries(reply)


@dataclass(frozen=True, slots=True)
class ReadUsage:
    """The tenant's counters and limits."""

    tenant: TenantKeys

    @property
    def words(self) -> Words:
        """``FCALL_RO mt1_usage …``"""
        keys = (self.tenant.usage, self.tenant.conversations, self.tenant.limits)
        return fcall("FCALL_RO", "usage", keys, ())

    def read(self, reply: object) -> TenantUsage:
        """Counters beside limits."""
        return parse_usage(reply)


def fcall(command: str, function: str, keys: tuple[bytes, ...], arguments: Words) -> Words:
    """The words of one call of this version's Function."""
    return (command, f"mt1_{function}", len(keys), *keys, *arguments)


def reading(
    function: str,
    conversation: ConversationKeys,
    arguments: Words,
    reader: Reader | None,
    further: tuple[bytes, ...] = (),
) -> Words:
    """A read: FCALL_RO cannot leave an event, so an audited one is another Function."""
    if reader is None:
        return fcall("FCALL_RO", function, (*conversation.reading, *further), arguments)
    arguments = (*arguments, reader.agent, reader.event)
    return fcall("FCALL", f"{function}_audited", (*conversation.writing, *further), arguments)


def changing(
    function: str,
    conversation: ConversationKeys,
    further: tuple[bytes, ...],
    arguments: Words,
) -> Words:
    """A change of what is there, which may drop summaries."""
    keys = (*conversation.writing, conversation.summaries, *further)
    return fcall("FCALL", function, keys, arguments)


def optional(value: int | None) -> Word:
    """Nothing is an empty argument."""
    return "" if value is None else value
