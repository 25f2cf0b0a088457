"""Enforce what stays in force of a tenant that was refused (`memtenant.rules.standing`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from memtenant.api.tenant import MemoryTenantStatus
from memtenant.errors import InvalidResource
from memtenant.jobs.link import LiveTenant
from memtenant.reconcile.apply import Work, apply
from memtenant.reconcile.current import Current, read_record
from memtenant.reconcile.declared import status_before
from memtenant.reconcile.instance import keep_instance, link_to_data
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.telling import actors_of
from memtenant.reconcile.tenantplan import plan_tenant
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared
from memtenant.rules.expiry import expiry
from memtenant.rules.policy import (
    Matters,
    PolicyFacts,
    chosen_from,
    hold_labels,
    matters_from,
)
from memtenant.rules.record import Phase
from memtenant.rules.standing import Accepted, accepted, standing
from memtenant.rules.status import enforced
from memtenant.stores import TenantState
from memtenant.tenancy.identity import TenantId

__all__ = ["enforce_standing", "status_as_enforced"]


async def enforce_standing(world: World, declared: Declared, *, refused: bool) -> tuple[str, ...]:
    """Keep what was accepted last of this tenant true on its store; what that took, in words.

    ``refused``: what is declared now is not accepted. Nothing where it never was ready, or its
    store is not: then there is nothing to enforce it on.
    """
    tenant = TenantId(declared.key.namespace, declared.key.name)
    stored, record = await read_record(world, tenant)
    if record is None or record.uid != declared.uid or record.phase is not Phase.ACTIVE:
        return ()
    world.ledger.enter(record.store, tenant, record.quota_bytes)
    if refused:
        await keep_instance(world, declared, record)
    link = await link_to_data(world, record)
    if link is None or link.facts is None or not link.ready:
        return ()
    state = (await link.admin.read_states([tenant])).get(tenant, TenantState())
    before = accepted(record, state.limits, state.access, state.audited)
    if before is None:
        return ()
    policy = _policy(world, before)
    matters, minimum = _restrictions(world, declared, before, policy)
    age_from = link.facts.age_from(world.clock.now())
    cut_offs = _cut_offs(policy, age_from, tenant, before, held=bool(matters))
    found = standing(
        record,
        before,
        commands=link.facts.commands,
        usage=link.usage_of(tenant),
        matters=matters,
        content_minimum=minimum,
        cut_offs=cut_offs,
        generation=declared.generation,
        refused=refused,
        actors=actors_of(world, declared, before.access.get("policy", "")),
        now=world.clock.now(),
    )
    current = Current(stored, record)
    live = LiveTenant(
        found.desired.users, found.quota, found.quota_state, access=found.desired.state.mode
    )
    plan = await plan_tenant(declared, current, state, found.desired, link, "")
    await apply(world, Work(declared, current, found.desired, link, live), plan)
    link.tenants[tenant] = live
    world.settled[tenant] = policy
    return tuple(str(action) for action in plan)


def status_as_enforced(world: World, declared: Declared) -> MemoryTenantStatus:
    """The status before, with what the tenant's users may do now."""
    before = status_before(declared, MemoryTenantStatus)
    tenant = TenantId(declared.key.namespace, declared.key.name)
    link = world.link_of(before.store, tenant)
    live = link.tenants.get(tenant) if link else None
    if live is None:
        return before
    return enforced(
        before, live.access, live.state, now=world.clock.now(), generation=declared.generation
    )


def _policy(world: World, before: Accepted) -> PolicyFacts | None:
    """The policy that was accepted, as it is now; None while it cannot be read."""
    try:
        return read_policy(world, before.access.get("policy", ""))
    except InvalidResource:
        return None


def _restrictions(
    world: World, declared: Declared, before: Accepted, policy: PolicyFacts | None
) -> tuple[Matters, bool]:
    """Holds and content minimum of the policy that was accepted. While it cannot be read, those
    that stood go on."""
    matters = matters_from(before.access.get("matters", ""))
    if policy is None:
        return matters, before.access.get("minimum") == "1"
    namespace = world.mirror.namespace(declared.key.namespace)
    tenant = TenantId(declared.key.namespace, declared.key.name)
    labels = hold_labels(tenant, declared.labels, namespace.labels if namespace else {})
    now = world.clock.now()
    return policy.matters_of(labels, matters, now), policy.content_minimum is not None


def _cut_offs(
    policy: PolicyFacts | None,
    age_from: datetime,
    tenant: TenantId,
    before: Accepted,
    *,
    held: bool,
) -> Mapping[str, str] | None:
    """Of the periods that were accepted, under their policy as it is now. None where one of the two
    cannot be read, or they do not fit together any more: nothing goes by what nobody chose.
    """
    chosen = chosen_from(before.access.get("retention", ""))
    if policy is None or chosen is None:
        return None
    try:
        resolution = policy.resolve_chosen(chosen)
    except InvalidResource:
        return None
    return expiry(tenant, resolution, age_from, held=held).fields
