"""Two MemoryStores that lead to one server, by whatever names, must not fight over its users."""

from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from tests.reconcile.conftest import Ground, told
from tests.support.servers import Server

USER = "mt.support.acme.default.a"


def declare_twin(ground: Ground, server: Server) -> None:
    ground.store("twin", f"localhost:{server.port}")


async def test_the_later_one_is_refused(ground: Ground, valkey: Server) -> None:
    await ground.settle()
    declare_twin(ground, valkey)
    await ground.settle()
    assert told(await ground.store_status("shared"), "Ready")[0] == "True"
    status, reason, message = told(await ground.store_status("twin"), "Stalled")
    assert (status, reason) == ("True", "StoreDeclaredTwice")
    assert "'shared'" in message


async def test_the_later_one_leaves_the_users_of_the_other_alone(
    ground: Ground, valkey: Server
) -> None:
    """As it is for a moment after a start, when it was looked at before the other."""
    ground.tenant("acme")
    declare_twin(ground, valkey)
    async with local_world(ground.resources) as world:
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(ObjectKey.store("twin"), "1")
        await settle(world)
        twin = world.links["twin"]
        twin.failure = None
        assert twin.ready
        outcome = await reconciler.repair(ObjectKey.store("twin"))
    assert outcome.did == ()
    assert USER in valkey.admin().acl_users()


async def test_it_serves_when_the_other_is_gone(ground: Ground, valkey: Server) -> None:
    declare_twin(ground, valkey)
    await ground.settle()
    ground.resources.delete(ObjectKey.store("shared"))
    async with local_world(ground.resources) as world:
        await settle(world)
        await fill(world.mirror, ground.resources)
        await settle(world)
    assert told(await ground.store_status("twin"), "Ready")[0] == "True"
