"""A proof finds what is wrong, says what it could not find out, and leaves nothing behind."""

import dataclasses

import pytest

from memtenant.errors import NotProven
from memtenant.rules.acl import AccessState, AclUser, AgentAccess, render_user
from memtenant.stores import StoreAdmin, matrix
from memtenant.stores.arguments import describe_commands
from memtenant.stores.connection import NodeClient
from memtenant.tenancy import keys
from tests.stores.operators import (
    ACME,
    GLOBEX,
    PASSWORD,
    agent,
    leading,
    settings_for,
    usernames,
)
from tests.support.servers import Server

OVER = AccessState(over_quota=True)
HELD = AccessState(held=True)


async def test_the_matrix_holds_for_every_command_in_every_state(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        before = [usernames(server) for server in redis_replicated]
        proof = await store.prove_matrix()
        assert (proof.leaks, proof.not_proven) == ((), ())
        assert proof.holds
        assert redis_replicated[0].version in proof.server
        # Ten renderings, each asked about every command that can be called.
        assert proof.checked > proof.denied > 10 * (len(store.facts.commands) - 100)
        assert await store.prove_matrix() == proof
        assert [usernames(server) for server in redis_replicated] == before
    with redis_replicated[0].admin() as admin:
        assert admin.dbsize() == 2


async def test_the_matrix_tells_the_agents_of_a_strict_tenant_apart(redis_server: Server) -> None:
    async with leading(redis_server, own_keys=True) as store:
        proof = await store.prove_matrix()
        assert (proof.leaks, proof.not_proven) == ((), ())
        # Any name that an agent may have, that of the proof's own stand-ins too.
        own, odd, wide = (
            agent(store, name=name, own_keys=name != "wide")
            for name in ("own", "memtenant-proof", "wide")
        )
        await store.users.set([own, odd, wide])
        assert await store.users.prove([own, odd]) == ()
        assert any(
            "GET" in words and "allowed" in words for words in await store.users.prove([wide])
        )
        await store.users.probe(own.name, PASSWORD)
        with pytest.raises(NotProven, match="is allowed"):
            await store.users.probe(wide.name, PASSWORD)


@pytest.mark.parametrize(
    ("rule", "leak"),
    [
        ("~*", "foreign"),
        ("+scan", "scan"),
        ("+dbsize", "dbsize"),
        ("+select", "SELECT 1"),
        ("+client|tracking", "client|tracking"),
        ("(+get ~mt:*)", "get mt:{memtenant-proof.own2}"),
        ("(+hset ~mt:{memtenant-proof.own}:o:limits)", "o:limits"),
        ("(+lrange ~mt:{memtenant-proof.own}:q)", "queue"),
        ("(+del ~mt:{memtenant-proof.own}:k:*)", "dek"),
        ("(+lset ~mt:{memtenant-proof.own}:r:*)", "ReadOnly, Held"),
        ("(+rename ~mt:{memtenant-proof.own*)", "mixed"),
    ],
)
async def test_the_matrix_finds_each_hole_in_the_rules(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, rule: str, leak: str
) -> None:
    def holey(*args: object, **more: object) -> AclUser:
        user = render_user(*args, **more)  # type: ignore[arg-type]
        return dataclasses.replace(user, rules=(*user.rules, rule))

    monkeypatch.setattr(matrix, "render_user", holey)
    async with leading(valkey) as store:
        proof = await store.prove_matrix()
    assert not proof.holds
    assert any(leak in text for text in proof.leaks), proof.leaks[:10]


async def test_a_server_that_denies_everything_proves_nothing(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mute(*args: object, **more: object) -> AclUser:
        return dataclasses.replace(render_user(*args, **more), rules=("-@all",))  # type: ignore[arg-type]

    monkeypatch.setattr(matrix, "render_user", mute)
    async with leading(valkey) as store:
        proof = await store.prove_matrix()
    assert proof.leaks == ()
    assert any("every agent needs it" in text for text in proof.not_proven)


async def test_calls_are_built_as_the_server_understands_them(redis_server: Server) -> None:
    settings = settings_for(redis_server)
    async with leading(redis_server):
        node = NodeClient(settings.endpoint, settings)
        wanted = ["get", "mset", "eval", "client|kill", "georadius", "xread", "copy", "zunionstore"]
        found = await describe_commands(node, wanted)
        await node.close()
    calls = {
        name: [form.call([f"k{n}" for n in range(form.places)]) for form in command.forms]
        for name, command in found.items()
    }
    assert calls["get"] == [("get", "k0")]
    assert calls["mset"] == [("mset", "k0", "x"), ("mset", "k0", "x", "k1", "x")]
    assert ("eval", "x", "1", "k0") in calls["eval"]
    assert ("eval", "x", "2", "k0", "k1") in calls["eval"]
    assert ("georadius", "k0", "1", "1", "1", "M", "STORE", "k1") in calls["georadius"]
    assert ("copy", "k0", "k1") in calls["copy"]
    assert ("zunionstore", "k0", "2", "k1", "k2") in calls["zunionstore"]
    assert all(call[:2] == ("client", "kill") and len(call) >= 3 for call in calls["client|kill"])


async def test_users_as_they_should_be_are_proven_in_every_state(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        users = [
            agent(store, tenant, access=access, state=state)
            for tenant, access, state in (
                (ACME, AgentAccess.READ_WRITE, AccessState()),
                (GLOBEX, AgentAccess.READ_ONLY, HELD),
            )
        ]
        users += [
            agent(store, name=f"agent-{number}", state=state)
            for number, state in enumerate((OVER, HELD, AccessState(off=True)))
        ]
        await store.users.set(users)
        assert await store.users.prove(users) == ()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (("+scan",), "SCAN 0 is allowed"),
        (("~*",), "is allowed"),
        (("resetkeys",), "is denied"),
        (("off",), "user is off"),
        (("nopass",), "needs no password"),
    ],
)
async def test_one_edited_node_fails_the_proof(
    redis_replicated: tuple[Server, Server], edit: tuple[str, ...], words: str
) -> None:
    async with leading(*redis_replicated) as store:
        user = agent(store)
        await store.users.set([user])
        with redis_replicated[1].admin() as admin:
            admin.execute_command("ACL", "SETUSER", user.name, *edit)
        failures = await store.users.prove([user])
    assert any(words in text for text in failures), failures
    assert all(redis_replicated[1].endpoint in text for text in failures)


@pytest.mark.parametrize(
    ("access", "state"),
    [
        (AgentAccess.READ_WRITE, AccessState()),
        (AgentAccess.READ_ONLY, AccessState()),
        (AgentAccess.READ_WRITE, OVER),
        (AgentAccess.READ_WRITE, HELD),
        (AgentAccess.READ_WRITE, AccessState(over_quota=True, held=True)),
        (AgentAccess.READ_WRITE, AccessState(off=True)),
    ],
    ids=["normal", "reader", "over", "held", "held-over", "off"],
)
async def test_a_probe_with_the_tenants_own_credentials_leaves_nothing_behind(
    redis_replicated: tuple[Server, Server], access: AgentAccess, state: AccessState
) -> None:
    async with leading(*redis_replicated) as store:
        user = agent(store, access=access, state=state)
        await store.users.set([user])
        with redis_replicated[0].admin() as admin:
            admin.rpush(keys.audit_queue(ACME), "event")
            before = {name: admin.dump(name) for name in admin.scan_iter("*")}
            await store.users.probe(user.name, PASSWORD)
            assert {name: admin.dump(name) for name in admin.scan_iter("*")} == before
        assert await store.users.idle([user.name]) == {user.name}


async def probe_failure(store: StoreAdmin, user: AclUser) -> str:
    with pytest.raises(NotProven) as failure:
        await store.users.probe(user.name, PASSWORD)
    assert failure.value.retryable
    return str(failure.value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("~*", "GET mt:{memtenant-proof.neighbour}:r:probe is allowed"),
        ("+scan", "SCAN 0 is allowed"),
        ("(+hset ~mt:*:o:limits)", "HSET mt:{support.acme}:o:limits is allowed"),
        ("(+hget ~mt:*:o:access)", "HGET mt:{support.acme}:o:access is allowed"),
        ("clearselectors", "HGET mt:{support.acme}:o:limits is denied"),
    ],
)
async def test_a_probe_hears_what_should_be_denied(
    redis_replicated: tuple[Server, Server], edit: str, words: str
) -> None:
    async with leading(*redis_replicated) as store:
        user = agent(store)
        await store.users.set([user])
        with redis_replicated[1].admin() as admin:
            admin.execute_command("ACL", "SETUSER", user.name, edit)
        assert words in await probe_failure(store, user)


async def test_a_probe_needs_the_password_and_the_users_name(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        user = agent(store)
        await store.users.set([user])
        with pytest.raises(NotProven, match="cannot log in with its password"):
            await store.users.probe(user.name, "another")
        with pytest.raises(NotProven, match="not a user that memtenant made"):
            await store.users.probe("admin", PASSWORD)
