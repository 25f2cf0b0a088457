"""A thread's checkpoints, as a graph's saver gives and gets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from memtenant.errors import UsageError
from memtenant.functions.checkpoint_calls import MAX_CHECKPOINT_NAME

__all__ = ["Checkpoint", "CheckpointHead", "PendingWrite", "StoredCheckpoint", "check_name"]


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


def check_name(name: str) -> None:
    """`UsageError` for what cannot name a checkpoint."""
    if not isinstance(name, str) or not 1 <= len(name.encode()) <= MAX_CHECKPOINT_NAME:
        raise UsageError(f"A checkpoint's id is a text of 1 to {MAX_CHECKPOINT_NAME} bytes")
