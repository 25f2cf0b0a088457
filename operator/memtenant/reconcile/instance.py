"""A Strict tenant's instance: made, connected to, and from then on a store like any other.

The store that the tenant is placed on is a template (`spec.dedicated`). Its instance has a link of
its own, under the tenant's name, so that quotas, repair, expiry, erasures and keys in motion need
not know where a tenant's memory lies.
"""

from __future__ import annotations

import logging
from functools import partial

from memtenant.api.fields import Isolation
from memtenant.api.store import MemoryStoreSpec
from memtenant.api.tenant import MemoryTenantSpec
from memtenant.errors import (
    InvalidResource,
    MemtenantError,
    ResourceConflict,
    StoreRefused,
    StoreUnavailable,
)
from memtenant.jobs.link import StoreLink
from memtenant.jobs.rewrite import notice_cut_off
from memtenant.reconcile.declared import store_spec
from memtenant.reconcile.instancelink import OWNER, PASSWORD, instance_link, instance_secret
from memtenant.reconcile.instancetls import certificate_is_due
from memtenant.reconcile.instanceturns import (
    NotRunning,
    end_turn,
    has_turn,
    not_running,
    restart_in_turn,
    restart_with_login,
)
from memtenant.reconcile.systemusers import forget_system_users, provide_system_users
from memtenant.reconcile.taking import inspect, judge, lead
from memtenant.reconcile.telling import tell_policies
from memtenant.reconcile.world import FINALIZER, World
from memtenant.resources.port import (
    FOREIGN_SECRET,
    Declared,
    EventType,
    ObjectKey,
)
from memtenant.rules.acl import template_digest
from memtenant.rules.instance import (
    Instance,
    instance_name,
)
from memtenant.rules.record import TenantRecord
from memtenant.stores import (
    MatrixProof,
    NodeFacts,
    StoreFacts,
)
from memtenant.tenancy.identity import TenantId

__all__ = [
    "InstanceNeeded",
    "has_instance",
    "instance_changes",
    "keep_instance",
    "let_go_of_instance",
    "link_to_data",
    "look_at_instance",
    "remove_instance",
    "require_alive",
    "take_instance",
    "wanted_instance",
]

_log = logging.getLogger(__name__)

_OTHER_LOGIN = ("StoreWrongPassword", "StorePermissionMissing")
"""How a server refuses the operator whose login is not, or not yet, as its Secret says."""
_CANNOT_SAVE = "StoreCannotSave"
"""How it refuses every write while its disk is full; nothing tells of the end of that."""


class InstanceNeeded(MemtenantError):
    """The tenant may be on this store, and its instance is still to be made or to be connected to:
    ``changes`` say in words what of it."""

    retryable = True

    def __init__(self, wanted: Instance, changes: tuple[str, ...]) -> None:
        super().__init__(
            f"the instance of {wanted.tenant} is still to be made", reason="InstanceNotReady"
        )
        self.wanted = wanted
        self.changes = changes


def wanted_instance(
    tenant: TenantId, store: str, template: MemoryStoreSpec, spec: MemoryTenantSpec
) -> Instance:
    """The tenant's instance as store and quota say."""
    assert template.dedicated is not None  # noqa: S101 - asked of templates alone
    return Instance(tenant, store, spec.quota.memory.bytes, template.dedicated)


async def instance_changes(world: World, wanted: Instance) -> tuple[str, ...]:
    """What of the instance is not as it should be, in words."""
    changes = await world.host.changes(wanted)
    stored = await world.resources.get_secret(world.resources.home, wanted.name)
    if stored is None:
        changes = (*changes, f"make Secret {wanted.name}")
    elif await certificate_is_due(world, wanted, stored):
        changes = (*changes, f"a new certificate of {wanted.name}")
    link = world.links.get(str(wanted.tenant))
    if link is not None and link.facts is not None:
        now, settings = _settings(link.facts.primary), wanted.settings
        changes = (
            *changes,
            *(
                f"{setting} of {wanted.name}: {now[setting]} → {value}"
                for setting, value in settings.items()
                if now[setting] != value
            ),
        )
    return changes


async def require_alive(world: World, declared: Declared) -> None:
    """Before something is made for a tenant that no fence and no guarded write would hold up: a
    reconcile that saw it a moment before its end must not make an instance for nobody. Raises
    `ResourceConflict`.
    """
    now = await world.resources.get(declared.key)
    if now is None or now.uid != declared.uid or now.deleting:
        raise ResourceConflict(f"{declared.key} is gone, or about to go, since it was seen")


async def take_instance(world: World, wanted: Instance) -> StoreLink:
    """Make the instance what it should be, connect to it, and lead it.

    Raises `NotRunning` while it is on its way, or away.
    """
    secret = await instance_secret(world, wanted)
    sighting = await world.host.make(wanted, secret.data[PASSWORD].decode())
    if not sighting.host:
        if sighting.outdated and has_turn(world, wanted):
            # An image that does not start is mended so.
            await world.host.restart(wanted, sighting)
        not_running(world, wanted, sighting.why)
    link = await instance_link(world, wanted, sighting, secret)
    try:
        await _taken(world, wanted, link)
    except StoreRefused as refusal:
        if refusal.reason not in _OTHER_LOGIN:
            raise
        await restart_with_login(world, wanted, link, sighting)
        raise
    if sighting.outdated:
        await restart_in_turn(world, wanted, link, sighting)
    else:
        end_turn(world, wanted.tenant)
    return link


async def link_to_data(world: World, record: TenantRecord) -> StoreLink | None:
    """The way to the data of a tenant that has a record. Its instance may not have been looked at
    since the start: it is connected to as it is, and not made into anything.

    None where it is away, lets the operator not in, or is gone already.
    """
    link = world.link_of(record.store, record.tenant)
    if not has_instance(record) or (link is not None and link.ready):
        return link
    try:
        wanted = _accepted_instance(world, record)
        return None if wanted is None else await _reach(world, wanted)
    except InvalidResource:
        return None


async def keep_instance(world: World, declared: Declared, record: TenantRecord) -> None:
    """Make the instance of a tenant that is refused what it declares as it was accepted: else what
    it declares would end that somebody's change is put back, and that a new image is taken."""
    try:
        wanted = _accepted_instance(world, record)
        changes = () if wanted is None else await instance_changes(world, wanted)
        if wanted is None or not changes:
            return
        await require_alive(world, declared)
        await take_instance(world, wanted)
    except (InvalidResource, NotRunning, StoreRefused) as error:
        _log.info("instance of %s: %s", record.tenant, error)
        return
    for change in changes:
        await world.resources.emit_event(declared, EventType.NORMAL, "InstanceSet", change)


def _accepted_instance(world: World, record: TenantRecord) -> Instance | None:
    """The instance as the template says now, and the quota that was accepted."""
    template = world.mirror.get(ObjectKey.store(record.store))
    spec = None if template is None else store_spec(template)
    if not has_instance(record) or spec is None or spec.dedicated is None:
        return None
    return Instance(record.tenant, record.store, record.quota_bytes, spec.dedicated)


def has_instance(record: TenantRecord) -> bool:
    """Whether the tenant's memory lies in an instance of its own."""
    return record.isolation == Isolation.STRICT.value


async def _reach(world: World, wanted: Instance) -> StoreLink | None:
    stored = await world.resources.get_secret(world.resources.home, wanted.name)
    sighting = await world.host.look(wanted)
    if stored is None or not sighting.host:
        return None
    link = await instance_link(world, wanted, sighting, stored)
    try:
        await _taken(world, wanted, link)
    except (NotRunning, StoreRefused):
        return None
    if not sighting.outdated:
        end_turn(world, wanted.tenant)  # nothing is made of it while its tenant is refused
    return link


async def _taken(world: World, wanted: Instance, link: StoreLink) -> StoreLink:
    was_ready = link.ready
    try:
        link.facts = await link.admin.discover()
        notice_cut_off(link)
        await _configure(link, link.facts, wanted)  # one that is full cannot be led before it grew
        await lead(link)
        judge(link.admin.facts)
        await _provide_system_users(world, link)
        if not was_ready:
            await tell_policies(world, link)
    except MemtenantError as error:
        link.failure = error
        if isinstance(error, StoreUnavailable) or error.reason == _CANNOT_SAVE:
            not_running(world, wanted, str(error))
        raise
    link.failure, link.served = None, link.facts
    return link


async def _provide_system_users(world: World, link: StoreLink) -> None:
    """The tenant does not wait for a Secret that is not its own and lost its labels."""
    try:
        await provide_system_users(world, link)
    except ResourceConflict as error:
        if error.reason != FOREIGN_SECRET:
            raise
        _log.warning("instance of %s: %s", link.name, error)


async def look_at_instance(world: World, wanted: Instance) -> StoreLink | None:
    """The instance as it is, without a write, for a preview; None where there is none to ask."""
    stored = await world.resources.get_secret(world.resources.home, wanted.name)
    sighting = await world.host.look(wanted)
    if stored is None or not sighting.host:
        return None
    link = await instance_link(world, wanted, sighting, stored)
    link.facts = await inspect(link)
    template = template_digest(link.facts.commands, own_keys=True)
    link.proof = MatrixProof(link.facts.primary.version, template, checked=0, denied=0)
    return link


async def _configure(link: StoreLink, facts: StoreFacts, wanted: Instance) -> None:
    """What an instance is declared to be and its server is told as it runs: the quota, which it
    refuses to pass at once and without a restart; and what somebody set otherwise."""
    now = _settings(facts.primary)
    if differing := {name: one for name, one in wanted.settings.items() if now[name] != one}:
        await link.admin.configure(differing)
        link.facts = await link.admin.discover()


def _settings(primary: NodeFacts) -> dict[str, str]:
    return {
        "appendonly": "yes" if primary.append_only else "no",
        "appendfsync": primary.file.fsync,
        "maxmemory": str(primary.maxmemory),
        "maxmemory-policy": primary.maxmemory_policy,
    }


async def remove_instance(
    world: World, declared: Declared, tenant: TenantId, *, keep_data: bool
) -> None:
    """End the instance. With ``keep_data`` its volume stays, for a tenant that takes it over.

    Raises `ResourceConflict` where ``declared`` went meanwhile: another tenant of that name may be
    there already, with an instance of its own.
    """
    await forget_system_users(world, str(tenant), None)
    await let_go_of_instance(world, tenant)
    stored = await world.resources.get_secret(world.resources.home, instance_name(tenant))
    still = partial(_require_held, world, declared)
    await world.host.remove(tenant, keep_data=keep_data, still=still)
    if stored is not None and stored.owner == OWNER:
        await world.resources.delete_secret(stored)


async def _require_held(world: World, declared: Declared) -> None:
    """While our finalizer is on it, no other tenant has its name."""
    now = await world.resources.get(declared.key)
    if now is None or now.uid != declared.uid or FINALIZER not in now.finalizers:
        raise ResourceConflict(f"{declared.key} was let go since it was seen")


async def let_go_of_instance(world: World, tenant: TenantId) -> None:
    """Close what was open to it; another instance may restart."""
    end_turn(world, tenant)
    link = world.links.pop(str(tenant), None)
    if link is not None:
        await link.admin.close()
