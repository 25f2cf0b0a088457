"""The records of tenants that are gone from a store, whose data is there."""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.errors import ResourceConflict
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.deletion import finish_orphan
from memtenant.reconcile.records import (
    FoundRecord,
    put_labels_back,
    records_in,
    unlabelled_records,
)
from memtenant.reconcile.world import World
from memtenant.resources.port import FOREIGN_SECRET
from memtenant.rules.record import Phase

__all__ = ["Orphans", "orphans_on"]

_PHASES = (Phase.RETAINED, Phase.ORPHANED)


@dataclass(frozen=True, slots=True)
class Orphans:
    """The records, by tenant. ``unmarked`` is what to tell of one that is not known as ours any
    more: it is left as it is until somebody puts its labels back."""

    records: tuple[FoundRecord, ...] = ()
    unmarked: ResourceConflict | None = None


async def orphans_on(world: World, store: str, link: StoreLink | None = None) -> Orphans:
    """Records on this store without a tenant, those that lost a label included, which they get
    back; what detached while the store was away is finished now, by its link.
    """
    found = [one for phase in _PHASES for one in await records_in(world.resources, phase)]
    found += await unlabelled_records(world.resources)
    orphans = [one for one in found if one[1].phase in _PHASES and one[1].store == store]
    left: list[FoundRecord] = []
    unmarked: ResourceConflict | None = None
    for stored, record in sorted(orphans, key=lambda item: item[1].tenant):
        try:
            mended = await put_labels_back(world.resources, stored, record)
        except ResourceConflict as error:
            if error.reason != FOREIGN_SECRET:
                raise
            unmarked = unmarked or error
            left.append((stored, record))
            continue
        detached = record.phase is Phase.ORPHANED
        if link is None or not detached or not await finish_orphan(world, link, mended, record):
            left.append((mended, record))
    return Orphans(tuple(left), unmarked)
