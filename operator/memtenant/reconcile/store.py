"""The reconcile of a MemoryStore: reach it, own it, prove it, count what lies on it."""

from __future__ import annotations

import logging
from datetime import datetime

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding, is_true
from memtenant.api.store import MemoryStoreSpec
from memtenant.api.store_status import MemoryStoreStatus
from memtenant.errors import (
    InvalidResource,
    MemtenantError,
    ResourceConflict,
    ResourceUnavailable,
    StoreRefused,
    StoreUnavailable,
)
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.declared import save_status, status_before, store_spec
from memtenant.reconcile.orphans import orphans_on
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.sealing import with_store_finding
from memtenant.reconcile.storelink import link_to
from memtenant.reconcile.storestatus import foreign_findings, usable_findings, usable_status
from memtenant.reconcile.systemusers import forget_system_users, provide_system_users
from memtenant.reconcile.taking import inspect, lead
from memtenant.reconcile.telling import tell_declared, tell_policies, tell_spec
from memtenant.reconcile.template import reconcile_template
from memtenant.reconcile.world import DOUBT_AGAIN, FINALIZER, World
from memtenant.resources.port import FOREIGN_SECRET, Declared, EventType, ObjectKey
from memtenant.rules.acl import template_digest
from memtenant.stores import (
    MatrixProof,
)
from memtenant.tenancy.identity import TenantId

__all__ = ["forget_store", "look_at_store", "reconcile_store", "store_specs"]

_LOOK_AGAIN = 15.0
"""Seconds until a store in deletion that could not be used is tried again, and one that waits for
the labels of a Secret."""

_log = logging.getLogger(__name__)
_READY, _STALLED = ConditionType.READY, ConditionType.STALLED


def store_specs(world: World) -> list[tuple[str, MemoryStoreSpec]]:
    """Every declared store that can be read and is not in deletion, parsed once per generation."""
    found = []
    for declared in world.declared_stores():
        mark = (declared.uid, declared.generation)
        known = world.stores_seen.get(declared.key.name)
        if known is None or known[0] != mark:
            try:
                known = (mark, store_spec(declared))
            except InvalidResource:
                continue
            world.stores_seen[declared.key.name] = known
        if not declared.deleting:
            found.append((declared.key.name, known[1]))
    return found


async def reconcile_store(world: World, declared: Declared) -> Outcome:
    """Make the store usable for tenants, or say why it is not."""
    key = declared.key
    if declared.deleting:
        return await _delete(world, declared)
    if FINALIZER not in declared.finalizers:
        declared = await world.resources.add_finalizer(declared, FINALIZER)
        world.mirror.put(declared)
    before = status_before(declared, MemoryStoreStatus)
    known = world.links.get(key.name)
    was_ready = _linked(world, key.name)
    served = known.served if known else None
    try:
        spec = store_spec(declared)
        if spec.dedicated is not None:
            await tell_spec(world, declared)
            return await reconcile_template(world, declared)
        link = await link_to(world, declared, spec)
        await _take(world, declared, link)
        unmarked = await _provide_system_users(world, link)
    except MemtenantError as error:
        if isinstance(error, ResourceUnavailable) and was_ready and known is world.links[key.name]:
            raise  # that tells nothing of the store, whose nodes are looked after as before
        if key.name in world.links:
            world.links[key.name].failure = error
            world.links[key.name].system = ()  # made anew once it can be used
        return await _not_usable(world, declared, before, error)
    link.failure = None
    facts = link.facts
    assert facts is not None  # noqa: S101 - it was just taken
    await tell_declared(world, link, declared)
    if not was_ready:
        await tell_policies(world, link)
    wait = world.counts_wait(key, before.tenants, len(world.ledger.committed(key.name)))
    # Its tenants' bindings say how to reach it, and another server does not hold their hashes.
    renewed = served is None or not facts.processes <= served.processes
    was_ready = was_ready and not renewed and known is not None and known.way == link.way
    if wait and was_ready and before.observed_generation == declared.generation:
        return Outcome(requeue_after=wait)
    orphans = await orphans_on(world, link.name, link)
    if orphans.unmarked is not None:
        unmarked = unmarked or foreign_findings(orphans.unmarked)
    # Counted on the nodes: the roster in memory is not whole before every tenant was looked at.
    found = (await link.admin.users.names()).results
    users = {address: len(names) for address, names in found.items()}
    status = usable_status(world, before, link, orphans.records, users)
    conditions, sealing = with_store_finding(status.conditions, link)
    status = status.model_copy(update={"conditions": conditions})
    findings = (*usable_findings(link), *sealing, *unmarked)
    changed = await save_status(world, declared, status, findings)
    if unmarked and changed:
        await world.resources.emit_event(
            declared, EventType.WARNING, unmarked[0].reason, unmarked[0].message
        )
    if not unmarked and not is_true(before.conditions, _READY):
        await world.resources.emit_event(
            declared, EventType.NORMAL, "Ready", f"Tenants may be placed on {link.endpoint}"
        )
    again = _LOOK_AGAIN if unmarked else None
    if was_ready:
        return Outcome(requeue_after=again, changed=changed)
    tenants = world.mirror.tenants_of_store(key.name) | world.mirror.unplaced_tenants()
    twins = tuple(twin.key for twin in _on_the_same_server(world, link))
    patient: frozenset[ObjectKey] = frozenset()
    if known is link and served is not None and facts.failed_over_from(served):
        # They work, and have all that they had; only their bindings name another node.
        patient = frozenset(one for one in tenants if _tenant(one) in world.settled)
    link.served = facts
    return Outcome(
        enqueue=(*sorted(tenants - patient), *twins),
        in_time=tuple(sorted(patient)),
        requeue_after=again,
        changed=changed,
    )


async def _provide_system_users(world: World, link: StoreLink) -> tuple[Finding, ...]:
    """What is to be told where the sealer's or the reporter's Secret lost its labels: that pod goes
    on with what is in it, and the store's tenants do not wait for it."""
    try:
        await provide_system_users(world, link)
    except ResourceConflict as error:
        if error.reason != FOREIGN_SECRET:
            raise
        return foreign_findings(error)
    return ()


def _tenant(key: ObjectKey) -> TenantId:
    return TenantId(key.namespace, key.name)


def _linked(world: World, name: str) -> bool:
    link = world.links.get(name)
    return link is not None and link.ready


async def look_at_store(world: World, declared: Declared) -> StoreLink:
    """The store as it is, without a write: for a preview, which takes the proof on trust."""
    link = await link_to(world, declared, store_spec(declared))
    link.facts = await inspect(link)
    owner = await link.admin.owner()
    if owner is not None and owner.installation != world.installation:
        raise StoreRefused(
            f"{link.endpoint} is provisioned by another installation of memtenant, "
            f"{owner.installation}, since {owner.since}",
            reason="StoreOwnedElsewhere",
        )
    template = template_digest(link.facts.commands)
    link.proof = MatrixProof(link.facts.primary.version, template, checked=0, denied=0)
    return link


async def _take(world: World, declared: Declared, link: StoreLink) -> None:
    """Look at the nodes, claim the store, lead it, and prove the rule template on it."""
    link.facts = await inspect(link)
    for elder in _on_the_same_server(world, link):
        if _age(elder) < _age(declared):
            raise StoreRefused(
                f"{link.endpoint} leads to the server of MemoryStore {elder.key.name!r}: declare "
                "each server once, and delete one of the two",
                reason="StoreDeclaredTwice",
            )
    await lead(link)


def _on_the_same_server(world: World, link: StoreLink) -> list[Declared]:
    """The other stores that are known to lead to the same server, under whatever address."""
    return [
        other
        for other in world.declared_stores()
        if other.key.name != link.name
        and (known := world.links.get(other.key.name)) is not None
        and known.shares_server_with(link)
    ]


def _age(declared: Declared) -> tuple[datetime, str]:
    """Of two stores on one server the one that was declared first serves."""
    return declared.creation_timestamp, declared.key.name


async def _not_usable(
    world: World, declared: Declared, before: MemoryStoreStatus, error: MemtenantError
) -> Outcome:
    """Unreachable is retried by the queue; refused waits for a change (or the next resync)."""
    text = str(error)
    findings = [Finding(_READY, ConditionStatus.FALSE, error.reason, text)]
    reachable = isinstance(error, StoreUnavailable)
    findings.append(
        Finding(
            ConditionType.REACHABLE,
            ConditionStatus.FALSE if reachable else ConditionStatus.TRUE,
            error.reason if reachable else "Answers",
            text if reachable else "",
        )
    )
    stalled = ConditionStatus.FALSE if error.retryable else ConditionStatus.TRUE
    findings.append(Finding(_STALLED, stalled, error.reason, text))
    working = ConditionStatus.TRUE if error.retryable else ConditionStatus.FALSE
    findings.append(Finding(ConditionType.RECONCILING, working, error.reason, text))
    if error.reason == "StoreOwnedElsewhere":
        findings.append(Finding(ConditionType.OWNED, ConditionStatus.FALSE, error.reason, text))
    changed = await save_status(world, declared, before, findings)
    if changed:
        await world.resources.emit_event(declared, EventType.WARNING, error.reason, text)
    if error.retryable:
        raise error
    return Outcome(changed=changed)


async def forget_store(world: World, name: str) -> None:
    """Close what was open to a store that is no longer declared."""
    link = world.links.pop(name, None)
    world.stores_seen.pop(name, None)
    if link is not None:
        await link.admin.close()


async def _delete(world: World, declared: Declared) -> Outcome:
    """The ValidatingAdmissionPolicy refuses this while tenants lie on it; this is the backstop."""
    if FINALIZER not in declared.finalizers:
        return Outcome()
    name = declared.key.name
    if world.mirror.doubted and not world.committed_ledger().committed(name):
        return Outcome(requeue_after=DOUBT_AGAIN)
    was_ready = _linked(world, name)
    if not was_ready and await _is_given_up(world, declared):
        return Outcome()
    link = await _last_link(world, declared)
    tenants = len(world.committed_ledger().committed(name))
    if tenants:
        message = f"{tenants} MemoryTenants lie on this store: delete them first"
        status = status_before(declared, MemoryStoreStatus).model_copy(update={"tenants": tenants})
        findings = (
            Finding(_READY, ConditionStatus.FALSE, "InUse", message),
            Finding(ConditionType.DELETION_BLOCKED, ConditionStatus.TRUE, "InUse", message),
        )
        changed = await save_status(world, declared, status, findings)
        if link is None:
            return Outcome(requeue_after=_LOOK_AGAIN, changed=changed)
        leaving = () if was_ready else tuple(sorted(world.mirror.tenants_of_store(name)))
        return Outcome(enqueue=leaving, changed=changed)
    await forget_system_users(world, name, link)
    if link is not None and not (await orphans_on(world, link.name, link)).records:
        await link.admin.release()
    await forget_store(world, name)
    await world.resources.remove_finalizer(declared, FINALIZER)
    return Outcome(changed=True)


async def _is_given_up(world: World, declared: Declared) -> bool:
    """Whether an earlier look let it go and no event has told of it yet: to connect anew would
    claim the store once more."""
    now = await world.resources.get(declared.key)
    return now is None or now.uid != declared.uid or FINALIZER not in now.finalizers


async def _last_link(world: World, declared: Declared) -> StoreLink | None:
    """The link to a store in deletion: its tenants leave through it, and it is released by it, also
    where the operator started only after the deletion was asked for. None: it cannot be used.
    """
    if _linked(world, declared.key.name):
        return world.links[declared.key.name]
    try:
        spec = store_spec(declared)
        if spec.dedicated is not None:
            return None  # its tenants leave through their instances
        link = await link_to(world, declared, spec)
        await _take(world, declared, link)
    except MemtenantError as error:
        _log.info("%s, in deletion, cannot be used: %s", declared.key, error)
        return None
    link.failure = None
    return link
