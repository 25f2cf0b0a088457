"""The operator and tenants as the store's tests need them.

Every test administers as the user that `memtenant store acl` prints, never as a superuser.
"""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import redis

from memtenant.rules.acl import AccessState, AclUser, AgentAccess, render_user
from memtenant.stores import (
    Address,
    Pace,
    StoreAdmin,
    StoreFacts,
    StoreSettings,
    StoreTls,
    admin_rules,
)
from memtenant.tenancy.identity import TenantId
from tests.support.servers import Flavour, Server

OPERATOR = "memtenant-operator"
OPERATOR_PASSWORD = "the-operator"
INSTALLATION = "test-installation"
PASSWORD = "the-tenant"

ACME = TenantId("support", "acme")
GLOBEX = TenantId("sales", "globex")

_terms = itertools.count(1)
_commands: dict[Flavour, frozenset[str]] = {}


def next_term() -> int:
    """A term later than any before: terms only grow, on shared servers too."""
    return next(_terms)


def server_commands(server: Server) -> frozenset[str]:
    """COMMAND LIST in lower case, which is the program's: one server of each is asked."""
    if server.flavour not in _commands:
        with server.admin() as admin:
            admin.response_callbacks.clear()
            listed = admin.execute_command("COMMAND", "LIST")
        _commands[server.flavour] = frozenset(name.decode().lower() for name in listed)
    return _commands[server.flavour]


def make_operator(*servers: Server) -> None:
    """Make the operator's least-privileged user on each node."""
    for server in servers:
        rules = admin_rules(server_commands(server))
        with server.admin() as admin:
            admin.execute_command(
                "ACL", "SETUSER", OPERATOR, "reset", "on", f">{OPERATOR_PASSWORD}", *rules
            )


def settings_for(server: Server) -> StoreSettings:
    """How the operator reaches the server."""
    tls = None if server.ca_file is None else StoreTls(ca=server.ca_file.read_text())
    address = Address(server.host, server.port)
    return StoreSettings(address, OPERATOR, lambda: OPERATOR_PASSWORD, tls=tls)


@asynccontextmanager
async def looking_at(
    server: Server,
    *,
    settings: StoreSettings | None = None,
    term: int | None = None,
    own_keys: bool = False,
) -> AsyncIterator[StoreAdmin]:
    """A `StoreAdmin` that was not discovered yet, at full pace."""
    number = next_term() if term is None else term
    admin = StoreAdmin(
        settings or settings_for(server),
        installation=INSTALLATION,
        fence=lambda: number,
        pace=Pace(duty=1.0),
        replication_patience=30.0,
        own_keys=own_keys,
    )
    async with admin:
        yield admin


@asynccontextmanager
async def leading(
    server: Server,
    *replicas: Server,
    settings: StoreSettings | None = None,
    own_keys: bool = False,
) -> AsyncIterator[StoreAdmin]:
    """A `StoreAdmin` that leads the store of these nodes."""
    make_operator(server, *replicas)
    async with looking_at(server, settings=settings, own_keys=own_keys) as store:
        await discovered(store, len(replicas))
        await store.lead()
        yield store


async def discovered(store: StoreAdmin, replicas: int) -> StoreFacts:
    """The facts, once the primary counts that many nodes that answer or fail as replicas.

    A replica says that its link is up a moment before its primary calls it online.
    """
    async with asyncio.timeout(60):
        while True:
            facts = await store.discover()
            if len(facts.replicas) + len(facts.unreachable) >= replicas:
                return facts
            await asyncio.sleep(0.02)


def agent(
    store: StoreAdmin,
    tenant: TenantId = ACME,
    *,
    name: str = "default",
    access: AgentAccess = AgentAccess.READ_WRITE,
    state: AccessState | None = None,
    own_keys: bool = False,
) -> AclUser:
    """An agent's user as the store's nodes understand it, with `PASSWORD`."""
    return agent_for(
        store.facts.commands,
        tenant,
        name=name,
        access=access,
        state=state or AccessState(),
        own_keys=own_keys,
    )


def agent_for(
    commands: frozenset[str],
    tenant: TenantId,
    *,
    name: str = "default",
    access: AgentAccess = AgentAccess.READ_WRITE,
    state: AccessState | None = None,
    own_keys: bool = False,
) -> AclUser:
    """An agent's user for a server that knows these commands."""
    return render_user(
        tenant,
        name,
        "a",
        access=access,
        state=state or AccessState(),
        password_hashes=(hashlib.sha256(PASSWORD.encode()).hexdigest(),),
        commands=commands,
        own_keys=own_keys,
    )


def many_agents(store: StoreAdmin, count: int) -> list[AclUser]:
    """That many tenants with an agent each."""
    return [agent(store, TenantId("many", f"t{number}")) for number in range(count)]


def denied(client: "redis.Redis", *words: object) -> bool:
    """Whether the server denies the command by ACL; other errors are raised."""
    try:
        client.execute_command(*words)  # type: ignore[no-untyped-call]
    except redis.exceptions.NoPermissionError:
        return True
    return False


def usernames(server: Server) -> Sequence[str]:
    """All users of a node."""
    with server.admin() as admin:
        return sorted(admin.acl_users())
