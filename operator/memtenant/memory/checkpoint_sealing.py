"""A checkpoint on its way to the server: what of it is not there yet, sealed.

The ids of a list are told as what they add to the list of the checkpoint before.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from memtenant.crypto.primitives import SecretKey, length_prefixed, mac
from memtenant.errors import MessageTooLarge
from memtenant.functions.calls import MAX_BATCH_BYTES
from memtenant.functions.checkpoint_calls import MAX_LIST, NewList, NewWrite
from memtenant.functions.checkpoint_replies import Reference
from memtenant.memory.checkpoint_keys import (
    CheckpointKeys,
    checkpoint_kind,
    value_kind,
    write_kind,
)
from memtenant.memory.checkpoints import Checkpoint, PendingWrite

__all__ = ["Known", "KnownList", "Parts", "remember", "sealed_parts", "sealed_writes"]

_TASK_BYTES: Final = 8
_LEAST_SHARED: Final = 4
"""Ids that a list must share with the one before, so that referring to that one is shorter."""

_MOST_PARTS: Final = 32
_KNOWN_FOR: Final = 16
"""Checkpoints of a thread whose ids a process remembers."""


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
            new_values[identity] = keys.seal(value_kind(identity), content, what)

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
    record = keys.seal(checkpoint_kind(alias, checkpoint.name), content, "A checkpoint")
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
            record = keys.seal(write_kind(alias, name, place), write.content, "A task's write")
            made[place] = NewWrite(place, record, write.replaces)
    return tuple(made.values())


def remember(
    kept: OrderedDict[tuple[bytes, str], Known], where: tuple[bytes, str], known: Known
) -> None:
    """Keep what a checkpoint refers to, for the one that follows it."""
    kept[where] = known
    kept.move_to_end(where)
    while len(kept) > _KNOWN_FOR:
        kept.popitem(last=False)


def _nth(number: int) -> bytes:
    return number.to_bytes(4, "big")
