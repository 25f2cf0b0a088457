"""What the operator does, told to the audit: with the writes that it tells, or right after them.

A tenant's own log has what was done to the tenant; the installation's what was done to policies
and stores. Nothing is told where nobody drains: of a tenant that is not audited, or on a store on
which none is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from memtenant.audit import MAX_DETAIL_BYTES, Deed, Operation
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared, Kind, ObjectKey
from memtenant.rules.audit import closing_entry
from memtenant.rules.told import TOLD, Actors, Told, deeds
from memtenant.stores import StateChange, TenantState, Untold
from memtenant.tenancy.document import canonical_json
from memtenant.tenancy.identity import TenantId

__all__ = [
    "CHANGED_BY_ANNOTATION",
    "actors_of",
    "tell",
    "tell_declared",
    "tell_ended",
    "tell_expired",
    "tell_policies",
    "tell_policy_gone",
    "tell_purged",
    "tell_spec",
]

CHANGED_BY_ANNOTATION = "memtenant.dev/changed-by"
"""Who changed the spec last, where an admission policy stamps it (chart: admission.changedBy)."""


def actors_of(world: World, declared: Declared | None, policy: str) -> Actors:
    """Who declared the tenant and its policy; nobody where the annotation could be anybody's."""
    named = world.mirror.get(ObjectKey.policy(policy)) if policy else None
    return Actors(_actor(world, declared), _actor(world, named))


def _actor(world: World, declared: Declared | None) -> str:
    if declared is None or not world.changed_by_stamped:
        return ""
    return declared.annotations.get(CHANGED_BY_ANNOTATION, "")


async def tell(
    world: World, link: StoreLink, tenant: TenantId, done: Sequence[Deed], change: StateChange
) -> None:
    """Write the change, and in the same transaction what the audit is told of it."""
    if not done:
        await link.admin.write_states({tenant: change})
        return
    voice = await world.voice(link.name, str(tenant))
    telling = voice.tell(done, world.clock.now())
    await link.admin.write_states({tenant: replace(change, events=telling.entries)})
    voice.done(telling)


async def tell_ended(
    world: World, link: StoreLink, tenant: TenantId, policy: str, declared: Declared | None = None
) -> None:
    """The tenant's users are gone. Where its data stays, its queue is drained for the last time;
    else no hold stands any more, and the rest follows when all is removed (`tell_purged`)."""
    state = await _state(link, tenant)
    known = Told.from_text(state.access.get(TOLD, ""))
    if known is None or known.ended == policy:
        return
    retained = policy == "Retain"
    told = replace(known, ended=policy, matters=known.matters if retained else ())
    done = deeds(tenant, known, told, new=False, actors=actors_of(world, declared, known.policy))
    audited = closing_entry(state.audited) if retained else None
    await tell(
        world, link, tenant, done, StateChange(access={TOLD: told.to_text()}, audited=audited)
    )


async def tell_purged(world: World, link: StoreLink, tenant: TenantId, policy: str) -> None:
    """Everything of the tenant is removed: told where that was counted, and only then its entry
    closes. One that is closing already is not told of any more."""
    audited = (await _state(link, tenant)).audited
    closing = closing_entry(audited)
    untold = (await link.admin.untold.read([tenant])).get(tenant)
    if untold is not None:
        purged = Deed(Operation.PURGED, {"keys": untold.keys, "deletionPolicy": policy})
        done = () if audited == closing else (*_expired(untold), purged)
        await _tell_untold(world, link, tenant, untold, done)
    if audited != closing:
        await link.admin.write_states({tenant: StateChange(audited=closing)})


async def tell_expired(world: World, link: StoreLink, tenants: Collection[TenantId]) -> None:
    """What of these tenants went because its period was over, and which cut-offs said so: this
    round, or an earlier one that was cut off."""
    untold = await link.admin.untold.read(tenants)
    states = await link.admin.read_states(list(untold))
    for tenant, one in untold.items():
        # What a purge counted is told when it is at its end.
        if states[tenant].limits.get("audit") == "1" and not one.keys:
            await _tell_untold(world, link, tenant, one, _expired(one))


def _expired(untold: Untold) -> tuple[Deed, ...]:
    if not untold.expired:
        return ()
    detail = {**untold.expired, "before": untold.before}
    return (Deed(Operation.EXPIRED, detail, sum(untold.expired.values())),)


async def _tell_untold(
    world: World, link: StoreLink, tenant: TenantId, untold: Untold, done: Sequence[Deed]
) -> None:
    voice = await world.voice(link.name, str(tenant))
    telling = voice.tell(done, world.clock.now())
    if await link.admin.untold.tell(tenant, untold, telling.entries):
        voice.done(telling)


async def tell_spec(world: World, declared: Declared) -> None:
    """The generation of what has no server of its own, as a policy: to the first store, by name, on
    which somebody listens."""
    for link in _ready_links(world):
        if await tell_declared(world, link, declared):
            return


async def tell_declared(world: World, link: StoreLink, declared: Declared) -> bool:
    """The generation of a policy or store that the operator acts upon, once; whether anybody
    listens on this store."""
    key = declared.key
    mark = f"{declared.uid} {declared.generation}"
    known = (link.processes, mark)
    if world.told_specs.get((link.name, key)) == known:
        return True
    log = link.admin.installation_log
    if not await log.is_drained():
        return False
    if await log.told(_name(key)) != mark:
        detail = {
            "kind": key.kind.value,
            "name": key.name,
            "uid": declared.uid,
            "generation": declared.generation,
        }
        actor = _actor(world, declared)
        by = {"by": actor[:256]} if actor else {}
        deed = Deed(Operation.SPEC_SEEN, {**detail, **by, **_worded(declared, {**detail, **by})})
        await _tell_installation(world, link, deed, {_name(key): mark})
    world.told_specs[link.name, key] = known
    return True


def _worded(declared: Declared, detail: Mapping[str, object]) -> dict[str, object]:
    """What a policy says, word by word, or where that is too long for an event its SHA-256: by it a
    manifest can be held against the log."""
    if declared.key.kind is not Kind.POLICY:
        return {}
    spec = dict(declared.spec)
    if len(canonical_json({**detail, "spec": spec})) <= MAX_DETAIL_BYTES:
        return {"spec": spec}
    return {"specSha256": hashlib.sha256(canonical_json(spec)).hexdigest()}


async def tell_policies(world: World, link: StoreLink) -> None:
    """What became of policies while this store could not be told."""
    declared = sorted(world.mirror.keys(Kind.POLICY))
    for key in declared:
        policy = world.mirror.get(key)
        if policy is not None and not policy.deleting:
            await tell_spec(world, policy)
    log = link.admin.installation_log
    if await log.is_drained():
        for name in await log.names():
            kind, _, policy_name = name.partition("/")
            key = ObjectKey.policy(policy_name)
            if kind == Kind.POLICY.value and key not in declared:
                await _tell_gone(world, link, key)


async def tell_policy_gone(world: World, key: ObjectKey) -> None:
    """A policy is gone, and its holds and minimums with it: on each store that knew of it."""
    for link in _ready_links(world):
        log = link.admin.installation_log
        if await log.is_drained() and await log.told(_name(key)):
            await _tell_gone(world, link, key)


async def _tell_gone(world: World, link: StoreLink, key: ObjectKey) -> None:
    deed = Deed(Operation.OVERRIDE, {"what": "PolicyDeleted", "policy": key.name})
    await _tell_installation(world, link, deed, {_name(key): None})
    world.told_specs.pop((link.name, key), None)


async def _tell_installation(
    world: World, link: StoreLink, deed: Deed, told: Mapping[str, str | None]
) -> None:
    voice = await world.voice(link.name, INSTALLATION_LOG)
    telling = voice.tell((deed,), world.clock.now())
    await link.admin.tell_installation(telling.entries, told)
    voice.done(telling)


async def _state(link: StoreLink, tenant: TenantId) -> TenantState:
    return (await link.admin.read_states([tenant]))[tenant]


def _name(key: ObjectKey) -> str:
    return f"{key.kind.value}/{key.name}"


def _ready_links(world: World) -> list[StoreLink]:
    """Shared stores first: an instance goes with its tenant."""
    ready = (one for one in world.links.values() if one.ready)
    return sorted(ready, key=lambda one: (one.name != one.store, one.name))
