"""The calls on a thread's checkpoints; see `memtenant.functions.fcall` for what a call is.

Ids are 16 bytes, a namespace's alias has 8, the place of a write 10. All but a deletion may be
repeated as they are without being done twice; a second deletion finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Self

from memtenant.functions.calls import MAX_BATCH, MAX_REPLY_BYTES
from memtenant.functions.checkpoint_replies import (
    CheckpointPage,
    CheckpointRemoved,
    CheckpointSaved,
    FoundCheckpoint,
    Reference,
    parse_found,
    parse_page,
    parse_removed,
    parse_saved,
)
from memtenant.functions.fcall import Leaving, Reader, Reading, Words, fcall, optional
from memtenant.functions.keyspace import ConversationKeys, SubjectKeys

__all__ = [
    "MAX_CHECKPOINT_NAME",
    "MAX_LIST",
    "DeleteCheckpoints",
    "GetCheckpoint",
    "ListCheckpoints",
    "NewList",
    "NewWrite",
    "PutCheckpoint",
    "PutWrites",
    "Saving",
]

MAX_CHECKPOINT_NAME: Final = 64
MAX_LIST: Final = 16384
"""Elements of one list, and new values of one call."""


@dataclass(frozen=True, slots=True)
class NewList:
    """A list by the ids of its elements: the first ``kept`` are those of the list ``base``."""

    id: bytes
    ids: tuple[bytes, ...]
    base: bytes = b""
    kept: int = 0


@dataclass(frozen=True, slots=True)
class NewWrite:
    """A write that waits beside a checkpoint; one that ``replaces`` takes the place of another."""

    place: bytes
    record: bytes = field(repr=False)
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Saving:
    """What both writing calls say. ``time``: None for now, or when what is copied was stored."""

    thread: ConversationKeys
    subject: SubjectKeys
    namespace: bytes
    checkpoint: str
    data_key: bytes = field(repr=False)
    agent: str
    root: bool = False
    new_data_key: bool = False
    index: bool = False
    time: int | None = None
    tag: bytes = b""
    event: bytes = b""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """KEYS."""
        return (
            *self.thread.writing,
            self.thread.checkpoints,
            self.subject.data_key,
            self.subject.index,
        )

    @property
    def arguments(self) -> Words:
        """The first arguments."""
        flags = ("n" if self.new_data_key else "") + ("i" if self.index else "")
        return (
            self.namespace,
            self.checkpoint,
            optional(self.time),
            self.tag,
            self.data_key,
            flags + ("r" if self.root else ""),
            self.agent,
            self.event,
        )


class _SavingCall:
    """A call with the field ``saving``."""

    __slots__ = ()

    def with_event(self, agent: str, event: bytes) -> Self:
        """The same call, which leaves this event."""
        saving = replace(self.saving, agent=agent, event=event)  # type: ignore[attr-defined]
        return replace(self, saving=saving)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class PutCheckpoint(_SavingCall):
    """A checkpoint, and those of its lists and values that are new; all of it or nothing.

    relies_on: the checkpoint from which the caller knows what is there already; where that is gone
    meanwhile, the answer is that something is missing, and nothing was stored.
    """

    saving: Saving
    record: bytes = field(repr=False)
    references: tuple[Reference, ...] = ()
    lists: tuple[NewList, ...] = ()
    values: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    relies_on: str = ""

    @property
    def words(self) -> Words:
        """``FCALL checkpoint_put …``"""
        arguments: Words = (
            *self.saving.arguments,
            self.relies_on,
            b"".join(one.to_bytes() for one in self.references),
            self.record,
            len(self.lists),
            *(
                word
                for one in self.lists
                for word in (one.id, one.base, one.kept, b"".join(one.ids))
            ),
            *(word for value in self.values for word in value),
        )
        return fcall("FCALL", "checkpoint_put", self.saving.keys, arguments)

    def read(self, reply: object) -> CheckpointSaved:
        """Whether it was stored."""
        return parse_saved(reply)


@dataclass(frozen=True, slots=True)
class PutWrites(_SavingCall):
    """Writes beside a checkpoint, which need not be there yet; 1 to 1,000."""

    saving: Saving
    writes: tuple[NewWrite, ...]

    @property
    def words(self) -> Words:
        """``FCALL checkpoint_writes …``"""
        arguments: Words = (
            *self.saving.arguments,
            *(
                word
                for one in self.writes
                for word in (one.place, "r" if one.replaces else "", one.record)
            ),
        )
        return fcall("FCALL", "checkpoint_writes", self.saving.keys, arguments)

    def read(self, reply: object) -> CheckpointSaved:
        """That they were stored."""
        return parse_saved(reply)


@dataclass(frozen=True, slots=True)
class DeleteCheckpoints(Leaving):
    """Remove these (namespace's alias, name) with what only they refer to; none: everything."""

    thread: ConversationKeys
    agent: str
    checkpoints: tuple[tuple[bytes, str], ...] = ()
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL checkpoint_delete …``"""
        named: Words = tuple(word for one in self.checkpoints for word in one)
        keys = (*self.thread.writing, self.thread.checkpoints)
        return fcall("FCALL", "checkpoint_delete", keys, (self.agent, self.event, *named))

    def read(self, reply: object) -> CheckpointRemoved:
        """How many there were."""
        return parse_removed(reply)


@dataclass(frozen=True, slots=True)
class GetCheckpoint(Reading):
    """One checkpoint (``""``: the newest of the namespace) with what it refers to.

    bare: without values and writes. values: these instead of a checkpoint, and writes beside it by
    their places.
    """

    thread: ConversationKeys
    namespace: bytes
    checkpoint: str = ""
    bare: bool = False
    values: tuple[bytes, ...] = ()
    max_bytes: int = MAX_REPLY_BYTES
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO checkpoint_get …``, or ``FCALL checkpoint_get_audited …``"""
        first = (self.namespace, self.checkpoint, "i" if self.bare else "", self.max_bytes)
        return _reading("checkpoint_get", self.thread, first, self.reader, self.values)

    def read(self, reply: object) -> FoundCheckpoint:
        """The checkpoint; its ``name`` is empty where there is none."""
        return parse_found(reply)


@dataclass(frozen=True, slots=True)
class ListCheckpoints(Reading):
    """Checkpoints of a namespace (``b""``: of all), the newest first; without their values.

    before: only those with a smaller name. after: where the page before ended.
    """

    thread: ConversationKeys
    namespace: bytes = b""
    before: str = ""
    after: bytes = b""
    limit: int = MAX_BATCH
    max_bytes: int = MAX_REPLY_BYTES
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO checkpoint_list …``, or ``FCALL checkpoint_list_audited …``"""
        first = (self.namespace, self.before, self.after, self.limit, self.max_bytes)
        return _reading("checkpoint_list", self.thread, first, self.reader, ())

    def read(self, reply: object) -> CheckpointPage:
        """A page of them."""
        return parse_page(reply)


def _reading(
    function: str, thread: ConversationKeys, first: Words, reader: Reader | None, last: Words
) -> Words:
    if reader is None:
        keys = (*thread.reading, thread.checkpoints)
        return fcall("FCALL_RO", function, keys, (*first, *last))
    arguments = (*first, reader.agent, reader.event, *last)
    keys = (*thread.writing, thread.checkpoints)
    return fcall("FCALL", f"{function}_audited", keys, arguments)
