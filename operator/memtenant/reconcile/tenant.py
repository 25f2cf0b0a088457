"""The reconcile of a MemoryTenant that lives: read, decide, plan, apply, say so.

The way of an event: mirror → `reconcile_tenant` → `rules.placement` (where, and whether) →
`rules.keymaterial` (with which keys) → `rules.desired` (what should be) → `rules.plan` (what
differs) → `reconcile.apply` → `rules.status`. A tenant for which nothing differs is read and left
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from memtenant.api.tenant import MemoryTenantSpec, MemoryTenantStatus
from memtenant.errors import (
    InvalidResource,
    MemtenantError,
    ResourceConflict,
    ResourceForbidden,
)
from memtenant.jobs.link import LiveTenant, StoreLink
from memtenant.reconcile.access import LOOK_AGAIN, missing_secret_access
from memtenant.reconcile.apply import Work, apply
from memtenant.reconcile.current import Current, read_current, read_roots
from memtenant.reconcile.declared import save_status, status_before, tenant_spec
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.store import store_specs
from memtenant.reconcile.world import FINALIZER, World, mint_password
from memtenant.resources.port import SECRET_ACCESS_MISSING, Declared, EventType
from memtenant.rules.adoption import adoption_refusal
from memtenant.rules.credentials import RotationRules
from memtenant.rules.desired import Desired, Endpoint, Identity, Situation, desired
from memtenant.rules.keymaterial import KeyState, settle_keys
from memtenant.rules.placement import Applicant, Refusal, StoreView, place
from memtenant.rules.plan import (
    Action,
    AddFinalizer,
    RemoveBinding,
    Revoke,
    SaveRecord,
    SetState,
    WriteBinding,
    changed_fields,
    user_actions,
)
from memtenant.rules.policy import (
    Matters,
    PolicyFacts,
    hold_labels,
    matters_from,
    retention_findings,
    retention_status,
)
from memtenant.rules.quota import Limits, QuotaState, judge, percent
from memtenant.rules.record import record_name
from memtenant.rules.retention import Resolution
from memtenant.rules.status import Provisioned, ready_status, refused, waiting
from memtenant.stores import TenantState
from memtenant.tenancy.identity import TenantId, binding_name

__all__ = ["ROTATE_ANNOTATION", "Prepared", "plan_tenant", "prepare", "reconcile_tenant"]

ROTATE_ANNOTATION = "memtenant.dev/rotate"
"""Any new value asks for a rotation of all the tenant's credentials."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that was read and decided; the plan is what is left to do."""

    declared: Declared
    spec: MemoryTenantSpec
    retention: Resolution
    link: StoreLink
    current: Current
    keys: KeyState
    state: TenantState
    quota_state: QuotaState
    desired: Desired
    plan: tuple[Action, ...]
    key_secret: str


class Stop(MemtenantError):
    """The tenant cannot go on now: ``refusal`` says why (reason, field, message)."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, reason=refusal.reason)
        self.refusal = refusal
        self.retryable = refusal.retryable


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


async def _reconcile(world: World, declared: Declared) -> Outcome:
    try:
        prepared = await prepare(world, declared, mint_password)
    except Stop as stop:
        return await _refuse(world, declared, stop.refusal)
    except InvalidResource as error:
        return await _refuse(world, declared, Refusal(error.reason, error.field, str(error)))
    if prepared is None:
        return await _wait_for_store(world, declared)
    work = Work(
        prepared.declared, prepared.current, prepared.desired, prepared.link, _live(prepared)
    )
    declared = await apply(world, work, prepared.plan)
    prepared.link.tenants[prepared.desired.record.tenant] = work.live
    world.settled.add(prepared.desired.record.tenant)
    changed = await _say_so(world, prepared, declared)
    return Outcome(
        requeue_after=_next_look(prepared, world.clock.now()),
        changed=changed or bool(prepared.plan),
        did=tuple(str(action) for action in prepared.plan),
    )


async def prepare(world: World, declared: Declared, mint: Callable[[], str]) -> Prepared | None:
    """Read everything and decide; None while the tenant's store is not ready.

    Writes nothing outside of memory. Raises `Stop` or another `MemtenantError` where the tenant
    cannot be as declared.
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
    link = _placed(world, Applicant(tenant, spec, namespace.labels), policy, declared)
    if link is None or link.facts is None or not link.ready:
        return None
    current = await read_current(
        world,
        tenant,
        (agent.name for agent in spec.agents_or_default()),
        bound=bool(declared.status.get("bindings")),
    )
    _check_adoption(declared, spec, current, namespace.uid)
    if current.foreign:
        raise ResourceConflict(
            f"Secret {tenant.namespace}/{current.foreign[0]} exists and was not made for this "
            "agent: rename the agent or the tenant, or remove the Secret",
            reason="ForeignSecret",
        )
    incarnation = current.record.incarnation if current.record else declared.uid
    roots = await read_roots(world, tenant, spec, incarnation)
    now = world.clock.now()
    keys = settle_keys(
        tenant, current.record.keyring if current.record else b"", roots, current.keyrings(), now
    )
    state = (await link.admin.read_states([tenant])).get(tenant, TenantState())
    _check_data(state, incarnation, tenant, link)
    limits = Limits(spec.quota.memory.bytes, spec.quota.conversations)
    usage = link.usage_of(tenant)
    quota_state = QuotaState.from_fields(state.access)
    if usage is not None:
        quota_state = judge(quota_state, usage, limits, now)
    before = matters_from(state.access.get("matters", ""))
    _check_hold(world, policy, state, before)
    labels = hold_labels(tenant, declared.labels, namespace.labels)
    rotation = RotationRules(
        every=spec.credentials.rotate_every,
        min_overlap=timedelta(days=spec.credentials.min_overlap.days),
        kubelet_lag=world.timing.kubelet_lag,
        grace=world.timing.credential_grace,
    )
    wanted = desired(
        Situation(
            identity=Identity(tenant, declared.uid, namespace.uid),
            spec=spec,
            endpoint=Endpoint(
                link.name,
                link.endpoint.host,
                link.endpoint.port,
                link.facts.commands,
                link.tls,
                link.ca_crt,
            ),
            record=current.record,
            keys=keys.opened,
            keyring=keys.opened.keyring.to_json(),
            installation_root=await world.installation_root(),
            quota_state=quota_state,
            policy=policy.name,
            matters=policy.matters_of(labels, before),
            content_minimum=policy.content_minimum is not None,
            rotation=rotation,
            rotate_token=declared.annotations.get(ROTATE_ANNOTATION, ""),
            shown=current.shown(spec),
            idle=await _idle(link, current),
        ),
        now,
        mint,
    )
    plan = await plan_tenant(declared, current, state, wanted, link, keys.change)
    return Prepared(
        declared,
        spec,
        retention,
        link,
        current,
        keys,
        state,
        quota_state,
        wanted,
        plan,
        roots.secret,
    )


def _placed(
    world: World, applicant: Applicant, policy: PolicyFacts, declared: Declared
) -> StoreLink | None:
    """The link of the tenant's store, entered in the ledger; None while there is none."""
    ledger = world.committed_ledger()
    before = status_before(declared, MemoryTenantStatus)
    placed = before.store or ledger.store_of(applicant.tenant) or ""
    views = [
        StoreView(name, spec, _ready(world, name), ledger.committed(name))
        for name, spec in store_specs(world)
    ]
    placement = place(applicant, policy.view, views, placed)
    if placement.refusal is not None:
        raise Stop(placement.refusal)
    assert placement.store is not None  # noqa: S101 - a placement has a store or a refusal
    ledger.enter(placement.store.name, applicant.tenant, applicant.spec.quota.memory.bytes)
    return world.links.get(placement.store.name)


def _ready(world: World, store: str) -> bool:
    link = world.links.get(store)
    return link is not None and link.ready


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
                f"Store {link.name} holds data of another tenant {tenant} whose record is gone: "
                "restore that record, or have the platform admin purge the data",
            )
        )


def _check_hold(world: World, policy: PolicyFacts, state: TenantState, matters: Matters) -> None:
    """A held tenant does not leave its hold by naming another policy."""
    former = state.access.get("policy", policy.name)
    if former == policy.name or not matters:
        return
    try:
        standing = read_policy(world, former).still_holds(matters)
    except InvalidResource:
        return
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
    record_changes = _record_changes(current, wanted, key_change)
    if record_changes:
        actions.append(SaveRecord(record_name(wanted.record.tenant), record_changes))
    fields = (
        *changed_fields("access", state.access, wanted.access),
        *changed_fields("limits", state.limits, wanted.limits),
    )
    if fields:
        actions.append(SetState(fields))
    bindings = _binding_actions(current, wanted)
    live = any("username" in action.fields for action in bindings)
    found = (await link.admin.differing_users(wanted.users)).require_all()
    differing = {str(address): by_user for address, by_user in found.items()}
    actions += user_actions(wanted.users, differing, live)
    actions += bindings
    gone = sorted(current.bindings.keys() - wanted.bindings.keys())
    actions += [RemoveBinding(current.bindings[agent].name) for agent in gone]
    return tuple(actions)


def _record_changes(current: Current, wanted: Desired, key_change: str) -> tuple[str, ...]:
    before = current.stored_record.data if current.stored_record else {}
    after = wanted.record.to_data()
    changes = [name for name in sorted(after) if before.get(name) != after[name]]
    if key_change and "keyring.json" in changes:
        changes[changes.index("keyring.json")] = key_change
    rotated = [f"new credential of {name}" for name in wanted.advance.rotated]
    return tuple(changes + rotated) if changes else ()


def _binding_actions(current: Current, wanted: Desired) -> list[WriteBinding]:
    actions = []
    for agent, binding in wanted.bindings.items():
        stored = current.bindings.get(agent)
        before = stored.data if stored else {}
        after = binding.to_secret_data()
        fields = tuple(
            sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        )
        if fields:
            actions.append(WriteBinding(binding_name(binding.tenant, agent), agent, fields))
    return actions


def _live(prepared: Prepared) -> LiveTenant:
    quota = prepared.spec.quota
    tenant = prepared.desired.record.tenant
    usage = prepared.link.usage_of(tenant)
    return LiveTenant(
        users=prepared.desired.users,
        limits=Limits(quota.memory.bytes, quota.conversations),
        state=prepared.quota_state,
        shown_percent=percent(usage.memory, quota.memory.bytes) if usage else 0,
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
            key_version=prepared.keys.opened.active.version,
            key_available=prepared.keys.root_available,
            key_secret=prepared.key_secret,
            retention=retention_status(prepared.retention),
            retention_findings=retention_findings(prepared.retention),
            usage=link.usage_of(tenant),
            measured_at=link.measured_at,
        ),
        now=now,
        generation=prepared.declared.generation,
    )
    await _tell(world, prepared)
    return await save_status(
        world, replace(declared, generation=prepared.declared.generation), status
    )


async def _tell(world: World, prepared: Prepared) -> None:
    """Events for what a person should know; repeated words are kept back by the port."""
    before = QuotaState.from_fields(prepared.state.access)
    after = prepared.quota_state
    emit = world.resources.emit_event
    if prepared.current.record is None:
        message = f"Memory is ready on store {prepared.link.name}"
        await emit(prepared.declared, EventType.NORMAL, "Provisioned", message)
    if prepared.desired.advance.rotated:
        names = ", ".join(prepared.desired.advance.rotated)
        await emit(prepared.declared, EventType.NORMAL, "Rotating", f"New credentials: {names}")
    if prepared.keys.change and prepared.current.record is not None:
        await emit(prepared.declared, EventType.NORMAL, "KeyRotated", prepared.keys.change)
    if after.over and not before.over:
        message = f"The quota of {' and '.join(after.over)} is used up: writing is off"
        await emit(prepared.declared, EventType.WARNING, "QuotaExceeded", message)
    if before.over and not after.over:
        message = "Usage is back under 95 % of the quota: writing is on"
        await emit(prepared.declared, EventType.NORMAL, "QuotaRestored", message)
    if after.flooded and not before.flooded:
        message = "Bookkeeping outgrew its limit: the agents' users are off"
        await emit(prepared.declared, EventType.WARNING, "Flooded", message)


def _next_look(prepared: Prepared, now: datetime) -> float | None:
    if any(isinstance(action, WriteBinding) for action in prepared.plan) and any(
        principal.pending for principal in prepared.desired.record.principals.values()
    ):
        return 0.0
    due = prepared.desired.advance.due
    return None if due is None else max(1.0, (due - now).total_seconds())


async def _refuse(world: World, declared: Declared, refusal: Refusal) -> Outcome:
    status = refused(
        status_before(declared, MemoryTenantStatus),
        refusal,
        now=world.clock.now(),
        generation=declared.generation,
    )
    changed = await save_status(world, declared, status)
    if changed:
        await world.resources.emit_event(
            declared, EventType.WARNING, refusal.reason, refusal.message
        )
    wait = LOOK_AGAIN if refusal.reason == SECRET_ACCESS_MISSING else None
    return Outcome(requeue_after=wait, changed=changed)


async def _wait_for_store(world: World, declared: Declared) -> Outcome:
    """The store is one condition on the store: a tenant that works is left alone."""
    status = waiting(
        status_before(declared, MemoryTenantStatus),
        "StoreNotReady",
        "Waiting for the tenant's MemoryStore to be ready",
        now=world.clock.now(),
        generation=declared.generation,
    )
    return Outcome(changed=await save_status(world, declared, status))
