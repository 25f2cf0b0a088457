"""Replicas that come: agents wait for as many as there are, and no revoked password comes along."""

from pathlib import Path

import pytest
import redis

from memtenant.errors import StoreUnavailable
from memtenant.jobs import repair
from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from memtenant.stores import NodeResults, UsersSet
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.conftest import StartServer
from tests.reconcile.conftest import Ground
from tests.stores.operators import discovered
from tests.support.servers import Flavour, Server

NAMES = ("acme", "beta")


def replicas_told(admin: "redis.Redis") -> list[bytes | None]:
    return [admin.hget(keys.limits(TenantId("support", name)), "replicas") for name in NAMES]


@pytest.fixture
def primary_ground(start_server: StartServer, tmp_path: Path) -> Ground:
    """A store of the test's own: replicas come and go."""
    made = Ground(start_server(Flavour.VALKEY_9), tmp_path / "state")
    made.open()
    made.policy()
    made.store()
    for name in NAMES:
        made.tenant(name, durability="Replicated")
    return made


async def test_the_limits_follow_the_replicas_and_are_written_when_these_change(
    primary_ground: Ground, start_server: StartServer
) -> None:
    primary = primary_ground.server
    store = ObjectKey.store("shared")
    with primary.admin() as admin:
        async with local_world(primary_ground.resources) as world:
            await settle(world)
            assert replicas_told(admin) == [b"0", b"0"]
            reconciler = WorldReconciler(world)

            replica = start_server(Flavour.VALKEY_9, replica_of=primary)
            await discovered(world.links["shared"].admin, 1)
            await reconciler.repair(store)
            assert replicas_told(admin) == [b"1", b"1"]

            before = admin.info("commandstats")["cmdstat_hset"]["calls"]
            for _ in range(3):
                await reconciler.repair(store)
            assert admin.info("commandstats")["cmdstat_hset"]["calls"] == before

            replica.stop()
            await reconciler.repair(store)
            assert replicas_told(admin) == [b"0", b"0"]
    primary_ground.close()


async def test_a_number_that_a_reconcile_saw_between_two_repairs_does_not_stay(
    primary_ground: Ground, start_server: StartServer
) -> None:
    """A repair sees one replica, a reconcile two and says so, the next repair one as before."""
    primary = primary_ground.server
    store = ObjectKey.store("shared")
    with primary.admin() as admin:
        async with local_world(primary_ground.resources) as world:
            await settle(world)
            reconciler = WorldReconciler(world)
            start_server(Flavour.VALKEY_9, replica_of=primary)
            await discovered(world.links["shared"].admin, 1)
            await reconciler.repair(store)
            assert replicas_told(admin) == [b"1", b"1"]

            second = start_server(Flavour.VALKEY_9, replica_of=primary)
            await discovered(world.links["shared"].admin, 2)
            await reconciler.reconcile(store, "1")
            await reconciler.reconcile(ObjectKey.tenant("support", "acme"), "1")
            assert replicas_told(admin) == [b"2", b"1"]

            second.stop()
            await discovered(world.links["shared"].admin, 1)
            await reconciler.repair(store)
            assert replicas_told(admin) == [b"1", b"1"]
    primary_ground.close()


async def test_another_login_of_the_operator_tells_nobody_anything(primary_ground: Ground) -> None:
    """What the limits tell stays known; else each of ten thousand would be told again."""
    async with local_world(primary_ground.resources) as world:
        await settle(world)
        reconciler, store = WorldReconciler(world), ObjectKey.store("shared")
        await reconciler.repair(store)
        with primary_ground.server.admin() as admin:
            before = admin.info("commandstats")["cmdstat_hset"]["calls"]
            log_in_anew(primary_ground, primary_ground.server)
            await reconciler.reconcile(store, "1")
            await reconciler.repair(store)
            assert admin.info("commandstats")["cmdstat_hset"]["calls"] == before
    primary_ground.close()


async def test_a_replica_that_could_not_be_mended_at_once_is_mended_whole_by_the_next_repair(
    primary_ground: Ground, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not hold the operator's term before it is in step."""
    monkeypatch.setattr(repair, "SLICE", 1)
    users = [f"mt.support.{name}.default.a" for name in NAMES]
    async with local_world(primary_ground.resources) as world:
        await settle(world)
        reconciler, store = WorldReconciler(world), ObjectKey.store("shared")
        await reconciler.repair(store)
        replica = start_server(Flavour.VALKEY_9, replica_of=primary_ground.server)
        link = world.links["shared"]
        with primary_ground.server.admin() as primary, replica.admin() as admin:
            for user in users:
                admin.acl_setuser(user, enabled=True, passwords=["+revoked"])
            facts = await discovered(link.admin, 1)
            (at,) = (node.address for node in facts.replicas)

            async def refused(_users: object) -> NodeResults[UsersSet]:
                return NodeResults({}, {at: StoreUnavailable("behind", reason="EpochBehind")})

            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(link.admin.users, "set", refused)
                await reconciler.repair(store)
            await reconciler.repair(store)
            for user in users:
                assert admin.acl_getuser(user) == primary.acl_getuser(user)
        assert not link.behind
    primary_ground.close()


def log_in_anew(ground: Ground, *nodes: Server) -> None:
    """Give the operator another password."""
    for node in nodes:
        with node.admin() as admin:
            admin.acl_setuser(node.admin_user, enabled=True, passwords=["+another"])
    ground.resources.declare_secret(ground.resources.home, "admin", {"password": b"another"})


@pytest.mark.parametrize("seen_by", ["nobody", "the store", "another login"])
async def test_a_replica_with_earlier_passwords_has_none_of_them_after_one_repair(
    primary_ground: Ground,
    start_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    seen_by: str,
) -> None:
    monkeypatch.setattr(repair, "SLICE", 1)
    users = [f"mt.support.{name}.default.a" for name in NAMES]
    async with local_world(primary_ground.resources) as world:
        await settle(world)
        await WorldReconciler(world).repair(ObjectKey.store("shared"))
        replica = start_server(Flavour.VALKEY_9, replica_of=primary_ground.server)
        with primary_ground.server.admin() as primary, replica.admin() as admin:
            for user in users:
                admin.acl_setuser(user, enabled=True, passwords=["+revoked"])
            await discovered(world.links["shared"].admin, 1)
            if seen_by == "another login":
                log_in_anew(primary_ground, primary_ground.server, replica)
            if seen_by != "nobody":
                await WorldReconciler(world).reconcile(ObjectKey.store("shared"), "1")
            await WorldReconciler(world).repair(ObjectKey.store("shared"))
            for user in users:
                assert admin.acl_getuser(user) == primary.acl_getuser(user)
    primary_ground.close()
