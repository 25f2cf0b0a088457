"""Read everything about a MemoryTenant that lives, decide, and plan: nothing is written here.

`memtenant.reconcile.tenant` executes the plan; ``memtenant plan`` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from memtenant.api.fields import Isolation
from memtenant.api.tenant import MemoryTenantSpec
from memtenant.crypto.audit_keys import audit_root
from memtenant.errors import ResourceConflict
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.access import missing_secret_access
from memtenant.reconcile.admission import (
    Stop,
    check_adoption,
    check_data,
    check_hold,
    placed_on,
    sums_are_known,
)
from memtenant.reconcile.current import (
    Current,
    read_bindings,
    read_record,
    read_roots,
    record_draft,
)
from memtenant.reconcile.declared import tenant_spec
from memtenant.reconcile.instance import InstanceNeeded, instance_changes, wanted_instance
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.telling import actors_of
from memtenant.reconcile.tenantplan import plan_tenant
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared, NamespaceInfo
from memtenant.resources.secretchange import require_ours
from memtenant.rules.audit import AuditTerms, audit_entry, audit_terms
from memtenant.rules.credentials import RotationRules
from memtenant.rules.desired import Desired, Endpoint, Identity, Situation, desired
from memtenant.rules.expiry import Expiry, expiry
from memtenant.rules.instance import Instance
from memtenant.rules.keymaterial import KeyState, Roots, settle_keys
from memtenant.rules.keymotion import (
    KeyAdvance,
    KeyRules,
    KeySight,
    advance_keys,
    in_motion,
)
from memtenant.rules.placement import Applicant, Refusal, StoreView
from memtenant.rules.plan import Action, SetInstance
from memtenant.rules.policy import (
    Matters,
    PolicyFacts,
    hold_labels,
    matters_from,
)
from memtenant.rules.quota import Limits, QuotaState, judge
from memtenant.rules.retention import Resolution
from memtenant.rules.told import TOLD, Told
from memtenant.rules.withheld import Withheld, withheld
from memtenant.stores import StoreFacts, TenantState
from memtenant.tenancy.identity import TenantId

__all__ = ["ROTATE_ANNOTATION", "ROTATE_KEYS_ANNOTATION", "Prepared", "prepare"]

ROTATE_ANNOTATION = "memtenant.dev/rotate"
"""Any new value asks for a rotation of all the tenant's credentials."""

ROTATE_KEYS_ANNOTATION = "memtenant.dev/rotate-keys"
"""Any new value asks for a new version of the tenant's key."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that was read and decided; the plan is what is left to do."""

    declared: Declared
    spec: MemoryTenantSpec
    policy: PolicyFacts
    retention: Resolution
    link: StoreLink
    current: Current
    keys: KeyAdvance
    key_available: bool
    state: TenantState
    quota_state: QuotaState
    audit: AuditTerms
    desired: Desired
    plan: tuple[Action, ...]
    key_secret: str
    next_hold: datetime | None
    next_step: datetime
    instance: Instance | None = None
    withheld: Withheld | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """The tenant as it was read. ``changes`` are what of its instance is not as it should be."""

    declared: Declared
    tenant: TenantId
    spec: MemoryTenantSpec
    policy: PolicyFacts
    retention: Resolution
    namespace: NamespaceInfo
    link: StoreLink
    facts: StoreFacts
    current: Current
    incarnation: str
    roots: Roots
    state: TenantState
    instance: Instance | None
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Decided:
    """What follows from that, before it is rendered."""

    settled: KeyState
    keys: KeyAdvance
    quota_state: QuotaState
    matters: Matters
    expiring: Expiry
    audit: AuditTerms


async def prepare(world: World, declared: Declared, mint: Callable[[], str]) -> Prepared | None:
    """Read everything and decide; None while the tenant's store is not ready.

    Writes nothing outside of memory. Raises `Stop` or another `MemtenantError` where the tenant
    cannot be as declared, and `InstanceNeeded` where its instance is still to be made.
    """
    found = await _read(world, declared)
    if found is None:
        return None
    now = world.clock.now()
    decided = _decide(world, found, now)
    wanted = desired(await _situation(world, found, decided), now, mint)
    current, link = found.current, found.link
    plan = await plan_tenant(declared, current, found.state, wanted, link, decided.keys.change)
    if found.changes:
        plan = (SetInstance(found.changes), *plan)
    return Prepared(
        declared,
        found.spec,
        found.policy,
        found.retention,
        link,
        current,
        decided.keys,
        decided.settled.root is not None,
        found.state,
        decided.quota_state,
        decided.audit,
        wanted,
        plan,
        found.roots.secret,
        found.policy.next_hold(now),
        decided.expiring.next_step,
        found.instance,
        withheld(found.tenant, current.foreign) or _unmarked(world, current),
    )


async def _read(world: World, declared: Declared) -> _Found | None:
    """Each thing only after what may refuse the tenant without it."""
    tenant = TenantId(declared.key.namespace, declared.key.name)
    spec = tenant_spec(declared)
    policy = read_policy(world, spec.retention_policy_ref.name)
    retention = policy.resolve_for(spec)
    namespace = world.mirror.namespace(tenant.namespace)
    if namespace is None:
        namespace = await world.resources.get_namespace(tenant.namespace)
    if namespace is None:
        raise Stop(Refusal("NamespaceNotFound", "", "The namespace is gone", retryable=True))
    missing = await missing_secret_access(world, tenant.namespace)
    if missing is not None:
        raise Stop(missing)
    stored, record = await read_record(world, tenant)
    # The record is written before the status, so it knows of a placement that a crash left untold.
    placed = str(declared.status.get("store") or "") or (record.store if record else "")
    applicant = Applicant(tenant, spec, namespace.labels)
    if not sums_are_known(world, applicant):
        return None
    store = placed_on(world, applicant, policy, placed)
    link = world.link_of(store.name, tenant)
    if store.spec.dedicated is None and (link is None or not link.ready):
        return None
    current = await read_bindings(
        world,
        tenant,
        stored,
        record,
        (agent.name for agent in spec.agents_or_default()),
        bound=bool(declared.status.get("bindings")),
    )
    check_adoption(declared, spec, current, namespace.uid)
    instance, changes = await _instance(world, tenant, spec, store)
    if instance is not None and (link is None or not link.ready):
        raise InstanceNeeded(instance, changes)
    if link is None or link.facts is None:
        return None
    incarnation = record.incarnation if record else declared.uid
    return _Found(
        declared,
        tenant,
        spec,
        policy,
        retention,
        namespace,
        link,
        link.facts,
        current,
        incarnation,
        await read_roots(world, tenant, spec, incarnation),
        (await link.admin.read_states([tenant])).get(tenant, TenantState()),
        instance,
        changes,
    )


def _decide(world: World, found: _Found, now: datetime) -> _Decided:
    tenant, spec, policy, state = found.tenant, found.spec, found.policy, found.state
    settled = settle_keys(
        tenant,
        found.current.record.keyring if found.current.record else b"",
        found.roots,
        found.current.keyrings(),
        now,
        per_agent=spec.isolation is Isolation.STRICT,
    )
    keys = _advance_keys(world, found, settled)
    check_data(state, found.incarnation, tenant, found.link)
    limits = Limits(spec.quota.memory.bytes, spec.quota.conversations)
    usage = found.link.usage_of(tenant)
    quota_state = QuotaState.from_fields(state.access)
    if usage is not None:
        quota_state = judge(quota_state, usage, limits, now)
    before = matters_from(state.access.get("matters", ""))
    check_hold(world, policy, state, before)
    labels = hold_labels(tenant, found.declared.labels, found.namespace.labels)
    matters = policy.matters_of(labels, before, now)
    expiring = expiry(tenant, found.retention, found.facts.age_from(now), held=bool(matters))
    return _Decided(settled, keys, quota_state, matters, expiring, audit_terms(policy.view, spec))


async def _situation(world: World, found: _Found, decided: _Decided) -> Situation:
    declared, spec, link, policy = found.declared, found.spec, found.link, found.policy
    record, held = found.current.record, bool(decided.matters)
    keyring = decided.keys.opened.keyring.to_json()
    if decided.settled.root is None and record is not None:
        keyring = record.keyring  # without its root it cannot be sealed, and stays as it is
    return Situation(
        identity=Identity(found.tenant, declared.uid, found.namespace.uid, declared.generation),
        spec=spec,
        endpoint=Endpoint(
            link.store,
            link.primary.host,
            link.primary.port,
            found.facts.commands,
            link.tls,
            link.ca_crt,
            link.replicas_of(found.tenant),
            link.sentinel,
            link.cluster,
        ),
        record=record,
        keys=decided.keys,
        keyring=keyring,
        audit_root=audit_root(await world.installation_root()),
        quota_state=decided.quota_state,
        policy=policy.name,
        matters=decided.matters,
        content_minimum=policy.content_minimum is not None,
        cut_offs=decided.expiring.fields,
        audit=decided.audit,
        audited=audit_entry(decided.audit, found.retention, found.state.audited, held=held),
        told=Told.from_text(found.state.access.get(TOLD, "")),
        new=not found.state.access,
        actors=actors_of(world, declared, policy.name),
        rights=policy.rights,
        masking=policy.masking,
        rotation=_rotation(world, spec),
        rotate_token=declared.annotations.get(ROTATE_ANNOTATION, ""),
        shown=found.current.shown(spec),
        idle=await _idle(link, found.current),
        escrow=found.roots.operator_made,
    )


def _rotation(world: World, spec: MemoryTenantSpec) -> RotationRules:
    return RotationRules(
        every=spec.credentials.rotate_every,
        min_overlap=timedelta(days=spec.credentials.min_overlap.days),
        kubelet_lag=world.timing.kubelet_lag,
        grace=world.timing.credential_grace,
    )


def _unmarked(world: World, current: Current) -> Withheld | None:
    """What is told of a record that lost the labels which say whose it is. All else goes on, until
    something would have to be written there."""
    if current.stored_record is None or current.record is None:
        return None
    try:
        require_ours(record_draft(world, current.record), current.stored_record)
    except ResourceConflict as error:
        return Withheld(frozenset(), Refusal(error.reason, "", str(error), retryable=True))
    return None


async def _instance(
    world: World, tenant: TenantId, spec: MemoryTenantSpec, store: StoreView
) -> tuple[Instance | None, tuple[str, ...]]:
    """The tenant's own instance, and what of it is not as it should be; None on a shared store."""
    if store.spec.dedicated is None:
        return None, ()
    wanted = wanted_instance(tenant, store.name, store.spec, spec)
    return wanted, await instance_changes(world, wanted)


def _advance_keys(world: World, found: _Found, settled: KeyState) -> KeyAdvance:
    """The next step of the tenant's keys; what that needs to see is looked at only in motion."""
    record, keyring = found.current.record, settled.opened.keyring
    moving = record is not None and in_motion(record, keyring)
    sight = KeySight(
        shown=moving and found.current.shows(found.spec, keyring),
        least_on_store=found.state.limits.get("least_kek", ""),
        scan=found.link.key_scan(found.tenant),
        whole=found.link.whole,
        token=found.declared.annotations.get(ROTATE_KEYS_ANNOTATION, ""),
    )
    timing = world.timing
    rules = KeyRules(max(timing.kubelet_lag, timing.agent_look), timing.key_grace)
    return advance_keys(settled, record, sight, rules, now=world.clock.now())


async def _idle(link: StoreLink, current: Current) -> frozenset[str]:
    """Which retiring users nobody is connected as; asked only while some retire."""
    record = current.record
    if record is None:
        return frozenset()
    retiring = record.retiring_users()
    return await link.admin.users.idle(retiring) if retiring else frozenset()
