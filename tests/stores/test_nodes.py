"""Discovery: the primary, every replica, and what stands in the way of using them."""

import asyncio
from dataclasses import replace

import pytest

from memtenant.errors import StoreRefused, StoreUnavailable
from memtenant.rules.instance import DEFAULT_USER
from memtenant.stores import Address, Role
from memtenant.stores.connection import NodeClient
from memtenant.stores.topology import StoreNodes
from memtenant.stores.witness import StoreWitness
from tests.conftest import StartServer
from tests.stores.operators import (
    OPERATOR,
    OPERATOR_PASSWORD,
    denied,
    discovered,
    leading,
    looking_at,
    make_operator,
    settings_for,
)
from tests.support.servers import Flavour, Options, Server


async def test_a_server_describes_itself(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        facts = store.facts
    primary = facts.primary
    assert f"{primary.flavour.value.lower()}-{primary.version}".startswith(
        redis_server.flavour.value
    )
    assert primary.role is Role.PRIMARY
    assert primary.replicas == ()
    assert {"get", "acl|setuser", "fcall"} <= facts.commands
    assert primary.maxmemory_policy == "noeviction"
    assert (primary.append_only, primary.users_persist, facts.durable) == (False, False, False)
    assert primary.default_user_open is False


async def test_a_process_is_asked_for_its_commands_once(start_server: StartServer) -> None:
    """They are two thousand words, and a store is repaired every few seconds."""
    server = start_server(Flavour.VALKEY_9, Options(appendonly=True))

    def times_asked() -> int:
        with server.admin() as admin:
            stats = admin.info("commandstats")
        return int(stats.get("cmdstat_command|list", {"calls": 0})["calls"])

    async with leading(server) as store:
        before = times_asked()
        facts = await store.refresh()
        assert times_asked() == before
        server.restart()
        make_operator(server)
        with pytest.raises(StoreUnavailable):
            await store.refresh()  # over a connection to the former process
        assert (await store.refresh()).commands == facts.commands
        assert times_asked()


async def test_a_right_that_the_operator_lost_is_missed_at_the_next_look(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        await store.refresh()
        with redis_server.admin() as admin:
            admin.execute_command("ACL", "SETUSER", OPERATOR, "-unlink")
        for _ in range(2):
            with pytest.raises(StoreRefused, match="unlink"):
                await store.refresh()
        make_operator(redis_server)
        assert (await store.refresh()).primary.rights


async def test_durable_needs_an_append_only_file(start_server: StartServer) -> None:
    server = start_server(Flavour.REDIS_8, Options(appendonly=True, aclfile=True))
    async with leading(server) as store:
        assert store.facts.durable
        assert store.facts.users_persist


async def seen_as_durable(server: Server) -> bool:
    """What a report says of it."""
    witness = StoreWitness(settings_for(server))
    try:
        (node,), _ = await witness.nodes()
    finally:
        await witness.close()
    return node.durable


async def test_durable_is_what_a_restart_really_leaves(
    flavour: Flavour, start_server: StartServer
) -> None:
    """Redis reads its append-only file as the user `default`, whom nobody can be."""
    server = start_server(flavour, Options(appendonly=True, aclfile=True))
    write = "redis.call('RPUSH', KEYS[1], 'x') redis.call('RPUSH', KEYS[1], 'y')"
    for default in ("user default reset off", DEFAULT_USER):
        with server.admin() as admin:
            admin.execute_command("ACL", "SETUSER", *default.split()[1:])
            admin.execute_command("ACL", "SAVE")
            async with leading(server) as store:
                durable = store.facts.durable
                assert await seen_as_durable(server) == durable
                assert store.facts.primary.default_user_open is False
            admin.eval(write, 1, default)
        server.restart()
        with server.admin() as admin:
            assert admin.exists(default) == durable
    assert durable


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_store_that_evicts_is_told(start_server: StartServer, policy: str) -> None:
    options = Options(appendonly=True, config={"maxmemory-policy": policy})
    server = start_server(Flavour.VALKEY_9, options)
    async with leading(server) as store:
        assert store.facts.primary.evicts
        assert store.facts.primary.maxmemory_policy == policy
        assert not store.facts.durable


async def test_an_open_default_user_is_told(start_server: StartServer) -> None:
    server = start_server(Flavour.REDIS_7)
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*")
    async with leading(server) as store:
        assert store.facts.primary.default_user_open is True


async def test_every_replica_is_found_and_replicas_of_replicas(
    flavour: Flavour, start_server: StartServer
) -> None:
    primary = start_server(flavour)
    first = start_server(flavour, replica_of=primary)
    second = start_server(flavour, replica_of=primary)
    below = start_server(flavour, replica_of=first)
    async with leading(primary, first, second, below) as store:
        found = {node.address: node for node in store.facts.replicas}
    assert set(found) == {Address(each.host, each.port) for each in (first, second, below)}
    assert all(node.role is Role.REPLICA and node.link_up for node in found.values())


async def test_two_looks_at_once_let_go_of_nodes_that_left(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_operator(valkey)
    nodes = StoreNodes(settings_for(valkey))
    for port in (1, 2):
        nodes.client(Address("127.0.0.1", port))
    close = NodeClient.close

    async def close_slowly(client: NodeClient) -> None:
        await asyncio.sleep(0.01)
        await close(client)

    monkeypatch.setattr(NodeClient, "close", close_slowly)
    first, second = await asyncio.gather(nodes.discover(), nodes.discover())
    assert first.nodes == second.nodes
    await nodes.close()


async def test_a_replica_that_does_not_answer_hides_nothing_else(
    start_server: StartServer,
) -> None:
    primary = start_server(Flavour.VALKEY_9)
    well = start_server(Flavour.VALKEY_9, replica_of=primary)
    frozen = start_server(Flavour.VALKEY_9, replica_of=primary)
    make_operator(primary, well, frozen)
    frozen.freeze()
    hasty = replace(settings_for(primary), timeout=2.0, connect_timeout=2.0)
    async with looking_at(primary, settings=hasty) as store:
        facts = await discovered(store, 2)
        assert [node.address.port for node in facts.replicas] == [well.port]
        assert [address.port for address in facts.unreachable] == [frozen.port]
        names = await store.users.names()
        assert {address.port for address in names.results} == {primary.port, well.port}
        assert {address.port for address in names.failures} == {frozen.port}
        with pytest.raises(StoreUnavailable):
            names.require_all()
    frozen.thaw()


async def test_a_replica_without_the_operators_user_is_told(
    redis_replicated: tuple[Server, Server],
) -> None:
    primary, replica = redis_replicated
    make_operator(primary)
    async with looking_at(primary) as store:
        facts = await discovered(store, 1)
    (failure,) = facts.unreachable.values()
    assert (failure.reason, facts.replicas) == ("StoreWrongPassword", ())
    assert str(replica.port) in str(failure)


async def test_a_replica_as_endpoint_is_refused(redis_replicated: tuple[Server, Server]) -> None:
    make_operator(*redis_replicated)
    async with looking_at(redis_replicated[1]) as store:
        with pytest.raises(StoreUnavailable, match="is a replica") as failure:
            await store.discover()
    assert failure.value.reason == "NotPrimary"


async def test_everything_that_the_operator_lacks_is_named_at_once(redis_server: Server) -> None:
    make_operator(redis_server)
    with redis_server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", OPERATOR, "-acl|setuser", "-scan", "-unlink")
    async with looking_at(redis_server) as store:
        with pytest.raises(StoreRefused) as refusal:
            await store.discover()
    assert refusal.value.reason == "StorePermissionMissing"
    assert "acl|setuser, scan, unlink" in str(refusal.value)
    assert "memtenant store acl" in str(refusal.value)


async def test_a_user_without_any_permission_hears_what_to_do(redis_server: Server) -> None:
    make_operator(redis_server)
    with redis_server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", OPERATOR, "-@all")
    async with looking_at(redis_server) as store:
        with pytest.raises(StoreRefused, match="memtenant store acl") as refusal:
            await store.discover()
    assert refusal.value.reason == "StorePermissionMissing"


async def test_looking_for_permissions_changes_nothing(redis_server: Server) -> None:
    make_operator(redis_server)
    with redis_server.admin() as admin:
        before = sorted(admin.acl_users())
        async with looking_at(redis_server) as store:
            await store.discover()
        assert (admin.dbsize(), sorted(admin.acl_users())) == (0, before)
        assert admin.acl_log() == []


async def test_users_managed_elsewhere_are_told_apart(start_server: StartServer) -> None:
    server = start_server(Flavour.REDIS_7, Options(config={"rename-command": 'ACL ""'}))
    settings = replace(
        settings_for(server), username="admin", password=lambda: server.admin_password
    )
    async with looking_at(server, settings=settings) as store:
        with pytest.raises(StoreRefused) as refusal:
            await store.discover()
    assert refusal.value.reason == "ACLManagedElsewhere"


async def test_configuration_that_may_not_be_read_is_unknown(redis_server: Server) -> None:
    make_operator(redis_server)
    with redis_server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", OPERATOR, "-config|get")
    async with looking_at(redis_server) as store:
        facts = await store.discover()
    assert facts.primary.users_persist is None
    assert facts.users_persist is False


async def test_a_cluster_is_no_standalone_store(start_server: StartServer) -> None:
    server = start_server(Flavour.VALKEY_9, Options(config={"cluster-enabled": "yes"}))
    make_operator(server)
    async with looking_at(server) as store:
        with pytest.raises(StoreRefused) as refusal:
            await store.discover()
    assert refusal.value.reason == "StoreModeUnsupported"


async def test_the_operators_user_can_do_nothing_else(redis_server: Server) -> None:
    """Least privilege: outside `mt:*` and user management, everything is denied."""
    make_operator(redis_server)
    with redis_server.client(OPERATOR, OPERATOR_PASSWORD) as operator:
        for words in (
            ("GET", "somebody-elses"),
            ("SET", "somebody-elses", "x"),
            ("UNLINK", "somebody-elses"),
            ("MEMORY", "USAGE", "somebody-elses"),
            ("EVAL_RO", "return redis.call('GET', 'somebody-elses')", 1, "somebody-elses"),
            ("EVAL", "return 1", 0),
            ("FLUSHALL",),
            ("CONFIG", "SET", "maxmemory", "0"),
            ("ACL", "LIST"),
            ("ACL", "LOAD"),
            ("REPLICAOF", "NO", "ONE"),
            ("SHUTDOWN", "NOSAVE"),
            ("FUNCTION", "FLUSH"),
            ("KEYS", "*"),
            ("MONITOR",),
        ):
            assert denied(operator, *words), words
