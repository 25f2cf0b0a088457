"""ACL users on every node: made, kept, put back, revoked; nobody else's are touched."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
import redis

from memtenant.errors import MemtenantError
from memtenant.rules.acl import AccessState
from memtenant.stores import Address, Saved, StateChange, TenantState
from memtenant.stores.acl import BATCH
from tests.conftest import StartServer
from tests.stores.operators import (
    ACME,
    GLOBEX,
    PASSWORD,
    agent,
    denied,
    leading,
    looking_at,
    make_operator,
    many_agents,
    settings_for,
    usernames,
)
from tests.support.relay import Proxy
from tests.support.servers import Flavour, Options, Server

OWN_KEY = "mt:{support.acme}:r:key"


def may_use(server: Server, name: str) -> bool:
    """Whether the agent can log in and read."""
    with server.client(name, PASSWORD) as client:
        try:
            return client.get(OWN_KEY) is None
        except redis.exceptions.AuthenticationError:
            return False


async def test_users_are_made_on_the_primary_and_on_every_replica(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        users = [agent(store), agent(store, GLOBEX)]
        made = (await store.users.set(users)).require_all()
        assert [outcome.count for outcome in made.values()] == [2, 2]
        assert not any((await store.users.differing(users)).require_all().values())
    assert all(may_use(server, users[0].name) for server in redis_replicated)


async def test_setting_a_user_again_keeps_its_connections(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        user = agent(store)
        await store.users.set([user])
        with redis_replicated[0].client(user.name, PASSWORD) as client:
            connection = client.connection_pool.get_connection()
            await store.users.set([user])
            connection.send_command("ACL", "WHOAMI")
            assert connection.read_response() == user.name.encode()
            client.connection_pool.release(connection)


async def test_a_restart_without_an_aclfile_loses_users_and_they_are_put_back(
    flavour: Flavour, start_server: StartServer
) -> None:
    server = start_server(flavour)
    async with leading(server) as store:
        user = agent(store)
        await store.users.set([user])
        assert (await store.users.save()).require_all() == {
            Address(server.host, server.port): Saved.NO_ACLFILE
        }
        before = store.facts.primary.run_id
        server.restart()
        make_operator(server)
        with contextlib.suppress(MemtenantError):
            await store.discover()
        assert (await store.discover()).primary.run_id != before
        await store.lead()
        (found,) = (await store.users.differing([user])).require_all().values()
        assert found == {user.name: ("user is missing",)}
        await store.users.set([user])
    assert may_use(server, user.name)


async def test_users_survive_a_restart_with_an_aclfile(
    flavour: Flavour, start_server: StartServer
) -> None:
    server = start_server(flavour, Options(aclfile=True))
    async with leading(server) as store:
        user = agent(store)
        await store.users.set([user])
        saved = (await store.users.save()).require_all()
        assert list(saved.values()) == [Saved.SAVED]
    server.restart()
    assert may_use(server, user.name)
    async with looking_at(server) as store:
        await store.discover()
        assert list((await store.users.differing([user])).require_all().values()) == [{}]


async def test_a_promoted_replica_lets_the_agents_in_at_once(
    flavour: Flavour, start_server: StartServer
) -> None:
    primary = start_server(flavour)
    replica = start_server(flavour, replica_of=primary)
    async with leading(primary, replica) as store:
        user = agent(store)
        await store.users.set([user])
    primary.kill9()
    replica.promote()
    with replica.client(user.name, PASSWORD) as client:
        assert client.set(OWN_KEY, "written after the failover")
    async with leading(replica) as store:
        assert (await store.users.differing([user])).complete


async def test_users_that_others_made_are_neither_told_nor_touched(
    redis_server: Server,
) -> None:
    foreign = ["app", "mt", "mt.", "mt.support", "mt.support.acme.default", "mt.a.b.c.z"]
    async with leading(redis_server) as store:
        with redis_server.admin() as admin:
            for name in foreign:
                admin.execute_command("ACL", "SETUSER", name, "on", ">secret", "+get", "~app:*")
            before = {name: admin.acl_getuser(name) for name in foreign}
            user = agent(store)
            await store.users.set([user])
            assert list((await store.users.names()).require_all().values()) == [{user.name}]
            for name in foreign:
                for write in (store.users.drop([name]), store.users.kill([name])):
                    with pytest.raises(ValueError, match="not a user that memtenant made"):
                        await write
            with pytest.raises(ValueError, match="not a user that memtenant made"):
                await store.users.set([replace(user, name="app")])
            await store.users.drop([user.name])
            assert {name: admin.acl_getuser(name) for name in foreign} == before


async def test_a_user_that_somebody_edited_is_seen_and_put_right(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        user = agent(store)
        await store.users.set([user])
        with redis_replicated[1].admin() as admin:
            admin.execute_command("ACL", "SETUSER", user.name, "+scan", "~*", ">another")
        found = (await store.users.differing([user])).require_all()
        on_replica = found[Address(redis_replicated[1].host, redis_replicated[1].port)]
        assert list(on_replica) == [user.name]
        assert any("1 password(s)" in text for text in on_replica[user.name])
        assert any("+scan" in text and "~*" in text for text in on_replica[user.name])
        await store.users.set([user])
        assert not any((await store.users.differing([user])).require_all().values())


async def test_a_revoked_user_is_gone_with_its_connections_on_every_node(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        user, other = agent(store), agent(store, name="other")
        await store.users.set([user, other])
        clients = [server.client(user.name, PASSWORD) for server in redis_replicated]
        for client in clients:
            client.ping()
        dropped = await store.users.drop([user.name])
        assert list(dropped.require_all().values()) == [1, 1]
        for client in clients:
            with pytest.raises(redis.exceptions.ConnectionError):
                client.ping()
            client.close()
        assert not may_use(redis_replicated[0], user.name)
        assert may_use(redis_replicated[0], other.name)
        # Revoking again, and revoking who never was, is no error and leaves nothing behind.
        assert list((await store.users.drop([user.name])).require_all().values()) == [1, 1]
    assert user.name not in usernames(redis_replicated[0])


async def test_who_is_connected_to_any_node_is_not_idle(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        users = [agent(store, name=name) for name in ("one", "two", "three")]
        names = [user.name for user in users]
        await store.users.set(users)
        assert await store.users.idle(names) == set(names)
        with (
            redis_replicated[0].client(names[0], PASSWORD) as one,
            redis_replicated[1].client(names[1], PASSWORD) as two,
        ):
            one.ping()
            two.ping()
            assert await store.users.idle(names) == {names[2]}
            killed = (await store.users.kill(names)).require_all()
            assert sorted(killed.values()) == [1, 1]
            assert await store.users.idle(names) == set(names)


async def test_nobody_is_idle_while_a_node_does_not_tell(start_server: StartServer) -> None:
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    hasty = replace(settings_for(primary), timeout=2.0, connect_timeout=2.0)
    async with leading(primary, replica, settings=hasty) as store:
        user = agent(store)
        await store.users.set([user])
        replica.freeze()
        assert await store.users.idle([user.name]) == frozenset()
        outcome = await store.users.set([user])
        assert [address.port for address in outcome.results] == [primary.port]
        assert [address.port for address in outcome.failures] == [replica.port]
        replica.thaw()


async def test_a_connection_cut_in_the_middle_leaves_whole_users_and_the_rest_to_the_next_try(
    redis_server: Server,
) -> None:
    make_operator(redis_server)
    with Proxy.to(redis_server.host, redis_server.port) as proxy:
        through = replace(settings_for(redis_server), endpoint=Address(proxy.host, proxy.port))
        async with looking_at(redis_server, settings=through) as store:
            await store.discover()
            await store.lead()
            users = many_agents(store, 10 * BATCH)
            proxy.delay(0.1)
            setting = asyncio.create_task(store.users.set(users))
            while users[0].name not in usernames(redis_server):  # noqa: ASYNC110 - a server
                await asyncio.sleep(0)
            proxy.cut()
            outcome = await setting
            assert [error.retryable for error in outcome.failures.values()] == [True]
            proxy.delay(0)
            there = set(usernames(redis_server))
            made = [user for user in users if user.name in there]
            assert 0 < len(made) < len(users)
            assert list((await store.users.differing(made)).require_all().values()) == [{}]
            assert [done.count for done in (await store.users.set(users)).results.values()] == [
                len(users)
            ]


async def test_one_user_that_the_server_refuses_does_not_stop_the_others(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        good, bad = agent(store), agent(store, GLOBEX)
        broken = replace(bad, rules=(*bad.rules, "+nosuchcommand"))
        (outcome,) = (await store.users.set([broken, good])).require_all().values()
        assert outcome.count == 1
        assert list(outcome.refused) == [bad.name]
        assert "nosuchcommand" in outcome.refused[bad.name]
    assert bad.name not in usernames(redis_server)


async def test_a_flooded_tenants_user_is_off_and_its_connection_ends(
    redis_replicated: tuple[Server, Server],
) -> None:
    async with leading(*redis_replicated) as store:
        user = agent(store)
        await store.users.set([user])
        with redis_replicated[0].client(user.name, PASSWORD) as client:
            client.rpush("mt:{support.acme}:q", "event")
            await store.users.set([agent(store, state=AccessState(off=True))])
            # Off is for new logins; without any command the open connection does nothing.
            assert denied(client, "RPUSH", "mt:{support.acme}:q", "event")
            await store.users.kill([user.name])
            with pytest.raises(redis.exceptions.ConnectionError):
                client.ping()
        assert not may_use(redis_replicated[1], user.name)
        await store.users.set([user])
    assert may_use(redis_replicated[1], user.name)


async def test_the_state_of_tenants_is_written_as_asked_and_read_back(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        await store.write_states(
            {
                ACME: StateChange({"quota": "1", "cutoff": "2"}, {"mode": "Held"}),
                GLOBEX: StateChange({"quota": "9"}),
            }
        )
        await store.write_states({ACME: StateChange({"quota": None, "cutoff": "3"})})
        assert await store.read_states([ACME, GLOBEX]) == {
            ACME: TenantState({"cutoff": "3"}, {"mode": "Held"}),
            GLOBEX: TenantState({"quota": "9"}, {}),
        }
        await store.remove_states([ACME])
        assert await store.read_states([ACME]) == {ACME: TenantState()}
