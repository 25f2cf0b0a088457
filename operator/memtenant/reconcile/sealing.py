"""The operator's look at what the sealer does on a store. It shows that, and seals nothing itself:
who administers a store must not be who signs what happened on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from memtenant.api.conditions import Condition, ConditionStatus, ConditionType, Finding
from memtenant.api.store_status import LastSeal, MemoryStoreStatus
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.world import World
from memtenant.resources.port import EventType, Kind, ObjectKey
from memtenant.rules.sealing import log_finding, store_finding
from memtenant.tenancy.identity import TenantId

__all__ = [
    "SHOW_SEAL_EVERY",
    "last_seal",
    "look_at_seals",
    "with_store_finding",
    "with_tenant_finding",
]

SHOW_SEAL_EVERY = timedelta(minutes=10)
"""A status is not the place to follow each seal: the checkpoints are."""


async def look_at_seals(world: World, link: StoreLink) -> Outcome:
    """One look; whose condition is another now is to be reconciled. The queues of tenants that are
    gone end here, once they are drained."""
    link.seals = seen = await link.admin.look_at_seals()
    ended = await link.admin.finish_closed(sealed_before=seen.sealer is not None)
    found: dict[ObjectKey, Finding | None] = {}
    if link.key.kind is Kind.STORE:
        found[link.key] = store_finding(seen)
    for tenant in link.tenants:
        found[ObjectKey.tenant(tenant.namespace, tenant.name)] = log_finding(seen, tenant)
    news = {key for key, finding in found.items() if _shown(world, key) != _words(finding)}
    for key in sorted(news):
        await _warn(world, key, found[key])
    if link.key.kind is Kind.STORE and _seal_is_due(link):
        news.add(link.key)
    did = tuple(f"The audit of {tenant} is over, its queue drained" for tenant in ended)
    return Outcome(enqueue=tuple(sorted(news)), changed=bool(did), did=did, seals=seen)


async def _warn(world: World, key: ObjectKey, finding: Finding | None) -> None:
    """An Event where something is wrong now that was not, or was otherwise."""
    declared = world.mirror.get(key)
    if declared is None or finding is None or finding.status is not ConditionStatus.FALSE:
        return
    message = finding.message
    await world.resources.emit_event(declared, EventType.WARNING, finding.reason, message)


def with_store_finding(
    before: Iterable[Condition], link: StoreLink
) -> tuple[tuple[Condition, ...], tuple[Finding, ...]]:
    """The conditions of a store, and what there is to find about ``AuditSealed``."""
    found = None if link.seals is None else store_finding(link.seals)
    return _told(before, link, found)


def with_tenant_finding(
    before: Iterable[Condition], link: StoreLink, tenant: TenantId
) -> tuple[tuple[Condition, ...], tuple[Finding, ...]]:
    """The conditions of a tenant, and what there is to find about ``AuditSealed``."""
    found = None if link.seals is None else log_finding(link.seals, tenant)
    return _told(before, link, found)


def _told(
    before: Iterable[Condition], link: StoreLink, found: Finding | None
) -> tuple[tuple[Condition, ...], tuple[Finding, ...]]:
    """Whoever is not audited has no such condition; before the first look it stays as it was."""
    if found is not None:
        return tuple(before), (found,)
    if link.seals is None:
        return tuple(before), ()
    return tuple(one for one in before if one.type != ConditionType.AUDIT_SEALED), ()


def last_seal(before: MemoryStoreStatus, link: StoreLink) -> LastSeal | None:
    """What the status shows: the seal that it showed, until that is old enough."""
    shown = before.last_seal
    if link.seals is None or link.seals.sealer is None or not link.seals.sealer.sealed_at:
        return shown
    sealer = link.seals.sealer
    time = datetime.fromtimestamp(sealer.sealed_at // 1000, UTC)
    if shown is not None and time - shown.time < SHOW_SEAL_EVERY:
        return shown
    return LastSeal(time=time, size=sealer.size, root=sealer.root)


def _seal_is_due(link: StoreLink) -> bool:
    """Whether there is a seal, and none was shown by this process in the last minutes."""
    assert link.seals is not None  # noqa: S101 - it was just looked at
    sealer = link.seals.sealer
    if sealer is None or not sealer.sealed_at:
        return False
    due = sealer.sealed_at - link.seal_shown >= int(SHOW_SEAL_EVERY.total_seconds() * 1000)
    if due:
        link.seal_shown = sealer.sealed_at
    return due


def _words(finding: Finding | None) -> tuple[str, str]:
    return ("", "") if finding is None else (finding.reason, finding.message)


def _shown(world: World, key: ObjectKey) -> tuple[str, str]:
    """What the status says, as it was last seen."""
    declared = world.mirror.get(key)
    conditions = declared.status.get("conditions", ()) if declared else ()
    for one in conditions:
        if one.get("type") == ConditionType.AUDIT_SEALED:
            return str(one.get("reason", "")), str(one.get("message", ""))
    return "", ""
