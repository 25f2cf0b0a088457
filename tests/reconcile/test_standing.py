"""A tenant that is refused what it declares keeps what was accepted: also its limits."""

import pytest
import redis
from redis.exceptions import NoPermissionError

from memtenant.api.tenant import AccessMode
from memtenant.resources.port import ObjectKey
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground, told
from tests.support.servers import Server

ACME = TenantId("support", "acme")
CONTENT = f"{keys.records(ACME)}conversation:l"
EVERYBODY = {"matter": "case-1", "tenantSelector": {}, "since": "2024-01-01T00:00:00Z"}


async def make(ground: Ground) -> None:
    ground.store(tenantPolicy={"maxMemoryPerTenant": "16Mi"})
    ground.tenant("acme", quota={"memory": "8Mi", "conversations": 10})
    await ground.settle()
    assert told(await ground.tenant_status("acme"), "Ready")[0] == "True"


def ask_for_too_much(ground: Ground) -> None:
    ground.tenant("acme", quota={"memory": "1Gi", "conversations": 10})


def break_the_key_secret(ground: Ground) -> None:
    ground.resources.declare_secret("support", "key", {"root": b"not a key"})
    ground.tenant(
        "acme",
        quota={"memory": "8Mi", "conversations": 10},
        encryption={"mode": "Enabled", "keySecretRef": {"name": "key", "key": "root"}},
    )


def name_no_policy(ground: Ground) -> None:
    ground.tenant("acme", quota={"memory": "8Mi"}, retentionPolicyRef={"name": "missing"})


@pytest.fixture(params=[ask_for_too_much, break_the_key_secret, name_no_policy])
async def refused(request: pytest.FixtureRequest, ground: Ground) -> Ground:
    """A tenant that worked and then was refused, in each of the ways that its team can choose."""
    await make(ground)
    request.param(ground)
    await ground.settle()
    assert told(await ground.tenant_status("acme"), "Stalled")[0] == "True"
    return ground


async def test_its_agents_go_on_working(refused: Ground) -> None:
    agent = await refused.login("acme")
    assert agent.rpush(CONTENT, b"one") == 1
    assert agent.delete(CONTENT) == 1


async def test_the_quota_that_it_had_is_enforced(refused: Ground, valkey: Server) -> None:
    fill(valkey.admin())
    await refused.settle()
    agent = await refused.login("acme")
    with pytest.raises(NoPermissionError):
        agent.rpush(CONTENT, b"more")
    assert (await refused.tenant_status("acme")).access.mode is AccessMode.OVER_QUOTA  # type: ignore[union-attr]


async def test_its_records_go_on_expiring(refused: Ground, valkey: Server) -> None:
    """Else a team keeps for ever what it likes, by declaring what nobody accepts."""
    limits = keys.limits(ACME)
    with valkey.admin() as admin:
        cut_off = admin.hget(limits, "cutoff_content")
        assert cut_off is not None
        admin.hset(limits, "cutoff_content", int(cut_off) - 5 * 86_400_000)
        await refused.settle()
        assert int(admin.hget(limits, "cutoff_content") or 0) >= int(cut_off)


async def test_room_under_the_quota_gives_its_writes_back(refused: Ground, valkey: Server) -> None:
    fill(valkey.admin())
    await refused.settle()
    (await refused.login("acme")).delete(CONTENT)
    await refused.settle()
    assert (await refused.login("acme")).rpush(CONTENT, b"again") == 1


async def test_a_hold_that_begins_is_enforced(refused: Ground) -> None:
    (await refused.login("acme")).rpush(CONTENT, b"evidence")
    refused.policy(legalHolds=[EVERYBODY])
    await refused.settle()
    with pytest.raises(NoPermissionError):
        (await refused.login("acme")).delete(CONTENT)


async def test_its_users_are_put_back(refused: Ground, valkey: Server) -> None:
    valkey.admin().acl_deluser("mt.support.acme.default.a")
    await refused.settle()
    assert (await refused.login("acme")).exists(CONTENT) == 0


async def test_a_look_at_it_writes_nothing(refused: Ground) -> None:
    happened = (await refused.settle())[ObjectKey.tenant("support", "acme")]
    before = await refused.resources.get(happened.key)
    happened = (await refused.settle())[ObjectKey.tenant("support", "acme")]
    assert happened.did == ()
    after = await refused.resources.get(happened.key)
    assert before is not None
    assert after is not None
    assert before.resource_version == after.resource_version


async def test_a_reader_stays_a_reader(ground: Ground) -> None:
    await make(ground)
    agents = [{"name": "reader", "access": "ReadOnly"}, {"name": "writer"}]
    ground.tenant("acme", quota={"memory": "8Mi"}, agents=agents)
    await ground.settle()
    ground.tenant("acme", quota={"memory": "1Gi"}, agents=agents)
    await ground.settle()
    assert (await ground.login("acme", "writer")).rpush(CONTENT, b"one") == 1
    with pytest.raises(NoPermissionError):
        (await ground.login("acme", "reader")).rpush(CONTENT, b"two")


async def test_what_it_asks_for_takes_nothing_from_its_neighbours(ground: Ground) -> None:
    """Also after a restart, when all that is known of quotas are the declared objects."""
    ground.store(capacity={"memory": "64Mi"})
    for name in ("acme", "beta"):
        ground.tenant(name, quota={"memory": "16Mi"})
    await ground.settle()
    ground.tenant("acme", quota={"memory": "1Gi"})
    await ground.settle()
    await ground.settle()
    assert told(await ground.tenant_status("acme"), "Stalled")[1] == "CapacityExceeded"
    assert told(await ground.tenant_status("beta"), "Ready")[0] == "True"


def fill(admin: "redis.Redis") -> None:
    for _ in range(9):
        admin.rpush(CONTENT, b"x" * (1 << 20))
