"""What a tenant can still do over quota, under a hold, and switched off: heard from the server."""

import asyncio

import pytest
import redis
import redis.asyncio

from memtenant.rules.acl import AccessState, AgentAccess
from memtenant.tenancy import keys
from tests.stores.operators import ACME, PASSWORD, agent, denied, leading
from tests.support.servers import Server

LIST = f"{keys.records(ACME)}s:c:l"
HEAD = f"{keys.records(ACME)}s:c:h"
TEXT = f"{keys.records(ACME)}text"
QUEUE, INDEX = keys.audit_queue(ACME), keys.subject_index(ACME, "alias")
DEK, LIMITS = keys.dek(ACME, "alias"), keys.limits(ACME)

Calls = tuple[tuple[object, ...], ...]

OVER = AccessState(over_quota=True)
HELD = AccessState(held=True)
BOTH = AccessState(over_quota=True, held=True)


async def in_state(
    server: Server, state: AccessState, access: AgentAccess = AgentAccess.READ_WRITE
) -> "redis.Redis":
    """A client of an agent in this state; a little content is there."""
    async with leading(server) as store:
        user = agent(store, state=state, access=access)
        await store.users.set([user])
    with server.admin() as admin:
        admin.rpush(LIST, *(f"record {number}" for number in range(5)))
        admin.hset(HEAD, mapping={"title": "a title", "seq": "5"})
        admin.set(TEXT, "text")
        admin.hset(DEK, "wrapped", "key")
        admin.hset(LIMITS, "memory", "1")
        admin.rpush(INDEX, "where")
    return server.client(user.name, PASSWORD)


READING: Calls = (
    ("LRANGE", LIST, 0, -1),
    ("HGETALL", HEAD),
    ("GET", TEXT),
    ("HGET", DEK, "wrapped"),
    ("LRANGE", INDEX, 0, -1),
    ("HGET", LIMITS, "memory"),
    ("RPUSH", QUEUE, "read event"),
)
DESTROYING: Calls = (
    ("LSET", LIST, 0, ""),
    ("LTRIM", LIST, 1, 0),
    ("LPOP", LIST),
    ("RPOP", LIST),
    ("LREM", LIST, 0, "record 1"),
    ("DEL", LIST),
    ("UNLINK", LIST),
    ("EXPIRE", LIST, 1),
    ("PEXPIREAT", LIST, 1),
    ("SET", LIST, ""),
    ("GETDEL", TEXT),
    ("HDEL", HEAD, "title"),
    ("DEL", HEAD),
    ("DEL", DEK),
    ("HSET", DEK, "wrapped", "other"),
    ("DEL", INDEX),
    ("LTRIM", INDEX, 1, 0),
    ("DEL", QUEUE),
    ("LPOP", QUEUE),
    ("RENAME", LIST, TEXT),
    ("RESTORE", LIST, 0, "x", "REPLACE"),
)
GROWING: Calls = (
    ("RPUSH", LIST, "more"),
    ("LSET", LIST, 0, "a longer record"),
    ("SET", TEXT, "more"),
    ("APPEND", TEXT, "more"),
    ("HSETNX", DEK, "another", "key"),
    ("RPUSH", INDEX, "more"),
    ("ZADD", f"{keys.records(ACME)}zset", 1, "more"),
)


async def test_over_quota_reads_and_deletes_but_never_grows(redis_server: Server) -> None:
    client = await in_state(redis_server, OVER)
    with client:
        for words in READING:
            assert not denied(client, *words), words
        for words in GROWING:
            assert denied(client, *words), words
        # The deleting Function keeps its books.
        for words in (
            ("HSET", HEAD, "epoch", "2"),
            ("HINCRBY", keys.usage(ACME), "bytes", "-10"),
            ("ZADD", keys.conversations(ACME), 1, "conversation"),
            ("ZREM", keys.conversations(ACME), "conversation"),
            ("RPOP", LIST),
            ("LTRIM", LIST, 1, -1),
            ("EXPIRE", LIST, 100),
            ("DEL", LIST),
            ("UNLINK", TEXT),
        ):
            assert not denied(client, *words), words


async def test_under_a_hold_nothing_is_overwritten_removed_or_expired(
    redis_server: Server,
) -> None:
    client = await in_state(redis_server, HELD)
    with client, redis_server.admin() as admin:
        before = {name: admin.dump(name) for name in (LIST, HEAD, TEXT, DEK, INDEX)}
        for words in (*DESTROYING, ("RPUSH", HEAD, "x"), ("RPUSH", TEXT, "x")):
            assert denied(client, *words), words
        assert {name: admin.dump(name) for name in before} == before
        for words in (
            *READING,
            ("RPUSH", LIST, "appended"),
            ("RPUSH", f"{keys.records(ACME)}s:new:l", "first"),
            ("HSET", HEAD, "seq", "6"),
            ("PERSIST", HEAD),
            ("HINCRBY", keys.usage(ACME), "bytes", "10"),
            ("ZADD", keys.conversations(ACME), 1, "conversation"),
            ("HSETNX", keys.dek(ACME, "new"), "wrapped", "key"),
            ("RPUSH", INDEX, "more"),
        ):
            assert not denied(client, *words), words
        assert client.lindex(LIST, 0) == b"record 0"


@pytest.mark.parametrize(
    ("state", "access"),
    [(BOTH, AgentAccess.READ_WRITE), (AccessState(), AgentAccess.READ_ONLY)],
    ids=["held-over-quota", "read-only-agent"],
)
async def test_read_only_reads_and_tells_that_it_read(
    redis_server: Server, state: AccessState, access: AgentAccess
) -> None:
    client = await in_state(redis_server, state, access)
    with client:
        for words in READING:
            assert not denied(client, *words), words
        for words in (*GROWING, *DESTROYING, ("HSET", HEAD, "seq", "6")):
            assert denied(client, *words), words


async def test_a_quota_flip_stops_busy_writers_at_once_and_lets_them_go_on_afterwards(
    redis_replicated: tuple[Server, Server],
) -> None:
    """No write that starts after the flip's answer succeeds; every connection stays open."""
    primary, replica = redis_replicated
    async with leading(primary, replica) as store:
        normal, over = agent(store), agent(store, state=OVER)
        await store.users.set([normal])
        flipped, restored = asyncio.Event(), asyncio.Event()
        all_refused = asyncio.Barrier(5)
        late_writes: list[int] = []
        written = [0] * 4

        async def write(number: int) -> None:
            client = redis.asyncio.Redis(
                host=primary.host,
                port=primary.port,
                username=normal.name,
                password=PASSWORD,
                single_connection_client=True,
            )
            refused = 0
            async with client:
                while refused < 20:
                    late = flipped.is_set()
                    try:
                        await client.rpush(LIST, "x" * 200)
                    except redis.exceptions.NoPermissionError:
                        refused += 1
                    else:
                        written[number] += 1
                        if late:
                            late_writes.append(number)
                assert await client.rpop(LIST)
                await all_refused.wait()
                await restored.wait()
                assert await client.rpush(LIST, "again")

        writers = [asyncio.create_task(write(number)) for number in range(4)]
        while min(written) < 10:  # noqa: ASYNC110 - four other tasks
            await asyncio.sleep(0)
        (await store.users.set([over])).require_all()
        flipped.set()
        await all_refused.wait()
        await store.users.set([normal])
        restored.set()
        await asyncio.gather(*writers)
        assert late_writes == []
    with replica.client(normal.name, PASSWORD) as client:
        assert not denied(client, "LLEN", LIST)
