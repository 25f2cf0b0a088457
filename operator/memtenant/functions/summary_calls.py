"""The calls on a conversation's summaries."""

from __future__ import annotations

from dataclasses import dataclass, field

from memtenant.functions.fcall import Leaving, Reader, Reading, Words, changing, reading
from memtenant.functions.keyspace import ConversationKeys, SubjectKeys
from memtenant.functions.replies import (
    Entries,
    Lease,
    Summarised,
    parse_entries,
    parse_lease,
    parse_summarised,
)

__all__ = ["ReadSummaries", "Summarise", "TakeLease"]


@dataclass(frozen=True, slots=True)
class TakeLease:
    """Take, prolong or (0 ms) give back the right to summarise; at most 10 minutes."""

    conversation: ConversationKeys
    holder: bytes
    milliseconds: int

    @property
    def words(self) -> Words:
        """``FCALL lease …``"""
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
        """``FCALL summarise …``"""
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
        """``FCALL_RO summaries …``, or ``FCALL summaries_audited …``"""
        further = (self.conversation.summaries,)
        return reading("summaries", self.conversation, (self.limit,), self.reader, further)

    def read(self, reply: object) -> Entries:
        """The summaries, oldest first."""
        return parse_entries(reply)
