"""A tenant that has the name of one that was deleted with its data begins with nothing of it."""

from typing import Any

from memtenant.api.tenant import AccessMode
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

ACME = TenantId("support", "acme")
TENANT, SHARED = ObjectKey.tenant("support", "acme"), ObjectKey.store("shared")


async def test_it_may_write_although_the_former_one_was_over_its_quota(
    ground: Ground, valkey: Server
) -> None:
    declared: dict[str, Any] = {"quota": {"memory": "1Mi"}, "deletionPolicy": "Delete"}
    ground.tenant("acme", **declared)
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler, tenants = WorldReconciler(world), world.links["shared"].tenants
        with valkey.admin() as admin:
            admin.rpush(f"{keys.records(ACME)}conversation:l", bytes(2 << 20))
        await reconciler.measure(SHARED)
        await reconciler.reconcile(TENANT, "over")
        assert tenants[ACME].access is not AccessMode.READ_WRITE
        ground.resources.delete(TENANT)
        await fill(world.mirror, ground.resources)
        await reconciler.reconcile(TENANT, "deleted")
        ground.tenant("acme", **declared)
        await fill(world.mirror, ground.resources)
        await reconciler.reconcile(TENANT, "again")
        assert tenants[ACME].access is AccessMode.READ_WRITE
