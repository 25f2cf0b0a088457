"""Strict isolation: each agent has conversations and keys of its own; contexts are for all."""

from pathlib import Path

import pytest

from memtenant import Message, Tenant
from memtenant.crypto.datakey import unwrap_data_key
from memtenant.errors import RecordTampered, UsageError
from memtenant.rules.acl import AccessState, AgentAccess
from memtenant.tenancy import keys
from memtenant.tenancy.policy import Isolation, SubjectRights, TenantPolicy
from tests.memory.bindings import Provisioned
from tests.memory.conftest import Open
from tests.stores.operators import ACME, PASSWORD, denied

AGENTS = ("default", "other")


@pytest.fixture
def policy() -> TenantPolicy:
    rights = SubjectRights(erasure=True, portability=True)
    return TenantPolicy(Isolation.STRICT, access=AgentAccess.STEWARD, rights=rights)


@pytest.fixture
def both(acme: Provisioned, opened: Open) -> tuple[Tenant, Tenant]:
    """The tenant's two agents, on each flavour."""
    acme.provision(*AGENTS, access=AgentAccess.STEWARD)
    return opened(acme), opened(acme, "other")


async def test_agents_share_no_conversation_and_no_key(
    acme: Provisioned, both: tuple[Tenant, Tenant]
) -> None:
    one, other = both
    await one.conversation("s", user="ada").append(Message.human("to one"))
    await other.conversation("s", user="ada").append(Message.human("to the other"))
    for tenant, text in ((one, "to one"), (other, "to the other")):
        messages = await tenant.conversation("s", user="ada").messages()
        assert [message.text for message in messages] == [text]
        assert len((await tenant.conversations("ada")).items) == 1
        usage = await tenant.usage()
        assert usage.conversations == 2
    with acme.server.admin() as admin:
        wrapped = {name.decode(): admin.hget(name, "dek") for name in admin.scan_iter("*:k:*")}
    assert len(wrapped) == 2
    for agent, stranger in (AGENTS, AGENTS[::-1]):
        (name,) = [one for one in wrapped if f":k:{agent}_" in one]
        alias = name.rpartition(":")[2]
        assert unwrap_data_key(acme.source(agent).current().keyring, alias, wrapped[name])
        with pytest.raises(RecordTampered):
            unwrap_data_key(acme.source(stranger).current().keyring, alias, wrapped[name])


async def test_another_agents_keys_are_out_of_reach(
    acme: Provisioned, both: tuple[Tenant, Tenant]
) -> None:
    for tenant in both:
        await tenant.conversation("s", user="ada").append(Message.human("hello"))
    with acme.server.admin() as admin:
        names = [name.decode() for name in admin.scan_iter("mt:*")]
    own = {agent: [n for n in names if f":{agent}_" in n] for agent in AGENTS}
    assert all(len(found) == 4 for found in own.values())  # list, head, data key, index
    for agent, stranger in (AGENTS, AGENTS[::-1]):
        with acme.server.client(f"mt.{ACME}.{agent}.a", PASSWORD) as client:
            for name in own[stranger]:
                for words in (
                    *(("DEL",), ("EXPIRE", 1), ("TYPE",), ("LRANGE", 0, -1), ("HGETALL",)),
                    *(("HGET", "dek"), ("RPUSH", "x"), ("HSET", "f", "v"), ("HSETNX", "f", "v")),
                ):
                    assert denied(client, words[0], name, *words[1:]), (words, name)
    with pytest.raises(UsageError, match="Strict"):
        both[0].conversation("s", user="ada", agent="other")


async def test_a_shared_context_is_everybodys(both: tuple[Tenant, Tenant]) -> None:
    one, other = both
    await one.shared_context("case").create({"state": "open"}, about=["ada"])
    assert (await other.shared_context("case").read()).values == {"state": "open"}
    await other.shared_context("case").update({"state": "closed"}, about=["ada"])
    assert (await one.shared_context("case").read()).values == {"state": "closed"}
    await other.describe("closing cases")
    (status,) = await one.agent_status(["other"])
    assert status.summary == "closing cases"


async def test_a_steward_forgets_and_exports_what_it_keeps(
    both: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    one, other = both
    for tenant in both:
        await tenant.conversation("s", user="ada").append(Message.human("hello"))
    manifest = await one.export("ada", tmp_path / "export")
    assert manifest.agent == "default"
    assert (tmp_path / "export" / "messages.jsonl").read_text().count("hello") == 1
    await one.forget("ada")
    assert (await one.conversations("bob")).items == ()
    # The other agent's go when the operator has seen the request.
    assert len(await other.conversation("s", user="ada").messages()) == 1


@pytest.mark.parametrize(
    "state", [AccessState(over_quota=True), AccessState(held=True)], ids=["over", "held"]
)
async def test_what_restricts_a_tenant_restricts_its_agents(
    on_valkey: Provisioned, opened: Open, state: AccessState
) -> None:
    on_valkey.provision(*AGENTS)
    one = opened(on_valkey)
    await one.conversation("s", user="ada").append(Message.human("hello"))
    on_valkey.provision(*AGENTS, state=state)
    content = f"{keys.records(ACME)}{keys.own_scope('other')}:c:l"
    with on_valkey.server.client(f"mt.{ACME}.default.a", PASSWORD) as client:
        for words in (("RPUSH", "x"), ("DEL",), ("LRANGE", 0, -1)):
            assert denied(client, words[0], content, *words[1:])
    assert len(await one.conversation("s", user="ada").messages()) == 1
