"""A thread's checkpoints: what goes into each, by which names, and how it is sealed.

A graph saves its whole state after every step, and most of it was there before. So each value, and
each element of a list, is kept once under an id that is a keyed MAC of its content, and checkpoints
refer to ids. The ids of a list are told as what they add to the list of the checkpoint before. The
checkpoint's own record, which is sealed, says which id belongs to which channel: ids that stand on
the server in the clear cannot be exchanged unseen.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from memtenant.crypto.primitives import SecretKey, derive, length_prefixed, mac
from memtenant.crypto.record import OVERHEAD_BYTES, Place, RecordKeys
from memtenant.errors import (
    MessageTooLarge,
    RecordMalformed,
    RecordMissing,
    RecordTampered,
    UsageError,
)
from memtenant.functions.calls import MAX_BATCH_BYTES, MAX_RECORD_BYTES
from memtenant.functions.checkpoint_calls import (
    MAX_CHECKPOINT_NAME,
    MAX_LIST,
    NewList,
    NewWrite,
)
from memtenant.functions.checkpoint_replies import (
    CheckpointEntry,
    FoundCheckpoint,
    FoundList,
    Reference,
)
from memtenant.functions.replies import Entry
from memtenant.memory.codec import pack, unpack

__all__ = [
    "Checkpoint",
    "CheckpointHead",
    "CheckpointKeys",
    "Known",
    "KnownList",
    "Parts",
    "PendingWrite",
    "StoredCheckpoint",
    "check_name",
    "known_of",
    "namespace_alias",
    "opened_checkpoint",
    "opened_head",
    "opened_writes",
    "remember",
    "sealed_parts",
    "sealed_writes",
    "wanted_lists",
]

_NAMESPACE_BYTES: Final = 8
_ID_BYTES: Final = 16
_TASK_BYTES: Final = 8
_LEAST_SHARED: Final = 4
"""Ids that a list must share with the one before, so that referring to that one is shorter."""

_MOST_PARTS: Final = 32
_KNOWN_FOR: Final = 16
"""Checkpoints of a thread whose ids a process remembers."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state to keep. ``name`` orders the checkpoints of a namespace as text, and is readable on
    the server; content and channels are the caller's bytes: a value, or the elements of a list."""

    namespace: str
    name: str
    content: bytes = field(repr=False)
    channels: Mapping[str, bytes | Sequence[bytes]] = field(repr=False)
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """What a task wrote beside a checkpoint. A second write at the same index is passed over, or
    ``replaces`` the first. index: -32,768 to 32,767."""

    task: str
    index: int
    content: bytes = field(repr=False)
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointHead:
    """A checkpoint without its channels; ``time`` in milliseconds since 1970, by the server."""

    namespace: str
    name: str
    content: bytes = field(repr=False)
    parent: str | None
    time: int
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as it came back. What has expired of its channels is left out: a value as a
    whole, of a list the elements."""

    head: CheckpointHead
    channels: Mapping[str, bytes | tuple[bytes, ...]] = field(repr=False)
    writes: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KnownList:
    """The ids of a list that is on the server, and from how many parts it is joined there."""

    id: bytes
    ids: tuple[bytes, ...]
    parts: int


@dataclass(frozen=True, slots=True)
class Known:
    """What a checkpoint that is on the server refers to, by channel."""

    lists: Mapping[str, KnownList]
    values: Mapping[str, bytes]

    def ids(self) -> frozenset[bytes]:
        """Every value that is there."""
        return frozenset(
            (*self.values.values(), *(one for kept in self.lists.values() for one in kept.ids))
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """A checkpoint as the call takes it; ``known`` is what to remember once it is stored."""

    record: bytes = field(repr=False)
    references: tuple[Reference, ...]
    lists: tuple[NewList, ...]
    values: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    known: Known


@dataclass(slots=True)
class CheckpointKeys:
    """The keys of one thread for one write, or for reading: ``writer`` and ``counter`` say which
    write of which process it is."""

    records: RecordKeys
    ids: SecretKey
    writer: bytes = bytes(8)
    counter: int = 0

    @classmethod
    def of(cls, data_key: SecretKey, place: Place, records: RecordKeys) -> CheckpointKeys:
        """Derived from the subject's data key: ids of another subject's equal content differ."""
        return cls(records, derive(data_key, "memtenant/1/checkpoint", *place.fields))

    def seal(self, kind: str, content: bytes, what: str) -> bytes:
        """The record; `MessageTooLarge` names ``what``."""
        packed = pack(content)
        if len(packed) + OVERHEAD_BYTES > MAX_RECORD_BYTES:
            raise MessageTooLarge(
                f"{what} has {len(packed)} bytes, more than the "
                f"{MAX_RECORD_BYTES - OVERHEAD_BYTES} that one record may have: keep it elsewhere "
                "and a reference in the state",
                size=len(packed),
                allowed=MAX_RECORD_BYTES - OVERHEAD_BYTES,
            )
        return self.records.seal(kind, self.writer, self.counter, packed)

    def open(self, kind: str, record: bytes) -> bytes:
        """What `seal` sealed. Raises `RecordInvalid` of the kind that it is."""
        return unpack(self.records.open(kind, record).content)

    def id_of(self, what: str, namespace: str, channel: str, rest: bytes) -> bytes:
        """16 bytes that name a content of a channel, to nobody but who has the subject's key."""
        names = (one.encode("utf-8", "surrogatepass") for one in (what, namespace, channel))
        return mac(self.ids, length_prefixed(*names) + rest)[:_ID_BYTES]


def check_name(name: str) -> None:
    """`UsageError` for what cannot name a checkpoint."""
    if not isinstance(name, str) or not 1 <= len(name.encode()) <= MAX_CHECKPOINT_NAME:
        raise UsageError(f"A checkpoint's id is a text of 1 to {MAX_CHECKPOINT_NAME} bytes")


def namespace_alias(name_key: SecretKey, place: Place, namespace: str) -> bytes:
    """What stands for a namespace on the server."""
    context = length_prefixed(b"memtenant/1/checkpoint", b"namespace", *place.fields)
    return mac(name_key, context + namespace.encode("utf-8", "surrogatepass"))[:_NAMESPACE_BYTES]


def sealed_parts(
    checkpoint: Checkpoint, alias: bytes, keys: CheckpointKeys, before: Known | None
) -> Parts:
    """The checkpoint with what of it is not there yet, ``before`` being what is. Raises
    `MessageTooLarge`."""
    there = before.ids() if before is not None else frozenset()
    space, references = checkpoint.namespace, list[Reference]()
    new_values: dict[bytes, bytes] = {}
    new_lists: dict[bytes, NewList] = {}
    lists, values, channels = dict[str, KnownList](), dict[str, bytes](), dict[str, object]()

    def bring(identity: bytes, content: bytes, channel: str) -> None:
        if identity not in there and identity not in new_values:
            what = f"The value of channel {channel!r}"
            new_values[identity] = keys.seal(_value_kind(identity), content, what)

    for channel, content in checkpoint.channels.items():
        if isinstance(content, bytes):
            identity = keys.id_of("value", space, channel, _nth(0) + content)
            bring(identity, content, channel)
            values[channel], channels[channel] = identity, identity.hex()
            references.append(Reference(identity, is_list=False))
            continue
        ids = tuple(_element_ids(content, space, channel, keys))
        for identity, element in zip(ids, content, strict=True):
            bring(identity, element, channel)
        kept = before.lists.get(channel) if before is not None else None
        made, known = _told(keys.id_of("list", space, channel, b"".join(ids)), ids, kept)
        if made is not None:
            new_lists[made.id] = made
        lists[channel], channels[channel] = known, [known.id.hex()]
        references.append(Reference(known.id, is_list=True))
    told = {"namespace": space, "parent": checkpoint.parent, "channels": channels}
    frame = json.dumps(told, separators=(",", ":")).encode()
    content = len(frame).to_bytes(4, "big") + frame + checkpoint.content
    record = keys.seal(_checkpoint_kind(alias, checkpoint.name), content, "A checkpoint")
    size = len(record) + sum(len(one) for one in new_values.values())
    if size > MAX_BATCH_BYTES or len(new_values) > MAX_LIST:
        raise MessageTooLarge(
            f"A checkpoint brings {len(new_values)} new values with {size} bytes: at most "
            f"{MAX_LIST} values and {MAX_BATCH_BYTES} bytes are stored together. Keep large "
            "content elsewhere, and a reference in the state",
            size=size,
            allowed=MAX_BATCH_BYTES,
        )
    return Parts(
        record,
        tuple(dict.fromkeys(references)),
        tuple(new_lists.values()),
        tuple(new_values.items()),
        Known(lists, values),
    )


def _told(
    identity: bytes, ids: tuple[bytes, ...], before: KnownList | None
) -> tuple[NewList | None, KnownList]:
    """How a list is told: not at all where it is the same, else as what it adds to the one before,
    or whole where they share little or that one has many parts already."""
    if len(ids) > MAX_LIST:
        raise MessageTooLarge(
            f"A list of a graph's state has {len(ids)} elements, more than the {MAX_LIST} that one "
            "may have: trim it",
            size=len(ids),
            allowed=MAX_LIST,
        )
    if before is not None and before.id == identity:
        return None, before
    shared = _shared(ids, before.ids) if before is not None else 0
    most = max(_MOST_PARTS, len(ids) // 4)
    if before is None or shared < _LEAST_SHARED or before.parts >= most:
        return NewList(identity, ids), KnownList(identity, ids, 1)
    new = NewList(identity, ids[shared:], before.id, shared)
    return new, KnownList(identity, ids, before.parts + 1)


def _shared(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _element_ids(
    elements: Sequence[bytes], namespace: str, channel: str, keys: CheckpointKeys
) -> Iterator[bytes]:
    """Equal elements of one list differ by which of them they are: each has an age of its own."""
    seen = Counter[bytes]()
    for element in elements:
        yield keys.id_of("value", namespace, channel, _nth(seen[element]) + element)
        seen[element] += 1


def sealed_writes(
    name: str,
    alias: bytes,
    writes: Sequence[PendingWrite],
    keys: CheckpointKeys,
    name_key: SecretKey,
) -> tuple[NewWrite, ...]:
    """The writes as the call takes them; of several at one place the last that counts."""
    context = length_prefixed(b"memtenant/1/checkpoint", b"task", alias)
    made: dict[bytes, NewWrite] = {}
    for write in writes:
        task = mac(name_key, context + write.task.encode("utf-8", "surrogatepass"))[:_TASK_BYTES]
        place = task + (write.index + 2**15).to_bytes(2, "big")
        if place not in made or write.replaces:
            record = keys.seal(_write_kind(alias, name, place), write.content, "A task's write")
            made[place] = NewWrite(place, record, write.replaces)
    return tuple(made.values())


def opened_head(
    name: str, alias: bytes, entry: CheckpointEntry, keys: CheckpointKeys
) -> CheckpointHead:
    """A checkpoint without its channels. Raises `RecordInvalid` of the kind that it is."""
    return _opened(name, alias, entry, keys)[0]


def opened_checkpoint(
    found: FoundCheckpoint, alias: bytes, keys: CheckpointKeys
) -> StoredCheckpoint:
    """A checkpoint with its channels and the writes beside it, as `opened_head`."""
    head, channels = _opened(found.name, alias, _there(found.entry), keys)
    lists = wanted_lists(found)
    values: dict[str, bytes | tuple[bytes, ...]] = {}
    for channel, identity in channels.items():
        if isinstance(identity, bytes):
            content = _value(identity, found.values, keys)
            if content is not None:
                values[channel] = content
            continue
        kept = lists.get(identity[0])
        if kept is None or identity[0] != keys.id_of(
            "list", head.namespace, channel, b"".join(kept.ids)
        ):
            raise _exchanged()
        elements = (_value(one, found.values, keys) for one in kept.ids)
        values[channel] = tuple(one for one in elements if one is not None)
    return StoredCheckpoint(head, values, opened_writes(found, alias, keys))


def opened_writes(found: FoundCheckpoint, alias: bytes, keys: CheckpointKeys) -> tuple[bytes, ...]:
    """The writes beside a checkpoint, as they were stored."""
    return tuple(
        keys.open(_write_kind(alias, found.name, place), entry.record)
        for place, entry in found.writes.items()
    )


def known_of(found: FoundCheckpoint, alias: bytes, keys: CheckpointKeys) -> Known:
    """What a checkpoint on the server refers to."""
    _, channels = _opened(found.name, alias, _there(found.entry), keys)
    found_lists = wanted_lists(found)
    lists, values = dict[str, KnownList](), dict[str, bytes]()
    for channel, identity in channels.items():
        if isinstance(identity, bytes):
            values[channel] = identity
        elif identity[0] in found_lists:
            one = found_lists[identity[0]]
            lists[channel] = KnownList(identity[0], one.ids, one.parts)
    return Known(lists, values)


def wanted_lists(found: FoundCheckpoint) -> dict[bytes, FoundList]:
    """The lists that came with a checkpoint, by id."""
    names = [one.id for one in _there(found.entry).references if one.is_list]
    if len(names) != len(found.lists):
        raise _exchanged()
    return dict(zip(names, found.lists, strict=True))


def remember(
    kept: OrderedDict[tuple[bytes, str], Known], where: tuple[bytes, str], known: Known
) -> None:
    """Keep what a checkpoint refers to, for the one that follows it."""
    kept[where] = known
    kept.move_to_end(where)
    while len(kept) > _KNOWN_FOR:
        kept.popitem(last=False)


def _opened(
    name: str, alias: bytes, entry: CheckpointEntry, keys: CheckpointKeys
) -> tuple[CheckpointHead, dict[str, bytes | tuple[bytes]]]:
    """The head, and the id of every channel's value; a list's in a tuple."""
    content = keys.open(_checkpoint_kind(alias, name), entry.record)
    size = int.from_bytes(content[:4], "big")
    try:
        told = json.loads(content[4 : 4 + size])
        channels: dict[str, bytes | tuple[bytes]] = {
            channel: bytes.fromhex(one) if isinstance(one, str) else (bytes.fromhex(one[0]),)
            for channel, one in told["channels"].items()
        }
        head = CheckpointHead(
            told["namespace"],
            name,
            content[4 + size :],
            told["parent"],
            entry.header.time,
            tuple(channels),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise RecordMalformed(
            "A checkpoint opens and is of a form that this memtenant does not know: update it"
        ) from None
    return head, channels


def _value(identity: bytes, values: Mapping[bytes, Entry], keys: CheckpointKeys) -> bytes | None:
    """None where it has expired."""
    entry = values.get(identity)
    if entry is None:
        raise RecordMissing(
            "A checkpoint refers to a value that is not there: it was removed around memtenant. "
            "The checkpoint is not shown; restore the thread, or delete it"
        )
    return None if entry.header.tombstone else keys.open(_value_kind(identity), entry.record)


def _there(entry: CheckpointEntry | None) -> CheckpointEntry:
    if entry is None:
        raise LookupError("no checkpoint was found")
    return entry


def _exchanged() -> RecordTampered:
    return RecordTampered(
        "A list of a checkpoint is not the one that was stored with it: it was changed around "
        "memtenant. The checkpoint is not shown; restore the thread, or delete it"
    )


def _nth(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _checkpoint_kind(alias: bytes, name: str) -> str:
    return f"checkpoint:{alias.hex()}:{name}"


def _value_kind(identity: bytes) -> str:
    return f"value:{identity.hex()}"


def _write_kind(alias: bytes, name: str, place: bytes) -> str:
    return f"write:{alias.hex()}:{place.hex()}:{name}"
