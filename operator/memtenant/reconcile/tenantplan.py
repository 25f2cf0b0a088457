"""What differs between what is of a tenant and what should be, as actions in their order."""

from __future__ import annotations

from memtenant.jobs.link import StoreLink
from memtenant.reconcile.current import Current
from memtenant.reconcile.world import FINALIZER
from memtenant.resources.port import Declared
from memtenant.rules.desired import Desired
from memtenant.rules.plan import (
    Action,
    AddFinalizer,
    RemoveBinding,
    Revoke,
    SaveRecord,
    SetState,
    WriteBinding,
    changed_fields,
    changed_limits,
    user_actions,
)
from memtenant.rules.record import record_name
from memtenant.stores import TenantState
from memtenant.tenancy.identity import TenantId, binding_name

__all__ = ["plan_tenant"]


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
    found = (await link.admin.users.differing(wanted.users)).require_all()
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
