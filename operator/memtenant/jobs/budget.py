"""How much of a tenant's audit queue the sealer archives in a time.

Its agents may push what they like onto the queue, past the Functions and their rate. What is taken
leaves the queue, so neither quota nor flood would ever see it, and the archive, which is all
tenants', would fill. What is over the budget waits in the queue, where it counts as a flood.

And of the room that the archive has left, one tenant has a share a day: so the noisiest are stopped
first, long before nobody else has any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memtenant.archive import Space
from memtenant.audit.leaf import LONGEST_ENTRY

__all__ = ["DAILY_SHARE", "LEAST_WRITES", "WINDOW", "Budget", "daily_share"]

DAILY_SHARE = 10
"""Percent of the archive's room that one tenant may fill in a day."""

_RESERVE = 20
"""The part of the disk that is kept for seals, and for what is about no tenant; of a large disk,
`_MOST_RESERVED` bytes."""

_MOST_RESERVED = 2**30

_BYTES_A_WRITE = 512
"""Of the archive for each write that a tenant may make: an audited call takes some 120 to 150, so
there is room for two or three reads with each write."""

LEAST_WRITES = 500
"""Writes a second that a tenant is counted with, if it declares fewer: it may read all the more."""

WINDOW = 600.0
"""Seconds whose bytes may come at once."""

_FRAME = 32
"""What the archive adds to an entry, and a little: an empty entry costs something too."""


def daily_share(space: Space, percent: int) -> int:
    """How many bytes of the archive one tenant may fill today; 0 where there is no room."""
    reserve = min(space.size // _RESERVE, _MOST_RESERVED)
    return max(space.free - reserve, 0) * percent // 100


@dataclass(slots=True)
class Budget:
    """Of one log. ``left`` falls below zero by what the last page had too much. ``share`` are the
    bytes of the day, of which ``filled`` are used."""

    writes: int
    at: float
    left: float
    share: int = 0
    filled: int = 0
    day: int = 0

    @classmethod
    def of(cls, writes: int, now: float) -> Budget:
        """A full one, of a tenant with so many writes a second."""
        full = cls(max(writes, LEAST_WRITES), now, 0.0)
        full.left = full._rate * WINDOW
        return full

    def allow(self, writes: int, now: float) -> None:
        """Add what the time since the last call brings, at what the tenant may write now."""
        self.writes = max(writes, LEAST_WRITES)
        self.left = min(self.left + self._rate * (now - self.at), self._rate * WINDOW)
        self.at = now

    def spend(self, entries: Iterable[bytes], *, is_new: bool = True) -> None:
        """Entries go to the archive, which keeps no more of one than the longest that it reads, and
        nothing of what it has."""
        taken = sum(min(len(entry), LONGEST_ENTRY) + _FRAME for entry in entries)
        self.left -= taken
        self.filled += taken if is_new else 0

    def have(self, share: int, day: int) -> None:
        """What the log may have of a day."""
        if day != self.day:
            self.day, self.filled = day, 0
        self.share = share

    @property
    def had_its_share(self) -> bool:
        """Whether the queue has to wait for another day, or for room."""
        return self.filled >= self.share

    @property
    def spent(self) -> bool:
        """Whether the queue has to wait."""
        return self.left <= 0

    @property
    def _rate(self) -> int:
        return self.writes * _BYTES_A_WRITE
