"""What a call is: arguments in, the words of one FCALL out, its reply read back.

A call knows nothing of connections: `Call.words` is what to send, `Call.read` what its reply means.
Error replies are `memtenant.functions.refusals`. Every call but a read may be repeated as it is: a
second try of a stored write answers ``duplicate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

from memtenant.functions.keyspace import ConversationKeys
from memtenant.functions.versions import CURRENT_VERSION, function_prefix

__all__ = [
    "Audited",
    "Call",
    "Leaving",
    "Reader",
    "Reading",
    "Word",
    "Words",
    "changing",
    "fcall",
    "optional",
    "reading",
    "spoken",
]

Word = bytes | str | int
Words = tuple[Word, ...]
"""A command, ready for a client to pack."""

_PREFIX = function_prefix()

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


def fcall(command: str, function: str, keys: tuple[bytes, ...], arguments: Words) -> Words:
    """The words of one call of this version's Function."""
    return (command, f"{_PREFIX}{function}", len(keys), *keys, *arguments)


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


def spoken(commands: Sequence[Words], version: int) -> Sequence[Words]:
    """The commands; those that call this version's Functions, for a store that holds another."""
    if version == CURRENT_VERSION:
        return commands
    prefix = function_prefix(version)
    return [
        (words[0], f"{prefix}{str(words[1]).removeprefix(_PREFIX)}", *words[2:])
        if words[0] in ("FCALL", "FCALL_RO")
        else words
        for words in commands
    ]


def optional(value: int | None) -> Word:
    """Nothing is an empty argument."""
    return "" if value is None else value
