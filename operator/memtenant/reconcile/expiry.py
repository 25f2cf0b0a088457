"""What is said about the removal of what has expired."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from memtenant.jobs.expire import Removal
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.world import World
from memtenant.resources.port import EventType, ObjectKey
from memtenant.stores import Tally
from memtenant.tenancy.identity import TenantId

__all__ = ["tell_removal"]

_log = logging.getLogger(__name__)


async def tell_removal(world: World, link: StoreLink, removal: Removal) -> tuple[str, ...]:
    """In the log and as Events of the store; the same in words."""
    declared = world.mirror.get(ObjectKey.store(link.store))
    if declared is None:
        return ()
    emit = world.resources.emit_event
    said = []
    total = removal.total
    if total.size:
        said.append(_removed(total, sum(1 for one in removal.by_tenant.values() if one.size)))
        await emit(declared, EventType.NORMAL, "Expired", said[-1])
    if total.redated:
        said.append(_redated(removal))
        await emit(declared, EventType.WARNING, "Redated", said[-1])
    if removal.passed and removal.undated:
        said.append(_undated(link, removal))
        await emit(declared, EventType.WARNING, "Undated", said[-1])
    for words in said:
        _log.info("%s: %s", link.name, words)
    return tuple(said)


def _removed(total: Tally, tenants: int) -> str:
    return (
        f"Removed what had passed its period (tenants: {tenants}, records: {total.records}). "
        f"Messages: {total.messages}, summaries: {total.summaries}, values of contexts: "
        f"{total.values}, of graphs: {total.checkpoints}. Conversations that are gone: "
        f"{total.conversations}, contexts: {total.contexts}"
    )


def _redated(removal: Removal) -> str:
    whose = _shown(tenant for tenant, one in removal.by_tenant.items() if one.redated)
    return (
        "Records that bore a time which they cannot have, and were dated back: "
        f"{removal.total.redated}. Somebody dated them around memtenant. They are in {whose}"
    )


def _undated(link: StoreLink, removal: Removal) -> str:
    whose = _shown(tenant for tenant, left in link.expiry.left.items() if left.undated)
    return (
        f"Entries that tell no time and never expire: {removal.undated}. Somebody wrote them "
        f"around memtenant. They are in {whose}; remove them"
    )


def _shown(tenants: Iterable[TenantId]) -> str:
    names = sorted(str(tenant) for tenant in tenants)
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
