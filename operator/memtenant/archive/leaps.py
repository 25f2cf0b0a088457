"""How far the clock of a sealer may have been behind, by the seals alone.

A window is sealed every minute, so from seal to seal as much time is proven as their times differ.
Where they differ by more than a day, the sealer was away, or its clock was years behind and was
put right: nothing proves which. So a leaf from before may have been sealed as much later than it
says as all such leaps behind it leave open; and who lets leaves go counts them as so much younger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self

__all__ = ["DAY", "Leaps"]

DAY: Final = 86_400_000


@dataclass(slots=True)
class Leaps:
    """Of the seals of a tree, in their order. begin: when the first was made, last: the last; 0
    before that."""

    begin: int = 0
    last: int = 0
    _leaps: list[tuple[int, int]] = field(default_factory=list)

    def seal(self, time: int) -> None:
        """One more."""
        if not self.last:
            self.begin = time
        elif time - self.last > DAY:
            self._leaps.append((time, time - self.last - DAY))
        self.last = max(self.last, time)

    def earliest(self, moment: int, now: int = 0) -> int:
        """Which time a leaf has at the earliest that was sealed at ``moment``, if the clock is
        right ``now``; all in milliseconds."""
        leaps = self._leaps
        if self.last and now - self.last > DAY:
            leaps = [*leaps, (now, now - self.last - DAY)]
        unproven = sum(more for _, more in leaps)
        if moment <= self.begin + unproven or not self.last:
            return 0  # what is before the first seal was sealed by then: no more is known
        for end, more in leaps:
            if moment - unproven < end:
                break
            unproven -= more
        return moment - unproven

    def to_texts(self) -> list[str]:
        """For the state of the sealer."""
        return [f"{one} {other}" for one, other in ((self.begin, self.last), *self._leaps)]

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Self:
        """Raises ``ValueError``."""
        pairs = [
            (int(one), int(other)) for one, _, other in (text.partition(" ") for text in texts)
        ]
        if not pairs:
            raise ValueError("no leaps")
        return cls(*pairs[0], pairs[1:])
