"""The calls on a conversation's messages, each the words of one FCALL (`fcall`) and its reply."""

from __future__ import annotations

from dataclasses import dataclass, field

from memtenant.functions.fcall import (
    Leaving,
    Reader,
    Reading,
    Words,
    changing,
    fcall,
    optional,
    reading,
)
from memtenant.functions.keyspace import ConversationKeys, SubjectKeys, TenantKeys
from memtenant.functions.replies import (
    Appended,
    Changed,
    Entries,
    Marked,
    Popped,
    TenantUsage,
    parse_appended,
    parse_changed,
    parse_entries,
    parse_popped,
    parse_usage,
)
from memtenant.functions.versions import function_prefix

__all__ = [
    "MAX_BATCH",
    "MAX_BATCH_BYTES",
    "MAX_RECORD_BYTES",
    "MAX_REPLY_BYTES",
    "Append",
    "Clear",
    "Delta",
    "NewRecord",
    "Pop",
    "ReadRange",
    "ReadUsage",
    "Remove",
    "Tail",
    "Update",
]

MAX_RECORD_BYTES = 256 * 1024
MAX_BATCH = 1000
"""Records of one append, and entries of one reply."""

MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024
"""Bytes of the entries of one reply; one entry is always answered."""

_APPEND = f"{function_prefix()}append"


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
        """``FCALL append …``"""
        return (
            "FCALL",
            _APPEND,
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
        """``FCALL_RO read …``, or ``FCALL read_audited …``"""
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
        """``FCALL_RO delta …``, or ``FCALL delta_audited …``"""
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
        """``FCALL_RO tail …``, or ``FCALL tail_audited …``"""
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
        """``FCALL pop …``"""
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
        """``FCALL remove …``"""
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
        """``FCALL update …``"""
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
        """``FCALL clear …`` or ``FCALL delete …``"""
        arguments = (self.mark, optional(self.expected_epoch), self.agent, self.event)
        name = "delete" if self.delete else "clear"
        return changing(name, self.conversation, (self.conversation.checkpoints,), arguments)

    def read(self, reply: object) -> Changed:
        """How many messages there were."""
        return parse_changed(reply)


@dataclass(frozen=True, slots=True)
class ReadUsage:
    """The tenant's counters and limits."""

    tenant: TenantKeys

    @property
    def words(self) -> Words:
        """``FCALL_RO usage …``"""
        keys = (self.tenant.usage, self.tenant.conversations, self.tenant.limits)
        return fcall("FCALL_RO", "usage", keys, ())

    def read(self, reply: object) -> TenantUsage:
        """Counters beside limits."""
        return parse_usage(reply)
