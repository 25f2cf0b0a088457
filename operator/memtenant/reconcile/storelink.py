"""The connection to a MemoryStore, as its declaration and its Secrets say."""

from __future__ import annotations

import hashlib

from memtenant.api.store import (
    MemoryStoreSpec,
    StoreTls,
)
from memtenant.errors import (
    StoreRefused,
)
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared
from memtenant.stores import (
    Address,
    StoreAdmin,
    StoreSettings,
)
from memtenant.stores import StoreTls as Tls

__all__ = ["link_to"]


async def link_to(world: World, declared: Declared, spec: MemoryStoreSpec) -> StoreLink:
    """The store's link, made anew when its declaration or one of its Secrets changed."""
    name = declared.key.name
    password = await _secret(world, spec.admin_secret_ref.name, spec.admin_secret_ref.key)
    tls = await _tls(world, spec.tls) if spec.tls else None
    assert spec.standalone is not None  # noqa: S101 - the API demands exactly one flavour
    endpoint = _address(spec.standalone.endpoint)
    parts = (str(endpoint), spec.admin_username, password, repr(spec.tls), str(hash(tls)))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    known = world.links.get(name)
    if known is not None and known.digest == digest:
        return known
    settings = StoreSettings(
        endpoint=endpoint,
        username=spec.admin_username,
        password=lambda: password,
        tls=tls,
        server_name=spec.tls.server_name if spec.tls else None,
    )
    admin = StoreAdmin(
        settings,
        installation=world.installation,
        fence=world.fence,
        clock=world.clock,
        pace=world.pace(),
    )
    link = StoreLink(name, digest, admin, endpoint, tls is not None, (tls.ca or "") if tls else "")
    if known is not None:
        link.tenants, link.usage, link.measured_at = known.tenants, known.usage, known.measured_at
        link.working, link.mending = known.working, known.mending
        await known.admin.close()
    world.links[name] = link
    return link


async def _tls(world: World, declared: StoreTls) -> Tls:
    ca = None
    if declared.ca_secret_ref is not None:
        ca = await _secret(world, declared.ca_secret_ref.name, declared.ca_secret_ref.key)
    client = declared.client_secret_ref
    if client is None:
        return Tls(ca=ca)
    return Tls(
        ca=ca,
        client_certificate=await _secret(world, client.name, client.key),
        client_key=await _secret(world, client.name, client.private_key),
    )


async def _secret(world: World, name: str, key: str) -> str:
    """One text of a Secret in the home namespace, without a newline at its end."""
    home = world.resources.home
    stored = await world.resources.get_secret(home, name)
    if stored is None or key not in stored.data:
        lacks = "does not exist" if stored is None else f"has no key {key!r}"
        raise StoreRefused(
            f"Secret {home}/{name} {lacks}: create it in the operator's namespace",
            reason="AdminSecretMissing",
        )
    try:
        return stored.data[key].decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise StoreRefused(
            f"Secret {home}/{name}, key {key!r}, is not text", reason="AdminSecretInvalid"
        ) from None


def _address(endpoint: str) -> Address:
    host, _, port = endpoint.rpartition(":")
    return Address(host.strip("[]"), int(port))
