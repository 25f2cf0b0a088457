"""The calls on a shared context; see `memtenant.functions.fcall` for what a call is."""

from __future__ import annotations

from dataclasses import dataclass, field

from memtenant.functions.context_replies import (
    Changes,
    ContextFields,
    ContextUpdated,
    parse_changes,
    parse_context_updated,
    parse_deleted,
    parse_fields,
)
from memtenant.functions.fcall import Leaving, Reader, Reading, Words, fcall, optional
from memtenant.functions.keyspace import ContextKeys

__all__ = [
    "MAX_FIELD_UPDATES",
    "ContextUpdate",
    "DeleteContext",
    "FieldUpdate",
    "ReadChanges",
    "ReadContext",
]

MAX_FIELD_UPDATES = 256


@dataclass(frozen=True, slots=True)
class FieldUpdate:
    """A field's new record, or None to delete it. ``name`` has 1 to 64 of ``A-Za-z0-9_-``.

    expected_version: None for any, 0 for a field that must not exist.
    """

    name: str
    record: bytes | None = field(repr=False)
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class ContextUpdate(Leaving):
    """All of the updates or none.

    mark: 16 random bytes, the same in every try; ``retry`` in every try but the first: the log is
    searched for the mark then. data_key_name, data_key: key and 44 bytes of the context's data key.
    about: index keys of the subjects that the update is about (at most 64).
    expected_revision: None for any, 0 for a context that must not exist.
    """

    context: ContextKeys
    updates: tuple[FieldUpdate, ...]
    mark: bytes
    data_key_name: bytes
    data_key: bytes = field(repr=False)
    agent: str
    retry: bool = False
    new_data_key: bool = False
    about: tuple[bytes, ...] = ()
    expected_revision: int | None = None
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL context_update …``"""
        arguments: Words = (
            self.mark,
            int(self.retry),
            optional(self.expected_revision),
            self.data_key,
            "n" if self.new_data_key else "",
            self.agent,
            self.event,
            *(
                word
                for one in self.updates
                for word in (one.name, optional(one.expected_version), one.record or b"")
            ),
        )
        keys = (*self.context.writing, self.data_key_name, *self.about)
        return fcall("FCALL", "context_update", keys, arguments)

    def read(self, reply: object) -> ContextUpdated:
        """The revision, which is the version of every changed field."""
        return parse_context_updated(reply)


@dataclass(frozen=True, slots=True)
class DeleteContext(Leaving):
    """Remove every field and the log; the revision stays, so that no version comes back."""

    context: ContextKeys
    agent: str
    expected_revision: int | None = None
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL context_delete …``"""
        arguments = (optional(self.expected_revision), self.agent, self.event)
        return fcall("FCALL", "context_delete", self.context.writing, arguments)

    def read(self, reply: object) -> ContextUpdated:
        """``existed`` says whether there was anything."""
        return parse_deleted(reply)


@dataclass(frozen=True, slots=True)
class ReadContext(Reading):
    """Fields by name, or all."""

    context: ContextKeys
    names: tuple[str, ...] = ()
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO context_read …``, or ``FCALL context_read_audited …``"""
        return _reading("context_read", self.context, (), self.reader, self.names)

    def read(self, reply: object) -> ContextFields:
        """The fields that exist."""
        return parse_fields(reply)


@dataclass(frozen=True, slots=True)
class ReadChanges(Reading):
    """What changed after revision ``since``; one HGET where nothing did."""

    context: ContextKeys
    since: int
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO context_changes …``, or ``FCALL context_changes_audited …``"""
        return _reading("context_changes", self.context, (self.since,), self.reader, ())

    def read(self, reply: object) -> Changes:
        """The changes, oldest first."""
        return parse_changes(reply)


def _reading(
    function: str, context: ContextKeys, first: Words, reader: Reader | None, last: Words
) -> Words:
    if reader is None:
        return fcall("FCALL_RO", function, context.reading, (*first, *last))
    arguments = (*first, reader.agent, reader.event, *last)
    return fcall("FCALL", f"{function}_audited", context.writing, arguments)
