"""What a store's declaration changes for its tenants is brought to them at once."""

from dataclasses import replace

from memtenant.errors import StoreUnavailable
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from memtenant.stores import Address
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

ACME = ObjectKey.tenant("support", "acme")
LATE = ObjectKey.tenant("support", "late")
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


async def test_after_a_failover_who_works_gets_its_new_binding_in_time_and_a_newcomer_at_once(
    ground: Ground,
) -> None:
    """Ten thousand bindings are not written all at once."""
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        ground.tenant("late")
        await fill(world.mirror, ground.resources)
        link = world.links["shared"]
        assert link.facts is not None
        former = replace(link.facts.primary, address=Address("former.example", 6379))
        link.facts = replace(link.facts, primary=former)
        link.failure = StoreUnavailable("the primary is replaced")
        outcome = await WorldReconciler(world).reconcile(SHARED, "1")
    assert outcome.in_time == (ACME,)
    assert LATE in outcome.enqueue
    assert ACME not in outcome.enqueue


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
