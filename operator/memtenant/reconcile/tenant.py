"""The reconcile of a MemoryTenant that lives: read, decide, plan, apply, say so.

The way of an event: mirror → `reconcile_tenant` → `rules.placement` (where, and whether) →
`rules.keymaterial` (with which keys) → `rules.desired` (what should be) → `rules.plan` (what
differs) → `reconcile.apply` → `rules.status`. A tenant for which nothing differs is read and left
alone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from memtenant.api.conditions import ConditionType, Finding, find, is_true
from memtenant.api.fields import Isolation
from memtenant.api.tenant import MemoryTenantStatus
from memtenant.errors import (
    InvalidResource,
    MemtenantError,
    ResourceConflict,
    ResourceForbidden,
    ResourceUnavailable,
    StoreUnavailable,
)
from memtenant.jobs.link import LiveTenant
from memtenant.reconcile.access import LOOK_AGAIN, missing_secret_access
from memtenant.reconcile.admission import Stop
from memtenant.reconcile.apply import Work, apply
from memtenant.reconcile.declared import save_status, status_before
from memtenant.reconcile.instance import InstanceNeeded, require_alive, take_instance
from memtenant.reconcile.instanceturns import NotRunning
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.prepare import Prepared, prepare
from memtenant.reconcile.sealing import with_tenant_finding
from memtenant.reconcile.standing import enforce_standing, status_as_enforced
from memtenant.reconcile.world import DOUBT_AGAIN, FINALIZER, World, mint_password
from memtenant.resources.port import (
    FOREIGN_SECRET,
    SECRET_ACCESS_MISSING,
    Declared,
    EventType,
)
from memtenant.rules.keymotion import KeyStep
from memtenant.rules.placement import Refusal
from memtenant.rules.plan import (
    SetInstance,
    WriteBinding,
)
from memtenant.rules.policy import (
    retention_findings,
    retention_status,
)
from memtenant.rules.quota import Limits, QuotaState, percent
from memtenant.rules.status import (
    CANNOT_SAVE,
    Provisioned,
    instance_away,
    ready_status,
    refused,
    unreadable_data_keys,
    waiting,
)
from memtenant.tenancy.identity import TenantId

__all__ = ["reconcile_tenant"]


async def reconcile_tenant(world: World, declared: Declared) -> Outcome:
    """Make what is declared so, and say in the status what is.

    In a namespace that is being deleted nothing is made or told any more: the tenant's own
    deletion is about to come.
    """
    namespace = world.mirror.namespace(declared.key.namespace)
    if namespace is not None and namespace.terminating:
        return Outcome()
    try:
        return await _reconcile(world, declared)
    except ResourceForbidden as error:
        if error.reason != SECRET_ACCESS_MISSING:
            raise
        missing = await missing_secret_access(world, declared.key.namespace, again=True)
        if missing is None:
            raise  # it is about another verb or another namespace: its own words say which
        return await _refuse(world, declared, missing)
    except ResourceConflict as error:
        if error.reason != FOREIGN_SECRET:
            raise
        # One of the home namespace lost its labels: what was accepted stands until it has them.
        await enforce_standing(world, declared, refused=False)
        return await _refuse(world, declared, Refusal(error.reason, "", str(error)))


async def _reconcile(world: World, declared: Declared) -> Outcome:
    try:
        prepared = await _prepared(world, declared)
    except Stop as stop:
        return await _refuse(world, declared, stop.refusal)
    except NotRunning as error:
        return await _wait_for_instance(world, declared, error)
    except InvalidResource as error:
        return await _refuse(world, declared, Refusal(error.reason, error.field, str(error)))
    if prepared is None:
        return await _wait_for_store(world, declared)
    work = Work(
        prepared.declared,
        prepared.current,
        prepared.desired,
        prepared.link,
        _live(prepared),
        prepared.instance,
    )
    try:
        declared = await apply(world, work, prepared.plan)
    except NotRunning as error:
        return await _wait_for_instance(world, declared, error)
    except InvalidResource as error:
        await enforce_standing(world, declared, refused=True)
        return await _refuse(world, declared, Refusal(error.reason, error.field, str(error)))
    tenant = prepared.desired.record.tenant
    if prepared.instance is not None and world.links.get(str(tenant)) is not prepared.link:
        return Outcome(requeue_after=0.0, changed=True)
    prepared.link.tenants[tenant] = work.live
    # Where nothing of it was to be written, it was there as it should be.
    prepared.link.told_replicas.setdefault(tenant, int(prepared.desired.limits["replicas"]))
    if not prepared.keys.waits:
        prepared.link.key_scans.pop(tenant, None)
    world.settled[tenant] = prepared.policy
    changed = await _say_so(world, prepared, declared)
    record = prepared.current.record
    shrunk = record is not None and prepared.desired.record.quota_bytes < record.quota_bytes
    return Outcome(
        requeue_after=_next_look(prepared, world.clock.now()),
        enqueue=world.waiting_for_room(prepared.link.store) if shrunk else (),
        changed=changed or bool(prepared.plan),
        did=tuple(str(action) for action in prepared.plan),
    )


async def _prepared(world: World, declared: Declared) -> Prepared | None:
    """As `_prepare`, with the tenant's instance made and connected to where it has one."""
    try:
        return await _prepare(world, declared)
    except InstanceNeeded as needed:
        if FINALIZER not in declared.finalizers:
            # Before anything exists outside the object, so that its deletion waits for us.
            declared = await world.resources.add_finalizer(declared, FINALIZER)
            world.mirror.put(declared)
        await require_alive(world, declared)
        try:
            await take_instance(world, needed.wanted)
        except InvalidResource:
            await enforce_standing(world, declared, refused=True)
            raise
        for change in needed.changes:
            await world.resources.emit_event(declared, EventType.NORMAL, "InstanceSet", change)
        return await _prepare(world, declared)


async def _prepare(world: World, declared: Declared) -> Prepared | None:
    """As `prepare`. A tenant that is refused what it declares keeps what was accepted: its quota
    and its holds do not end with a spec that its team made unacceptable.
    """
    try:
        return await prepare(world, declared, mint_password)
    except (StoreUnavailable, ResourceUnavailable, InstanceNeeded):
        raise
    except MemtenantError as error:
        final = isinstance(error, Stop | InvalidResource) and not error.retryable
        await enforce_standing(world, declared, refused=final)
        raise


def _live(prepared: Prepared) -> LiveTenant:
    quota = prepared.spec.quota
    tenant = prepared.desired.record.tenant
    usage = prepared.link.usage_of(tenant)
    return LiveTenant(
        users=prepared.desired.users,
        limits=Limits(quota.memory.bytes, quota.conversations),
        state=prepared.quota_state,
        shown_percent=percent(usage.memory, quota.memory.bytes) if usage else 0,
        access=prepared.desired.state.mode,
        keys=prepared.keys.moving,
        keys_due=prepared.keys.next_step,
    )


async def _say_so(world: World, prepared: Prepared, declared: Declared) -> bool:
    now, link = world.clock.now(), prepared.link
    tenant = prepared.desired.record.tenant
    status = ready_status(
        status_before(declared, MemoryTenantStatus),
        Provisioned(
            spec=prepared.spec,
            desired=prepared.desired,
            quota_state=prepared.quota_state,
            keys=prepared.keys,
            key_scan=link.key_scan(tenant),
            key_available=prepared.key_available,
            key_secret=prepared.key_secret,
            retention=retention_status(prepared.retention),
            audit=prepared.audit.status,
            retention_findings=retention_findings(prepared.retention),
            usage=link.usage_of(tenant),
            measured_at=link.measured_at,
            withheld=prepared.withheld,
            cannot_save=_cannot_save(prepared),
        ),
        now=now,
        generation=prepared.declared.generation,
    )
    status, stale = _reported(world, prepared, status)
    await _tell(world, prepared)
    await _tell_of_withheld(world, prepared)
    conditions, findings = with_tenant_finding(status.conditions, link, tenant)
    return await save_status(
        world,
        replace(declared, generation=prepared.declared.generation),
        status.model_copy(update={"conditions": conditions}),
        (*findings, *stale),
    )


def _reported(
    world: World, prepared: Prepared, status: MemoryTenantStatus
) -> tuple[MemoryTenantStatus, tuple[Finding, ...]]:
    """What the policy's reports come to. Before the policy was looked at, what was told stands."""
    told = world.reported.get(prepared.spec.retention_policy_ref.name)
    if told is None:
        return status, ()
    return status.model_copy(update={"last_report": told.last}), (told.stale,)


def _cannot_save(prepared: Prepared) -> bool:
    facts = prepared.link.facts
    return prepared.instance is not None and facts is not None and not facts.primary.file.writable


async def _tell(world: World, prepared: Prepared) -> None:
    """Events for what a person should know; repeated words are kept back by the port."""
    before = QuotaState.from_fields(prepared.state.access)
    after = prepared.quota_state
    emit = world.resources.emit_event
    if prepared.current.record is None:
        message = f"Memory is ready on store {prepared.link.store}"
        await emit(prepared.declared, EventType.NORMAL, "Provisioned", message)
    if prepared.desired.advance.rotated:
        names = ", ".join(prepared.desired.advance.rotated)
        await emit(prepared.declared, EventType.NORMAL, "Rotating", f"New credentials: {names}")
    await _tell_of_keys(world, prepared)
    if _cannot_save(prepared):
        await emit(prepared.declared, EventType.WARNING, "StoreCannotSave", CANNOT_SAVE)
    if after.over and not before.over:
        message = f"The quota of {' and '.join(after.over)} is used up: writing is off"
        await emit(prepared.declared, EventType.WARNING, "QuotaExceeded", message)
    if before.over and not after.over:
        message = "Usage is back under 95 % of the quota: writing is on"
        await emit(prepared.declared, EventType.NORMAL, "QuotaRestored", message)
    if after.flooded and not before.flooded:
        message = "Bookkeeping outgrew its limit: the agents' users are off"
        await emit(prepared.declared, EventType.WARNING, "Flooded", message)


async def _tell_of_withheld(world: World, prepared: Prepared) -> None:
    if prepared.withheld is None:
        return
    refusal = prepared.withheld.refusal
    before = status_before(prepared.declared, MemoryTenantStatus)
    told = find(before.conditions, ConditionType.STALLED)
    if told is None or told.message != refusal.message:
        await world.resources.emit_event(
            prepared.declared, EventType.WARNING, refusal.reason, refusal.message
        )


async def _tell_of_keys(world: World, prepared: Prepared) -> None:
    emit, declared, step = world.resources.emit_event, prepared.declared, prepared.keys.step
    words = prepared.keys.change[:1].upper() + prepared.keys.change[1:]
    if step in (KeyStep.ADDED, KeyStep.ACTIVATED):
        await emit(declared, EventType.NORMAL, "KeyRotated", words)
    if step is KeyStep.DESTROYED:
        await emit(declared, EventType.NORMAL, "KeyDestroyed", words)
    scan = prepared.link.key_scan(prepared.desired.record.tenant)
    if prepared.keys.moving and scan and scan.unreadable:
        await emit(declared, EventType.WARNING, "DataKeysUnreadable", unreadable_data_keys(scan))


def _next_look(prepared: Prepared, now: datetime) -> float | None:
    wrote = any(isinstance(action, WriteBinding) for action in prepared.plan)
    turning = any(principal.pending for principal in prepared.desired.record.principals.values())
    if any(isinstance(action, SetInstance) for action in prepared.plan):
        return _TURN_AGAIN
    if prepared.keys.moves or (wrote and (turning or prepared.keys.waits)):
        return 0.0
    looks = (prepared.desired.advance.due, prepared.next_hold, prepared.keys.due)
    due = [prepared.next_step, *(at for at in looks if at is not None)]
    next_look = max(1.0, (min(due) - now).total_seconds())
    return min(next_look, LOOK_AGAIN) if prepared.withheld else next_look


async def _refuse(world: World, declared: Declared, refusal: Refusal) -> Outcome:
    status = refused(
        status_as_enforced(world, declared),
        refusal,
        now=world.clock.now(),
        generation=declared.generation,
    )
    changed = await save_status(world, declared, status)
    if changed:
        await world.resources.emit_event(
            declared, EventType.WARNING, refusal.reason, refusal.message
        )
    unseen = refusal.reason in (SECRET_ACCESS_MISSING, FOREIGN_SECRET)  # no event tells of its end
    soon = unseen or _instance_is_away(world, declared)
    return Outcome(requeue_after=LOOK_AGAIN if soon else _STANDING_AGAIN, changed=changed)


def _instance_is_away(world: World, declared: Declared) -> bool:
    """Whether what was accepted of the tenant waits for an instance, to be enforced on it."""
    served = declared.status.get("keyVersion")
    if declared.spec.get("isolation") != Isolation.STRICT.value or not served:
        return False
    link = world.links.get(str(TenantId(declared.key.namespace, declared.key.name)))
    return link is None or not link.ready


async def _wait_for_instance(world: World, declared: Declared, error: NotRunning) -> Outcome:
    """The instance is this tenant's alone: while it is away, the tenant is not Ready."""
    status = instance_away(
        status_before(declared, MemoryTenantStatus),
        error.reason,
        str(error),
        now=world.clock.now(),
        generation=declared.generation,
    )
    changed = await save_status(world, declared, status)
    again = _TURN_AGAIN if error.waits else _INSTANCE_AGAIN
    return Outcome(requeue_after=again, changed=changed)


_STANDING_AGAIN = 3600.0
"""Seconds between two looks at a tenant that is refused: its records go on expiring meanwhile."""

_INSTANCE_AGAIN = 1.0
"""Seconds between two looks at an instance that does not answer."""

_TURN_AGAIN = 5.0
"""Seconds between two looks at an instance that may wait for its turn to restart, as all the others
of its store do."""


async def _wait_for_store(world: World, declared: Declared) -> Outcome:
    """The store is one condition on the store: a tenant that works is left alone, so that a restart
    of the operator or a store writes nothing to its tenants. The store lets them all know when it
    is ready; nobody does when there is no doubt any more, and until then what was told stands.
    """
    before = status_before(declared, MemoryTenantStatus)
    again = DOUBT_AGAIN if world.mirror.doubted else None
    works = before.observed_generation == declared.generation and is_true(
        before.conditions, ConditionType.READY
    )
    if works or (again is not None and before.conditions):
        return Outcome(requeue_after=again)
    status = waiting(
        before,
        "StoreNotReady",
        "Waiting for the tenant's MemoryStore to be ready",
        now=world.clock.now(),
        generation=declared.generation,
    )
    return Outcome(requeue_after=again, changed=await save_status(world, declared, status))
