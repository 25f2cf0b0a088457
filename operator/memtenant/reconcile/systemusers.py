"""The sealer's and the reporter's users on a store, and the Secrets that their pods mount.

Their passwords are in the Secrets before any server knows them, as an agent's are in its record.
"""

from __future__ import annotations

from dataclasses import replace

from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key, audit_root
from memtenant.errors import ResourceConflict, StoreRefused
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.world import World, mint_password
from memtenant.resources.port import FOREIGN_SECRET, SecretDraft
from memtenant.rules.acl import AclUser
from memtenant.rules.systemusers import SystemRole, SystemSecret, render_system_user
from memtenant.stores import Address
from memtenant.tenancy.storesfile import CLUSTER, Endpoint, StoreAccess

__all__ = ["forget_system_users", "provide_system_users"]


async def provide_system_users(world: World, link: StoreLink) -> None:
    """Make the users on every node what they should be, and their Secrets tell of the store.

    `ResourceConflict` with reason `FOREIGN_SECRET` where a Secret is not ours, after all else.
    """
    assert link.facts is not None  # noqa: S101 - the link was just taken
    users = []
    foreign: ResourceConflict | None = None
    # One writer at a time of Secrets that tell of all stores.
    async with world.writing_system:
        for role in SystemRole:
            try:
                hashes = await _save(world, role, link)
            except ResourceConflict as error:
                if error.reason != FOREIGN_SECRET:
                    raise
                foreign = error
                continue
            users.append(
                render_system_user(role, password_hashes=hashes, commands=link.facts.commands)
            )
    async with link.mending:  # else a repair that is under way would bring former ones back
        link.system = tuple(users)
        found = await link.admin.users.differing(users)
        differing = {name for by_name in found.results.values() for name in by_name}
        await _set(link, [user for user in users if user.name in differing])
    if foreign is not None:
        raise foreign


async def forget_system_users(world: World, name: str, link: StoreLink | None) -> None:
    """Take the users off a store that is given up, and the store out of their Secrets."""
    if link is not None:
        async with link.mending:
            link.system = ()
            # A node that does not answer now is nobody's any more.
            await link.admin.users.drop([role.user for role in SystemRole])
    home = world.resources.home
    async with world.writing_system:
        for role in SystemRole:
            stored = await world.resources.get_secret(home, role.secret_name)
            if stored is None:
                continue
            known = SystemSecret.from_data(stored.data)
            if known.stores.get(name) is not None:
                data = known.without_store(name).to_data()
                await world.resources.replace_secret(stored, data)


async def _save(world: World, role: SystemRole, link: StoreLink) -> tuple[str, ...]:
    """The hashes of the passwords that are valid on the store."""
    home = world.resources.home
    stored = await world.resources.get_secret(home, role.secret_name)
    known = SystemSecret() if stored is None else SystemSecret.from_data(stored.data)
    wanted = replace(
        known, audit_key=await _audit_key(world, role), installation=world.installation
    ).with_store(_access(role, link), world.clock.now(), mint_password, world.timing.kubelet_lag)
    draft = SecretDraft(
        namespace=home,
        name=role.secret_name,
        owner=role.secret_name,
        data=wanted.to_data(),
    )
    await world.resources.apply_secret(draft, current=stored)
    return wanted.password_hashes(link.name)


async def _audit_key(world: World, role: SystemRole) -> bytes:
    """The sealer checks everybody's MACs; the reporter makes its own."""
    root = audit_root(await world.installation_root())
    if role is SystemRole.SEALER:
        return root.secret
    return audit_mac_key(root, INSTALLATION_LOG, role.value, 0).secret


def _access(role: SystemRole, link: StoreLink) -> StoreAccess:
    settings = link.admin.settings
    tls = settings.tls
    flavour = "Standalone"
    endpoints: tuple[Address, ...] = (link.primary,)
    if link.cluster is not None:
        flavour, endpoints = CLUSTER, settings.cluster
    elif link.sentinel is not None:
        flavour = "Sentinel"
    return StoreAccess(
        name=link.name,
        flavour=flavour,
        endpoints=tuple(Endpoint(one.host, one.port) for one in endpoints),
        username=role.user,
        password="",
        tls=tls is not None,
        ca_crt=(tls.ca or "") if tls else "",
        server_name=settings.server_name or "",
        client_crt=(tls.client_certificate or "") if tls else "",
        client_key=(tls.client_key or "") if tls else "",
        sentinel=link.sentinel,
    )


async def _set(link: StoreLink, users: list[AclUser]) -> None:
    if not users:
        return
    outcome = (await link.admin.users.set(users)).results
    link.unsaved = True
    for address, done in outcome.items():
        for name, words in done.refused.items():
            raise StoreRefused(f"{address} refused to set ACL user {name}: {words}")
