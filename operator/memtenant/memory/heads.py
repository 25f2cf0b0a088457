"""The parts of a conversation's head that are read without a Function."""

from __future__ import annotations

from typing import Final

from memtenant.errors import HistoryDamaged
from memtenant.functions.head import HEAD_STATE, HeadState

__all__ = ["HEAD_FIELDS", "head_state", "last_append"]

HEAD_FIELDS: Final = (HEAD_STATE, b"meta", b"writers")

_TIME_BYTES = 6


def head_state(field: object) -> HeadState | None:
    """The state, or None where there is none: agents may write heads, so anything may stand there,
    and the next append reads it back from the list."""
    try:
        return HeadState.parse(field) if isinstance(field, bytes) else None
    except HistoryDamaged:
        return None


def last_append(writers: object) -> int | None:
    """When the last append was, in milliseconds: the end of the last writer's entry."""
    if not isinstance(writers, bytes) or len(writers) < _TIME_BYTES:
        return None
    return int.from_bytes(writers[-_TIME_BYTES:], "big")
