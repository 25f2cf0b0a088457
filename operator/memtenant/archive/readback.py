"""What is looked for in a log that was sealed, some of it at a time.

An agent decides by what it pushes how much of its tenant's log is read back. So a round reads back
so many bytes, and the next goes on from there: nobody else waits for one log of many gigabytes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["READ_BACK", "Allowance", "ReadBack"]

T = TypeVar("T")

READ_BACK: Final = 128 * 1024 * 1024
"""Bytes of all logs together that a round reads back: five seconds at the slowest (measured)."""

_LEAST: Final = 1024 * 1024
"""Of each log, however many there are, and whatever was read before."""


@dataclass(slots=True)
class Allowance:
    """Bytes that may be read back."""

    left: int

    @classmethod
    def unlimited(cls) -> Allowance:
        """For who has nobody that waits."""
        return cls(2**62)

    def part(self, among: int) -> Allowance:
        """What one of so many logs may read of it; `give_back` what it left."""
        part = max(self.left // among, _LEAST)
        self.left -= part
        return Allowance(part)

    def give_back(self, part: Allowance) -> None:
        """It was not all read."""
        self.left += part.left


class ReadBack(Generic[T]):
    """Something that is looked for. Its steps say how much each of them read, and at the end what
    was found."""

    def __init__(self, steps: Generator[int, None, T]) -> None:
        self._steps = steps
        self.found: T

    def goes_to_its_end(self, allowance: Allowance) -> bool:
        """Whether all was read, and ``found`` is there. At least a step is taken."""
        try:
            while True:
                allowance.left -= next(self._steps)
                if allowance.left <= 0:
                    return False
        except StopIteration as end:
            self.found = end.value
            return True
