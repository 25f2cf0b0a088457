"""The head of a conversation as it is stored, for whoever reads it without a Function."""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.errors import HistoryDamaged

__all__ = ["HEAD_STATE", "HeadState"]

HEAD_STATE = b"state"
"""The field of ``:h`` that holds these numbers; ``meta`` beside it is the encrypted title."""

_SIZES = (6, 5, 5, 6, 4, 6, 4, 1, 4, 5)


@dataclass(frozen=True, slots=True)
class HeadState:
    """46 bytes: ten numbers, big-endian, in this order (docs/functions.md).

    size: bytes of the list, with its overhead; count: messages that are not tombstones; oldest:
    time in milliseconds of the first entry; evicted: opening time in seconds of the last writer
    that was sent away to make room; gone: 1 after a deletion; marks: idempotency marks ever;
    covered: the last sequence that a summary covers.
    """

    epoch: int
    first: int
    last: int
    size: int
    count: int
    oldest: int
    evicted: int
    gone: int
    marks: int
    covered: int

    @classmethod
    def parse(cls, packed: bytes) -> HeadState:
        """`HistoryDamaged` for bytes of another length: an agent may have written them."""
        if len(packed) != sum(_SIZES):
            raise HistoryDamaged(
                "The head of a conversation is not what memtenant writes: it was written around "
                "it. Delete the field `state`; the next append reads it back from the list"
            )
        numbers = []
        for size in _SIZES:
            numbers.append(int.from_bytes(packed[:size], "big"))
            packed = packed[size:]
        return cls(*numbers)

    def to_bytes(self) -> bytes:
        """What is stored. ``OverflowError`` for a number that does not fit."""
        numbers = (
            *(self.epoch, self.first, self.last, self.size, self.count, self.oldest),
            *(self.evicted, self.gone, self.marks, self.covered),
        )
        return b"".join(
            number.to_bytes(size, "big") for number, size in zip(numbers, _SIZES, strict=True)
        )
