"""Which fault comes when: the same seed gives the same schedule, whatever happens in a run."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Fault", "Kind", "plan"]

_PAUSE = (3.0, 12.0)
"""Seconds from the end of a fault to the next one on the same target: some for it to come back."""

_SHORTEST = 0.2
"""Of a fault's longest time."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it is done to, and how many seconds it lasts at most."""

    name: str
    target: str
    longest: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a schedule. ``seed`` decides what its kind leaves open, such as which replica."""

    at: float
    seconds: float
    kind: str
    target: str
    seed: int

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind} for {self.seconds:.2f} s ({self.seed})"


def plan(seed: int, seconds: float, kinds: Iterable[Kind]) -> tuple[Fault, ...]:
    """The faults of so many seconds, in the order in which they begin. Those on one target never
    overlap; each kind comes once before any comes again."""
    targets: dict[str, list[Kind]] = {}
    for kind in kinds:
        targets.setdefault(kind.target, []).append(kind)
    faults = [
        fault
        for target, there in targets.items()
        for fault in _lane(random.Random(f"{seed}/{target}"), seconds, there)
    ]
    return tuple(sorted(faults, key=lambda fault: (fault.at, fault.target)))


def _lane(chance: random.Random, seconds: float, kinds: list[Kind]) -> Iterator[Fault]:
    """The faults on one target."""
    at = chance.uniform(0, _PAUSE[1])
    deck: list[Kind] = []
    while True:
        deck = deck or chance.sample(kinds, len(kinds))
        kind = deck.pop()
        length = kind.longest * chance.uniform(_SHORTEST, 1)
        if at + length > seconds:
            return
        at_now, length = round(at, 2), round(length, 2)
        yield Fault(at_now, length, kind.name, kind.target, chance.randrange(2**32))
        at = at_now + length + chance.uniform(*_PAUSE)
