"""What a caller may set of a `Tenant`, and when to try again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from memtenant.memory.observing import Observer

__all__ = ["Options", "full_jitter"]


@dataclass(frozen=True, slots=True)
class Options:
    """All times are in seconds.

    connect_timeout: for one connection with its login. timeout: for all replies to one request.
    retry_budget: how long a request is tried again while the store does not answer; then
    `StoreUnavailable`. Every request of the SDK may be sent twice without being done twice.
    connections: the most that a process opens. observer: told of each call when it is over, for
    traces and metrics.
    """

    connect_timeout: float = 3.0
    timeout: float = 5.0
    retry_budget: float = 10.0
    connections: int = 16
    observer: Observer | None = None


def full_jitter(attempt: int, *, base: float = 0.02, most: float = 1.0) -> float:
    """Seconds to wait before the attempt after ``attempt`` (from 0): anything up to a bound that
    doubles, so that those who collided do not meet again."""
    return random.uniform(0, min(most, base * 2 ** min(attempt, 30)))  # noqa: S311 - no secret
