"""The parts of a conversation's head that are read without a Function (functions/head.lua)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["HEAD_FIELDS", "HeadState", "head_state", "last_append"]

HEAD_FIELDS: Final = ("state", "meta", "writers")

_STATE_BYTES = 46
_TIME_BYTES = 6


@dataclass(frozen=True, slots=True)
class HeadState:
    """``oldest`` is the time of the oldest message in milliseconds; ``gone``: it was deleted."""

    epoch: int
    count: int
    oldest: int
    gone: bool


def head_state(field: object) -> HeadState | None:
    """The state, or None where there is none: agents may write heads, so anything may stand there.

    46 bytes: epoch 6, first 5, last 5, bytes 6, count 4, oldest 6, evicted 4, gone 1, marks 4,
    covered 5.
    """
    if not isinstance(field, bytes) or len(field) != _STATE_BYTES:
        return None
    return HeadState(
        epoch=int.from_bytes(field[:6], "big"),
        count=int.from_bytes(field[22:26], "big"),
        oldest=int.from_bytes(field[26:32], "big"),
        gone=field[36] != 0,
    )


def last_append(writers: object) -> int | None:
    """When the last append was, in milliseconds: the end of the last writer's entry."""
    if not isinstance(writers, bytes) or len(writers) < _TIME_BYTES:
        return None
    return int.from_bytes(writers[-_TIME_BYTES:], "big")
