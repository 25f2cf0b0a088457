"""Instances restart one after the other where that mends them, and leave nothing behind."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from memtenant.errors import ResourceConflict
from memtenant.reconcile.instance import remove_instance
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import Kind, ObjectKey
from memtenant.rules.instance import Instance, Sighting, instance_name
from memtenant.rules.sealing import SealerReport
from memtenant.stores.instances import EmbeddedInstances
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId
from tests.reconcile.instances import Host, declare, declare_tenants, looks, tenant_key

pytestmark = pytest.mark.redis

ONE, TWO = TenantId("health", "one"), TenantId("health", "two")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "instances")
    yield made
    asyncio.run(made.stop())


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


async def test_what_somebody_sets_otherwise_on_an_instance_is_set_back(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            link = world.links[str(ONE)]
            otherwise = {"maxmemory-policy": "allkeys-lru", "appendonly": "no", "maxmemory": "0"}
            await link.admin.configure(otherwise)
            reconciler = WorldReconciler(world)
            assert tenant_key(ONE) in (await reconciler.repair(ObjectKey.store("own"))).enqueue
            outcome = await reconciler.reconcile(tenant_key(ONE), "1")
            assert len([word for word in outcome.did if "→" in word]) == 1
            facts = await link.admin.discover()
            assert facts.durable
            assert facts.primary.maxmemory > 0
            assert link.ready
            await reconciler.repair(ObjectKey.store("own"))
            assert not (await reconciler.repair(ObjectKey.store("own"))).enqueue


async def test_an_instance_whose_secret_was_deleted_gets_another_and_restarts_with_it(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            first = await resources.get_secret(resources.home, instance_name(ONE))
            assert first is not None
            await resources.delete_secret(first)
            await looks(world, resources, "first", 3)
            second = await resources.get_secret(resources.home, instance_name(ONE))
            assert second is not None
            assert second.data["password"] != first.data["password"]
            assert host.restarts == [(ONE, "first")]
            assert world.links[str(ONE)].ready


async def test_an_instance_that_is_full_grows_under_another_leader_too(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            await world.links[str(ONE)].admin.configure({"maxmemory": "1"})
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            link = world.links[str(ONE)]
            assert link.ready
            assert link.admin.facts.primary.maxmemory > 1


@pytest.mark.parametrize(
    ("name", "ready", "reason"),
    [
        (instance_name(ONE), "False", "ForeignSecret"),
        ("memtenant-sealer", "True", "Provisioned"),
    ],
)
async def test_a_secret_of_the_instance_that_lost_its_labels_is_told_and_others_concern_no_tenant(
    tmp_path: Path, host: Host, name: str, ready: str, reason: str
) -> None:
    state = tmp_path / "state"
    with FolderResources.open(state) as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
    (file,) = state.glob(f"secrets/*/{name}.*")
    raw = json.loads(file.read_text())
    raw["metadata"]["labels"] = {}
    file.write_text(json.dumps(raw))
    with FolderResources.open(state) as resources:
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
        declared = await resources.get(tenant_key(ONE))
        assert declared is not None
        told = {one["type"]: one for one in declared.status["conditions"]}
        assert (told["Ready"]["status"], told["Ready"]["reason"]) == (ready, reason)
        assert ("Stalled" in told) == (ready == "False")
        assert (f"label secret {name} " in told["Ready"]["message"]) == (ready == "False")
        assert "Reconciling" not in told


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


async def test_a_tenant_that_is_refused_gives_its_turn_to_restart_back(
    tmp_path: Path,
) -> None:
    host = RestartedByItself(tmp_path / "instances")
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, TWO, quota={"memory": "8Mi"})
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            host.largest = 16 << 20
            declare_tenants(resources, ONE, quota={"memory": "64Mi"})
            await looks(world, resources, "first", 1)
            await looks(world, resources, "second", 4)
            assert sorted(host.restarts) == [(ONE, "second"), (TWO, "second")]
            assert ready(world) == [True, True]
    await host.stop()


async def test_a_tenant_that_never_got_an_instance_keeps_no_other_from_a_new_image(
    tmp_path: Path, host: Host
) -> None:
    """What one team declares wrongly must not stand in the way of everybody's patches."""
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, TWO)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            resources.delete(tenant_key(TWO))
            await looks(world, resources, "first", 1)
            declare_tenants(resources, TWO, encryption={"mode": "Disabled"})
            await looks(world, resources, "first", 1)
            declared = await resources.get(tenant_key(TWO))
            assert declared is not None
            stalled = [one for one in declared.status["conditions"] if one["type"] == "Stalled"]
            assert stalled[0]["reason"] == "AdoptionMismatch"
            await looks(world, resources, "second", 2)
            assert host.restarts == [(ONE, "second")]


class RestartedByItself(Host):
    """As a StatefulSet does it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.passwords: dict[TenantId, str] = {}

    async def make(self, wanted: Instance, password: str) -> Sighting:
        self.passwords[wanted.tenant] = password
        return await super().make(wanted, password)

    async def restart(self, wanted: Instance, seen: Sighting) -> None:
        await super().restart(wanted, seen)
        await EmbeddedInstances.make(self, wanted, self.passwords[wanted.tenant])


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
            tell = admin._nodes.keyspace.call
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


@pytest.mark.parametrize("mode", ["Enabled", "Disabled"])
async def test_an_instance_that_never_answers_ends_with_a_word_about_its_audit(
    tmp_path: Path, host: Host, mode: str
) -> None:
    events = tmp_path / "state" / "events.log"
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, deletionPolicy="Shred", audit={"mode": mode})
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            await looks(world, resources, "bad", 4)
            assert not world.links[str(ONE)].ready
            world.timing = replace(world.timing, store_gone_grace=timedelta(0))
            resources.delete(tenant_key(ONE))
            await looks(world, resources, "bad", 1)
            assert host.removed == [(ONE, False)]
    assert ('"AuditLost"' in events.read_text()) is (mode == "Enabled")


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


@pytest.mark.parametrize("restarted", [False, True], ids=["as it was", "started anew"])
async def test_a_volume_that_cannot_grow_ends_no_repair_no_hold_and_no_quota(
    tmp_path: Path, host: Host, restarted: bool
) -> None:
    """Else a team switches all of that off by asking for more than there is."""
    small, large = {"memory": "8Mi"}, {"memory": "64Mi"}
    with FolderResources.open(tmp_path / "state") as resources:
        async with AsyncExitStack() as stack:
            declare_tenants(resources, ONE, quota=small)
            world = await stack.enter_async_context(local_world(resources, instances=host))
            await looks(world, resources, "first", 1)
            maxmemory = world.links[str(ONE)].facts.primary.maxmemory  # type: ignore[union-attr]
            host.largest = 16 << 20
            declare_tenants(resources, ONE, quota=large)
            await looks(world, resources, "first", 1)
            if restarted:
                await stack.aclose()
                world = await stack.enter_async_context(local_world(resources, instances=host))
            everybody = {"matter": "case-1", "tenantSelector": {}, "since": "2024-01-01T00:00:00Z"}
            declare(resources, Kind.POLICY, ObjectKey.policy("standard"), legalHolds=[everybody])
            if not restarted:
                ask = world.links[str(ONE)].admin._nodes.keyspace.call
                await ask("ACL", "DELUSER", *(user.name for user in world.links[str(ONE)].users()))
            await looks(world, resources, "first", 1)
            link = world.links[str(ONE)]
            ask = link.admin._nodes.keyspace.call
            assert await ask("HGET", keys.limits(ONE), "held") == b"1"
            assert link.tenants[ONE].limits.memory == 8 << 20
            assert {user.name for user in link.tenants[ONE].users} <= await names(ask)
            size = await ask("CONFIG", "GET", "maxmemory")
            assert isinstance(size, list)
            assert int(size[1]) == maxmemory
            declared = await resources.get(tenant_key(ONE))
            assert declared is not None
            stalled = [one for one in declared.status["conditions"] if one["type"] == "Stalled"]
            assert stalled[0]["reason"] == "VolumeCannotGrow"


async def test_the_instance_of_a_tenant_that_is_refused_stays_what_was_accepted(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, quota={"memory": "8Mi"})
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            link = world.links[str(ONE)]
            maxmemory = link.admin.facts.primary.maxmemory
            host.largest = 16 << 20
            declare_tenants(resources, ONE, quota={"memory": "64Mi"})
            await looks(world, resources, "first", 1)
            await link.admin.configure({"appendonly": "no", "maxmemory": "0"})
            assert (
                tenant_key(ONE)
                in (await WorldReconciler(world).repair(ObjectKey.store("own"))).enqueue
            )
            await looks(world, resources, "first", 1)
            facts = await link.admin.discover()
            assert facts.durable
            assert facts.primary.maxmemory == maxmemory
            await looks(world, resources, "second", 2)
            assert host.restarts == [(ONE, "second")]
            assert world.links[str(ONE)].ready
            declared = await resources.get(tenant_key(ONE))
            assert declared is not None
            stalled = [one for one in declared.status["conditions"] if one["type"] == "Stalled"]
            assert stalled[0]["reason"] == "VolumeCannotGrow"


async def test_how_a_file_is_synced_is_set_as_the_instance_runs(tmp_path: Path, host: Host) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            persistence = {"fsync": "Always"}
            template = {"image": "first", "persistence": persistence}
            declare(resources, Kind.STORE, ObjectKey.store("own"), dedicated=template)
            await fill(world.mirror, resources)
            await settle(world)
            facts = await world.links[str(ONE)].admin.discover()
            assert facts.primary.file.fsync == "always"
            assert host.restarts == []


async def names(ask: Callable[..., Awaitable[object]]) -> set[str]:
    found = await ask("ACL", "USERS")
    assert isinstance(found, list)
    return {name.decode() for name in found}


async def test_an_instance_that_is_reached_otherwise_is_told_to_its_agents(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            before = world.links[str(ONE)]
            host.reached_by = "localhost"
            declare_tenants(resources, ONE, agents=[{"name": "one"}, {"name": "two"}])
            await looks(world, resources, "first", 1)
            link = world.links[str(ONE)]
            assert link is not before
            for agent in ("one", "two"):
                stored = await resources.get_secret(ONE.namespace, f"{ONE.name}-{agent}")
                assert stored is not None
                assert stored.data["host"] == b"localhost"
            assert {user.name for user in link.users()} <= await names(
                link.admin._nodes.keyspace.call
            )


async def test_nothing_is_removed_for_a_tenant_that_was_let_go_meanwhile(
    tmp_path: Path, host: Host
) -> None:
    """As a leader that was frozen would go on, when another one let it go and it came again."""
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            seen = await resources.get(tenant_key(ONE))
            assert seen is not None
            resources.delete(tenant_key(ONE))
            await looks(world, resources, "first", 1)
            declare_tenants(resources, ONE)
            await looks(world, resources, "first", 1)
            host.removed.clear()
            with pytest.raises(ResourceConflict):
                await remove_instance(world, seen, ONE, keep_data=False)
            assert host.removed == []


async def test_who_waits_for_its_turn_to_take_another_login_is_not_looked_at_all_the_time(
    tmp_path: Path, host: Host
) -> None:
    """All Secrets may go at once, of hundreds of instances."""
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE, TWO)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            for tenant in (ONE, TWO):
                stored = await resources.get_secret(resources.home, instance_name(tenant))
                assert stored is not None
                await resources.delete_secret(stored)
            reconciler = WorldReconciler(world)
            turn = await reconciler.reconcile(tenant_key(ONE), "restarts")
            waits = await reconciler.reconcile(tenant_key(TWO), "waits")
            assert host.restarts == [(ONE, "first")]
            assert turn.requeue_after is not None
            assert waits.requeue_after is not None
            assert waits.requeue_after > turn.requeue_after
