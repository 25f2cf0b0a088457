"""Who shares a conversation, and what a neighbour and the server see of it."""

from pathlib import Path

import pytest

from memtenant import Message, Tenant
from memtenant.errors import (
    AccessDenied,
    AccessReadOnly,
    AgentNotListed,
    PlaintextRefused,
    RecordKeyMismatch,
)
from memtenant.memory.source import BindingSource
from memtenant.rules.acl import AgentAccess
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import EncryptionMode, Isolation, TenantPolicy
from tests.memory.bindings import Provisioned, policy
from tests.memory.conftest import Open
from tests.stores.operators import GLOBEX
from tests.support.relay import Proxy
from tests.support.servers import Server


async def texts(tenant: Tenant, session: str, user: str) -> list[str]:
    return [one.text for one in await tenant.conversation(session, user=user).messages()]


async def test_moderate_agents_share_a_users_session_and_users_share_nothing(
    acme: Provisioned, opened: Open
) -> None:
    one, other = opened(acme), opened(acme, "other")
    await one.conversation("s", user="ada").append(Message.human("from one"))
    await other.conversation("s", user="ada").append(Message.human("from the other"))
    assert await texts(one, "s", "ada") == ["from one", "from the other"]
    assert await texts(other, "s", "bob") == []
    with acme.server.admin() as admin:
        assert len(list(admin.scan_iter("*:k:*"))) == 1  # a key of ada alone
        assert len(list(admin.scan_iter("*:i:*"))) == 1


async def test_minimal_users_share_a_session_and_their_records_are_tagged(
    redis_server: Server, tmp_path: Path, opened: Open
) -> None:
    acme = Provisioned(redis_server, tmp_path, policy=policy(Isolation.MINIMAL))
    acme.provision()
    tenant = opened(acme)
    ada, bob = (tenant.conversation("s", user=user) for user in ("ada", "bob"))
    await ada.append(Message.human("from ada"))
    await bob.append(Message.human("from bob"))
    await bob.update_message(1, Message.human("from ada, corrected"))
    assert await texts(tenant, "s", "ada") == ["from ada, corrected", "from bob"]
    assert await texts(tenant, "t", "ada") == []
    with redis_server.admin() as admin:
        assert len(list(admin.scan_iter("*:k:*"))) == 1  # one key for the tenant
        assert len(list(admin.scan_iter("*:i:*"))) == 2  # each user's records can be found
        entries = admin.lrange(next(iter(admin.scan_iter("*:l"))), 0, -1)
    tags = [entry[15:23] for entry in entries]
    assert tags[0] != tags[1]
    for user in ("ada", "bob"):
        assert [one.session for one in (await tenant.conversations(user)).items] == ["s"]


async def test_nothing_that_was_said_or_named_is_readable_on_the_server(
    acme: Provisioned, tenant: Tenant
) -> None:
    chat = tenant.conversation("session-4711", user="ada@example.org", title="Secret title")
    await chat.append(Message.human("a secret word", idempotency="no"), idempotency_key="key-4711")
    await tenant.shared_context("case-4711").create(
        {"note": "secret value"}, about=["ada@example.org"]
    )
    with acme.server.admin() as admin:
        everything = b"".join(
            name + (admin.dump(name) or b"") for name in admin.scan_iter("*")
        ) + b"".join(str(line).encode() for line in admin.acl_log())
    for word in (b"secret", b"Secret", b"4711", b"ada", b"example.org"):
        assert word not in everything


async def test_a_neighbour_sees_nothing_even_on_the_same_server(
    acme: Provisioned, opened: Open
) -> None:
    await opened(acme).conversation("s", user="ada").append(Message.human("ours"))
    globex = Provisioned(acme.server, acme.root, tenant=GLOBEX)
    globex.provision()
    neighbour = opened(globex)
    assert await texts(neighbour, "s", "ada") == []
    assert (await neighbour.conversations("ada")).items == ()
    assert (await neighbour.usage()).messages == 0
    # With the neighbour's user and our keys: the server denies it.
    stolen = Provisioned(acme.server, acme.root / "stolen", tenant=acme.tenant)
    stolen.keyring = acme.keyring
    stolen.bind()
    secret = stolen.root / "acme-default"
    for name in ("username", "password", "uri"):
        (secret / "..data" / name).write_bytes((globex.root / "globex-default" / name).read_bytes())
    thief = Tenant(BindingSource(secret))
    with pytest.raises(AccessDenied):
        await thief.conversation("s", user="ada").messages()
    await thief.aclose()


async def test_an_agent_that_may_only_read_is_told_so(acme: Provisioned, opened: Open) -> None:
    await opened(acme).conversation("s", user="ada").append(Message.human("one"))
    acme.provision("reader", access=AgentAccess.READ_ONLY)
    reader = opened(acme, "reader")
    assert await texts(reader, "s", "ada") == ["one"]
    chat = reader.conversation("s", user="ada")
    with pytest.raises(AccessReadOnly):
        await chat.append(Message.human("two"))
    with pytest.raises(AccessReadOnly):
        await chat.clear()
    with pytest.raises(AccessReadOnly):
        await reader.shared_context("c").create({"a": 1})


async def test_plaintext_of_a_tenant_without_encryption_is_authenticated_and_refused_elsewhere(
    redis_server: Server, tmp_path: Path, opened: Open
) -> None:
    plain = Provisioned(redis_server, tmp_path, policy=policy(encryption=EncryptionMode.DISABLED))
    plain.provision()
    await opened(plain).conversation("s", user="ada").append(Message.human("in the clear"))
    assert await texts(opened(plain), "s", "ada") == ["in the clear"]
    plain.policy = policy()
    with pytest.raises(PlaintextRefused):
        await texts(opened(plain), "s", "ada")


async def test_records_of_another_tenant_do_not_open(acme: Provisioned, opened: Open) -> None:
    other = Provisioned(acme.server, acme.root, tenant=TenantId("support", "other"))
    other.provision()
    for one in (acme, other):
        await opened(one).conversation("s", user="ada").append(Message.human("x"))
    with acme.server.admin() as admin:
        ours = next(iter(admin.scan_iter("mt:{support.acme}:*:l")))
        theirs = next(iter(admin.scan_iter("mt:{support.other}:*:l")))
        admin.lset(ours, 0, admin.lindex(theirs, 0))
    with pytest.raises(RecordKeyMismatch):
        await texts(opened(acme), "s", "ada")


async def test_an_agent_that_the_tenant_does_not_list_is_refused_before_any_io(
    on_valkey: Provisioned, opened: Open
) -> None:
    on_valkey.policy = TenantPolicy(agents=("default", "other"))
    proxy = Proxy.to(on_valkey.server.host, on_valkey.server.port)
    with proxy:
        tenant = opened(on_valkey, port=proxy.port)
        with pytest.raises(AgentNotListed, match=r"no agent 'stranger', only default, other"):
            tenant.conversation("s", user="ada", agent="stranger")
        with pytest.raises(AgentNotListed, match=r"spec\.agents"):
            await tenant.agent_status(["default", "stranger"])
        assert proxy.connections == 0
        # Under Moderate and Minimal the scope is shared: whichever listed agent is named.
        await tenant.conversation("s", user="ada").append(Message.human("one"))
        chat = tenant.conversation("s", user="ada", agent="other")
        assert [one.text for one in await chat.messages()] == ["one"]
        on_valkey.policy = TenantPolicy(agents=("other",))
        on_valkey.bind(port=proxy.port, version=2)
        tenant._source.current(look=True)
        with pytest.raises(AgentNotListed, match="no agent 'default'"):
            tenant.conversation("s", user="ada")
