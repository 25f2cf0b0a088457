"""The records of tenants that are gone from a store, whose data is there."""

from __future__ import annotations

import logging

from memtenant.errors import KeyUnavailable
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.deletion import finish_orphan
from memtenant.reconcile.world import World
from memtenant.resources.port import StoredSecret
from memtenant.rules.record import (
    LABEL_PHASE,
    RECORD_COMPONENT,
    RECORD_LABEL,
    Phase,
    TenantRecord,
)

__all__ = ["orphans_on"]

_log = logging.getLogger(__name__)


async def orphans_on(
    world: World, store: str, link: StoreLink | None = None
) -> list[tuple[StoredSecret, TenantRecord]]:
    """Records on this store without a tenant; what detached while it was away is finished now, by
    its link.

    A record that cannot be read is left for a backup to mend, and does not stop the others.
    """
    found = []
    for phase in (Phase.RETAINED, Phase.ORPHANED):
        labels = {RECORD_LABEL: RECORD_COMPONENT, LABEL_PHASE: phase.value}
        for stored in await world.resources.list_secrets(world.resources.home, labels):
            try:
                record = TenantRecord.from_data(stored.data, stored.name)
            except KeyUnavailable as damage:
                _log.error("%s", damage)
                continue
            if record.store != store:
                continue
            if (
                link is not None
                and phase is Phase.ORPHANED
                and await finish_orphan(world, link, stored, record)
            ):
                continue
            found.append((stored, record))
    return sorted(found, key=lambda item: item[1].tenant)
