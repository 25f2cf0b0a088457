"""TLS of Strict tenants' instances: the operator's authority, and a certificate each, in time anew.

A server that runs reads a new certificate without a restart, but only when it is told to, and its
pod has the file some time after the Secret: so it is told again and again for a while.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from memtenant.crypto.authority import Authority, is_due, made_at, new_authority
from memtenant.errors import ResourceConflict
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.world import World
from memtenant.resources.port import SecretDraft, StoredSecret
from memtenant.rules.instance import SECRET_FOLDER, TLS_FILES, Instance, hosts_of

__all__ = [
    "AUTHORITY_SECRET",
    "certificate_files",
    "certificate_is_due",
    "reload_certificate",
    "reload_until",
]

AUTHORITY_SECRET = "memtenant-instances-ca"  # noqa: S105 - a Secret's name
"""In the home namespace: who signs the certificates of all instances."""

_OWNER = "instances-authority"
_FILE_LAG = timedelta(minutes=10)
"""A kubelet brings a changed Secret into a pod within some minutes."""


async def certificate_is_due(world: World, wanted: Instance, stored: StoredSecret) -> bool:
    """Whether the instance's certificate is to be made anew, or what it is trusted by changed."""
    if not (wanted.tls and world.host.tls):
        return False
    found = await world.resources.get_secret(world.resources.home, AUTHORITY_SECRET)
    if found is None:
        return True
    authority, now = _read(found), world.clock.now()
    renewed = authority.renewed(now)
    certificate = stored.data.get("tls.crt", b"")
    hosts = hosts_of(wanted.tenant, world.resources.home)
    if renewed != authority or stored.data.get("ca.crt") != authority.trusted:
        return True
    return is_due(certificate, hosts, authority, now)


async def certificate_files(
    world: World, wanted: Instance, stored: StoredSecret | None
) -> dict[str, bytes]:
    """What the instance's Secret holds for TLS: the certificate that there is, or one made anew."""
    if not (wanted.tls and world.host.tls):
        return {}
    authority, now = await _authority(world), world.clock.now()
    hosts = hosts_of(wanted.tenant, world.resources.home)
    known = stored.data if stored is not None else {}
    certificate, key = known.get("tls.crt", b""), known.get("tls.key", b"")
    if not key or is_due(certificate, hosts, authority, now):
        made = authority.sign(hosts, now)
        certificate, key = made.certificate, made.key
    return {"tls.crt": certificate, "tls.key": key, "ca.crt": authority.trusted}


def reload_until(world: World, secret: StoredSecret) -> datetime | None:
    """How long the instance may not have its certificate yet; None where it has."""
    certificate = secret.data.get("tls.crt")
    if certificate is None:
        return None
    until = made_at(certificate) + _FILE_LAG
    return until if world.clock.now() < until else None


async def reload_certificate(world: World, link: StoreLink) -> None:
    """Have the instance read its certificate, while its pod may have got a new one."""
    if link.reload_until is None:
        return
    files = {name: f"{SECRET_FOLDER}/{file}" for name, file in TLS_FILES.items()}
    await link.admin.configure(files)
    if world.clock.now() >= link.reload_until:
        link.reload_until = None


async def _authority(world: World) -> Authority:
    """The installation's, made once, and renewed in time."""
    home, now = world.resources.home, world.clock.now()
    stored = await world.resources.get_secret(home, AUTHORITY_SECRET)
    if stored is None:
        with suppress(ResourceConflict):  # another replica made it a moment ago
            await world.resources.create_secret(_draft(home, new_authority(now)))
        stored = await world.resources.get_secret(home, AUTHORITY_SECRET)
        assert stored is not None  # noqa: S101 - it was just made
    authority = _read(stored)
    renewed = authority.renewed(now)
    if renewed != authority:
        await world.resources.apply_secret(_draft(home, renewed), current=stored)
    return renewed


def _read(stored: StoredSecret) -> Authority:
    data = stored.data
    return Authority(
        data.get("ca.crt", b""),
        data.get("ca.key", b""),
        data.get("other.crt", b""),
        data.get("other.key", b""),
    )


def _draft(home: str, authority: Authority) -> SecretDraft:
    return SecretDraft(
        namespace=home,
        name=AUTHORITY_SECRET,
        owner=_OWNER,
        data={
            "ca.crt": authority.certificate,
            "ca.key": authority.key,
            "other.crt": authority.other,
            "other.key": authority.other_key,
        },
    )
