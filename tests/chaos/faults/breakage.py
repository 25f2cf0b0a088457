"""What a kind of fault is."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.chaos.schedule import Kind
from tests.chaos.world import World

__all__ = ["OPERATOR_AWAY", "Breakage"]

OPERATOR_AWAY = 300.0
"""Seconds for which what else is done may keep any operator from its work."""

Strike = Callable[[World, random.Random], AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class Breakage:
    """A kind, and how it is done: a context in which things are broken, and which says in words
    what of the things that it could break it chose. It heals at its end."""

    kind: Kind
    means: str
    strike: Strike
