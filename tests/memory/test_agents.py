"""What agents say of themselves: for all agents of the tenant, in one round trip, sealed."""

import pytest

from memtenant import Tenant
from memtenant.errors import AccessReadOnly, MessageTooLarge, UsageError
from memtenant.memory.reports import AgentState
from memtenant.rules.acl import AgentAccess
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy.policy import EncryptionMode
from tests.memory.bindings import PATIENT, Provisioned, policy
from tests.memory.conftest import Open


async def test_what_an_agent_says_is_read_by_the_others(acme: Provisioned, opened: Open) -> None:
    one, other = opened(acme), opened(acme, "other")
    await one.describe("Drafts the answer to ticket 4711")
    await other.describe("Waits")
    statuses = await other.agent_status(["default", "other", "never"])
    assert [status.summary for status in statuses] == [
        "Drafts the answer to ticket 4711",
        "Waits",
        "",
    ]
    assert [status.state for status in statuses] == [
        AgentState.ACTIVE,
        AgentState.ACTIVE,
        AgentState.UNKNOWN,
    ]
    assert {status.agent: status.summary for status in await one.agent_status()} == {
        "default": "Drafts the answer to ticket 4711",
        "other": "Waits",
    }
    await one.describe("")
    assert [status.summary for status in await other.agent_status(["default"])] == [""]
    # It is no context of a user's, and stands nowhere in the clear.
    assert (await one.shared_context("agents").read()).revision == 0
    admin = acme.server.admin()
    for key in admin.scan_iter(match="mt:*"):
        assert b"Waits" not in admin.dump(key)


async def test_hundreds_of_agents_are_one_round_trip(
    on_valkey: Provisioned, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = opened(on_valkey)
    names = [f"agent-{number}" for number in range(400)]
    context = tenant._agents()
    await context.update({name: f"I am {name}" for name in names[:200]})
    await context.update({name: f"I am {name}" for name in names[200:]})
    trips = []
    exchange = tenant._store._exchange

    async def counted(*arguments: object) -> list[object]:
        trips.append(arguments)
        return await exchange(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tenant._store, "_exchange", counted)
    statuses = await tenant.agent_status(names)
    assert [status.summary for status in statuses] == [f"I am {name}" for name in names]
    assert len(trips) == 1


async def test_what_is_no_short_text_is_refused(on_valkey: Provisioned, opened: Open) -> None:
    tenant = opened(on_valkey)
    with pytest.raises(MessageTooLarge):
        await tenant.describe("x" * 1001)
    with pytest.raises(UsageError):
        await tenant.describe(None)  # type: ignore[arg-type]
    on_valkey.provision("default", access=AgentAccess.READ_ONLY)
    with pytest.raises(AccessReadOnly):
        await opened(on_valkey).describe("I only read")


def test_without_asyncio(acme: Provisioned) -> None:
    acme.policy = policy(encryption=EncryptionMode.DISABLED)
    with SyncTenant(acme.source(), options=PATIENT) as tenant:
        tenant.describe("Synchronous")
        assert tenant.agent_status()[0].summary == "Synchronous"


async def test_nobody_has_said_anything_at_first(tenant: Tenant) -> None:
    assert await tenant.agent_status() == []
    assert (await tenant.agent_status(["Not a name!"]))[0].summary == ""
