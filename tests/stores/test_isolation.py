"""As tenant A, every command that the server lists, executed, on everything that is not A's.

Not a dry run: each command is sent on a connection that A logged in. Only NOPERM counts
as a denial; any other error means that nothing was proven and fails the test.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from memtenant.stores.arguments import CallForm, CommandDescription, describe_commands
from memtenant.stores.connection import NodeClient
from memtenant.stores.matrix import REVIEWED_KEYLESS
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.conftest import StartServer
from tests.stores.operators import (
    ACME,
    GLOBEX,
    PASSWORD,
    agent,
    denied,
    leading,
    settings_for,
)
from tests.support.servers import Flavour, Options, Server

# A name that begins like the tenant's own.
NAMESAKE = TenantId("support", "acme2")
SECRET = b"the-neighbours-secret"

OWN_LIST = f"{keys.records(ACME)}s:c:l"


def plant(admin: "redis.Redis", tenant: TenantId) -> list[str]:
    """Keys of each kind for a tenant; their names."""
    content = f"{keys.records(tenant)}s:c"
    admin.rpush(f"{content}:l", SECRET)
    admin.hset(f"{content}:h", "field", SECRET)
    admin.set(f"{keys.records(tenant)}text", SECRET)
    admin.rpush(keys.audit_queue(tenant), SECRET)
    admin.rpush(keys.erasure_requests(tenant), SECRET)
    admin.hset(keys.erasure_receipts(tenant), "request", SECRET)
    admin.rpush(keys.subject_index(tenant, "alias"), SECRET)
    admin.hset(keys.dek(tenant, "alias"), "wrapped", SECRET)
    admin.zadd(keys.conversations(tenant), {SECRET: 1})
    admin.hset(keys.usage(tenant), "bytes", SECRET)
    admin.hset(keys.limits(tenant), "memory", SECRET)
    admin.hset(keys.access(tenant), "mode", SECRET)
    return [key.decode() for key in dump(admin) if key.startswith(keys.prefix(tenant).encode())]


def dump(admin: "redis.Redis") -> Mapping[bytes, object]:
    """Everything on the server but the operator's own bookkeeping."""
    names: list[bytes] = list(admin.scan_iter("*"))
    return {name: admin.dump(name) for name in names if not name.startswith(b"mt:store:")}


@contextlib.contextmanager
def raw(server: Server, name: str) -> Iterator[Any]:
    """A connection of the agent's own, without anything that a client would add."""
    connection: Any = redis.Connection(  # type: ignore[no-untyped-call]
        server.host,
        server.port,
        username=name,
        password=PASSWORD,
        protocol=2,
        socket_timeout=5,
        retry=Retry(NoBackoff(), 0),
    )
    connection.connect()
    try:
        yield connection
    finally:
        connection.disconnect()


def answer(connection: Any, words: tuple[str, ...]) -> object:
    """The server's answer, an error as a value."""
    connection.send_command(*words)
    try:
        return connection.read_response()
    except redis.exceptions.RedisError as error:
        return error


async def described(server: Server) -> dict[str, CommandDescription]:
    """Every command that the server lists and that can be called."""
    settings = settings_for(server)
    node = NodeClient(settings.endpoint, settings)
    listed = [name.decode().lower() for name in await node.call("COMMAND", "LIST")]  # type: ignore[attr-defined]
    found = await describe_commands(node, listed)
    await node.close()
    assert found.keys() == set(listed)
    return found


def forms_with(form: CallForm, foreign: str) -> list[tuple[str, ...]]:
    """The foreign key in all places, and in each place with an own key in the others."""
    calls = [form.call((foreign,) * form.places)]
    for place in range(form.places if form.places > 1 else 0):
        chosen = tuple(foreign if at == place else OWN_LIST for at in range(form.places))
        calls.append(form.call(chosen))
    return calls


async def test_every_command_on_everything_that_is_not_the_tenants_own_is_denied(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        user = agent(store)
        await store.users.set([user, agent(store, GLOBEX)])
    with redis_server.admin() as admin:
        own = plant(admin, ACME)
        targets = [
            *plant(admin, GLOBEX),
            *plant(admin, NAMESAKE),
            keys.STORE_EPOCH,
            keys.STORE_OWNER,
            "somebody-elses",
        ]
        admin.set("somebody-elses", SECRET)
        before = dump(admin)
    operators_only = {keys.access(ACME), keys.limits(ACME), keys.erasure_receipts(ACME)}
    assert operators_only < set(own)
    readable = {(name, keys.limits(ACME)) for name in ("hget", "hmget")}
    readable |= {(name, keys.erasure_receipts(ACME)) for name in ("hget", "hgetall")}
    # A Function is called with keys that it declares; what it does to them is judged below.
    calls = {(name, key) for name in ("fcall", "fcall_ro") for key in operators_only}

    not_denied: list[str] = []
    attempts = 0
    with raw(redis_server, user.name) as connection:
        for command in (await described(redis_server)).values():
            for form, target in product(command.forms, (*targets, *operators_only)):
                if not form.places or (command.name, target) in readable | calls:
                    continue
                for words in forms_with(form, target):
                    attempts += 1
                    reply = answer(connection, words)
                    if not isinstance(reply, redis.exceptions.NoPermissionError):
                        not_denied.append(f"{' '.join(words)}: {reply!r}")
    assert not_denied == []
    assert attempts > 5000
    with redis_server.admin() as admin:
        assert dump(admin) == before


async def test_commands_without_a_key_are_denied_or_were_reviewed_and_leak_nothing(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        user = agent(store)
        await store.users.set([user, agent(store, GLOBEX)])
    with redis_server.admin() as admin, redis_server.client(agent_name(GLOBEX), PASSWORD) as other:
        plant(admin, GLOBEX)
        other.client_setname("a-neighbours-connection")
        not_denied: dict[str, object] = {}
        found = await described(redis_server)
        containers = {name.partition("|")[0] for name in found if "|" in name}
        for name, form in [(name, form) for name, each in found.items() for form in each.forms]:
            if form.places:
                continue
            with raw(redis_server, user.name) as connection:
                reply = answer(connection, form.call(()))
            if not isinstance(reply, redis.exceptions.NoPermissionError) and not (
                isinstance(reply, redis.exceptions.ResponseError)
                and _for_nobody(str(reply), name in containers)
            ):
                not_denied[name] = reply
        assert set(not_denied) - REVIEWED_KEYLESS == set(), not_denied
        for name, reply in not_denied.items():
            shown = repr(reply)
            for secret in (SECRET.decode(), str(GLOBEX), "a-neighbours-connection"):
                assert secret not in shown, name
        assert other.ping()


def _for_nobody(refusal: str, container: bool) -> bool:
    """A refusal that does not depend on who asks: a container without a subcommand, and MODULE,
    which the configuration withholds before the ACL is asked."""
    if container and re.search("(?i)unknown subcommand|wrong number of arguments", refusal):
        return True
    return "MODULE command not allowed" in refusal


def agent_name(tenant: TenantId) -> str:
    return f"mt.{tenant}.default.a"


async def test_another_database_is_out_of_reach(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        user = agent(store)
        await store.users.set([user])
    with redis_server.client(user.name, PASSWORD) as client:
        assert not denied(client, "SELECT", "0")
        for number in (1, 5, 15):
            assert denied(client, "SELECT", number)


async def test_limits_are_readable_and_never_writable(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        user = agent(store)
        await store.users.set([user])
    with redis_server.admin() as admin:
        plant(admin, ACME)
    with redis_server.client(user.name, PASSWORD) as client:
        assert client.hget(keys.limits(ACME), "memory") == SECRET
        assert client.hmget(keys.limits(ACME), "memory", "none") == [SECRET, None]
        for words in (("HSET", "f", "v"), ("HDEL", "memory"), ("DEL",), ("EXPIRE", "0")):
            assert denied(client, words[0], keys.limits(ACME), *words[1:])


async def test_erasure_requests_can_be_added_and_receipts_read_and_nothing_else(
    redis_server: Server,
) -> None:
    async with leading(redis_server) as store:
        user = agent(store)
        await store.users.set([user])
    with redis_server.admin() as admin:
        plant(admin, ACME)
    requests, receipts = keys.erasure_requests(ACME), keys.erasure_receipts(ACME)
    with redis_server.client(user.name, PASSWORD) as client:
        assert client.rpush(requests, b"one more") == 2
        for words in (("LRANGE", "0", "-1"), ("LLEN",), ("LPOP",), ("LTRIM", "1", "0"), ("DEL",)):
            assert denied(client, words[0], requests, *words[1:])
        assert client.hgetall(receipts) == {b"request": SECRET}
        for words in (("HSET", "request", "x"), ("HSETNX", "x", "y"), ("HDEL", "request")):
            assert denied(client, words[0], receipts, *words[1:])


_ANYTHING = """#!lua name=anything
redis.register_function('anything', function(keys, args)
  local command = {}
  for _, word in ipairs(args) do command[#command + 1] = word end
  local reply = redis.pcall(unpack(command))
  if type(reply) == 'table' and reply.err then return redis.error_reply(reply.err) end
  return 'done'
end)
"""


async def test_a_function_can_do_no_more_than_the_tenant_that_calls_it(
    redis_server: Server,
) -> None:
    """FCALL may declare any key of the tenant; its commands are judged one by one."""
    async with leading(redis_server) as store:
        user = agent(store)
        await store.users.set([user])
    with redis_server.admin() as admin:
        plant(admin, ACME)
        plant(admin, GLOBEX)
        admin.function_load(_ANYTHING)
        before = dump(admin)
    foreign, operators = f"{keys.records(GLOBEX)}text", keys.access(ACME)
    with redis_server.client(user.name, PASSWORD) as client:
        assert client.fcall("anything", 1, OWN_LIST, "LRANGE", OWN_LIST, "0", "-1") == b"done"
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.fcall("anything", 1, foreign, "GET", foreign)
        for declared, words in (
            (operators, ("HGET", operators, "mode")),
            (operators, ("HSET", operators, "mode", "ReadWrite")),
            (keys.limits(ACME), ("HSET", keys.limits(ACME), "memory", "1")),
            (keys.audit_queue(ACME), ("LRANGE", keys.audit_queue(ACME), "0", "-1")),
            (keys.audit_queue(ACME), ("DEL", keys.audit_queue(ACME))),
            (keys.dek(ACME, "alias"), ("DEL", keys.dek(ACME, "alias"))),
            (OWN_LIST, ("GET", foreign)),
            (OWN_LIST, ("SCAN", "0")),
            (OWN_LIST, ("FLUSHALL",)),
        ):
            with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission|script"):
                client.fcall("anything", 1, declared, *words)
    with redis_server.admin() as admin:
        assert dump(admin) == before


async def test_nobody_gets_in_as_default_or_by_reset(
    flavour: Flavour, start_server: StartServer
) -> None:
    server = start_server(flavour, Options())
    async with leading(server) as store:
        user = agent(store)
        await store.users.set([user])
    with raw(server, user.name) as connection:
        assert answer(connection, ("RESET",)) == b"RESET"
        reply = answer(connection, ("GET", OWN_LIST))
        assert "Authentication required" in str(reply) or "NOAUTH" in str(reply)
