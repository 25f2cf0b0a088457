"""How long to wait after a failure: exponential, with jitter, per key."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Backoff"]

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class Backoff(Generic[K]):
    """Failures in a row per key, and the delay that follows from them.

    The n-th delay is drawn between half of and the whole of ``first * 2 ** (n - 1)`` seconds, at
    most ``longest``: never zero, and two keys that failed together do not return together.
    ``uniform`` answers a number in [0, 1).
    """

    first: float = 0.25
    longest: float = 300.0
    uniform: Callable[[], float] = random.random
    _failures: dict[K, int] = field(default_factory=dict)

    def failed(self, key: K) -> float:
        """Count one more failure; the seconds to wait before the next try."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        # 2 ** 1024 is no float: the exponent stops long before.
        whole = min(self.longest, self.first * 2.0 ** min(failures - 1, 60))
        return whole * (0.5 + self.uniform() / 2)

    def failures(self, key: K) -> int:
        """Failures in a row so far."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """The key did well: its next failure is its first."""
        self._failures.pop(key, None)
