"""The reconcile of a MemoryStore that is no server: the template of Strict tenants' instances."""

from __future__ import annotations

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding, is_true
from memtenant.api.store_status import MemoryStoreStatus, StoreFlavour
from memtenant.reconcile.declared import save_status, status_before
from memtenant.reconcile.orphans import orphans_on
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.storestatus import counted, foreign_findings
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared, EventType

__all__ = ["reconcile_template"]


async def reconcile_template(world: World, declared: Declared) -> Outcome:
    """Count what was made of it. What each instance lacks is its tenant's to tell."""
    key = declared.key
    before = status_before(declared, MemoryStoreStatus)
    orphans = await orphans_on(world, key.name)
    wait = world.counts_wait(key, before.tenants, len(world.ledger.committed(key.name)))
    if wait and before.observed_generation == declared.generation:
        return Outcome(requeue_after=wait)
    status = before.model_copy(
        update={
            "flavour": StoreFlavour.DEDICATED,
            "owner": world.installation,
            **counted(world, key.name, orphans.records),
        }
    )
    true, false = ConditionStatus.TRUE, ConditionStatus.FALSE
    told = "Each tenant with isolation Strict gets an instance of its own"
    unmarked = foreign_findings(orphans.unmarked) if orphans.unmarked else ()
    findings = (
        Finding(ConditionType.READY, true, "Usable", told),
        Finding(ConditionType.STALLED, false, "Usable"),
        Finding(ConditionType.RECONCILING, false, "Usable"),
        *unmarked,
    )
    changed = await save_status(world, declared, status, findings)
    if unmarked and changed:
        await world.resources.emit_event(
            declared, EventType.WARNING, unmarked[0].reason, unmarked[0].message
        )
    if not unmarked and not is_true(before.conditions, ConditionType.READY):
        await world.resources.emit_event(declared, EventType.NORMAL, "Ready", told)
    return Outcome(changed=changed)
