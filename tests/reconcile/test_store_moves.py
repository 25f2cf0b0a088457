"""What a store's declaration changes for its tenants is brought to them at once."""

from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

ACME = ObjectKey.tenant("support", "acme")
SHARED = ObjectKey.store("shared")


async def test_a_new_endpoint_reaches_the_bindings(ground: Ground, valkey: Server) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        ground.store(endpoint=f"localhost:{valkey.port}")
        await fill(world.mirror, ground.resources)
        reconciler = WorldReconciler(world)
        outcome = await reconciler.reconcile(SHARED, "1")
        assert ACME in outcome.enqueue
        await reconciler.reconcile(ACME, "2")
    stored = await ground.resources.get_secret("support", "acme-default")
    assert stored is not None
    assert stored.data["host"] == b"localhost"


async def test_a_new_password_of_the_operator_does_not_concern_them(
    ground: Ground, valkey: Server
) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        valkey.admin().acl_setuser("admin", enabled=True, passwords=["+another"])
        ground.resources.declare_secret("memtenant-system", "admin", {"password": b"another"})
        assert ACME not in (await WorldReconciler(world).reconcile(SHARED, "1")).enqueue
    valkey.admin().acl_setuser("admin", enabled=True, passwords=["-another"])
