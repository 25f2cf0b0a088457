"""A Strict tenant's instance: made, connected to, and from then on a store like any other.

The store that the tenant is placed on is a template (`spec.dedicated`). Its instance has a link of
its own, under the tenant's name, so that quotas, repair, expiry, erasures and keys in motion need
not know where a tenant's memory lies.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial

from memtenant.api.fields import Isolation
from memtenant.api.store import MemoryStoreSpec
from memtenant.api.tenant import MemoryTenantSpec
from memtenant.errors import (
    InvalidResource,
    KeyUnavailable,
    MemtenantError,
    ResourceConflict,
    StoreRefused,
    StoreUnavailable,
)
from memtenant.jobs.link import StoreLink
from memtenant.jobs.rewrite import notice_cut_off
from memtenant.reconcile.declared import store_spec
from memtenant.reconcile.instancetls import (
    certificate_files,
    certificate_is_due,
    reload_until,
)
from memtenant.reconcile.systemusers import forget_system_users, provide_system_users
from memtenant.reconcile.taking import inspect, judge, lead
from memtenant.reconcile.telling import tell_policies
from memtenant.reconcile.world import FINALIZER, World, mint_password
from memtenant.resources.port import (
    FOREIGN_SECRET,
    Declared,
    EventType,
    ObjectKey,
    SecretDraft,
    StoredSecret,
)
from memtenant.rules.acl import template_digest
from memtenant.rules.instance import (
    ADMIN_USER,
    Instance,
    Sighting,
    admin_line,
    instance_labels,
    instance_name,
)
from memtenant.rules.record import TenantRecord
from memtenant.stores import (
    Address,
    MatrixProof,
    NodeFacts,
    StoreAdmin,
    StoreFacts,
    StoreSettings,
    StoreTls,
    instance_rules,
)
from memtenant.tenancy.identity import TenantId

__all__ = [
    "InstanceNeeded",
    "NotRunning",
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

_OWNER = "tenant-instance"
_PASSWORD = "password"  # noqa: S105 - a key in a Secret
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


class NotRunning(MemtenantError):
    """The instance does not run, or does not answer: looked at again soon. ``waits``: others of its
    store restart before it does."""

    retryable = True

    def __init__(self, message: str, *, reason: str, waits: bool = False) -> None:
        super().__init__(message, reason=reason)
        self.waits = waits


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
    secret = await _secret(world, wanted)
    sighting = await world.host.make(wanted, secret.data[_PASSWORD].decode())
    if not sighting.host:
        if sighting.outdated and _has_turn(world, wanted):
            # An image that does not start is mended so.
            await world.host.restart(wanted, sighting)
        _fail(world, wanted, sighting.why)
    link = await _link(world, wanted, sighting, secret)
    try:
        await _taken(world, wanted, link)
    except StoreRefused as refusal:
        if refusal.reason not in _OTHER_LOGIN:
            raise
        await _restart_with_login(world, wanted, link, sighting)
        raise
    if sighting.outdated:
        await _restart_in_turn(world, wanted, link, sighting)
    else:
        _end_turn(world, wanted.tenant)
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
    link = await _link(world, wanted, sighting, stored)
    try:
        return await _taken(world, wanted, link)
    except (NotRunning, StoreRefused):
        return None


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
            _fail(world, wanted, str(error))
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


async def _restart_with_login(
    world: World, wanted: Instance, link: StoreLink, seen: Sighting
) -> None:
    """End the process that started before its Secret was made anew, or before a release that needs
    more, and reads it when it starts. Once: where that mends nothing, the refusal stands."""
    if link.restarted_for_login:
        _end_turn(world, wanted.tenant)
        return
    why = "it restarts with the operator's login as it is now"
    turn = _has_turn(world, wanted)
    if turn:
        link.restarted_for_login = True
        await _restart(world, wanted, link, seen, why)
    _fail(world, wanted, why, waits=not turn)


async def _restart_in_turn(world: World, wanted: Instance, link: StoreLink, seen: Sighting) -> None:
    """End the process that runs with an earlier image, unless another instance of the store is
    away: an image that does not start stops the first instance, and no other."""
    if link.cut_off is not None:
        return  # at its start it would refuse its file
    others = world.ledger.committed(wanted.store).keys() - {wanted.tenant}
    known = (world.links.get(str(tenant)) for tenant in others)
    if not all(other is not None and other.ready for other in known):
        return
    if not _has_turn(world, wanted):
        return
    why = f"it restarts with {wanted.template.image}"
    await _restart(world, wanted, link, seen, why)
    _fail(world, wanted, why)


async def _restart(
    world: World, wanted: Instance, link: StoreLink, seen: Sighting, why: str
) -> None:
    link.failure = StoreUnavailable(why)
    await world.host.restart(wanted, seen)
    declared = world.mirror.get(ObjectKey.tenant(wanted.tenant.namespace, wanted.tenant.name))
    if declared is not None:
        await world.resources.emit_event(
            declared, EventType.NORMAL, "InstanceRestarted", f"{wanted.name}: {why}"
        )


def _has_turn(world: World, wanted: Instance) -> bool:
    """Whether no other instance of the store restarts now; this one does from here on."""
    return world.restarting.setdefault(wanted.store, wanted.tenant) == wanted.tenant


def _end_turn(world: World, tenant: TenantId) -> None:
    world.restarting = {store: one for store, one in world.restarting.items() if one != tenant}


async def look_at_instance(world: World, wanted: Instance) -> StoreLink | None:
    """The instance as it is, without a write, for a preview; None where there is none to ask."""
    stored = await world.resources.get_secret(world.resources.home, wanted.name)
    sighting = await world.host.look(wanted)
    if stored is None or not sighting.host:
        return None
    link = await _link(world, wanted, sighting, stored)
    link.facts = await inspect(link)
    template = template_digest(link.facts.commands, own_keys=True)
    link.proof = MatrixProof(link.facts.primary.version, template, checked=0, denied=0)
    return link


def _fail(world: World, wanted: Instance, why: str, *, waits: bool = False) -> None:
    link = world.links.get(str(wanted.tenant))
    if link is not None and link.failure is None:
        link.failure = StoreUnavailable(why)
    message = f"The tenant's instance {wanted.name}: {why}"
    raise NotRunning(message, reason="InstanceNotReady", waits=waits)


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


async def _link(
    world: World, wanted: Instance, sighting: Sighting, secret: StoredSecret
) -> StoreLink:
    """The instance's link, made anew where it is reached in another way than before."""
    name = str(wanted.tenant)
    endpoint = Address(sighting.host, sighting.port)
    password = secret.data.get(_PASSWORD, b"").decode()
    trusted = secret.data.get("ca.crt", b"").decode() if sighting.tls else ""
    digest = hashlib.sha256(f"{endpoint}\n{password}\n{trusted}".encode()).hexdigest()
    known = world.links.get(name)
    if known is not None and known.digest == digest:
        return known
    admin = StoreAdmin(
        StoreSettings(
            endpoint=endpoint,
            username=ADMIN_USER,
            password=lambda: password,
            tls=StoreTls(ca=trusted) if sighting.tls else None,
        ),
        installation=world.installation,
        fence=world.fence,
        clock=world.clock,
        pace=world.pace(),
        own_keys=True,
        proofs=world.instance_proofs,
    )
    key = ObjectKey.tenant(wanted.tenant.namespace, wanted.tenant.name)
    link = StoreLink(name, wanted.store, key, digest, admin, endpoint, sighting.tls, trusted)
    if sighting.tls:
        link.reload_until = reload_until(world, secret)
    if known is not None:
        link.tenants, link.usage, link.measured_at = known.tenants, known.usage, known.measured_at
        link.working, link.mending = known.working, known.mending
        link.cut_off = known.cut_off
        await known.admin.close()
    world.links[name] = link
    return link


async def _secret(world: World, wanted: Instance) -> StoredSecret:
    """The operator's credentials of the instance, made once: in the home namespace, where the
    instance's pod reads the password's hash."""
    home, name, tenant = world.resources.home, wanted.name, wanted.tenant
    stored = await world.resources.get_secret(home, name)
    link = world.links.get(str(tenant))
    password = stored.data.get(_PASSWORD) if stored else _first_password(link)
    if password is None:
        raise KeyUnavailable(
            f"Secret {home}/{name} lacks the operator's password of the instance of {tenant}: "
            "delete the Secret, and a new one is made",
            reason="AdminSecretInvalid",
        )
    draft = SecretDraft(
        namespace=home,
        name=name,
        owner=_OWNER,
        data={
            _PASSWORD: password,
            "admin.acl": admin_line(password.decode(), instance_rules()),
            **await certificate_files(world, wanted, stored),
        },
        labels=instance_labels(tenant),
    )
    made = await world.resources.apply_secret(draft, current=stored)
    if link is not None and (stored is None or made.data != stored.data):
        link.reload_until = reload_until(world, made)
    return made


def _first_password(link: StoreLink | None) -> bytes:
    """Of a Secret that is not there. One that was deleted while the file is to be written anew gets
    what the server knows: to take another it would have to restart, and refuse the file.
    """
    if link is None or link.cut_off is None:
        return mint_password().encode()
    return link.admin.settings.password().encode()


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
    if stored is not None and stored.owner == _OWNER:
        await world.resources.delete_secret(stored)


async def _require_held(world: World, declared: Declared) -> None:
    """While our finalizer is on it, no other tenant has its name."""
    now = await world.resources.get(declared.key)
    if now is None or now.uid != declared.uid or FINALIZER not in now.finalizers:
        raise ResourceConflict(f"{declared.key} was let go since it was seen")


async def let_go_of_instance(world: World, tenant: TenantId) -> None:
    """Close what was open to it; another instance may restart."""
    _end_turn(world, tenant)
    link = world.links.pop(str(tenant), None)
    if link is not None:
        await link.admin.close()
