"""Time as an argument: rules take ``now``, edges take a `Clock`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

__all__ = ["Clock", "rfc3339", "system_clock", "utc_from_rfc3339"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where an edge reads time: ``now`` is wall-clock UTC, ``monotonic`` seconds for intervals."""

    now: Callable[[], datetime] = field(default=_utc_now)
    monotonic: Callable[[], float] = field(default=time.monotonic)


system_clock = Clock()


def rfc3339(moment: datetime) -> str:
    """``2026-01-31T09:30:00Z``: UTC, whole seconds, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_from_rfc3339(text: str) -> datetime:
    """The moment that `rfc3339` (or Kubernetes) wrote. Raises ``ValueError`` on anything else."""
    return datetime.fromisoformat(text).astimezone(UTC)
