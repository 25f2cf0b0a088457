"""What a store's declaration changes for its tenants is brought to them at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from memtenant.errors import ResourceUnavailable, StoreRefused, StoreUnavailable
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from memtenant.stores import Address
from tests.conftest import StartServer
from tests.reconcile.conftest import Ground
from tests.support.servers import Flavour, Options, Server

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
    ground: Ground, monkeypatch: pytest.MonkeyPatch
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
        link.facts = link.served = link.repaired = replace(link.facts, primary=former)
        link.failure = StoreUnavailable("the primary is replaced")
        monkeypatch.setattr(link.admin, "load_functions", _fails)
        with pytest.raises(StoreUnavailable):  # it has seen the new one
            await WorldReconciler(world).reconcile(SHARED, "1")
        monkeypatch.undo()
        outcome = await WorldReconciler(world).reconcile(SHARED, "2")
    assert outcome.in_time == (ACME,)
    assert LATE in outcome.enqueue
    assert ACME not in outcome.enqueue


async def test_a_repair_that_is_cut_off_after_it_saw_another_process_begins_anew(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler, link = WorldReconciler(world), world.links["shared"]
        await reconciler.repair(SHARED)
        assert link.facts is not None
        former = replace(link.facts.primary, run_id="former")
        link.facts = link.served = link.repaired = replace(link.facts, primary=former)
        monkeypatch.setattr(link.admin, "load_functions", _refused)
        with pytest.raises(StoreRefused):
            await reconciler.repair(SHARED)
        monkeypatch.undo()
        assert {SHARED, ACME} <= {*(await reconciler.repair(SHARED)).enqueue}
        assert not (await reconciler.repair(SHARED)).enqueue


async def test_a_server_that_is_set_otherwise_while_it_runs_is_judged_anew(
    start_server: StartServer, tmp_path: Path
) -> None:
    ground = Ground(start_server(Flavour.VALKEY_9, Options(appendonly=True)), tmp_path / "state")
    ground.open()
    ground.policy()
    ground.store()
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler = WorldReconciler(world)
        assert not (await reconciler.repair(SHARED)).enqueue
        with ground.server.admin() as admin:
            admin.config_set("appendonly", "no")
            assert (await reconciler.repair(SHARED)).enqueue == (SHARED,)
            await reconciler.reconcile(SHARED, "1")
            assert (await ground.store_status("shared")).durable.aof is False
            admin.config_set("maxmemory-policy", "allkeys-lru")
            assert (await reconciler.repair(SHARED)).enqueue == (SHARED,)
        await reconciler.reconcile(SHARED, "2")
        assert not world.links["shared"].ready
    ground.close()


async def _fails() -> None:
    raise StoreUnavailable("the new primary does not answer")


async def _refused() -> None:
    raise StoreRefused("the new primary is full", reason="StoreFull")


async def test_a_new_password_of_the_operator_does_not_concern_them(
    ground: Ground, valkey: Server
) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        valkey.admin().acl_setuser("admin", enabled=True, passwords=["+another"])
        ground.resources.declare_secret("memtenant-system", "admin", {"password": b"another"})
        for time in ("1", "2"):
            assert ACME not in (await WorldReconciler(world).reconcile(SHARED, time)).enqueue
    valkey.admin().acl_setuser("admin", enabled=True, passwords=["-another"])


async def test_while_the_api_server_is_away_a_store_that_works_is_looked_after(
    ground: Ground, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.tenant("acme")
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler = WorldReconciler(world)
        monkeypatch.setattr(world.resources, "get_secret", _away)
        with pytest.raises(ResourceUnavailable):
            await reconciler.reconcile(SHARED, "1")
        with valkey.admin() as admin:
            admin.acl_deluser("mt.support.acme.default.a")
            await reconciler.repair(SHARED)
            assert admin.acl_getuser("mt.support.acme.default.a") is not None


async def _away(*_: object) -> None:
    raise ResourceUnavailable("the API server does not answer")
