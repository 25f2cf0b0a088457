"""The Functions on a store: loaded once, put back, replicated; nobody else's are touched."""

import re

import pytest
import redis

from memtenant.errors import FencedOut, StoreRefused
from memtenant.functions.library import libraries
from memtenant.stores.admin_acl import admin_rules
from memtenant.stores.functions import loaded_functions
from tests.conftest import StartServer
from tests.functions.tenants import LIMITS, Agent, Lane
from tests.stores.operators import ACME, PASSWORD, agent, leading, looking_at, next_term
from tests.support import servers
from tests.support.servers import Flavour, Options, Server

SOMEBODY_ELSES = "#!lua name=mylib\nredis.register_function('theirs', function() return 1 end)\n"
OLD = "#!lua name=memtenant_0\nredis.register_function('mt0_append', function() return 1 end)\n"
NEWER = "#!lua name=memtenant_9\nredis.register_function('mt9_append', function() return 1 end)\n"
CHANGED = "#!lua name=memtenant_2\nredis.register_function('mt2_append', function() return 1 end)\n"
BOTH = ("memtenant_2", "memtenant_1")


def names(server: Server) -> set[str]:
    with server.admin() as admin:
        return {servers._library_name(library) for library in admin.function_list()}


def test_the_operators_user_may_run_every_command_that_the_functions_run() -> None:
    """It erases and expires by them, and inner calls are judged by the caller's rules."""
    code = "".join(library.code for library in libraries())
    calls = r"(?:redis\.p?call\(|must\(call, |reading\('[a-z]+', )'([A-Z]+)'"
    run = {command.lower() for command in re.findall(calls, code)}
    assert {"rpush", "hget", "time", "hincrby"} <= run
    assert {f"+{command}" for command in run} <= set(admin_rules())


async def test_loading_again_writes_nothing(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        assert (await store.load_functions()).loaded == BOTH
        with redis_server.admin() as admin:
            before = admin.info("replication")["master_repl_offset"]
            assert not (await store.load_functions()).changed
            assert admin.info("replication")["master_repl_offset"] == before


async def test_what_was_changed_or_removed_is_put_back_and_old_versions_of_ours_go(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        await store.load_functions()
        with redis_server.admin() as admin:
            for code in (CHANGED, OLD, NEWER, SOMEBODY_ELSES):
                admin.function_load(code, replace=True)
        done = await store.load_functions()
        assert (done.loaded, done.removed) == (("memtenant_2",), ("memtenant_0",))
        assert names(redis_server) == {*BOTH, "memtenant_9", "mylib"}
        with redis_server.admin() as admin:
            admin.function_delete("memtenant_1")
        assert (await store.load_functions()).loaded == ("memtenant_1",)


async def test_a_library_of_somebody_else_in_the_way_is_named(redis_server: Server) -> None:
    taken = SOMEBODY_ELSES.replace("theirs", "mt2_append")
    async with leading(redis_server) as store:
        with redis_server.admin() as admin:
            admin.function_load(taken)
        with pytest.raises(StoreRefused, match="mt2_append") as refused:
            await store.load_functions()
        assert refused.value.reason == "FunctionsNotLoaded"
        assert names(redis_server) == {"mylib", "memtenant_1"}  # agents of that version go on


async def test_replicas_hold_them_and_serve_them_after_a_promotion(
    flavour: Flavour, start_server: StartServer
) -> None:
    primary = start_server(flavour, Options())
    replica = start_server(flavour, Options(), replica_of=primary)
    async with leading(primary, replica) as store:
        await store.load_functions()
        user = agent(store)
        (await store.users.set([user])).require_all()
    with primary.admin() as admin:
        admin.hset("mt:{support.acme}:o:limits", mapping=dict(LIMITS))
        assert admin.wait(1, 60_000) == 1
    primary.kill9()
    replica.promote()
    assert names(replica) == set(BOTH)
    with Agent(replica, user.name) as own:
        assert own.append(Lane().append()).last == 1


async def test_a_restart_keeps_them_where_the_store_is_durable(
    flavour: Flavour, start_server: StartServer
) -> None:
    server = start_server(flavour, Options(appendonly=True, aclfile=True))
    async with leading(server) as store:
        await store.load_functions()
        await store.users.save()
    server.restart()
    async with looking_at(server) as store:
        await store.discover()
        await store.lead()
        assert not (await store.load_functions()).changed


async def test_a_former_leader_loads_nothing(redis_server: Server) -> None:
    old = next_term()
    async with leading(redis_server), looking_at(redis_server, term=old) as former:
        await former.discover()
        with pytest.raises(FencedOut):
            await former.load_functions()
    assert names(redis_server) == set()


async def test_the_operators_user_reads_digests_and_not_more(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        await store.load_functions()
        node = store._nodes.client(store.facts.primary.address)
        assert await loaded_functions(node) == {one.name: one.digest for one in libraries()}
        (await store.users.set([agent(store)])).require_all()
    with redis_server.client(f"mt.{ACME}.default.a", PASSWORD) as client:
        for words in (("LIST",), ("DUMP",), ("STATS",), ("LOAD", OLD), ("DELETE", "memtenant_1")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command("FUNCTION", *words)
