"""What a server must not be to hold tenants, and what every usable one is given."""

from memtenant.reconcile.once import local_world, settle
from memtenant.resources.port import ObjectKey
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


async def test_a_usable_server_holds_the_functions(ground: Ground, valkey: Server) -> None:
    async with local_world(ground.resources) as world:
        await settle(world)
    assert await reason_of(ground) == "Usable"
    with valkey.admin() as admin:
        listed = admin.execute_command("FUNCTION", "LIST")
    assert "mt1_append" in str(listed)
    assert "mt2_append" in str(listed)
