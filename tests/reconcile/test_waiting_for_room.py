"""Room that becomes free on a store goes to whoever waits for it."""

from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from tests.reconcile.conftest import Ground
from tests.support.servers import Server


async def test_a_lowered_quota_makes_room_for_a_tenant_that_waits(
    ground: Ground, valkey: Server
) -> None:
    ground.store(capacity={"memory": "10Mi"})
    ground.tenant("large", quota={"memory": "8Mi"})
    await ground.settle()
    ground.tenant("late", quota={"memory": "4Mi"})
    async with local_world(ground.resources) as world:
        await settle(world)
        ground.tenant("large", quota={"memory": "6Mi"})
        await fill(world.mirror, ground.resources)
        large, late = (ObjectKey.tenant("support", name) for name in ("large", "late"))
        reconciler = WorldReconciler(world)
        assert late in (await reconciler.reconcile(large, "1")).enqueue
        await reconciler.reconcile(late, "2")
    assert (await ground.tenant_status("late")).store == "shared"


async def test_a_tenant_that_was_refused_makes_room_when_it_goes(ground: Ground) -> None:
    """It was promised memory before it was refused for something else, and never got a record."""
    ground.store(capacity={"memory": "10Mi"})
    ground.resources.declare_secret("support", "key", {"root": b"not a key"})
    ground.tenant(
        "refused",
        quota={"memory": "8Mi"},
        encryption={"mode": "Enabled", "keySecretRef": {"name": "key", "key": "root"}},
    )
    refused, late = (ObjectKey.tenant("support", name) for name in ("refused", "late"))
    async with local_world(ground.resources) as world:
        await settle(world)
        ground.tenant("late", quota={"memory": "4Mi"})
        await fill(world.mirror, ground.resources)
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(late, "1")
        assert not (await ground.tenant_status("late")).store
        ground.resources.delete(refused)
        await fill(world.mirror, ground.resources)
        assert late in (await reconciler.reconcile(refused, "2")).enqueue
        await reconciler.reconcile(late, "3")
    assert (await ground.tenant_status("late")).store == "shared"
