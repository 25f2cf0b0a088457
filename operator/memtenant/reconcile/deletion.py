"""The deletion of a MemoryTenant: revoke, then what its policy says, then let it go.

Each step leaves a state from which the next try goes on: the record's phase says how far it came.
A store that is gone does not hold the tenant for ever, and a namespace in deletion never hangs on
a hold: the data then stays as a retained orphan.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from memtenant.api.fields import DeletionPolicy, Isolation
from memtenant.api.tenant import AuditMode, MemoryTenantStatus
from memtenant.errors import ResourceForbidden
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.current import Current, read_bindings, read_record, record_draft
from memtenant.reconcile.declared import save_status, status_before
from memtenant.reconcile.instance import has_instance, link_to_data, remove_instance
from memtenant.reconcile.obstacles import may_be_held, may_be_kept, obstacle_to
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.telling import tell_ended, tell_purged
from memtenant.reconcile.world import FINALIZER, World
from memtenant.resources.port import (
    SECRET_ACCESS_MISSING,
    Declared,
    EventType,
    ObjectKey,
    StoredSecret,
)
from memtenant.rules.deletion import Obstacle
from memtenant.rules.expiry import CUTOFF_FIELDS
from memtenant.rules.record import Phase, TenantRecord
from memtenant.rules.status import deletion_blocked
from memtenant.stores import StateChange
from memtenant.tenancy.identity import TenantId

__all__ = ["delete_tenant", "finish_orphan"]

_LOOK_AGAIN = 60.0


async def delete_tenant(world: World, declared: Declared) -> Outcome:
    """Go as far towards the object's end as holds, minimums and the store allow."""
    tenant = TenantId(declared.key.namespace, declared.key.name)
    if FINALIZER not in declared.finalizers:
        return Outcome(enqueue=world.make_room(tenant))
    current = await _read(world, tenant)
    record = current.record
    if record is None:
        await _remove_unrecorded(world, declared, tenant)
    if record is None or record.uid != declared.uid:
        await _remove_unready_instance(world, declared, record)
        return await _let_go(world, declared, current, tenant)
    policy = _deletion_policy(declared, record)
    link = await link_to_data(world, record)
    if link is None or not link.ready:
        if has_instance(record) and record.phase is Phase.RETAINED:
            # It ended at an earlier look, which the object does not tell yet.
            return await _without_instance(world, declared, current, record, DeletionPolicy.RETAIN)
        return await _without_store(world, declared, current, record, policy)
    obstacle = await obstacle_to(world, record, policy, link, declared)
    if obstacle is not None:
        namespace = world.mirror.namespace(tenant.namespace)
        if namespace is not None and not namespace.terminating:
            return await _blocked(world, declared, obstacle)
        policy = DeletionPolicy.RETAIN
        record = replace(record, left=f"Not deleted with its namespace: {obstacle.message}")
    if policy is DeletionPolicy.RETAIN and (obstacle or may_be_held(world, declared, record)):
        await _stop_expiry(link, tenant)
    await _revoke(world, link, tenant, record)
    await tell_ended(world, link, tenant, policy.value, declared)
    if policy is DeletionPolicy.RETAIN:
        kept = _in_phase(record, Phase.RETAINED, world.clock.now())
        await world.resources.apply_secret(record_draft(world, kept), current=current.stored_record)
        if has_instance(record):
            # What is retained keeps its queue too.
            since = declared.deletion_timestamp or world.clock.now()
            waits = await _waits_for_seal(world, link, tenant, since)
            if waits is not None:
                return await _blocked(world, declared, waits)
            await link.admin.users.save()
            await remove_instance(world, declared, tenant, keep_data=True)
    else:
        waits = await _remove(world, declared, link, record, current, policy)
        if waits is not None:
            return await _blocked(world, declared, waits)
    done = await _tell(world, declared, policy, link.store)
    return await _let_go(world, declared, current, tenant, done)


async def _read(world: World, tenant: TenantId) -> Current:
    """What exists of the tenant. Bindings that may not be read (the grant goes with its namespace,
    and in no known order) go with their owner, the tenant, by the garbage collector.
    """
    stored, record = await read_record(world, tenant)
    try:
        return await read_bindings(world, tenant, stored, record, (), bound=True)
    except ResourceForbidden as error:
        if error.reason != SECRET_ACCESS_MISSING:
            raise
    return Current(stored, record)


async def _delete_bindings(world: World, current: Current) -> None:
    try:
        for binding in current.bindings.values():
            await world.resources.delete_secret(binding)
    except ResourceForbidden as error:
        if error.reason != SECRET_ACCESS_MISSING:
            raise


async def _remove_unrecorded(world: World, declared: Declared, tenant: TenantId) -> None:
    """Delete or Shred of a tenant whose record is gone: its keys went with the record, and its data
    goes now, if it is known to be this tenant's and nothing keeps it. Users without a tenant are
    the repair's.
    """
    before = status_before(declared, MemoryTenantStatus)
    link = world.link_of(before.store, tenant)
    if link is None or not link.ready:
        return
    access = (await link.admin.read_states([tenant]))[tenant].access
    if access.get("incarnation") != declared.uid:
        return
    lost = TenantRecord(
        tenant=tenant,
        uid=declared.uid,
        incarnation=declared.uid,
        namespace_uid="",
        store=link.store,
        phase=Phase.ACTIVE,
        since=world.clock.now(),
    )
    policy = _deletion_policy(declared, lost)
    if policy is DeletionPolicy.RETAIN or await obstacle_to(world, lost, policy, link, declared):
        return
    await _revoke(world, link, tenant, lost)
    await tell_ended(world, link, tenant, policy.value, declared)
    await link.admin.purge([tenant])
    link.emptied(tenant)
    await tell_purged(world, link, tenant, policy.value)
    await _tell(world, declared, policy, link.store)


async def _remove_unready_instance(
    world: World, declared: Declared, record: TenantRecord | None
) -> None:
    """An instance is made before the record of its tenant, which may end before it ever ran, or
    before it took over what an earlier one left. Data stays where a record or a status tells of
    any."""
    if declared.spec.get("isolation") != Isolation.STRICT.value or world.instances is None:
        return
    if record is not None and record.phase is not Phase.RETAINED:
        return
    tenant = TenantId(declared.key.namespace, declared.key.name)
    served = record is not None or bool(declared.status.get("keyVersion"))
    await remove_instance(world, declared, tenant, keep_data=served)


def _deletion_policy(declared: Declared, record: TenantRecord) -> DeletionPolicy:
    """As declared; what cannot be read is what the record remembers."""
    declared_policy = declared.spec.get("deletionPolicy", record.deletion_policy)
    try:
        return DeletionPolicy(declared_policy)
    except ValueError:
        return DeletionPolicy(record.deletion_policy)


async def _blocked(world: World, declared: Declared, obstacle: Obstacle) -> Outcome:
    now = world.clock.now()
    status = deletion_blocked(
        status_before(declared, MemoryTenantStatus),
        obstacle.reason,
        obstacle.message,
        now=now,
        generation=declared.generation,
    )
    changed = await save_status(world, declared, status)
    await world.resources.emit_event(declared, EventType.WARNING, obstacle.reason, obstacle.message)
    wait = _LOOK_AGAIN
    if obstacle.until is not None:
        wait = max(1.0, min((obstacle.until - now).total_seconds(), 86_400.0))
    return Outcome(requeue_after=wait, changed=changed)


async def _stop_expiry(link: StoreLink, tenant: TenantId) -> None:
    """The hold may be newer than the last reconcile, whose cut-offs would remove what it keeps."""
    kept: dict[str, str | None] = dict.fromkeys(CUTOFF_FIELDS.values())
    await link.admin.write_states({tenant: StateChange({**kept, "held": "1"})})


async def _revoke(world: World, link: StoreLink, tenant: TenantId, record: TenantRecord) -> None:
    """The users go first and from every node; only then is anything removed or kept for later."""
    world.settled.pop(tenant, None)
    async with link.changing(tenant):
        link.forget(tenant)
        users = record.all_users()
        if users:
            found = await link.admin.users.drop(users)
            link.unsaved = True
            found.require_all()


async def _remove(
    world: World,
    declared: Declared,
    link: StoreLink,
    record: TenantRecord,
    current: Current,
    policy: DeletionPolicy,
) -> Obstacle | None:
    """Delete or Shred. The record stays, without keys if they are shredded, until all is gone. An
    instance waits for the sealer, for a while: a namespace that ends must not hang on it."""
    doomed = replace(
        _in_phase(record, Phase.DELETING, world.clock.now()), deletion_policy=policy.value
    )
    if policy is DeletionPolicy.SHRED:
        doomed = replace(doomed, keyring=b"")
    stored = await world.resources.apply_secret(
        record_draft(world, doomed), current=current.stored_record
    )
    await _delete_bindings(world, current)
    if not has_instance(record):
        await _purge(world, link, doomed, stored)
        return None
    await link.admin.purge([record.tenant])
    await tell_purged(world, link, record.tenant, policy.value)
    # Since the removal began: a hold may have kept the tenant for years before.
    waits = await _waits_for_seal(world, link, record.tenant, doomed.since)
    if waits is not None:
        return waits
    lost = await _unsealed(link, record.tenant)
    await _remove_instance(world, declared, record.tenant, stored)
    if lost:
        words = (
            f"The tenant's instance is gone with {lost} entries of its audit queue that the sealer "
            "did not take in time: the log does not have them"
        )
        await world.resources.emit_event(declared, EventType.WARNING, "AuditLost", words)
    return None


async def _waits_for_seal(
    world: World, link: StoreLink, tenant: TenantId, since: datetime
) -> Obstacle | None:
    """What is said while the sealer has yet to take events, and has time to."""
    deadline = since + world.timing.store_gone_grace
    if world.clock.now() >= deadline or not await _unsealed(link, tenant):
        return None
    return Obstacle(
        "AuditUnsealed",
        "The tenant's instance goes when the sealer has taken the last events from its audit "
        f"queue; at {deadline:%Y-%m-%dT%H:%M:%SZ} it goes without that",
    )


async def _unsealed(link: StoreLink, tenant: TenantId) -> int:
    """How many entries of the audit queue the sealer has yet to take; 0 where the tenant is not
    audited, or nobody ever sealed."""
    seen = await link.admin.look_at_seals()
    if tenant not in seen.audited or seen.sealer is None:
        return 0
    return await link.admin.queued_events(tenant)


async def _purge(world: World, link: StoreLink, record: TenantRecord, stored: StoredSecret) -> None:
    await link.admin.purge([record.tenant])
    link.emptied(record.tenant)
    await tell_purged(world, link, record.tenant, record.deletion_policy)
    await world.resources.delete_secret(stored)


async def _remove_instance(
    world: World, declared: Declared, tenant: TenantId, stored: StoredSecret | None
) -> None:
    """The data goes with the volume, whether the server answers or not."""
    await remove_instance(world, declared, tenant, keep_data=False)
    if stored is not None:
        await world.resources.delete_secret(stored)


async def finish_orphan(
    world: World, link: StoreLink, stored: StoredSecret, record: TenantRecord
) -> bool:
    """What a tenant that detached from an unreachable store left: its users, and where its policy
    was Delete or Shred its data. Whether the record is gone now.
    """
    users = record.all_users()
    if users:
        (await link.admin.users.drop(users)).require_all()
    if await obstacle_to(world, record, DeletionPolicy(record.deletion_policy), link):
        return False  # it stays an orphan until the hold is released or the minimum has passed
    await tell_ended(world, link, record.tenant, record.deletion_policy)
    if record.deletion_policy != DeletionPolicy.RETAIN.value:
        await _purge(world, link, record, stored)
        return True
    kept = _in_phase(record, Phase.RETAINED, record.since)
    await world.resources.apply_secret(record_draft(world, kept), current=stored)
    return False


def _in_phase(record: TenantRecord, phase: Phase, now: datetime) -> TenantRecord:
    """The record in a later phase. Revoked credentials are forgotten, a Retained tenant's too."""
    return replace(
        record,
        phase=phase,
        since=record.since if record.phase is phase else now.replace(microsecond=0),
        principals={} if phase is not Phase.ORPHANED else record.principals,
        agents=() if phase is not Phase.ORPHANED else record.agents,
    )


async def _without_store(
    world: World,
    declared: Declared,
    current: Current,
    record: TenantRecord,
    policy: DeletionPolicy,
) -> Outcome:
    """Wait for the store for a while, then detach: the record says what stays behind."""
    now = world.clock.now()
    deadline = (declared.deletion_timestamp or now) + world.timing.store_gone_grace
    store = ObjectKey.store(record.store)
    exists = world.mirror.get(store) is not None
    if now < deadline and has_instance(record):
        message = (
            "The tenant's instance does not answer: waiting until "
            f"{deadline:%Y-%m-%dT%H:%M:%SZ} for it, then going on without it"
        )
        return await _blocked(world, declared, Obstacle("StoreGone", message, deadline))
    if now < deadline:
        message = (
            f"MemoryStore {record.store} is not reachable: waiting until "
            f"{deadline:%Y-%m-%dT%H:%M:%SZ} for it, then leaving an orphan record"
            if exists
            else f"MemoryStore {record.store} does not exist: waiting until "
            f"{deadline:%Y-%m-%dT%H:%M:%SZ} for it, then leaving an orphan record"
        )
        obstacle = Obstacle("StoreGone", message, deadline)
        return await _blocked(world, declared, obstacle)
    if policy is not DeletionPolicy.RETAIN and may_be_kept(world, declared, record):
        policy = DeletionPolicy.RETAIN
    if has_instance(record):
        return await _without_instance(world, declared, current, record, policy)
    left = replace(
        _in_phase(record, Phase.ORPHANED, now),
        deletion_policy=policy.value,
        keyring=b"" if policy is DeletionPolicy.SHRED else record.keyring,
        left=f"ACL users and data of {record.tenant} on store {record.store}",
    )
    await world.resources.apply_secret(record_draft(world, left), current=current.stored_record)
    await _delete_bindings(world, current)
    words = (
        f"MemoryStore {record.store} did not come back: the tenant is gone, its users and data "
        "there are removed when it does"
    )
    await world.resources.emit_event(declared, EventType.WARNING, "Detached", words)
    return await _let_go(world, declared, replace(current, bindings={}), record.tenant, words)


async def _without_instance(
    world: World,
    declared: Declared,
    current: Current,
    record: TenantRecord,
    policy: DeletionPolicy,
) -> Outcome:
    """Its instance does not come back, and is the operator's own to remove: nothing is left to
    somebody else."""
    tenant = record.tenant
    if policy is DeletionPolicy.RETAIN:
        kept = _in_phase(record, Phase.RETAINED, world.clock.now())
        await world.resources.apply_secret(record_draft(world, kept), current=current.stored_record)
        await remove_instance(world, declared, tenant, keep_data=True)
    else:
        await _delete_bindings(world, current)
        await _remove_instance(world, declared, tenant, current.stored_record)
        audit = status_before(declared, MemoryTenantStatus).audit
        if audit is not None and audit.mode is AuditMode.ENABLED:
            words = (
                "The tenant's instance did not answer any more, and is gone with what the sealer "
                "had not taken from its audit queue: how much it was nobody knows"
            )
            await world.resources.emit_event(declared, EventType.WARNING, "AuditLost", words)
    done = await _tell(world, declared, policy, record.store)
    return await _let_go(world, declared, current, tenant, done)


async def _tell(world: World, declared: Declared, policy: DeletionPolicy, store: str) -> str:
    words = {
        DeletionPolicy.RETAIN: f"Access is revoked; data and keys are retained on store {store}",
        DeletionPolicy.DELETE: f"Access is revoked and the data on store {store} is deleted",
        DeletionPolicy.SHRED: f"Access is revoked; keys are destroyed, data on store {store} is "
        "deleted",
    }
    await world.resources.emit_event(
        declared, EventType.NORMAL, f"{policy}Completed", words[policy]
    )
    return words[policy]


async def _let_go(
    world: World, declared: Declared, current: Current, tenant: TenantId, *did: str
) -> Outcome:
    """Remove the bindings that are left and our finalizer; who waits for room may have it now."""
    await _delete_bindings(world, current)
    store = world.ledger.store_of(tenant)
    world.ledger.strike(tenant)
    await world.resources.remove_finalizer(declared, FINALIZER)
    return Outcome(enqueue=world.waiting_for_room(store), changed=True, did=did)
