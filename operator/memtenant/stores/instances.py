"""Instances of Strict tenants without a cluster: an embedded Valkey each, in a folder of its own.

It has no TLS, and no image: what a store's template says of either is for clusters.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from memtenant.errors import ResourceUnavailable
from memtenant.rules.instance import Instance, Sighting
from memtenant.stores import embedded
from memtenant.stores.admin_acl import instance_rules
from memtenant.tenancy.identity import TenantId

__all__ = ["EmbeddedInstances"]


class EmbeddedInstances:
    """`memtenant.reconcile.world.InstanceHost` over processes of this machine, whose folders are
    below ``root``."""

    tls = False

    def __init__(self, root: Path) -> None:
        self._root = root

    async def changes(self, wanted: Instance) -> tuple[str, ...]:
        """What `make` would do, in words."""
        if await embedded.running(self._folder(wanted.tenant)) is not None:
            return ()
        there = (self._folder(wanted.tenant) / "valkey.conf").exists()
        told = " (without TLS, which it does not have)" if wanted.tls else ""
        verb = "start" if there else "make"
        return (f"{verb} the embedded instance of {wanted.tenant}{told}",)

    async def make(self, wanted: Instance, password: str) -> Sighting:
        """The running server, started if it does not run."""
        found = await embedded.start(
            self._folder(wanted.tenant), password=password, rules=instance_rules()
        )
        return Sighting(found.address.host, found.address.port)

    async def look(self, wanted: Instance) -> Sighting:
        """Whether its server runs, and where."""
        found = await embedded.running(self._folder(wanted.tenant))
        if found is None:
            return Sighting(why="it does not run")
        return Sighting(found.address.host, found.address.port)

    async def restart(self, wanted: Instance, seen: Sighting) -> None:
        """Stop it: the next look starts it."""
        await embedded.stop(self._folder(wanted.tenant))

    async def remove(
        self, tenant: TenantId, *, keep_data: bool, still: Callable[[], Awaitable[None]]
    ) -> None:
        """Stop it; and remove what it kept, unless that is to stay."""
        await still()
        folder = self._folder(tenant)
        if not folder.exists():
            return
        await embedded.stop(folder)
        if keep_data:
            return
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise ResourceUnavailable(f"{folder} cannot be removed: {error.strerror}") from None

    async def stop(self) -> int:
        """Stop all of them; how many ran. Data and users stay."""
        folders = self._root.iterdir() if self._root.exists() else ()
        return sum([await embedded.stop(folder) for folder in sorted(folders)])

    def _folder(self, tenant: TenantId) -> Path:
        return self._root / str(tenant)
