"""What LangGraph hands to a saver, as bytes that a checkpoint keeps, and back.

LangGraph's serializer turns a value into the name of a type and bytes; both are kept together. A
list is turned into bytes element by element, so that each is kept once. Pickle is refused in both
directions: who can write into a store must not be able to run code in an agent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.base import Checkpoint as GraphCheckpoint
from langgraph.checkpoint.serde.base import SerializerProtocol

from memtenant.errors import RecordMalformed, UsageError
from memtenant.memory.checkpoints import (
    Checkpoint,
    CheckpointHead,
    PendingWrite,
    StoredCheckpoint,
)

__all__ = [
    "Where",
    "copied",
    "copied_writes",
    "kept",
    "matches",
    "metadata_of",
    "restored",
    "surplus",
    "thread_of",
    "where_of",
    "writes_of",
]

_PICKLE: Final = "pickle"
_DELTA_COUNTERS: Final = "counters_since_delta_snapshot"


@dataclass(frozen=True, slots=True)
class Where:
    """What a config says: thread, namespace, and a checkpoint or None."""

    thread: str
    namespace: str
    checkpoint: str | None

    def config(self, checkpoint: str) -> RunnableConfig:
        """The config of a checkpoint of this thread and namespace."""
        return {
            "configurable": {
                "thread_id": self.thread,
                "checkpoint_ns": self.namespace,
                "checkpoint_id": checkpoint,
            }
        }


def where_of(config: RunnableConfig) -> Where:
    """`UsageError` where the config names no thread."""
    named = config.get("configurable", {})
    thread = named.get("thread_id")
    if thread in (None, ""):
        raise UsageError(
            "A graph with a checkpointer needs a thread: "
            "config={'configurable': {'thread_id': '…'}}"
        )
    return Where(str(thread), named.get("checkpoint_ns", ""), named.get("checkpoint_id"))


def kept(
    config: RunnableConfig,
    checkpoint: GraphCheckpoint,
    metadata: CheckpointMetadata,
    serde: SerializerProtocol,
) -> Checkpoint:
    """A checkpoint of a graph as the thread keeps it."""
    where = where_of(config)
    rest: dict[str, Any] = {**checkpoint}
    values = rest.pop("channel_values")
    told = {
        "thread": where.thread,
        "checkpoint": rest,
        "metadata": get_checkpoint_metadata(config, metadata),
    }
    versions = checkpoint["channel_versions"]
    return Checkpoint(
        namespace=where.namespace,
        name=checkpoint["id"],
        content=_typed(told, serde),
        channels={
            channel: _channel(value, serde)
            for channel, value in values.items()
            if channel in versions
        },
        parent=where.checkpoint,
    )


def restored(stored: StoredCheckpoint, serde: SerializerProtocol) -> CheckpointTuple:
    """A checkpoint as the graph knows it."""
    head = stored.head
    told = _untyped(head.content, serde)
    where = Where(told["thread"], head.namespace, head.name)
    values = {
        channel: _untyped(kept, serde)
        if isinstance(kept, bytes)
        else [_untyped(element, serde) for element in kept]
        for channel, kept in stored.channels.items()
    }
    writes = sorted(
        (_write(content, serde) for content in stored.writes),
        key=lambda write: writes_sort_key(write[0]["path"], write[0]["task"], write[0]["index"]),
    )
    return CheckpointTuple(
        config=where.config(head.name),
        checkpoint=cast("GraphCheckpoint", {**told["checkpoint"], "channel_values": values}),
        metadata=told["metadata"],
        parent_config=None if head.parent is None else where.config(head.parent),
        pending_writes=[(told["task"], told["channel"], value) for told, value in writes],
    )


def writes_of(
    writes: Sequence[tuple[str, Any]], task: str, path: str, serde: SerializerProtocol
) -> list[PendingWrite]:
    """A task's writes: those of the graph's own channels replace earlier ones, as it expects."""
    made = []
    for place, (channel, value) in enumerate(writes):
        index = WRITES_IDX_MAP.get(channel, place)
        told = {"task": task, "path": path, "index": index, "channel": channel}
        content = _framed(told, _typed(value, serde))
        made.append(PendingWrite(task, index, content, replaces=index < 0))
    return made


def copied(stored: StoredCheckpoint, thread: str, serde: SerializerProtocol) -> Checkpoint:
    """The same checkpoint in another thread."""
    head = stored.head
    content = _typed({**_untyped(head.content, serde), "thread": thread}, serde)
    return Checkpoint(head.namespace, head.name, content, stored.channels, head.parent)


def copied_writes(stored: StoredCheckpoint) -> list[PendingWrite]:
    """The writes beside a checkpoint, to be stored elsewhere."""
    made = []
    for content in stored.writes:
        told, _ = _parted(content)
        made.append(PendingWrite(told["task"], told["index"], content, replaces=True))
    return made


def metadata_of(head: CheckpointHead, serde: SerializerProtocol) -> dict[str, Any]:
    """A checkpoint's metadata."""
    return cast("dict[str, Any]", _untyped(head.content, serde)["metadata"])


def thread_of(head: CheckpointHead, serde: SerializerProtocol) -> str:
    """The thread that a checkpoint belongs to."""
    return cast("str", _untyped(head.content, serde)["thread"])


def matches(metadata: dict[str, Any], wanted: dict[str, Any] | None) -> bool:
    """Whether the metadata has all that is wanted."""
    return all(metadata.get(name) == value for name, value in (wanted or {}).items())


def surplus(heads: Iterable[CheckpointHead], serde: SerializerProtocol) -> list[tuple[str, str]]:
    """What pruning to the latest of each namespace removes: (namespace, checkpoint).

    A channel that keeps only changes is rebuilt from the checkpoints before, up to the one that
    holds it whole: these stay.
    """
    by_name = {(head.namespace, head.name): head for head in heads}
    stay = set[tuple[str, str]]()
    for space in {namespace for namespace, _ in by_name}:
        latest = max(name for namespace, name in by_name if namespace == space)
        head: CheckpointHead | None = by_name[space, latest]
        open_ = set(metadata_of(by_name[space, latest], serde).get(_DELTA_COUNTERS) or ())
        while head is not None:
            stay.add((space, head.name))
            open_ -= set(head.channels)
            head = by_name.get((space, head.parent or "")) if open_ else None
    return [name for name in by_name if name not in stay]


def _channel(value: object, serde: SerializerProtocol) -> bytes | list[bytes]:
    if type(value) is list:
        return [_typed(element, serde) for element in value]
    return _typed(value, serde)


def _typed(value: object, serde: SerializerProtocol) -> bytes:
    """The type's name, its length before it, and the bytes."""
    name, data = serde.dumps_typed(value)
    if name == _PICKLE:
        raise UsageError(
            "A graph's state holds what only pickle can store, which memtenant refuses: use a "
            "serializer without pickle_fallback, and values that it knows"
        )
    encoded = name.encode()
    return bytes((len(encoded),)) + encoded + data


def _untyped(data: bytes, serde: SerializerProtocol) -> Any:
    length = data[0] if data else 0
    name = data[1 : 1 + length].decode("ascii", "replace")
    if name == _PICKLE:
        raise RecordMalformed("A checkpoint holds pickled data, which memtenant never stores")
    return serde.loads_typed((name, data[1 + length :]))


def _framed(told: dict[str, Any], data: bytes) -> bytes:
    head = json.dumps(told, separators=(",", ":")).encode()
    return len(head).to_bytes(4, "big") + head + data


def _parted(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = 4 + int.from_bytes(content[:4], "big")
    return json.loads(content[4:end]), content[end:]


def _write(content: bytes, serde: SerializerProtocol) -> tuple[dict[str, Any], Any]:
    told, data = _parted(content)
    return told, _untyped(data, serde)
