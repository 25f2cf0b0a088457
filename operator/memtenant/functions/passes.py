"""When the operator looked at all that a tenant has, as the Functions read it: ``o:passes``.

A look at a conversation closes the writers that were opened a day before. So of a writer that was a
day old when a pass began, nothing that was written after its end is to come, whichever version of
memtenant the writer has; and a message that says otherwise was dated around memtenant.

Years of passes are a few bytes: those that follow one another without a gap are one run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["Passes"]

_RUN: Final = struct.Struct(">6s6s6s")
_LONGEST_GAP: Final = 2 * 86_400_000
"""Milliseconds from the beginning of a pass to the end of the next, in one run."""

_MOST_RUNS: Final = 64


@dataclass(frozen=True, slots=True)
class _Run:
    """Of any moment in it, the next pass to begin had ended so much later, at the latest."""

    first: int
    last: int
    slack: int


@dataclass(frozen=True, slots=True)
class Passes:
    """The passes of one tenant, in milliseconds since 1970 by its server's clock."""

    runs: tuple[_Run, ...] = ()

    @classmethod
    def parse(cls, stored: bytes | None) -> Passes:
        """What is stored; what cannot be read tells of no pass."""
        if not stored or len(stored) % _RUN.size:
            return cls()
        return cls(
            tuple(
                _Run(*(int.from_bytes(number, "big") for number in numbers))
                for numbers in _RUN.iter_unpack(stored)
            )
        )

    def to_bytes(self) -> bytes:
        """What is stored."""
        return b"".join(
            _RUN.pack(*(number.to_bytes(6, "big") for number in (run.first, run.last, run.slack)))
            for run in self.runs
        )

    @property
    def last(self) -> int:
        """When the latest pass began; 0 for none."""
        return self.runs[-1].last if self.runs else 0

    def ended(self, time: int) -> int | None:
        """When the first pass that began at ``time`` or later had ended, at the latest; None where
        there was none."""
        for run in self.runs:
            if run.last >= time:
                return max(run.first, time) + run.slack
        return None

    def and_then(self, began: int, ended: int) -> Passes:
        """With one more pass; one that began before the latest adds nothing."""
        if began <= self.last:
            return self
        runs = (*self.runs, _Run(began, began, ended - began))
        if self.runs and ended - self.last <= _LONGEST_GAP:
            runs = (*self.runs[:-1], _joined(runs[-2:]))
        return Passes(runs if len(runs) <= _MOST_RUNS else (_joined(runs[:2]), *runs[2:]))


def _joined(two: Iterable[_Run]) -> _Run:
    """The same passes, less exactly."""
    former, later = two
    slack = later.first + later.slack - former.last
    return _Run(former.first, later.last, max(former.slack, later.slack, slack))
