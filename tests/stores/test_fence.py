"""Two leaders, one store: at every moment at most one of them can write to a node."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from redis.exceptions import NoPermissionError

from memtenant.clock import system_clock
from memtenant.errors import FencedOut, StoreRefused, StoreUnavailable
from memtenant.functions.versions import function_prefix
from memtenant.stores import Address, Pace, StateChange, StoreAdmin
from memtenant.stores.connection import EpochPlace, NodeClient
from memtenant.stores.fence import Term, raise_epoch, run_fenced
from memtenant.stores.owner import claim
from memtenant.tenancy.keys import STORE_EPOCH, STORE_OWNER, prefix
from tests.conftest import StartServer
from tests.stores.operators import (
    ACME,
    INSTALLATION,
    PASSWORD,
    agent,
    discovered,
    leading,
    looking_at,
    make_operator,
    many_agents,
    next_term,
    settings_for,
    usernames,
)
from tests.support.relay import Proxy
from tests.support.servers import Flavour, Server


@contextlib.asynccontextmanager
async def clients_of(servers: Sequence[Server]):  # type: ignore[no-untyped-def]
    made = [NodeClient(settings_for(each).endpoint, settings_for(each)) for each in servers]
    try:
        yield made
    finally:
        for client in made:
            await client.close()


async def test_a_former_leader_writes_nothing_anywhere(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as former, looking_at(redis_replicated[0]) as now:
        users = many_agents(former, 3)
        await former.users.set(users[:1])
        await discovered(now, 1)
        await now.lead()
        await now.users.set(users[1:2])
        with redis_replicated[0].admin() as admin:
            admin.set(f"{prefix(ACME)}r:key", "x")
        with pytest.raises(FencedOut, match="nothing was written"):
            await former.users.set(users[2:])
        with pytest.raises(FencedOut):
            await former.users.drop([users[0].name])
        with pytest.raises(FencedOut):
            await former.users.kill([users[0].name])
        with pytest.raises(FencedOut):
            await former.write_states({ACME: StateChange({"a": "b"})})
        with pytest.raises(FencedOut):
            await former.purge([ACME])
        with pytest.raises(FencedOut):
            await former.lead()
    for server in redis_replicated:
        with server.admin() as admin:
            assert admin.exists(f"{prefix(ACME)}r:key")
        found = [name for name in usernames(server) if name.startswith("mt.")]
        assert found == [users[0].name, users[1].name]


async def test_a_transaction_that_was_under_way_at_the_change_aborts_on_every_node(
    redis_replicated: tuple[Server, Server],
) -> None:
    """The former leader is frozen after it read the epoch and before it writes."""
    make_operator(*redis_replicated)
    async with leading(*redis_replicated) as now, clients_of(redis_replicated) as clients:
        for client in clients:
            async with client.session() as frozen:
                epoch = (await frozen.run([("WATCH", STORE_EPOCH), ("GET", STORE_EPOCH)]))[1]
                assert epoch is not None or client is clients[1]
                later = Term(next_term(), INSTALLATION)
                await raise_epoch(clients[0], later)
                await run_fenced(clients[1], later, [("ACL", "SETUSER", "mt.a.b.c.a")])
                thawed = await frozen.run(
                    [("MULTI",), ("ACL", "SETUSER", "mt.frozen.leader.x.a"), ("EXEC",)]
                )
                assert thawed[-1] is None
        assert now.facts.replicas
    for server in redis_replicated:
        assert "mt.frozen.leader.x.a" not in usernames(server)


@pytest.mark.parametrize("node", [0, 1], ids=["primary", "replica"])
async def test_a_change_of_leader_between_the_look_and_the_write_aborts_the_write(
    redis_replicated: tuple[Server, Server], node: int
) -> None:
    """A slow line stretches the moment between GET's answer and EXEC's arrival."""
    target = redis_replicated[node]
    async with leading(*redis_replicated), clients_of(redis_replicated) as clients:
        former = Term.parse(await clients[0].call("GET", STORE_EPOCH))
        later = Term(next_term(), INSTALLATION)
        assert former is not None
        with Proxy.to(target.host, target.port) as proxy:
            slow = replace(settings_for(target), endpoint=Address(proxy.host, proxy.port))
            client = NodeClient(slow.endpoint, slow)
            await client.call("PING")
            with target.admin() as admin:
                admin.config_resetstat()
                proxy.delay(1.0)
                writing = asyncio.create_task(
                    run_fenced(client, former, [("ACL", "SETUSER", "mt.frozen.leader.x.a")])
                )
                while "cmdstat_watch" not in admin.info("commandstats"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                proxy.freeze()
                proxy.delay(0)
            await raise_epoch(clients[0], later)
            await run_fenced(clients[node], later, [("ACL", "SETUSER", "mt.a.b.c.a")])
            assert not writing.done()
            proxy.thaw()
            with pytest.raises(FencedOut):
                await writing
            await client.close()
    assert "mt.frozen.leader.x.a" not in usernames(target)


async def test_a_batch_that_stalls_on_its_way_is_fenced_when_it_arrives(valkey: Server) -> None:
    make_operator(valkey)
    with Proxy.to(valkey.host, valkey.port) as proxy:
        slow = replace(settings_for(valkey), endpoint=Address(proxy.host, proxy.port))
        async with (
            looking_at(valkey, settings=slow) as former,
            looking_at(valkey) as now,
        ):
            await former.discover()
            await former.lead()
            users = many_agents(former, 500)
            writing = asyncio.create_task(former.users.set(users))
            while "mt.many.t0.default.a" not in usernames(valkey):  # noqa: ASYNC110 - a server
                await asyncio.sleep(0)
            proxy.freeze()
            await now.discover()
            await now.lead()
            await now.users.set([agent(now)])
            at_the_change = usernames(valkey)
            proxy.thaw()
            with contextlib.suppress(FencedOut):
                await writing
    assert usernames(valkey) == at_the_change


async def test_a_new_leader_waits_for_its_term_on_a_lagging_replica(
    start_server: StartServer,
) -> None:
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    async with leading(primary, replica) as former:
        await former.users.set([agent(former)])
    with replica.admin() as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    number = next_term()
    make_operator(primary, replica)
    term = Term(number, INSTALLATION)
    async with clients_of([primary, replica]) as (to_primary, to_replica):
        await raise_epoch(to_primary, term)
        command = ("ACL", "SETUSER", "mt.a.b.c.a")
        await run_fenced(to_primary, term, [command])
        with pytest.raises(StoreUnavailable) as failure:
            await run_fenced(to_replica, term, [command], patience=0.1)
        assert failure.value.reason == "EpochBehind"
        assert "mt.a.b.c.a" not in usernames(replica)
        waiting = asyncio.create_task(run_fenced(to_replica, term, [command], patience=30))
        await asyncio.to_thread(replica.follow, primary)
        await waiting
    assert "mt.a.b.c.a" in usernames(replica)


async def test_terms_only_grow(redis_server: Server) -> None:
    make_operator(redis_server)
    async with clients_of([redis_server]) as (client,):
        await claim(client, INSTALLATION, system_clock.now())
        await raise_epoch(client, Term(7, INSTALLATION))
        await raise_epoch(client, Term(7, INSTALLATION))
        with pytest.raises(FencedOut):
            await raise_epoch(client, Term(6, INSTALLATION))
        await raise_epoch(client, Term(8, INSTALLATION))
        assert await client.call("GET", STORE_EPOCH) == f"8 {INSTALLATION}".encode()


async def test_who_does_not_lead_does_not_even_connect(valkey: Server) -> None:
    def not_leading() -> int:
        raise FencedOut("another replica holds the Lease")

    make_operator(valkey)
    async with StoreAdmin(
        settings_for(valkey), installation=INSTALLATION, fence=not_leading, pace=Pace(1.0)
    ) as store:
        await store.discover()
        for write in (store.lead(), store.users.set([]), store.purge([ACME]), store.release()):
            with pytest.raises(FencedOut):
                await write
    with valkey.admin() as admin:
        assert admin.dbsize() == 0


async def test_a_refused_command_writes_nothing_of_its_batch(redis_server: Server) -> None:
    make_operator(redis_server)
    async with leading(redis_server), clients_of([redis_server]) as (client,):
        stored = Term.parse(await client.call("GET", STORE_EPOCH))
        assert stored is not None
        with pytest.raises(StoreRefused):
            await run_fenced(client, stored, [("HSET", "mt:x", "a", "b"), ("FLUSHALL",)])
        assert await client.call("HGETALL", "mt:x") == []


async def test_a_store_that_lost_its_data_is_led_again_before_anything_is_written(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        user = agent(store)
        with redis_server.admin() as admin:
            admin.flushall()
        failure = (await store.users.set([user])).failures
        assert [error.reason for error in failure.values()] == ["EpochBehind"]
        await store.lead()
        (await store.users.set([user])).require_all()


async def test_the_first_installation_owns_a_store(redis_server: Server) -> None:
    make_operator(redis_server)
    async with (
        looking_at(redis_server) as first,
        StoreAdmin(settings_for(redis_server), installation="another", fence=lambda: 1) as second,
    ):
        assert await first.owner() is None
        record = await first.lead()
        assert record == await first.lead() == await second.owner()
        term = await first.stored_term()
        with pytest.raises(StoreRefused, match=INSTALLATION) as refusal:
            await second.lead()
        assert refusal.value.reason == "StoreOwnedElsewhere"
        assert await second.release() is False
        assert await first.stored_term() == term
        assert await first.release() is True
        # The new owner counts its terms from 1, whatever the old one had come to.
        assert (await second.lead()).installation == "another"
        assert str(await second.stored_term()) == "1 another"


@contextlib.contextmanager
def full(server: Server):  # type: ignore[no-untyped-def]
    """The server without any room."""
    with server.admin() as admin:
        admin.config_set("maxmemory", "1")
        try:
            yield admin
        finally:
            admin.config_set("maxmemory", "0")


async def test_a_store_that_is_full_stays_its_owners(valkey: Server) -> None:
    async with leading(valkey) as store:
        with full(valkey):
            assert await store.lead()


@pytest.mark.parametrize("flavour", [Flavour.VALKEY_9, Flavour.REDIS_8])
async def test_a_new_leader_takes_over_a_full_store_and_removes_what_expired(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as former:
        await former.load_functions()
        key = f"{prefix(ACME)}r:_:old:l"
        with redis_server.admin() as admin:
            admin.rpush(key, "x")
        with full(redis_server) as admin:
            async with leading(redis_server) as store:
                with pytest.raises(FencedOut):
                    await former.purge([ACME])
                await store.purge([ACME])
            assert not admin.exists(key)


@pytest.mark.parametrize("flavour", [Flavour.REDIS_7])
async def test_a_full_redis_7_queues_nothing_and_is_told_as_full(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        await store.load_functions()
        with full(redis_server), pytest.raises(StoreRefused) as refusal:
            await store.discover()
    assert refusal.value.reason == "StoreFull"


async def test_a_full_store_without_the_function_says_that_it_is_full(valkey: Server) -> None:
    async with leading(valkey):
        with full(valkey), pytest.raises(StoreRefused) as refusal:
            async with leading(valkey):
                pass
    assert refusal.value.reason == "StoreFull"


async def test_no_agent_writes_the_term_by_the_function(valkey: Server) -> None:
    async with leading(valkey) as store:
        await store.load_functions()
        user = agent(store)
        await store.users.set([user])
        before = await store.stored_term()
        with valkey.client(user.name, PASSWORD) as client, pytest.raises(NoPermissionError):
            client.fcall(f"{function_prefix()}lead", 1, STORE_EPOCH, "99 another")
        assert await store.stored_term() == before


async def test_a_term_that_a_former_owner_left_behind_fences_nobody(valkey: Server) -> None:
    async with leading(valkey), clients_of([valkey]) as (client,):
        await client.call("DEL", STORE_OWNER)
        async with StoreAdmin(
            settings_for(valkey), installation="another", fence=lambda: 1
        ) as other:
            await other.lead()
            assert str(await other.stored_term()) == "1 another"


async def test_what_changed_meanwhile_is_left_alone_also_where_the_term_stands_elsewhere(
    start_server: StartServer,
) -> None:
    """A node of a Cluster that had no slots when it was looked at last, and has some now."""
    servers = [start_server(Flavour.VALKEY_9) for _ in range(2)]
    make_operator(*servers)
    name, term = f"{prefix(ACME)}k:s", Term(next_term(), INSTALLATION)
    with servers[1].admin() as admin:
        admin.hset(name, mapping={"dek": "old", "other": "new"})
    async with clients_of(servers) as (leads, node):
        await claim(leads, INSTALLATION, system_clock.now())
        await raise_epoch(leads, term)
        node.epoch = EpochPlace(elsewhere=leads)
        replies = await run_fenced(
            node,
            term,
            [("HSET", name, "dek", "newer"), ("HSET", name, "other", "newer")],
            unchanged=[(name, "dek", b"old"), (name, "other", b"old")],
        )
    assert replies == [0, None]
    with servers[1].admin() as admin:
        assert admin.hgetall(name) == {b"dek": b"newer", b"other": b"new"}
