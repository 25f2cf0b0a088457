"""How the operator reaches a Strict tenant's instance: by a login that it made, over a link that
belongs to the tenant."""

from __future__ import annotations

import hashlib

from memtenant.errors import KeyUnavailable
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.instancetls import certificate_files, reload_until
from memtenant.reconcile.world import World, mint_password
from memtenant.resources.port import ObjectKey, SecretDraft, StoredSecret
from memtenant.rules.instance import ADMIN_USER, Instance, Sighting, admin_line, instance_labels
from memtenant.stores import Address, StoreAdmin, StoreSettings, StoreTls, instance_rules

__all__ = ["OWNER", "PASSWORD", "instance_link", "instance_secret"]

OWNER = "tenant-instance"
PASSWORD = "password"  # noqa: S105 - a key in a Secret


async def instance_link(
    world: World, wanted: Instance, sighting: Sighting, secret: StoredSecret
) -> StoreLink:
    """The instance's link, made anew where it is reached in another way than before."""
    name = str(wanted.tenant)
    endpoint = Address(sighting.host, sighting.port)
    password = secret.data.get(PASSWORD, b"").decode()
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
        link.cut_off, link.told_replicas = known.cut_off, known.told_replicas
        link.unsaved = True  # what was to be saved by the former login, or was just being saved
        await known.admin.close()
    world.links[name] = link
    return link


async def instance_secret(world: World, wanted: Instance) -> StoredSecret:
    """The operator's credentials of the instance, made once: in the home namespace, where the
    instance's pod reads the password's hash."""
    home, name, tenant = world.resources.home, wanted.name, wanted.tenant
    stored = await world.resources.get_secret(home, name)
    link = world.links.get(str(tenant))
    password = stored.data.get(PASSWORD) if stored else _first_password(link)
    if password is None:
        raise KeyUnavailable(
            f"Secret {home}/{name} lacks the operator's password of the instance of {tenant}: "
            "delete the Secret, and a new one is made",
            reason="AdminSecretInvalid",
        )
    draft = SecretDraft(
        namespace=home,
        name=name,
        owner=OWNER,
        data={
            PASSWORD: password,
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
