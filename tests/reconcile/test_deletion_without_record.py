"""A tenant whose record somebody removed loses its access all the same when it is deleted."""

from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

ACME = ObjectKey.tenant("support", "acme")


async def test_its_users_go_with_the_next_repair(ground: Ground, valkey: Server) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        record = await ground.resources.get_secret(ground.resources.home, "support.acme-keyring")
        assert record is not None
        await ground.resources.delete_secret(record)
        ground.resources.delete(ACME)
        await fill(world.mirror, ground.resources)
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(ACME, "1")
        await fill(world.mirror, ground.resources)
        await reconciler.reconcile(ACME, "2")
        await reconciler.repair(ObjectKey.store("shared"))
    assert "mt.support.acme.default.a" not in valkey.admin().acl_users()


async def test_its_data_goes_as_its_policy_says(ground: Ground, valkey: Server) -> None:
    ground.tenant("acme", deletionPolicy="Delete")
    async with local_world(ground.resources) as world:
        await settle(world)
        record = await ground.resources.get_secret(ground.resources.home, "support.acme-keyring")
        assert record is not None
        await ground.resources.delete_secret(record)
        ground.resources.delete(ACME)
        await fill(world.mirror, ground.resources)
        await WorldReconciler(world).reconcile(ACME, "1")
    assert valkey.admin().keys("mt:{support.acme}:*") == []
