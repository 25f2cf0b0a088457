"""What every part of a report's evidence is gathered by: sources, policy, period, clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

from memtenant.clock import rfc3339
from memtenant.errors import StoreUnavailable
from memtenant.reports.evidence import CLOCKS_APART, Missing, Period, TenantEvents
from memtenant.reports.sources import Declarations, Log, Sources
from memtenant.rules.policy import PolicyFacts
from memtenant.stores.pace import Pace
from memtenant.tenancy.identity import TenantId

__all__ = ["Looking", "Progress"]

Progress = Callable[[int, int], None]
"""Told how much is done, and how much is known to be due: keys, then tenants."""


@dataclass(frozen=True, slots=True)
class Looking:
    """What is looked at, by what, and for which time."""

    sources: Sources
    declared: Declarations
    policy: PolicyFacts
    log: Log | Missing
    installation: TenantEvents | Missing
    period: Period
    now: datetime
    minimum_since: datetime | None
    pace: Pace | None
    progress: Progress
    began: float = field(default_factory=monotonic)

    def compare_clocks(self, store: str, time: datetime) -> None:
        """By a clock that is behind, what is over its period looks as if it were not."""
        here = self.now + self.took
        if time > here + CLOCKS_APART:
            raise StoreUnavailable(
                f"the clock of store {store} is at {rfc3339(time)} and this one at "
                f"{rfc3339(here)}: nothing can be said of ages. Set the one that is wrong"
            )

    @property
    def took(self) -> timedelta:
        """For how long was looked."""
        return timedelta(seconds=monotonic() - self.began)

    @property
    def everybody(self) -> frozenset[TenantId]:
        """Who is declared, under whichever policy."""
        return frozenset(TenantId(one.key.namespace, one.key.name) for one in self.declared.tenants)
