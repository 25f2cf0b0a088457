"""What a server must not be to hold tenants, and what every usable one is given."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from memtenant.rules.acl import AclUser
from memtenant.stores import NodeResults, UsersSet
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

SHARED = ObjectKey.store("shared")


async def reason_of(ground: Ground) -> str:
    declared = await ground.resources.get(SHARED)
    assert declared is not None
    ready = next(one for one in declared.status["conditions"] if one["type"] == "Ready")
    return str(ready["reason"])


async def test_a_server_that_lets_anybody_in_takes_no_tenant(
    ground: Ground, valkey: Server
) -> None:
    ground.tenant("acme")
    with valkey.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*")
    try:
        async with local_world(ground.resources) as world:
            await settle(world)
        assert await reason_of(ground) == "DefaultUserOpen"
        assert await ground.resources.get_secret("support", "acme-default") is None
    finally:
        with valkey.admin() as admin:
            admin.execute_command("ACL", "SETUSER", "default", "off", "resetpass")


@pytest.mark.parametrize("rubbish", [b"", b"no certificate", "Zertifikat \u00fc".encode()])
async def test_certificates_that_are_none_are_told_and_the_link_that_is_there_stays(
    ground: Ground, rubbish: bytes
) -> None:
    ground.resources.declare_secret(ground.resources.home, "ca", {"ca.crt": rubbish})
    async with local_world(ground.resources) as world:
        await settle(world)
        before = world.links["shared"]
        ground.store(tls={"caSecretRef": {"name": "ca", "key": "ca.crt"}})
        await settle(world)
        assert world.links["shared"] is before
    assert await reason_of(ground) == "AdminSecretInvalid"


async def test_a_usable_server_holds_the_functions(ground: Ground, valkey: Server) -> None:
    async with local_world(ground.resources) as world:
        await settle(world)
    assert await reason_of(ground) == "Usable"
    with valkey.admin() as admin:
        listed = admin.execute_command("FUNCTION", "LIST")
    assert "mt1_append" in str(listed)
    assert "mt2_append" in str(listed)


async def test_a_user_that_the_server_refuses_is_the_trouble_of_its_own_tenant(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users of several tenants are set together."""
    ground.tenant("acme")
    acme = ObjectKey.tenant("support", "acme")
    async with local_world(ground.resources) as world:
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(SHARED, "1")
        set_users = world.links["shared"].admin.users.set

        async def set_with_a_neighbours(users: Collection[AclUser]) -> NodeResults[UsersSet]:
            found = await set_users(users)
            refused = {"mt.support.beta.default.a": "ERR Unknown command"}
            results = {at: replace(one, refused=refused) for at, one in found.results.items()}
            return NodeResults(results, found.failures)

        monkeypatch.setattr(world.links["shared"].admin.users, "set", set_with_a_neighbours)
        await reconciler.reconcile(acme, "2")
        assert (await ground.tenant_status("acme")).binding is not None
