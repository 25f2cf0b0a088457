"""A tenant does not escape what keeps its data by naming another policy before its deletion."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from memtenant.api.conditions import ConditionType
from memtenant.reconcile.once import local_world, settle
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import ObjectKey
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground, told
from tests.support.servers import Server

ACME = TenantId("support", "acme")
KEY = ObjectKey.tenant("support", "acme")
CONTENT = f"{keys.records(ACME)}conversation:l"
HOLD: dict[str, Any] = {
    "legalHolds": [{"matter": "case-1", "tenantSelector": {}, "since": "2024-01-01T00:00:00Z"}]
}
MINIMUM: dict[str, Any] = {"retention": {"content": {"min": "30d"}}}


async def make(ground: Ground, valkey: Server, **policy: Any) -> None:
    ground.policy(**policy)
    ground.policy("lenient")
    ground.tenant("acme", deletionPolicy="Delete")
    await ground.settle()
    valkey.admin().rpush(CONTENT, b"evidence")


@pytest.mark.parametrize("policy", [HOLD, MINIMUM], ids=["hold", "minimum"])
@pytest.mark.parametrize("other", ["lenient", "missing"])
async def test_a_policy_that_was_never_in_force_frees_nothing(
    ground: Ground, valkey: Server, policy: dict[str, Any], other: str
) -> None:
    await make(ground, valkey, **policy)
    ground.tenant("acme", deletionPolicy="Delete", retentionPolicyRef={"name": other})
    ground.resources.delete(KEY)
    await ground.settle()
    blocked = told(await ground.tenant_status("acme"), ConditionType.DELETION_BLOCKED)
    assert blocked[0] == "True"
    assert valkey.admin().exists(CONTENT) == 1


async def test_a_hold_of_the_policy_named_last_counts_too(ground: Ground, valkey: Server) -> None:
    await make(ground, valkey)
    ground.policy("strict", **HOLD)
    ground.tenant("acme", deletionPolicy="Delete", retentionPolicyRef={"name": "strict"})
    ground.resources.delete(KEY)
    await ground.settle()
    blocked = told(await ground.tenant_status("acme"), ConditionType.DELETION_BLOCKED)
    assert blocked[:2] == ("True", "LegalHold")


async def test_a_missing_policy_that_was_never_in_force_hinders_nothing(
    ground: Ground, valkey: Server
) -> None:
    await make(ground, valkey)
    ground.tenant("acme", deletionPolicy="Delete", retentionPolicyRef={"name": "missing"})
    ground.resources.delete(KEY)
    await ground.settle()
    assert await ground.resources.get(KEY) is None
    assert valkey.admin().exists(CONTENT) == 0


@pytest.mark.parametrize("policy", [HOLD, MINIMUM], ids=["hold", "minimum"])
async def test_what_is_kept_outlives_a_store_that_was_away(
    ground: Ground, valkey: Server, policy: dict[str, Any]
) -> None:
    """Nor by a deletion while the store, which remembers the policy in force, does not answer."""
    await make(ground, valkey, **policy)
    ground.store(endpoint="127.0.0.1:1")
    ground.tenant("acme", deletionPolicy="Delete", retentionPolicyRef={"name": "lenient"})
    ground.resources.delete(KEY)
    async with local_world(ground.resources) as world:
        world.timing = replace(world.timing, store_gone_grace=timedelta(0))
        await settle(world)
    assert await ground.resources.get(KEY) is None
    ground.store()
    await ground.settle()
    assert valkey.admin().exists(CONTENT) == 1
    assert "mt.support.acme.default.a" not in valkey.admin().acl_users()


async def test_a_hold_keeps_the_keys_when_the_store_is_away(ground: Ground, valkey: Server) -> None:
    await make(ground, valkey, **HOLD)
    ground.store(endpoint="127.0.0.1:1")
    ground.tenant("acme", deletionPolicy="Shred")
    ground.resources.delete(KEY)
    async with local_world(ground.resources) as world:
        world.timing = replace(world.timing, store_gone_grace=timedelta(0))
        await settle(world)
    record = await ground.resources.get_secret(ground.resources.home, f"{ACME}-keyring")
    assert record is not None
    assert record.data["keyring.json"]


async def test_a_hold_that_begins_with_the_deletion_binds_the_agents(
    ground: Ground, valkey: Server
) -> None:
    await make(ground, valkey)
    ground.policy(**HOLD)
    ground.resources.delete(KEY)
    await ground.settle()
    agent = await ground.login("acme")
    with pytest.raises(NoPermissionError):
        agent.delete(CONTENT)
    assert valkey.admin().hget(keys.limits(ACME), "held") == b"1"


async def test_what_a_new_hold_keeps_of_a_namespace_in_deletion_does_not_expire(
    ground: Ground, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(ground, valkey)
    assert valkey.admin().hget(keys.limits(ACME), "cutoff_content")
    ground.policy(**HOLD)
    ground.resources.delete(KEY)
    namespace = FolderResources._namespace
    monkeypatch.setattr(
        FolderResources,
        "_namespace",
        lambda self, name: replace(namespace(self, name), terminating=name == ACME.namespace),
    )
    await ground.settle()
    assert await ground.resources.get(KEY) is None
    assert valkey.admin().exists(CONTENT) == 1
    assert valkey.admin().hmget(keys.limits(ACME), "cutoff_content", "cutoff_derived", "held") == [
        None,
        None,
        b"1",
    ]


async def test_what_is_retained_under_a_new_hold_does_not_expire(
    ground: Ground, valkey: Server
) -> None:
    await make(ground, valkey)
    ground.tenant("acme", deletionPolicy="Retain")
    ground.policy(**HOLD)
    ground.resources.delete(KEY)
    await ground.settle()
    assert await ground.resources.get(KEY) is None
    assert valkey.admin().hmget(keys.limits(ACME), "cutoff_content", "held") == [None, b"1"]
