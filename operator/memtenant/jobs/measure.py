"""Measure a store: one paced pass, and the tenants whose state it changes."""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.clock import Clock
from memtenant.jobs.link import StoreLink
from memtenant.rules.quota import judge
from memtenant.stores import UsageScan
from memtenant.tenancy.identity import TenantId

__all__ = ["SHOW_AGAIN_AT", "Measurement", "measure"]

SHOW_AGAIN_AT = 5
"""Points of the memory quota by which usage must move before a status is written again."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one pass found: ``affected`` tenants are to be reconciled."""

    tenants: int
    memory: int
    affected: tuple[TenantId, ...]
    seconds: float


async def measure(link: StoreLink, clock: Clock) -> Measurement:
    """Scan the store once and say whose access or shown usage changes by it."""
    started = clock.monotonic()
    link.emptied_lately.clear()
    scan = UsageScan()
    usage = await link.admin.measure(scan)
    for tenant in link.emptied_lately:  # what was counted of it may be gone, and it may be another
        usage.pop(tenant, None)
        scan.marks.pop(tenant, None)
    link.usage = usage
    link.marks = scan.marks
    link.measured_at = now = clock.now()
    affected = {tenant for tenant, _ in link.moved(SHOW_AGAIN_AT)}
    for tenant, live in link.tenants.items():
        found = link.usage_of(tenant)
        if found is not None and judge(live.state, found, live.limits, now) != live.state:
            affected.add(tenant)
    return Measurement(
        tenants=len(usage),
        memory=sum(one.memory for one in usage.values()),
        affected=tuple(sorted(affected)),
        seconds=clock.monotonic() - started,
    )
