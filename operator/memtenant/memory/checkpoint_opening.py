"""A checkpoint as it comes from the server: opened, and every id held against its content."""

from __future__ import annotations

import json
from collections.abc import Mapping

from memtenant.errors import RecordMalformed, RecordMissing, RecordTampered
from memtenant.functions.checkpoint_replies import (
    CheckpointEntry,
    FoundCheckpoint,
    FoundList,
)
from memtenant.functions.replies import Entry
from memtenant.memory.checkpoint_keys import (
    CheckpointKeys,
    checkpoint_kind,
    value_kind,
    write_kind,
)
from memtenant.memory.checkpoint_sealing import Known, KnownList
from memtenant.memory.checkpoints import CheckpointHead, StoredCheckpoint

__all__ = ["known_of", "opened_checkpoint", "opened_head"]


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
    lists = _lists(found)
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
    return StoredCheckpoint(head, values, _opened_writes(found, alias, keys))


def _opened_writes(found: FoundCheckpoint, alias: bytes, keys: CheckpointKeys) -> tuple[bytes, ...]:
    """The writes beside a checkpoint, as they were stored."""
    return tuple(
        keys.open(write_kind(alias, found.name, place), entry.record)
        for place, entry in found.writes.items()
    )


def known_of(found: FoundCheckpoint, alias: bytes, keys: CheckpointKeys) -> Known:
    """What a checkpoint on the server refers to."""
    _, channels = _opened(found.name, alias, _there(found.entry), keys)
    found_lists = _lists(found)
    lists, values = dict[str, KnownList](), dict[str, bytes]()
    for channel, identity in channels.items():
        if isinstance(identity, bytes):
            values[channel] = identity
        elif identity[0] in found_lists:
            one = found_lists[identity[0]]
            lists[channel] = KnownList(identity[0], one.ids, one.parts)
    return Known(lists, values)


def _lists(found: FoundCheckpoint) -> dict[bytes, FoundList]:
    """The lists that came with a checkpoint, by id."""
    names = [one.id for one in _there(found.entry).references if one.is_list]
    if len(names) != len(found.lists):
        raise _exchanged()
    return dict(zip(names, found.lists, strict=True))


def _opened(
    name: str, alias: bytes, entry: CheckpointEntry, keys: CheckpointKeys
) -> tuple[CheckpointHead, dict[str, bytes | tuple[bytes]]]:
    """The head, and the id of every channel's value; a list's in a tuple."""
    content = keys.open(checkpoint_kind(alias, name), entry.record)
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
    return None if entry.header.tombstone else keys.open(value_kind(identity), entry.record)


def _there(entry: CheckpointEntry | None) -> CheckpointEntry:
    if entry is None:
        raise LookupError("no checkpoint was found")
    return entry


def _exchanged() -> RecordTampered:
    return RecordTampered(
        "A list of a checkpoint is not the one that was stored with it: it was changed around "
        "memtenant. The checkpoint is not shown; restore the thread, or delete it"
    )
