"""Execute a tenant's plan, step by step, in its order.

Each step is idempotent and guarded; a step that fails ends the reconcile, and the next one plans
anew from what is there then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memtenant.errors import NotProven, StoreRefused
from memtenant.jobs.link import LiveTenant, StoreLink
from memtenant.reconcile.current import Current, binding_owner, record_draft
from memtenant.reconcile.instance import require_alive, take_instance
from memtenant.reconcile.telling import tell
from memtenant.reconcile.world import FINALIZER, World
from memtenant.resources.port import Declared, SecretDraft
from memtenant.rules.desired import Desired
from memtenant.rules.instance import Instance
from memtenant.rules.plan import (
    Action,
    AddFinalizer,
    Disconnect,
    Prove,
    RemoveBinding,
    Revoke,
    SaveRecord,
    SetInstance,
    SetState,
    SetUsers,
    WriteBinding,
)
from memtenant.rules.record import LABEL_NAME
from memtenant.stores import StateChange
from memtenant.tenancy.binding import BINDING_SECRET_TYPE
from memtenant.tenancy.identity import binding_name

__all__ = ["Work", "apply"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a plan is executed on."""

    declared: Declared
    current: Current
    desired: Desired
    link: StoreLink
    live: LiveTenant
    instance: Instance | None = None


async def apply(world: World, work: Work, plan: Sequence[Action]) -> Declared:
    """Execute the actions; the object as it is then, for the status that follows.

    Raises the error of the first step that fails. Where an instance is reached in another way than
    ``work`` says from then on, what follows is left to the next reconcile.
    """
    declared = work.declared
    if not plan:
        return declared
    async with work.link.changing(work.desired.record.tenant):
        for action in plan:
            if isinstance(action, AddFinalizer):
                declared = await world.resources.add_finalizer(declared, FINALIZER)
                world.mirror.put(declared)
            elif isinstance(action, SetInstance):
                assert work.instance is not None  # noqa: S101 - planned for instances alone
                await require_alive(world, declared)
                if await take_instance(world, work.instance) is not work.link:
                    return declared  # the rest was planned for the way that there was before
            else:
                await _execute(world, work, action)
    return declared


async def _execute(world: World, work: Work, action: Action) -> None:
    desired, link = work.desired, work.link
    tenant = desired.record.tenant
    match action:
        case Revoke(users):
            link.tenants[tenant] = work.live
            found = await link.admin.users.drop(users)
            link.unsaved = True
            found.require_all()
        case SaveRecord():
            draft = record_draft(world, desired.record)
            await world.resources.apply_secret(draft, current=work.current.stored_record)
        case SetState(fields, _):
            limits = {field: after for name, field, _, after in fields if name == "limits"}
            replicas = link.replicas_of(tenant)  # a repair may have counted meanwhile
            if "replicas" in limits:
                limits["replicas"] = str(replicas)
                link.told_replicas.pop(tenant, None)
            access = {field: after for name, field, _, after in fields if name == "access"}
            audited = {after or "" for name, _, _, after in fields if name == "audited"}
            change = StateChange(limits, access, next(iter(audited), None))
            await tell(world, link, tenant, desired.deeds, change)
            if "replicas" in limits:
                link.told_replicas[tenant] = replicas
        case SetUsers(users):
            await _set_users(work, users)
        case Disconnect(users):
            (await link.admin.users.kill(users)).require_all()
        case Prove(users, live):
            await _prove(work, users, live)
        case WriteBinding(_, agent):
            await world.resources.apply_secret(
                _binding_draft(work, agent), current=work.current.bindings.get(agent)
            )
        case RemoveBinding(name):
            for stored in work.current.bindings.values():
                if stored.name == name:
                    await world.resources.delete_secret(stored)


async def _set_users(work: Work, names: Sequence[str]) -> None:
    """On every node. The roster first: a node that fails now is made whole by the next repair."""
    link = work.link
    link.tenants[work.desired.record.tenant] = work.live
    wanted = [user for user in work.desired.users if user.name in names]
    found = await link.admin.users.set(wanted)
    link.unsaved = True  # also where one of the nodes failed
    outcome = found.require_all()
    for address, users in outcome.items():
        for name in names:  # others' users go along
            if name in users.refused:
                words = users.refused[name]
                raise StoreRefused(f"{address} refused to set ACL user {name}: {words}")


async def _prove(work: Work, names: Sequence[str], live: bool) -> None:
    users = [user for user in work.desired.users if user.name in names]
    proof = await work.link.admin.users.prove(users)
    for failure in proof:
        raise NotProven(failure)
    if not live:
        return
    for binding in work.desired.bindings.values():
        if binding.username in names:
            await work.link.admin.users.probe(binding.username, binding.password)


def _binding_draft(work: Work, agent: str) -> SecretDraft:
    binding = work.desired.bindings[agent]
    tenant = binding.tenant
    return SecretDraft(
        namespace=tenant.namespace,
        name=binding_name(tenant, agent),
        owner=binding_owner(tenant, agent),
        data=binding.to_secret_data(),
        type=BINDING_SECRET_TYPE,
        labels={LABEL_NAME: tenant.name, "memtenant.dev/agent": agent},
        owned_by=work.declared,
    )
