"""Instances of Strict tenants as processes of this machine, and what is declared of them."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from memtenant.api.validate import defaulted
from memtenant.errors import InvalidResource
from memtenant.reconcile.once import fill, settle
from memtenant.reconcile.world import World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import API_VERSION, Kind, ObjectKey
from memtenant.rules.instance import Instance, Sighting
from memtenant.stores.instances import EmbeddedInstances
from memtenant.tenancy.identity import TenantId


class Host(EmbeddedInstances):
    """Embedded servers that remember an image; one of the image ``bad`` never gets ready. No volume
    grows beyond ``largest`` bytes of quota, and all are reached by one name, ``reached_by``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.largest = 1 << 40
        self.reached_by = "127.0.0.1"
        self.known_by: dict[TenantId, str] = {}
        self.images: dict[TenantId, str] = {}
        self.restarts: list[tuple[TenantId, str]] = []
        self.removed: list[tuple[TenantId, bool]] = []

    async def changes(self, wanted: Instance) -> tuple[str, ...]:
        outdated = self.images.get(wanted.tenant) not in (None, wanted.template.image)
        moved = self.known_by.get(wanted.tenant) not in (None, self.reached_by)
        to_do = {"restart": outdated, "move": moved, "grow": wanted.quota > self.largest}
        return (*await super().changes(wanted), *(word for word, due in to_do.items() if due))

    async def make(self, wanted: Instance, password: str) -> Sighting:
        image = self.images.setdefault(wanted.tenant, wanted.template.image)
        outdated = image != wanted.template.image
        if wanted.quota > self.largest:
            raise InvalidResource("it cannot grow", reason="VolumeCannotGrow")
        if image == "bad":
            return Sighting(why="ErrImagePull", outdated=outdated)
        found = await super().make(wanted, password)
        host = self.known_by[wanted.tenant] = self.reached_by
        return Sighting(host, found.port, outdated=outdated)

    async def look(self, wanted: Instance) -> Sighting:
        found = await super().look(wanted)
        return replace(found, host=self.reached_by) if found.host else found

    async def restart(self, wanted: Instance, seen: Sighting) -> None:
        await super().restart(wanted, seen)
        self.images[wanted.tenant] = wanted.template.image
        self.restarts.append((wanted.tenant, wanted.template.image))

    async def remove(
        self, tenant: TenantId, *, keep_data: bool, still: Callable[[], Awaitable[None]]
    ) -> None:
        await super().remove(tenant, keep_data=keep_data, still=still)
        self.removed.append((tenant, keep_data))


def declare(resources: FolderResources, kind: Kind, key: ObjectKey, **spec: object) -> None:
    metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
    raw = {"apiVersion": API_VERSION, "kind": kind.value, "metadata": metadata, "spec": spec}
    resources.declare(key, defaulted(raw)["spec"])


def tenant_key(tenant: TenantId) -> ObjectKey:
    return ObjectKey.tenant(tenant.namespace, tenant.name)


def declare_tenants(resources: FolderResources, *tenants: TenantId, **spec: object) -> None:
    declare(resources, Kind.POLICY, ObjectKey.policy("standard"))
    ref = {"name": "standard"}
    for tenant in tenants:
        declare(
            resources,
            Kind.TENANT,
            tenant_key(tenant),
            isolation="Strict",
            retentionPolicyRef=ref,
            **spec,
        )


async def looks(world: World, resources: FolderResources, image: str, times: int) -> None:
    """The store's image, and so many looks at everything."""
    declare(resources, Kind.STORE, ObjectKey.store("own"), dedicated={"image": image})
    for _ in range(times):
        await fill(world.mirror, resources)
        await settle(world)
