"""What a shared context holds and how it changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from memtenant.crypto.record import RecordKeys
from memtenant.errors import MessageTooLarge, UsageError
from memtenant.functions.calls import MAX_RECORD_BYTES
from memtenant.functions.context_calls import MAX_FIELD_UPDATES, FieldUpdate
from memtenant.functions.context_replies import Change, Changes, Field
from memtenant.functions.replies import Status
from memtenant.memory.codec import decode_value, encode_value, pack, unpack
from memtenant.memory.drafts import moment
from memtenant.memory.messages import Json

__all__ = [
    "ChangeFn",
    "ContextChange",
    "ContextEvent",
    "EventKind",
    "Snapshot",
    "check_names",
    "event_of",
    "field_kind",
    "is_name",
    "opened_fields",
    "sealed_fields",
    "told",
    "wanted_changes",
]

ChangeFn = Callable[[dict[str, Any]], Mapping[str, Json] | None]
"""Given the values, what to change; None in a value's place deletes it, no mapping is no change."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Values at one moment. ``revision`` is 0 where the context does not exist (any more);
    ``versions`` has the version of every value here: the revision at which it changed."""

    revision: int
    values: Mapping[str, Any]
    versions: Mapping[str, int]
    times: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContextChange:
    """One value's change: never the value itself."""

    name: str
    version: int
    deleted: bool
    agent: str
    time: datetime


class EventKind(StrEnum):
    """MISSED: more changed than the log holds. REWOUND: the server lost changes."""

    CHANGED = "Changed"
    MISSED = "Missed"
    DELETED = "Deleted"
    REWOUND = "Rewound"


@dataclass(frozen=True, slots=True)
class ContextEvent:
    """What `watch` saw. After anything but CHANGED, read the context again."""

    kind: EventKind
    revision: int
    changes: tuple[ContextChange, ...] = ()


_KINDS = {
    Status.OK: EventKind.CHANGED,
    Status.MISSED: EventKind.MISSED,
    Status.DELETED: EventKind.DELETED,
    Status.REWOUND: EventKind.REWOUND,
}


def wanted_changes(function: ChangeFn, before: Snapshot) -> Mapping[str, Json] | None:
    """What the function says. Raises `UsageError` where that is no mapping."""
    wanted: object = function(dict(before.values))
    if wanted is None or isinstance(wanted, Mapping):
        return wanted
    if isinstance(wanted, Coroutine):
        wanted.close()
    raise UsageError(
        "The function given to update has to return a mapping of what to change, or None; it "
        f"returned {type(wanted).__name__}: it may be called again and again, so it is a plain "
        "function, without async"
    )


def check_names(names: Mapping[str, object]) -> None:
    """Names stand on the server in the clear: raises `UsageError` for what cannot be one."""
    for name in names:
        if not isinstance(name, str) or not is_name(name):
            raise UsageError(
                "A shared context's names have 1 to 64 of A-Z a-z 0-9 _ and -, and are readable "
                "on the server: keep personal data in the values, which are encrypted"
            )
    if not 1 <= len(names) <= MAX_FIELD_UPDATES:
        raise UsageError(f"An update changes 1 to {MAX_FIELD_UPDATES} values")


def is_name(text: str) -> bool:
    """Whether a value can have this name."""
    return _NAME.fullmatch(text) is not None


def field_kind(name: str) -> str:
    """The kind of a value's record: values cannot be exchanged."""
    return f"context:{name}"


def sealed_fields(
    changes: Mapping[str, Json],
    expected: Mapping[str, int],
    keys: RecordKeys,
    writer: bytes,
    counter: int,
) -> tuple[FieldUpdate, ...]:
    """The changes as records of this write. Raises `MessageTooLarge` or `MessageInvalid`."""
    sealed = []
    for name, value in changes.items():
        record = None
        if value is not None:
            record = keys.seal(field_kind(name), writer, counter, pack(encode_value(value)))
            if len(record) > MAX_RECORD_BYTES:
                raise MessageTooLarge(
                    f"A value of {len(record)} bytes is more than the {MAX_RECORD_BYTES} that one "
                    "may have: keep it elsewhere and store a reference",
                    size=len(record),
                    allowed=MAX_RECORD_BYTES,
                )
        sealed.append(FieldUpdate(name, record, expected.get(name)))
    return tuple(sealed)


def opened_fields(fields: tuple[Field, ...], revision: int, keys: RecordKeys) -> Snapshot:
    """The values of the fields that exist. Raises `RecordInvalid` of the kind that it is."""
    there = [one for one in fields if one.record is not None]
    return Snapshot(
        revision=revision,
        values={
            one.name: decode_value(
                unpack(keys.open(field_kind(one.name), one.record or b"").content)
            )
            for one in there
        },
        versions={one.name: one.version for one in there},
        times={one.name: moment(one.time) for one in there},
    )


def told(change: Change) -> ContextChange:
    """A change as users see it."""
    return ContextChange(
        change.field, change.revision, change.deletes, change.agent, moment(change.time)
    )


def event_of(changes: Changes) -> ContextEvent:
    """What a poll found."""
    return ContextEvent(
        _KINDS[changes.status], changes.revision, tuple(told(one) for one in changes.changes)
    )
