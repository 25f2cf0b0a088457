"""The sealer's and the reporter's users: made with the store, mended, and gone with it."""

import asyncio
from collections.abc import Collection

import pytest
import redis

from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.systemusers import forget_system_users
from memtenant.resources.port import ObjectKey
from memtenant.rules.acl import AclUser
from memtenant.rules.systemusers import SystemRole, SystemSecret
from memtenant.stores import NodeResults, UsersSet
from memtenant.tenancy.storesfile import StoreAccess
from tests.reconcile.conftest import Ground, told


async def access(ground: Ground, role: SystemRole) -> StoreAccess:
    stored = await ground.resources.get_secret(ground.resources.home, role.secret_name)
    assert stored is not None
    found = SystemSecret.from_data(stored.data).stores.get("shared")
    assert found is not None
    return found


async def test_a_store_has_users_for_the_sealer_and_the_reporter(ground: Ground) -> None:
    await ground.settle()
    for role in SystemRole:
        found = await access(ground, role)
        assert [f"{one.host}:{one.port}" for one in found.endpoints] == [ground.server.endpoint]
        with ground.server.client(found.username, found.password) as client:
            assert client.ping()
    sealer = await ground.resources.get_secret(ground.resources.home, "memtenant-sealer")
    reporter = await ground.resources.get_secret(ground.resources.home, "memtenant-reporter")
    assert sealer is not None
    assert reporter is not None
    assert len(sealer.data["audit.key"]) == len(reporter.data["audit.key"]) == 32
    assert sealer.data["audit.key"] != reporter.data["audit.key"]


async def test_what_was_changed_by_hand_is_put_back_and_else_nothing_is_written(
    ground: Ground,
) -> None:
    await ground.settle()
    before = await access(ground, SystemRole.SEALER)
    stored = await ground.resources.get_secret(ground.resources.home, "memtenant-sealer")
    await ground.settle()
    again = await ground.resources.get_secret(ground.resources.home, "memtenant-sealer")
    assert stored is not None
    assert again is not None
    assert again.resource_version == stored.resource_version
    with ground.server.admin() as admin:
        admin.acl_deluser("mt.sealer")
        admin.execute_command("ACL", "SETUSER", "mt.reporter", "allkeys", "+@all")
    await ground.settle()
    with ground.server.client(before.username, before.password) as client:
        assert client.ping()
    reporter = await access(ground, SystemRole.REPORTER)
    with ground.server.client(reporter.username, reporter.password) as client:
        try:
            client.set("anything", "value")
        except redis.exceptions.NoPermissionError:
            return
    raise AssertionError("the reporter may write")


async def test_a_secret_of_theirs_without_labels_keeps_no_tenant_from_the_store(
    ground: Ground,
) -> None:
    """Nor the other one of the two from its user; the store tells what to do."""
    await ground.settle()
    place = f"{ground.resources.home}/memtenant-sealer"
    labels = ground.label(place, {})
    with ground.server.admin() as admin:
        admin.acl_deluser("mt.reporter")
    ground.tenant("acme")
    assert (await ground.settle())[ObjectKey.store("shared")].error is None
    assert told(await ground.tenant_status("acme"), "Ready")[0] == "True"
    assert (await ground.login("acme")).ping()
    store = await ground.store_status("shared")
    assert told(store, "Ready")[:2] == ("False", "ForeignSecret")
    assert f"label secret {place.rpartition('/')[2]} " in told(store, "Stalled")[2]
    reporter = await access(ground, SystemRole.REPORTER)
    with ground.server.client(reporter.username, reporter.password) as client:
        assert client.ping()
    ground.label(place, labels)
    await ground.settle()
    assert told(await ground.store_status("shared"), "Ready")[0] == "True"


async def test_they_go_with_the_store(ground: Ground) -> None:
    await ground.settle()
    ground.resources.delete(ObjectKey.store("shared"))
    await ground.settle()
    with ground.server.admin() as admin:
        assert not [name for name in admin.acl_users() if str(name).startswith("mt.")]
    for role in SystemRole:
        stored = await ground.resources.get_secret(ground.resources.home, role.secret_name)
        assert stored is not None
        assert SystemSecret.from_data(stored.data).stores.get("shared") is None


async def test_a_repair_that_is_under_way_does_not_bring_them_back(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    going: list[asyncio.Task[None]] = []
    async with local_world(ground.resources) as world:
        await settle(world)
        link = world.links["shared"]
        set_users = link.admin.users.set

        async def set_while_the_store_is_given_up(
            users: Collection[AclUser],
        ) -> NodeResults[UsersSet]:
            going.append(asyncio.create_task(forget_system_users(world, "shared", link)))
            await asyncio.wait(going, timeout=0.5)
            return await set_users(users)

        monkeypatch.setattr(link.admin.users, "set", set_while_the_store_is_given_up)
        with ground.server.admin() as admin:
            admin.acl_deluser(*(role.user for role in SystemRole))
            await WorldReconciler(world).repair(ObjectKey.store("shared"))
            await asyncio.gather(*going)
            assert not [name for name in admin.acl_users() if str(name).startswith("mt.")]
