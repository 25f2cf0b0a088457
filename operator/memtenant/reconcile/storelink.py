"""The connection to a MemoryStore, as its declaration and its Secrets say."""

from __future__ import annotations

import hashlib

from memtenant.api.store import MemoryStoreSpec, StoreTls
from memtenant.crypto.primitives import derive
from memtenant.errors import (
    StoreRefused,
)
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared
from memtenant.stores import (
    Address,
    SentinelSettings,
    StoreAdmin,
    StoreSettings,
)
from memtenant.stores import StoreTls as Tls
from memtenant.tenancy.cluster import ClusterAccess
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = ["link_to"]


async def link_to(world: World, declared: Declared, spec: MemoryStoreSpec) -> StoreLink:
    """The store's link, made anew when its declaration or one of its Secrets changed."""
    name = declared.key.name
    assert spec.admin_secret_ref is not None  # noqa: S101 - the API demands one of a server
    password = await _secret(world, spec.admin_secret_ref.name, spec.admin_secret_ref.key)
    tls = await _tls(world, spec.tls) if spec.tls else None
    endpoint, sentinels = await _endpoint(world, name, spec)
    cluster = tuple(_address(one) for one in spec.cluster.endpoints) if spec.cluster else ()
    parts = (
        str(endpoint),
        spec.admin_username,
        password,
        repr(spec.tls),
        str(hash(tls)),
        "" if sentinels is None else f"{spec.sentinel} {sentinels.password()}",
        repr(cluster),
    )
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    known = world.links.get(name)
    if known is not None and known.digest == digest:
        return known
    _require_usable(tls, world.resources.home)
    settings = StoreSettings(
        endpoint=endpoint,
        username=spec.admin_username,
        password=lambda: password,
        tls=tls,
        server_name=spec.tls.server_name if spec.tls else None,
        cluster=cluster,
    )
    admin = StoreAdmin(
        settings,
        installation=world.installation,
        fence=world.fence,
        sentinels=sentinels,
        clock=world.clock,
        pace=world.pace(),
    )
    ca = (tls.ca or "") if tls else ""
    link = StoreLink(name, name, declared.key, digest, admin, endpoint, tls is not None, ca)
    server_name = (settings.server_name or endpoint.host) if tls else ""
    if cluster:
        link.cluster = ClusterAccess(tuple((one.host, one.port) for one in cluster), server_name)
    if sentinels is not None:
        link.sentinel = SentinelAccess(
            tuple((one.host, one.port) for one in sentinels.endpoints),
            sentinels.master,
            sentinels.agents_username,
            sentinels.agents_password,
            server_name,
        )
    if known is not None:
        link.tenants, link.usage, link.measured_at = known.tenants, known.usage, known.measured_at
        link.working, link.mending = known.working, known.mending
        link.served, link.repaired, link.behind = known.served, known.repaired, known.behind
        link.told_replicas = known.told_replicas
        link.unsaved = True  # what was to be saved by the former login, or was just being saved
        await known.admin.close()
    world.links[name] = link
    return link


async def _endpoint(
    world: World, name: str, spec: MemoryStoreSpec
) -> tuple[Address, SentinelSettings | None]:
    if spec.cluster is not None:
        return _address(spec.cluster.endpoints[0]), None
    if spec.sentinel is None:
        assert spec.standalone is not None  # noqa: S101 - the API demands exactly one flavour
        return _address(spec.standalone.endpoint), None
    auth = spec.sentinel.auth_secret_ref
    password = await _secret(world, auth.name, auth.key)
    endpoints = tuple(_address(endpoint) for endpoint in spec.sentinel.endpoints)
    # Sentinels may watch the primaries of several stores, and of several installations.
    whose = (world.installation.encode(), name.encode())
    agents = derive(await world.installation_root(), "memtenant/1/sentinel", *whose)
    return endpoints[0], SentinelSettings(
        endpoints=endpoints,
        master=spec.sentinel.master_name,
        password=lambda: password,
        agents_username=f"memtenant-agents-{hashlib.sha256(b' '.join(whose)).hexdigest()[:16]}",
        agents_password=agents.secret.hex(),
    )


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


def _require_usable(tls: Tls | None, home: str) -> None:
    """What cannot be used is told as that; with a link it would be a defect at each connect."""
    if tls is None:
        return
    try:
        tls.context()
    except ValueError as error:
        raise StoreRefused(
            f"{error}. Put certificates (PEM) into the Secrets that spec.tls names, in the "
            f"operator's namespace {home}",
            reason="AdminSecretInvalid",
        ) from None


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
