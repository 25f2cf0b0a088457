"""What an agent remembers: messages of every role, and how they come back.

A role is ``human``, ``ai``, ``system``, ``tool`` (a tool's result), or any other word: unknown
roles and unknown fields come back as they were stored, so that a newer writer loses nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from memtenant.errors import MessageInvalid, UsageError
from memtenant.functions.replies import Head
from memtenant.tenancy.masking import Detector

__all__ = [
    "AI",
    "HUMAN",
    "SYSTEM",
    "TOOL",
    "ConversationInfo",
    "Json",
    "Message",
    "Page",
    "Receipt",
    "StoredMessage",
    "ToolCall",
    "check_message",
]

HUMAN, AI, SYSTEM, TOOL = "human", "ai", "system", "tool"

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""What JSON can hold. Tuples come back as lists."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model asks for: ``arguments`` as it gave them, parsed or as text."""

    id: str
    name: str
    arguments: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``content`` is text, or parts (mappings, such as text and image references).

    tool_calls: of an ``ai`` message. tool_call_id: of a ``tool`` message, the call it answers.
    metadata: the caller's own. pinned: no context budget leaves it out. further: fields of a newer
    writer.
    """

    role: str
    content: str | Sequence[Mapping[str, Json]] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    further: Mapping[str, Json] = field(default_factory=dict)
    pinned: bool = False

    @classmethod
    def human(
        cls, content: str | Sequence[Mapping[str, Json]], *, pinned: bool = False, **metadata: Json
    ) -> Message:
        """What a person said."""
        return cls(HUMAN, content, metadata=metadata, pinned=pinned)

    @classmethod
    def ai(
        cls,
        content: str | Sequence[Mapping[str, Json]] = "",
        *,
        tool_calls: Sequence[ToolCall] = (),
        pinned: bool = False,
        **metadata: Json,
    ) -> Message:
        """What the model said, and the tools that it asks for."""
        return cls(AI, content, tool_calls=tuple(tool_calls), metadata=metadata, pinned=pinned)

    @classmethod
    def system(cls, content: str, *, pinned: bool = False, **metadata: Json) -> Message:
        """An instruction."""
        return cls(SYSTEM, content, metadata=metadata, pinned=pinned)

    @classmethod
    def tool(
        cls,
        content: str | Sequence[Mapping[str, Json]],
        *,
        call: str,
        name: str | None = None,
        pinned: bool = False,
        **metadata: Json,
    ) -> Message:
        """What a tool answered to the call with this id."""
        return cls(TOOL, content, name, tool_call_id=call, metadata=metadata, pinned=pinned)

    @property
    def text(self) -> str:
        """The content as text: the parts that have a ``text``, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part["text"]) for part in self.content if "text" in part)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message where it stands: ``sequence`` counts from 1 and is never used again; ``time`` is
    the server's; ``tokens`` were counted by the writer."""

    message: Message
    sequence: int
    time: datetime
    tokens: int

    @property
    def role(self) -> str:
        """The message's role."""
        return self.message.role

    @property
    def text(self) -> str:
        """The message's text."""
        return self.message.text


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append did. ``first`` to ``last`` are the messages' sequences (0 where an earlier try
    stored them so long ago that the server forgot where).

    version: where the conversation stood then, for ``expected=`` of a later call. duplicate: an
    earlier try, or an earlier append with the same idempotency key, had stored it. The shares are
    of the tenant's quota, from 0.0; 0.0 where there is none. masked: what was found in the messages
    and masked, by detector.
    """

    first: int
    last: int
    time: datetime
    version: Head
    duplicate: bool = False
    memory_share: float = 0.0
    conversations_share: float = 0.0
    masked: Mapping[Detector, int] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        """The last message's."""
        return self.last


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """One line of the list of a user's conversations. ``session`` and ``title`` are None where
    they are not readable any more; ``count`` may hold messages that expired since the last append.
    """

    session: str | None
    title: str | None
    last_activity: datetime | None
    count: int


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; ``cursor`` asks for the next one, None at the end."""

    items: tuple[ConversationInfo, ...]
    cursor: str | None


def check_message(message: object) -> None:
    """Raises `UsageError` for what is no message, `MessageInvalid` for one whose fields are not of
    their types: stored, it would not be read again, nor would what stands beside it."""
    if not isinstance(message, Message):
        raise UsageError(
            f"An append takes a Message, not {type(message).__name__}: Message.human('…'), "
            "Message.ai('…')"
        )
    if not isinstance(message.role, str):
        raise _wrong("role is a text", message.role)
    if not isinstance(message.content, str) and not _are_parts(message.content):
        raise _wrong("content is a text, or a list of mappings", message.content)
    for name in ("name", "tool_call_id"):
        if not isinstance(getattr(message, name), str | None):
            raise _wrong(f"{name} is a text or None", getattr(message, name))
    for name in ("metadata", "further"):
        if not isinstance(getattr(message, name), Mapping):
            raise _wrong(f"{name} is a mapping", getattr(message, name))
    for call in message.tool_calls:
        named = isinstance(call, ToolCall) and isinstance(call.id, str)
        if not named or not isinstance(call.name, str):
            raise _wrong("tool_calls are each a ToolCall, its id and name texts", call)


def _are_parts(content: object) -> bool:
    return (
        isinstance(content, Sequence)
        and not isinstance(content, (bytes, bytearray))
        and all(isinstance(part, Mapping) for part in content)
    )


def _wrong(what: str, value: object) -> MessageInvalid:
    return MessageInvalid(f"A message's {what}, not {type(value).__name__}: nothing was stored")
