"""What a store's nodes are: the primary, every replica, and what each of them can do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Generic, TypeVar

from redis.exceptions import ResponseError

from memtenant.errors import MemtenantError, StoreRefused, StoreUnavailable
from memtenant.stores.admin_acl import missing_permissions
from memtenant.stores.cluster_nodes import ClusterMap
from memtenant.stores.connection import Address, NodeClient, Reply
from memtenant.stores.refusals import translated
from memtenant.stores.slots import slot_of
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.keys import prefix

__all__ = [
    "Flavour",
    "NodeFacts",
    "NodeResults",
    "Role",
    "StoreFacts",
    "info_of",
    "inspect_node",
    "on_every_node",
    "replays_transactions",
]

T = TypeVar("T")


class Flavour(StrEnum):
    """Whose server it is. Valkey also reports a ``redis_version``, always 7.2.4."""

    REDIS = "Redis"
    VALKEY = "Valkey"


class Role(StrEnum):
    """A node's part in replication."""

    PRIMARY = "Primary"
    REPLICA = "Replica"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node as it described itself; None where its configuration may not be read.

    commands: COMMAND LIST in lower case. categories: ACL CAT, to understand GETUSER of Redis 7.0.
    replicas: addresses of the replicas that follow this node and are online; syncing: of those
    that are not (yet). users_persist: whether users survive a restart (an aclfile).
    default_user_open: whether anybody may come in without a password. replays_transactions: whether
    they survive a restart with an AOF. server_time: its clock when it was asked. follows: a
    replica's primary.
    """

    address: Address
    role: Role
    flavour: Flavour
    version: str
    run_id: str
    commands: frozenset[str] = field(repr=False)
    categories: Mapping[str, frozenset[str]] = field(repr=False)
    replicas: tuple[Address, ...] = ()
    syncing: tuple[Address, ...] = ()
    link_up: bool = True
    append_only: bool = False
    maxmemory: int = 0
    maxmemory_policy: str = "unknown"
    used_memory: int = 0
    users_persist: bool | None = None
    default_user_open: bool | None = None
    replays_transactions: bool = True
    server_time: datetime | None = None
    follows: Address | None = None

    @property
    def evicts(self) -> bool:
        """Whether the server may drop keys of its own accord."""
        return self.maxmemory_policy not in ("noeviction", "unknown")

    @property
    def durable(self) -> bool:
        """Whether data survives a restart and is never evicted."""
        return self.append_only and self.replays_transactions and not self.evicts


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A store's nodes. ``unreachable`` are replicas that the primary names and that did not
    answer as they should; they are not provisioned until they do.

    A Cluster has a primary for each shard, the first of which is ``primary`` and the rest
    ``others``, those without a slot included; ``cluster`` says whose the slots are.
    """

    primary: NodeFacts
    replicas: tuple[NodeFacts, ...] = ()
    others: tuple[NodeFacts, ...] = ()
    cluster: ClusterMap | None = None
    unreachable: Mapping[Address, MemtenantError] = field(
        default_factory=lambda: MappingProxyType({})
    )

    @property
    def nodes(self) -> tuple[NodeFacts, ...]:
        """The primaries, then the replicas."""
        return (*self.primaries, *self.replicas)

    @property
    def primaries(self) -> tuple[NodeFacts, ...]:
        """One, or of a Cluster one for each shard."""
        return (self.primary, *self.others)

    @property
    def processes(self) -> frozenset[str]:
        """The run ids of the primaries."""
        return frozenset(node.run_id for node in self.primaries)

    def failed_over_from(self, before: StoreFacts) -> bool:
        """Whether another node is a primary now: it has what its predecessor had."""
        now, then = ({one.address for one in facts.primaries} for facts in (self, before))
        return not now <= then

    @property
    def run_id(self) -> str:
        """Another one where keys may not be where they were: a pass over them begins anew."""
        if self.cluster is None:
            return self.primary.run_id
        return " ".join((self.cluster.layout, *sorted(self.processes)))

    def replicas_of(self, tenant: TenantId) -> int:
        """How many replicas follow the primary that has the tenant's keys, as WAIT counts them."""
        if self.cluster is None:
            return len(self.primary.replicas)
        shard = self.cluster.shard_of(slot_of(prefix(tenant)))
        return sum(
            len(node.replicas)
            for node in self.primaries
            if shard is not None and node.address == shard.primary
        )

    @property
    def commands(self) -> frozenset[str]:
        """The commands that every node knows: rules rendered with them fit each."""
        return frozenset.intersection(*{node.commands for node in self.nodes})

    @property
    def durable(self) -> bool:
        """Whether every primary is durable."""
        return all(node.durable for node in self.primaries)

    @property
    def syncing(self) -> bool:
        """Whether a replica is being filled."""
        return any(node.syncing for node in self.primaries)

    @property
    def users_persist(self) -> bool:
        """Whether users survive a restart of any node, as far as the nodes tell."""
        return all(node.users_persist is True for node in self.nodes)


@dataclass(frozen=True, slots=True)
class NodeResults(Generic[T]):
    """What an operation came to on each node: one node down does not hide the others."""

    results: Mapping[Address, T]
    failures: Mapping[Address, MemtenantError]

    @property
    def complete(self) -> bool:
        """Whether every node did it."""
        return not self.failures

    def require_all(self) -> Mapping[Address, T]:
        """The results; raises the first failure (by address) if there is one."""
        for address in sorted(self.failures):
            raise self.failures[address]
        return self.results


async def on_every_node(
    nodes: Iterable[Address], operation: Callable[[Address], Awaitable[T]]
) -> NodeResults[T]:
    """Run the operation on all nodes at once and keep what each came to."""
    addresses = list(nodes)

    async def attempt(address: Address) -> T | MemtenantError:
        try:
            return await operation(address)
        except MemtenantError as error:
            return error

    outcomes = await asyncio.gather(*(attempt(address) for address in addresses))
    results: dict[Address, T] = {}
    failures: dict[Address, MemtenantError] = {}
    for address, outcome in zip(addresses, outcomes, strict=True):
        if isinstance(outcome, MemtenantError):
            failures[address] = outcome
        else:
            results[address] = outcome
    return NodeResults(results, failures)


async def inspect_node(
    node: NodeClient, mode: str = "standalone", *, before: NodeFacts | None = None
) -> NodeFacts:
    """Ask a node what it is. ``mode`` is what it should be: ``standalone`` or ``cluster``.
    ``before`` is what it was: of the same process it holds what it knows and the operator may.

    Raises `StoreUnavailable`, or `StoreRefused` with the reason ``ACLManagedElsewhere`` (ACL
    SETUSER is renamed or withheld, as managed services do), ``StorePermissionMissing`` (all that
    the operator's user lacks), ``StoreTooOld`` or ``StoreModeUnsupported``.
    """
    replies = await node.run(
        [
            ("INFO", "server"),
            ("INFO", "replication"),
            ("INFO", "persistence"),
            ("INFO", "memory"),
            ("ACL", "GETUSER", "default"),
            ("CONFIG", "GET", "aclfile"),
        ]
    )
    server, replication, persistence, memory = (info_of(node, reply) for reply in replies[:4])
    _check_kind(node, server, mode)
    run_id = server.get("run_id", "")
    if before is not None and run_id and before.run_id == run_id:
        commands, categories = before.commands, before.categories
    else:
        await _check_permissions(node, in_cluster=mode == "cluster")
        commands, categories = await _vocabulary(node)
    role = Role.PRIMARY if replication.get("role") == "master" else Role.REPLICA
    online, syncing = _replicas(replication)
    flavour = Flavour.VALKEY if "valkey_version" in server else Flavour.REDIS
    return NodeFacts(
        address=node.address,
        role=role,
        flavour=flavour,
        version=server.get("valkey_version") or server["redis_version"],
        run_id=run_id,
        commands=commands,
        categories=categories,
        replicas=online,
        syncing=syncing,
        link_up=role is Role.PRIMARY or replication.get("master_link_status") == "up",
        append_only=persistence.get("aof_enabled") == "1",
        maxmemory=int(memory.get("maxmemory", "0")),
        maxmemory_policy=memory.get("maxmemory_policy", "unknown"),
        used_memory=int(memory.get("used_memory", "0")),
        users_persist=_aclfile_is_set(replies[5]),
        default_user_open=_is_open(replies[4]),
        replays_transactions=replays_transactions(server, replies[4]),
        server_time=_server_time(server),
        follows=_followed(replication),
    )


def _check_kind(node: NodeClient, server: Mapping[str, str], expected: str) -> None:
    version = server.get("redis_version", "0")
    if int(version.partition(".")[0]) < 7:
        raise StoreRefused(
            f"{node.address} runs {version}: ACL selectors and Functions need Redis 7.0, Valkey 8 "
            "or later",
            reason="StoreTooOld",
        )
    mode = server.get("redis_mode") or server.get("server_mode", "standalone")
    if mode != expected:
        raise StoreRefused(
            f"{node.address} runs in {mode} mode, but the store is declared otherwise: say "
            f"{mode} in the MemoryStore",
            reason="StoreModeUnsupported",
        )


async def _check_permissions(node: NodeClient, *, in_cluster: bool) -> None:
    lacking = await missing_permissions(node, in_cluster=in_cluster)
    if lacking.withheld:
        raise StoreRefused(
            f"{node.address} does not let its clients manage users "
            f"({', '.join(lacking.withheld)}): a service that manages users by its own API "
            "cannot be a shared store",
            reason="ACLManagedElsewhere",
        )
    if lacking.denied:
        raise StoreRefused(
            f"{node.address}: the operator's user may not run {', '.join(lacking.denied)}. "
            "`memtenant store acl` prints the user that the operator needs",
            reason="StorePermissionMissing",
        )


async def _vocabulary(node: NodeClient) -> tuple[frozenset[str], Mapping[str, frozenset[str]]]:
    """The node's commands, and which of them its ACL categories hold."""
    listed, categories = (
        _texts(_required(node, reply))
        for reply in await node.run([("COMMAND", "LIST"), ("ACL", "CAT")])
    )
    held = await node.run([("ACL", "CAT", name) for name in categories])
    return _commands(listed), {
        name: _commands(_texts(_required(node, reply)))
        for name, reply in zip(categories, held, strict=True)
    }


def _commands(names: Iterable[str]) -> frozenset[str]:
    return _one_of(frozenset(sys.intern(name.lower()) for name in names))


@lru_cache(maxsize=256)
def _one_of(commands: frozenset[str]) -> frozenset[str]:
    """The one that was there first of all that are equal: a hundred instances know the same."""
    return commands


def _replicas(
    replication: Mapping[str, str],
) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    online: list[Address] = []
    syncing: list[Address] = []
    for number in range(int(replication.get("connected_slaves", "0"))):
        entry = replication.get(f"slave{number}", "")
        fields = dict(part.partition("=")[::2] for part in entry.split(","))
        if not fields.get("ip") or not fields.get("port", "").isdecimal():
            continue
        address = Address(fields["ip"], int(fields["port"]))
        (online if fields.get("state") == "online" else syncing).append(address)
    return tuple(online), tuple(syncing)


def _followed(replication: Mapping[str, str]) -> Address | None:
    host, port = replication.get("master_host"), replication.get("master_port", "")
    return Address(host, int(port)) if host and port.isdecimal() else None


def info_of(node: NodeClient, reply: Reply) -> dict[str, str]:
    """A section of INFO. Raises where the server refused it."""
    raw = _required(node, reply)
    if not isinstance(raw, bytes):
        raise StoreUnavailable(f"{node.address} answered INFO in a way that is not understood")
    lines = raw.decode("utf-8", "replace").splitlines()
    return dict(line.partition(":")[::2] for line in lines if ":" in line)


def _required(node: NodeClient, reply: Reply) -> Reply:
    if isinstance(reply, ResponseError):
        raise translated(reply, str(node.address))
    return reply


def _texts(reply: Reply) -> list[str]:
    if not isinstance(reply, list):
        return []
    return [item.decode("utf-8", "replace") for item in reply if isinstance(item, bytes)]


def _server_time(server: Mapping[str, str]) -> datetime | None:
    microseconds = server.get("server_time_usec", "")
    if not microseconds.isdecimal():
        return None
    return datetime.fromtimestamp(int(microseconds) / 1_000_000, UTC)


def _aclfile_is_set(reply: Reply) -> bool | None:
    """None where CONFIG GET is denied or withheld."""
    if not isinstance(reply, list) or len(reply) != 2:
        return None
    return bool(reply[1])


def _is_open(reply: Reply) -> bool | None:
    if not isinstance(reply, list):
        return None
    flags = _fields(reply).get(b"flags", ())
    return isinstance(flags, list) and b"on" in flags and b"nopass" in flags


def replays_transactions(server: Mapping[str, str], default: Reply) -> bool:
    """Whether a restart brings back what is in the append-only file, by INFO and by what GETUSER
    answered of `default`: Redis 7.0 and 8.2 read the file by that user's rules, also where it is
    off, and pass over a MULTI … EXEC that they do not allow."""
    fields = _fields(default)
    allowed = (fields.get(b"commands"), fields.get(b"keys")) == (b"+@all", b"~*")
    return "valkey_version" in server or allowed


def _fields(reply: Reply) -> dict[object, object]:
    if not isinstance(reply, list):
        return {}
    return dict(zip(reply[::2], reply[1::2], strict=False))
