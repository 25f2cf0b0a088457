"""What a policy in force keeps is not lost by naming another one."""

from memtenant.api.conditions import find
from tests.reconcile.conftest import Ground
from tests.support.servers import Server


async def test_a_tenant_does_not_leave_a_minimum_of_its_content(
    ground: Ground, valkey: Server
) -> None:
    ground.policy("keeping", retention={"content": {"min": "1y", "default": "2y"}})
    ground.tenant("acme", retentionPolicyRef={"name": "keeping"})
    await ground.settle()
    ground.tenant("acme")
    await ground.settle()
    status = await ground.tenant_status("acme")
    stalled = find(status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "RetentionMinimum"
    assert status.access is not None
    assert status.access.mode == "Held"


async def test_it_may_name_a_policy_that_keeps_as_long(ground: Ground, valkey: Server) -> None:
    ground.policy("keeping", retention={"content": {"min": "1y", "default": "2y"}})
    ground.policy("longer", retention={"content": {"min": "2y", "default": "3y"}})
    ground.tenant("acme", retentionPolicyRef={"name": "keeping"})
    await ground.settle()
    ground.tenant("acme", retentionPolicyRef={"name": "longer"})
    await ground.settle()
    assert find((await ground.tenant_status("acme")).conditions, "Stalled") is None
