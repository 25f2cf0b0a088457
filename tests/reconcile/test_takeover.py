"""Who has just taken over may not have seen yet what the leader before it did last."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import FINALIZER
from memtenant.resources.port import Kind, Listing, ObjectKey
from memtenant.rules.acl import AclUser
from memtenant.stores import NodeResults, UsersSet
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

ACME, LATE = ObjectKey.tenant("support", "acme"), ObjectKey.tenant("support", "late")
LATER = ObjectKey.tenant("support", "later")
LATE_ID = TenantId("support", "late")
SHARED = ObjectKey.store("shared")


def users(server: Server) -> set[str]:
    with server.admin() as admin:
        return {str(name) for name in admin.acl_users() if ".support." in str(name)}


async def test_users_of_a_tenant_that_was_not_seen_stay_until_there_is_no_doubt(
    ground: Ground, valkey: Server
) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler = WorldReconciler(world)
        made = users(valkey)
        world.mirror.replace(Kind.TENANT, Listing((), "999999"))
        await reconciler.reconcile(ACME, "gone")
        world.mirror.doubted = True
        await reconciler.repair(SHARED)
        assert users(valkey) == made != set()
        world.mirror.doubted = False
        await reconciler.repair(SHARED)
        assert users(valkey) == set()


async def test_nobody_is_promised_memory_while_in_doubt_what_others_were(ground: Ground) -> None:
    ground.store(capacity={"memory": "512Mi"})
    ground.tenant("acme", quota={"memory": "256Mi"})
    async with local_world(ground.resources) as world:
        await settle(world)
        world.mirror.doubted = True
        ground.tenant("late", quota={"memory": "256Mi"})
        late = await ground.resources.get(LATE)
        assert late is not None
        world.mirror.put(late)
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(ACME, "settled")
        waits = await reconciler.reconcile(LATE, "new")
        assert world.ledger.store_of(LATE_ID) is None
        assert waits.requeue_after is not None
        world.mirror.doubted = False
        await reconciler.reconcile(LATE, "new")
        assert world.ledger.store_of(LATE_ID) == "shared"


async def test_a_tenant_that_is_looked_at_while_a_repair_restores_another_keeps_its_users(
    ground: Ground, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a start thousands come to be known while a repair waits for the server."""
    ground.tenant("acme")
    ground.tenant("late")
    async with local_world(ground.resources) as world:
        await settle(world)
        link = world.links["shared"]
        made, late = users(valkey), link.tenants.pop(LATE_ID)
        restore = link.admin.users.set

        async def restore_meanwhile(lost: Collection[AclUser]) -> NodeResults[UsersSet]:
            link.tenants[LATE_ID] = late
            return await restore(lost)

        monkeypatch.setattr(link.admin.users, "set", restore_meanwhile)
        with valkey.admin() as admin:
            admin.acl_deluser(*(name for name in made if "acme" in name))
        await WorldReconciler(world).repair(SHARED)
        assert users(valkey) == made


async def test_what_was_promised_last_counts_before_its_tenant_was_looked_at(
    ground: Ground,
) -> None:
    ground.store(capacity={"memory": "512Mi"})
    ground.tenant("acme", quota={"memory": "256Mi"})
    async with local_world(ground.resources) as world:
        await settle(world)
    async with local_world(ground.resources) as world:
        world.mirror.doubted = True
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(SHARED, "store")
        await reconciler.reconcile(ACME, "settled")
        for name in ("late", "later"):
            ground.tenant(name, quota={"memory": "256Mi"})
        late, later = [await ground.resources.get(key) for key in (LATE, LATER)]
        assert late is not None
        assert later is not None
        # The former leader placed it, which only the list tells.
        placed = {"store": "shared", "usage": {"memoryLimit": "256Mi"}}
        world.mirror.put(replace(late, status=placed))
        world.mirror.put(later)
        world.mirror.doubted = False
        await reconciler.reconcile(LATER, "new")
        assert world.ledger.store_of(LATE_ID) == "shared"
        assert world.ledger.store_of(TenantId("support", "later")) is None


async def test_policies_and_stores_in_deletion_wait_until_all_their_tenants_are_known(
    ground: Ground,
) -> None:
    ground.policy("leaving")
    ground.store("going")
    policy, store = ObjectKey.policy("leaving"), ObjectKey.store("going")
    async with local_world(ground.resources) as world:
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(policy, "made")
        for key in (policy, store):
            declared = world.mirror.get(key)
            assert declared is not None
            declared = await world.resources.add_finalizer(declared, FINALIZER)
            ground.resources.delete(key)
            gone = await ground.resources.get(key)
            assert gone is not None
            world.mirror.put(gone)
        world.mirror.doubted = True
        for key in (policy, store):
            waits = await reconciler.reconcile(key, "deleted")
            assert waits.requeue_after is not None
            assert await ground.resources.get(key) is not None
        world.mirror.doubted = False
        for key in (policy, store):
            await reconciler.reconcile(key, "deleted")
            assert await ground.resources.get(key) is None


async def test_nothing_expires_while_in_doubt_what_holds_were_declared_last(ground: Ground) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler, spared = WorldReconciler(world), TenantId("support", "acme")
        assert not reconciler._is_unsettled(spared)
        world.mirror.doubted = True
        assert reconciler._is_unsettled(spared)


async def test_a_tenant_that_was_refused_its_memory_is_told_nothing_else_while_in_doubt(
    ground: Ground,
) -> None:
    ground.store(capacity={"memory": "256Mi"})
    ground.tenant("acme", quota={"memory": "256Mi"})
    async with local_world(ground.resources) as world:
        await settle(world)
        ground.tenant("late", quota={"memory": "256Mi"})
        late = await ground.resources.get(LATE)
        assert late is not None
        world.mirror.put(late)
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(LATE, "new")
        refused, told = await ground.tenant_status("late"), await ground.resources.get(LATE)
        assert told is not None
        world.mirror.put(told)
        world.mirror.doubted = True
        waits = await reconciler.reconcile(LATE, "again")
        assert waits.requeue_after is not None
        assert await ground.tenant_status("late") == refused
