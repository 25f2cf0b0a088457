"""Remove from a store what has passed its period, although nobody reads or appends there.

At each round what the tenants' own lists say is due; once a day, in parts of a round's size, a pass
over all keys, which finds what those lists do not tell. What a pass has looked at and what stays is
known afterwards: the proof that nothing is past its cut-off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from memtenant.clock import Clock
from memtenant.jobs.link import StoreLink
from memtenant.stores import ExpiryScan, Tally
from memtenant.tenancy.identity import TenantId

__all__ = ["Removal", "expire"]

MOST_DUE = 10_000
"""Conversations and contexts that one round removes by the tenants' lists."""

MOST_KEYS = 200_000
"""Keys that a pass looks at in one round, where it removes little."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What one round removed, by tenant. ``passed``: a pass over all keys came to its end, of
    several servers that of one; ``passed_at``: when the last one did, before that when rounds
    began, of several the earliest; ``undated``: entries that tell no time and that it left."""

    by_tenant: Mapping[TenantId, Tally]
    passed_at: datetime
    passed: bool = False
    undated: int = 0

    @property
    def total(self) -> Tally:
        """Of all tenants."""
        total = Tally()
        for one in self.by_tenant.values():
            total.add(one)
        return total

    @classmethod
    def of_all(cls, removals: Iterable[Removal]) -> Removal:
        """What was removed from several servers; no tenant is on two."""
        found = list(removals)
        return cls(
            {tenant: tally for one in found for tenant, tally in one.by_tenant.items()},
            min(one.passed_at for one in found),
            any(one.passed for one in found),
            sum(one.undated for one in found),
        )


async def expire(
    link: StoreLink,
    clock: Clock,
    *,
    pass_every: timedelta,
    spares: Callable[[TenantId], bool],
) -> Removal:
    """One round, which leaves those tenants alone whom it ``spares``. A pass begins when the last
    one ended so long ago, or there was none since the start; where the primary became another
    process, it begins anew."""
    removed = await link.admin.expire_due(
        [one for one in link.tenants if not spares(one)], most=MOST_DUE
    )
    passed = False
    expiry = link.expiry
    run_id = link.admin.facts.run_id
    if expiry.scan is not None and expiry.run_id != run_id:
        expiry.scan = None
    now = clock.now()
    expiry.began_at = expiry.began_at or now
    if expiry.scan is None and (expiry.passed_at is None or now - expiry.passed_at >= pass_every):
        expiry.scan, expiry.run_id = ExpiryScan(), run_id
    if expiry.scan is not None:
        passed = await link.admin.expire_scanned(expiry.scan, most=MOST_KEYS, spares=spares)
        for tenant, tally in expiry.scan.take().items():
            removed.setdefault(tenant, Tally()).add(tally)
        if passed:
            expiry.left, expiry.passed_at, expiry.scan = expiry.scan.left, clock.now(), None
    undated = sum(one.undated for one in expiry.left.values())
    return Removal(removed, expiry.passed_at or expiry.began_at, passed, undated)
