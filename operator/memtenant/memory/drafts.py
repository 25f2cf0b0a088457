"""Appends on their way: what was asked, before a lane gives it a counter and seals it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from memtenant.crypto.primitives import SecretKey, derive, length_prefixed, mac
from memtenant.crypto.record import OVERHEAD_BYTES, Place
from memtenant.errors import MessageTooLarge, UsageError
from memtenant.functions.calls import MAX_BATCH, MAX_BATCH_BYTES, MAX_RECORD_BYTES
from memtenant.functions.replies import Head
from memtenant.memory.codec import encode, pack
from memtenant.memory.messages import Message, Receipt, check_message
from memtenant.memory.tokens import TokenCounter, message_tokens
from memtenant.tenancy.masking import Detector

__all__ = [
    "Draft",
    "Ticket",
    "draft",
    "drafts",
    "fingerprint",
    "idempotency_mac",
    "idempotency_mark",
    "moment",
    "take_batch",
]

_MARK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Draft:
    """One message's content as a record will hold it, and its tokens."""

    content: bytes = field(repr=False)
    tokens: int


@dataclass(slots=True, eq=False)
class Ticket:
    """The messages of one append, stored all or not at all.

    mark: of the idempotency key, else empty; ``fingerprint`` is what its MAC is over. masked: what
    was found in the messages before they were given here. waiting:
    somebody still waits for what becomes of it, which is a receipt or an error.
    """

    drafts: tuple[Draft, ...]
    mark: bytes = b""
    fingerprint: bytes = field(default=b"", repr=False)
    expected: Head | None = None
    masked: Mapping[Detector, int] = field(default_factory=dict)
    waiting: bool = True
    receipt: Receipt | None = None
    error: Exception | None = None

    @property
    def settled(self) -> bool:
        """Whether it is known what became of it."""
        return self.receipt is not None or self.error is not None

    @property
    def size(self) -> int:
        """Bytes of its records."""
        return sum(len(one.content) + OVERHEAD_BYTES for one in self.drafts)

    def result(self) -> Receipt:
        """The receipt, or the error raised."""
        if self.receipt is None:
            raise self.error or RuntimeError("an append that was not settled")
        return self.receipt


def draft(message: Message, counter: TokenCounter) -> Draft:
    """Raises `MessageInvalid`, or `MessageTooLarge` before anything is sent."""
    check_message(message)
    content = pack(encode(message))
    if len(content) + OVERHEAD_BYTES > MAX_RECORD_BYTES:
        raise MessageTooLarge(
            f"A message of {len(content)} bytes is more than one record may have "
            f"({MAX_RECORD_BYTES - OVERHEAD_BYTES}): keep the content elsewhere and store a "
            "reference",
            size=len(content),
            allowed=MAX_RECORD_BYTES - OVERHEAD_BYTES,
        )
    return Draft(content, message_tokens(message, counter))


def drafts(messages: Sequence[Message], counter: TokenCounter) -> tuple[Draft, ...]:
    """As `draft`, for what is stored together: at most 1,000 messages and 8 MiB."""
    if len(messages) > MAX_BATCH:
        raise MessageTooLarge(
            f"{len(messages)} messages are more than the {MAX_BATCH} that are stored together: "
            "extend in parts",
            size=len(messages),
            allowed=MAX_BATCH,
        )
    made = tuple(draft(message, counter) for message in messages)
    size = sum(len(one.content) + OVERHEAD_BYTES for one in made)
    if size > MAX_BATCH_BYTES:
        raise MessageTooLarge(
            f"{size} bytes are more than the {MAX_BATCH_BYTES} that are stored together: extend "
            "in parts",
            size=size,
            allowed=MAX_BATCH_BYTES,
        )
    return made


def take_batch(waiting: list[Ticket]) -> list[Ticket]:
    """Take from the front what one call can store: no expectation but a lone one, no idempotency
    key twice (the server compares with what it holds, not within a call)."""
    batch = [waiting.pop(0)]
    if batch[0].expected is not None:
        return batch
    count, size, marks = len(batch[0].drafts), batch[0].size, {batch[0].mark}
    while waiting:
        ticket = waiting[0]
        count, size = count + len(ticket.drafts), size + ticket.size
        if (
            ticket.expected is not None
            or count > MAX_BATCH
            or size > MAX_BATCH_BYTES
            or (ticket.mark and ticket.mark in marks)
        ):
            break
        marks.add(ticket.mark)
        batch.append(waiting.pop(0))
    return batch


def idempotency_mark(name_key: SecretKey, place: Place, key: str) -> bytes:
    """What stands for an idempotency key on the server: 16 keyed bytes, of this conversation.
    `UsageError` where it is no text."""
    if not isinstance(key, str):
        raise UsageError(f"An idempotency key is a text, not {type(key).__name__}")
    context = length_prefixed(b"memtenant/1/mark", *place.fields)
    return mac(name_key, context + key.encode("utf-8", "surrogatepass"))[:_MARK_BYTES]


def fingerprint(messages: Sequence[Message]) -> bytes:
    """The same for equal messages, whatever the order of their mappings' keys."""
    canonical: list[Any] = [json.loads(encode(message)) for message in messages]
    return json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()


def idempotency_mac(data_key: SecretKey, place: Place, ticket: Ticket) -> bytes:
    """16 bytes that prove with which messages the key was used: no agent without the subject's
    key can make a later append look like a duplicate of another."""
    key = derive(data_key, "memtenant/1/idempotency", *place.fields)
    return mac(key, ticket.mark + ticket.fingerprint)[:_MARK_BYTES]


def moment(milliseconds: int) -> datetime:
    """A server's time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
