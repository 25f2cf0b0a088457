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
from memtenant.errors import InvalidResource, MemtenantError, ResourceConflict
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.access import missing_secret_access
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
from memtenant.reconcile.store import store_specs
from memtenant.reconcile.telling import actors_of
from memtenant.reconcile.world import FINALIZER, World
from memtenant.resources.port import Declared
from memtenant.resources.secretchange import require_ours
from memtenant.rules.adoption import adoption_refusal
from memtenant.rules.audit import AuditTerms, audit_entry, audit_terms
from memtenant.rules.credentials import RotationRules
from memtenant.rules.desired import Desired, Endpoint, Identity, Situation, desired
from memtenant.rules.expiry import expiry
from memtenant.rules.instance import Instance
from memtenant.rules.keymaterial import KeyState, settle_keys
from memtenant.rules.keymotion import (
    KeyAdvance,
    KeyRules,
    KeySight,
    advance_keys,
    in_motion,
)
from memtenant.rules.placement import Applicant, Refusal, StoreView, place
from memtenant.rules.plan import (
    Action,
    AddFinalizer,
    RemoveBinding,
    Revoke,
    SaveRecord,
    SetInstance,
    SetState,
    WriteBinding,
    changed_fields,
    changed_limits,
    user_actions,
)
from memtenant.rules.policy import (
    Matters,
    PolicyFacts,
    hold_labels,
    matters_from,
)
from memtenant.rules.quota import Limits, QuotaState, judge
from memtenant.rules.record import record_name
from memtenant.rules.retention import Resolution
from memtenant.rules.told import TOLD, Told
from memtenant.rules.withheld import Withheld, withheld
from memtenant.stores import TenantState
from memtenant.tenancy.identity import TenantId, binding_name

__all__ = [
    "ROTATE_ANNOTATION",
    "ROTATE_KEYS_ANNOTATION",
    "Prepared",
    "Stop",
    "age_from",
    "plan_tenant",
    "prepare",
]

ROTATE_ANNOTATION = "memtenant.dev/rotate"
"""Any new value asks for a rotation of all the tenant's credentials."""

ROTATE_KEYS_ANNOTATION = "memtenant.dev/rotate-keys"
"""Any new value asks for a new version of the tenant's key."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that was read and decided; the plan is what is left to do."""

    declared: Declared
    spec: MemoryTenantSpec
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


class Stop(MemtenantError):
    """The tenant cannot go on now: ``refusal`` says why (reason, field, message)."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, reason=refusal.reason)
        self.refusal = refusal
        self.retryable = refusal.retryable


async def prepare(world: World, declared: Declared, mint: Callable[[], str]) -> Prepared | None:
    """Read everything and decide; None while the tenant's store is not ready.

    Writes nothing outside of memory. Raises `Stop` or another `MemtenantError` where the tenant
    cannot be as declared, and `InstanceNeeded` where its instance is still to be made.
    """
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
    store = _placed(world, Applicant(tenant, spec, namespace.labels), policy, placed)
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
    _check_adoption(declared, spec, current, namespace.uid)
    instance, changes = await _instance(world, tenant, spec, store)
    if instance is not None and (link is None or not link.ready):
        raise InstanceNeeded(instance, changes)
    if link is None or link.facts is None:
        return None
    incarnation = current.record.incarnation if current.record else declared.uid
    roots = await read_roots(world, tenant, spec, incarnation)
    now = world.clock.now()
    state = (await link.admin.read_states([tenant])).get(tenant, TenantState())
    settled = settle_keys(
        tenant,
        current.record.keyring if current.record else b"",
        roots,
        current.keyrings(),
        now,
        per_agent=spec.isolation is Isolation.STRICT,
    )
    keys = _advance_keys(world, declared, spec, current, link, state, settled)
    _check_data(state, incarnation, tenant, link)
    limits = Limits(spec.quota.memory.bytes, spec.quota.conversations)
    usage = link.usage_of(tenant)
    quota_state = QuotaState.from_fields(state.access)
    if usage is not None:
        quota_state = judge(quota_state, usage, limits, now)
    before = matters_from(state.access.get("matters", ""))
    _check_hold(world, policy, state, before)
    labels = hold_labels(tenant, declared.labels, namespace.labels)
    matters = policy.matters_of(labels, before, now)
    expiring = expiry(tenant, retention, age_from(now, link), held=bool(matters))
    audit = audit_terms(policy.view, spec)
    rotation = RotationRules(
        every=spec.credentials.rotate_every,
        min_overlap=timedelta(days=spec.credentials.min_overlap.days),
        kubelet_lag=world.timing.kubelet_lag,
        grace=world.timing.credential_grace,
    )
    wanted = desired(
        Situation(
            identity=Identity(tenant, declared.uid, namespace.uid, declared.generation),
            spec=spec,
            endpoint=Endpoint(
                link.store,
                link.primary.host,
                link.primary.port,
                link.facts.commands,
                link.tls,
                link.ca_crt,
                link.replicas_of(tenant),
                link.sentinel,
                link.cluster,
            ),
            record=current.record,
            keys=keys,
            # Without its root a keyring cannot be sealed, and stays as it is.
            keyring=keys.opened.keyring.to_json()
            if settled.root or current.record is None
            else current.record.keyring,
            audit_root=audit_root(await world.installation_root()),
            quota_state=quota_state,
            policy=policy.name,
            matters=matters,
            content_minimum=policy.content_minimum is not None,
            cut_offs=expiring.fields,
            audit=audit,
            audited=audit_entry(audit, retention, state.audited, held=bool(matters)),
            told=Told.from_text(state.access.get(TOLD, "")),
            new=not state.access,
            actors=actors_of(world, declared, policy.name),
            rights=policy.rights,
            masking=policy.masking,
            rotation=rotation,
            rotate_token=declared.annotations.get(ROTATE_ANNOTATION, ""),
            shown=current.shown(spec),
            idle=await _idle(link, current),
            escrow=roots.operator_made,
        ),
        now,
        mint,
    )
    plan = await plan_tenant(declared, current, state, wanted, link, keys.change)
    if changes:
        plan = (SetInstance(changes), *plan)
    return Prepared(
        declared,
        spec,
        retention,
        link,
        current,
        keys,
        settled.root is not None,
        state,
        quota_state,
        audit,
        wanted,
        plan,
        roots.secret,
        policy.next_hold(now),
        expiring.next_step,
        instance,
        withheld(tenant, current.foreign) or _unmarked(world, current),
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


def _advance_keys(
    world: World,
    declared: Declared,
    spec: MemoryTenantSpec,
    current: Current,
    link: StoreLink,
    state: TenantState,
    settled: KeyState,
) -> KeyAdvance:
    """The next step of the tenant's keys; what that needs to see is looked at only in motion."""
    record, keyring = current.record, settled.opened.keyring
    moving = record is not None and in_motion(record, keyring)
    sight = KeySight(
        shown=moving and current.shows(spec, keyring),
        least_on_store=state.limits.get("least_kek", ""),
        scan=link.key_scans.get(TenantId(declared.key.namespace, declared.key.name)),
        whole=link.whole,
        token=declared.annotations.get(ROTATE_KEYS_ANNOTATION, ""),
    )
    timing = world.timing
    rules = KeyRules(max(timing.kubelet_lag, timing.agent_look), timing.key_grace)
    return advance_keys(settled, record, sight, rules, now=world.clock.now())


def _placed(world: World, applicant: Applicant, policy: PolicyFacts, placed: str) -> StoreView:
    """The tenant's store; the tenant is entered in the ledger."""
    ledger = world.committed_ledger()
    views = [StoreView(name, spec, ledger.committed(name)) for name, spec in store_specs(world)]
    placement = place(applicant, policy.view, views, placed)
    if placement.refusal is not None:
        raise Stop(placement.refusal)
    assert placement.store is not None  # noqa: S101 - a placement has a store or a refusal
    ledger.enter(placement.store.name, applicant.tenant, applicant.spec.quota.memory.bytes)
    return placement.store


def _check_adoption(
    declared: Declared, spec: MemoryTenantSpec, current: Current, namespace_uid: str
) -> None:
    record, stored = current.record, current.stored_record
    if record is None or stored is None:
        if declared.status.get("keyVersion"):
            raise Stop(
                Refusal(
                    "RecordLost",
                    "",
                    "The tenant's record in the home namespace is gone, and its keys with it: "
                    "restore the Secret from a backup. No new keys are made in their place",
                )
            )
        return
    refusal = adoption_refusal(
        record,
        uid=declared.uid,
        namespace_uid=namespace_uid,
        isolation=spec.isolation.value,
        encryption=spec.encryption.mode.value,
        release=stored.annotations,
        home=stored.namespace,
    )
    if refusal is not None:
        raise Stop(refusal)


def _check_data(state: TenantState, incarnation: str, tenant: TenantId, link: StoreLink) -> None:
    found = state.access.get("incarnation", incarnation)
    if found != incarnation:
        raise Stop(
            Refusal(
                "ForeignData",
                "",
                f"Store {link.store} holds data of another tenant {tenant} whose record is gone: "
                "restore that record, or have the platform admin purge the data",
            )
        )


def _check_hold(world: World, policy: PolicyFacts, state: TenantState, matters: Matters) -> None:
    """A tenant does not leave a hold, or a minimum of its content, by naming another policy."""
    former = state.access.get("policy", policy.name)
    if former == policy.name:
        return
    try:
        in_force = read_policy(world, former)
    except InvalidResource:
        return
    standing = in_force.still_holds(matters)
    minimum = in_force.content_minimum
    if minimum is not None and (policy.content_minimum is None or policy.content_minimum < minimum):
        raise Stop(
            Refusal(
                "RetentionMinimum",
                "spec.retentionPolicyRef.name",
                f"RetentionPolicy {former!r} keeps this tenant's content for at least {minimum}, "
                f"RetentionPolicy {policy.name!r} does not: put the former name back, or name a "
                "policy with as long a minimum",
            )
        )
    if standing:
        raise Stop(
            Refusal(
                "LegalHold",
                "spec.retentionPolicyRef.name",
                f"RetentionPolicy {former!r} holds this tenant ({', '.join(standing)}): put that "
                "policy's name back; counsel releases the hold there",
            )
        )


async def _idle(link: StoreLink, current: Current) -> frozenset[str]:
    """Which retiring users nobody is connected as; asked only while some retire."""
    record = current.record
    if record is None:
        return frozenset()
    retiring = record.retiring_users()
    return await link.admin.idle_users(retiring) if retiring else frozenset()


def age_from(now: datetime, link: StoreLink) -> datetime:
    """From when the age of records is counted. Entries bear the server's time: an operator whose
    clock is ahead must not expire them early."""
    assert link.facts is not None  # noqa: S101 - a link that is ready has them
    return min(now, link.facts.primary.server_time or now)


async def plan_tenant(
    declared: Declared,
    current: Current,
    state: TenantState,
    wanted: Desired,
    link: StoreLink,
    key_change: str,
) -> tuple[Action, ...]:
    """What differs between what is and what should be, as actions in their order."""
    actions: list[Action] = []
    if FINALIZER not in declared.finalizers:
        actions.append(AddFinalizer())
    if wanted.revoke:
        actions.append(Revoke(wanted.revoke))
    # Before the record forgets the agent: nothing else knows the binding's name.
    gone = sorted(current.bindings.keys() - wanted.bindings.keys())
    actions += [RemoveBinding(current.bindings[agent].name) for agent in gone]
    record_changes = _record_changes(current, wanted, key_change)
    if record_changes:
        actions.append(SaveRecord(record_name(wanted.record.tenant), record_changes))
    tenant = wanted.record.tenant
    fields = (
        *changed_fields("access", state.access, wanted.access),
        *changed_limits(state.limits, wanted.limits),
        *changed_fields("audited", _entry(tenant, state.audited), _entry(tenant, wanted.audited)),
    )
    if fields:
        actions.append(SetState(fields, tuple(deed.operation.name for deed in wanted.deeds)))
    bindings = _binding_actions(current, wanted)
    live = any("username" in action.fields for action in bindings)
    found = (await link.admin.differing_users(wanted.users)).require_all()
    differing = {str(address): by_user for address, by_user in found.items()}
    actions += user_actions(wanted.users, differing, live)
    actions += bindings
    return tuple(actions)


def _entry(tenant: TenantId, audited: str) -> dict[str, str]:
    return {str(tenant): audited} if audited else {}


def _record_changes(current: Current, wanted: Desired, key_change: str) -> tuple[str, ...]:
    before = current.stored_record.data if current.stored_record else {}
    after = wanted.record.to_data()
    changes = [name for name in sorted(after) if before.get(name) != after[name]]
    if not changes and current.lost_labels(wanted.record):
        changes = ["labels"]
    if key_change and "keyring.json" in changes:
        changes[changes.index("keyring.json")] = key_change
    rotated = [f"new credential of {name}" for name in wanted.advance.rotated]
    return tuple(changes + rotated) if changes else ()


def _binding_actions(current: Current, wanted: Desired) -> list[WriteBinding]:
    actions = []
    for agent, binding in wanted.bindings.items():
        if agent in current.foreign:
            continue
        stored = current.bindings.get(agent)
        before = stored.data if stored else {}
        after = binding.to_secret_data()
        fields = tuple(
            sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        )
        if fields:
            actions.append(WriteBinding(binding_name(binding.tenant, agent), agent, fields))
    return actions
