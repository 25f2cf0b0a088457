"""Instances restart one after the other where that mends them, and leave nothing behind."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from memtenant.api.validate import defaulted
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.world import World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import API_VERSION, Kind, ObjectKey
from memtenant.rules.instance import Instance, Sighting, instance_name
from memtenant.rules.sealing import SealerReport
from memtenant.stores.instances import EmbeddedInstances
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId

pytestmark = pytest.mark.redis

ONE, TWO = TenantId("health", "one"), TenantId("health", "two")


class Host(EmbeddedInstances):
    """Embedded servers that remember an image; one of the image ``bad`` never gets ready."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.images: dict[TenantId, str] = {}
        self.restarts: list[tuple[TenantId, str]] = []
        self.removed: list[tuple[TenantId, bool]] = []

    async def changes(self, wanted: Instance) -> tuple[str, ...]:
        outdated = self.images.get(wanted.tenant) not in (None, wanted.template.image)
        return (*await super().changes(wanted), *(("restart",) if outdated else ()))

    async def make(self, wanted: Instance, password: str) -> Sighting:
        image = self.images.setdefault(wanted.tenant, wanted.template.image)
        outdated = image != wanted.template.image
        if image == "bad":
            return Sighting(why="ErrImagePull", outdated=outdated)
        found = await super().make(wanted, password)
        return Sighting(found.host, found.port, outdated=outdated)

    async def restart(self, wanted: Instance) -> None:
        await super().restart(wanted)
        self.images[wanted.tenant] = wanted.template.image
        self.restarts.append((wanted.tenant, wanted.template.image))

    async def remove(self, tenant: TenantId, *, keep_data: bool) -> None:
        self.removed.append((tenant, keep_data))
        await super().remove(tenant, keep_data=keep_data)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "instances")
    yield made
    asyncio.run(made.stop())


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


def ready(world: World) -> list[bool]:
    return [world.links[str(tenant)].ready for tenant in (ONE, TWO)]


async def test_a_bad_image_stops_one_instance_and_a_good_one_mends_it(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, TWO)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            assert ready(world) == [True, True]

            await looks(world, resources, "bad", 4)
            assert [image for _, image in host.restarts] == ["bad"]
            assert sorted(ready(world)) == [False, True]

            await looks(world, resources, "good", 4)
            assert set(host.images.values()) == {"good"}
            assert ready(world) == [True, True]
            assert [image for _, image in host.restarts] == ["bad", "good", "good"]


async def test_what_was_made_for_a_tenant_that_never_got_ready_goes_with_it(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            host.images[ONE] = "bad"
            await looks(world, resources, "bad", 1)
            name = instance_name(ONE)
            assert await resources.get_secret(resources.home, name) is not None

            resources.delete(tenant_key(ONE))
            await looks(world, resources, "bad", 1)
            assert host.removed == [(ONE, False)]
            assert await resources.get_secret(resources.home, name) is None


async def test_a_tenant_that_ends_gives_its_turn_to_restart_back(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, TWO)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            await looks(world, resources, "bad", 4)
            ((stuck, _),) = host.restarts
            world.timing = replace(world.timing, store_gone_grace=timedelta(0))
            resources.delete(tenant_key(stuck))
            await looks(world, resources, "good", 4)
            assert [image for _, image in host.restarts] == ["bad", "good"]
            assert set(host.images.values()) == {"bad", "good"}


@pytest.mark.parametrize("policy", ["Delete", "Shred"])
async def test_a_tenant_that_ends_waits_for_the_sealer_and_not_for_ever(
    tmp_path: Path, host: Host, policy: str
) -> None:
    """Its namespace would hang. What is lost by that is told."""
    events = tmp_path / "state" / "events.log"
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, deletionPolicy=policy)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            admin = world.links[str(ONE)].admin
            tell = admin._primary.call
            await tell("HSET", keys.STORE_AUDITED, str(ONE), Audited(60).to_json())
            await tell("HSET", keys.STORE_SEALER, *pairs(SealerReport().to_fields()))
            await tell("RPUSH", keys.audit_queue(ONE), "an event")
            resources.delete(tenant_key(ONE))
            await looks(world, resources, "first", 2)
            assert host.removed == []
            assert '"AuditUnsealed"' in events.read_text()
            world.timing = replace(world.timing, store_gone_grace=timedelta(0))
            await looks(world, resources, "first", 1)
            assert host.removed == [(ONE, False)]
            assert await resources.get(tenant_key(ONE)) is None
    assert '"AuditLost"' in events.read_text()


def pairs(fields: dict[str, str]) -> list[str]:
    return [word for pair in fields.items() for word in pair]


async def test_an_instance_whose_secret_was_made_anew_restarts_with_it(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            stored = await resources.get_secret(resources.home, instance_name(ONE))
            assert stored is not None
            await resources.delete_secret(stored)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 2)
            assert world.links[str(ONE)].ready
            assert host.restarts == [(ONE, "first")]
