"""A tenant that has the name of one that was deleted with its data begins with nothing of it."""

from typing import Any

import pytest

from memtenant.api.tenant import AccessMode
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from memtenant.rules.quota import Usage
from memtenant.stores import ExpiryScan, Tally, UsageScan
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

ACME = TenantId("support", "acme")
TENANT, SHARED = ObjectKey.tenant("support", "acme"), ObjectKey.store("shared")


@pytest.mark.parametrize("measured", ["before", "meanwhile"])
async def test_it_may_write_although_the_former_one_was_over_its_quota(
    ground: Ground, valkey: Server, monkeypatch: pytest.MonkeyPatch, measured: str
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

        async def replace_it() -> None:
            ground.resources.delete(TENANT)
            await fill(world.mirror, ground.resources)
            await reconciler.reconcile(TENANT, "deleted")
            ground.tenant("acme", **declared)
            await fill(world.mirror, ground.resources)
            await reconciler.reconcile(TENANT, "again")

        measure = world.links["shared"].admin.measure

        async def measure_before_it_is_replaced(scan: UsageScan) -> dict[TenantId, Usage]:
            found = await measure(scan)
            await replace_it()
            return found

        if measured == "before":
            await replace_it()
        else:
            monkeypatch.setattr(
                world.links["shared"].admin, "measure", measure_before_it_is_replaced
            )
            await reconciler.measure(SHARED)
            await reconciler.reconcile(TENANT, "measured")
        assert tenants[ACME].access is AccessMode.READ_WRITE


@pytest.mark.parametrize("pass_ended", [True, False])
async def test_its_oldest_record_is_its_own(
    ground: Ground, valkey: Server, pass_ended: bool
) -> None:
    ground.tenant("acme", deletionPolicy="Delete")
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler, link = WorldReconciler(world), world.links["shared"]
        left = {ACME: Tally(oldest=1)}
        link.expiry.left, link.expiry.scan = {}, None
        if pass_ended:
            link.expiry.left = left
        else:
            link.expiry.scan, link.expiry.run_id = ExpiryScan(left=left), link.admin.facts.run_id
        ground.resources.delete(TENANT)
        await fill(world.mirror, ground.resources)
        await reconciler.reconcile(TENANT, "deleted")
        link.expiry.passed_at = None if link.expiry.scan else world.clock.now()
        await reconciler.expire(SHARED)
        assert ACME not in link.expiry.left
