"""What a store's nodes are: the primary, every replica, and what each of them can do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Generic, TypeVar

from memtenant.errors import MemtenantError
from memtenant.stores.cluster_nodes import ClusterMap
from memtenant.stores.connection import Address
from memtenant.stores.slots import slot_of
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.keys import prefix

__all__ = [
    "AppendOnlyFile",
    "Flavour",
    "NodeFacts",
    "NodeResults",
    "Role",
    "StoreFacts",
    "on_every_node",
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
class AppendOnlyFile:
    """How a node's append-only file stands: ``writable``, whether the last write to it went well;
    ``rewritten``, whether it did the last time that it was written anew; ``rewriting``, whether it
    is now; ``rewrites``, how often that was begun. fsync: empty where it may not be read.
    """

    writable: bool = True
    rewritten: bool = True
    rewriting: bool = False
    rewrites: int = 0
    fsync: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node as it described itself; None where its configuration may not be read.

    commands: COMMAND LIST in lower case. categories: ACL CAT, to understand GETUSER of Redis 7.0.
    replicas: addresses of the replicas that follow this node and are online; syncing: of those
    that are not (yet). users_persist: whether users survive a restart (an aclfile).
    default_user_open: whether anybody may come in without a password. replays_transactions: whether
    they survive a restart with an AOF. server_time: its clock when it was asked. follows: a
    replica's primary. rights: a digest of what the operator's user may.
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
    file: AppendOnlyFile = AppendOnlyFile()
    maxmemory: int = 0
    maxmemory_policy: str = "unknown"
    used_memory: int = 0
    users_persist: bool | None = None
    default_user_open: bool | None = None
    replays_transactions: bool = True
    server_time: datetime | None = None
    follows: Address | None = None
    rights: bytes = field(default=b"", repr=False)

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

    def age_from(self, now: datetime) -> datetime:
        """From when the age of records is counted. Entries bear the server's time: an operator
        whose clock is ahead must not expire them early."""
        return min(now, self.primary.server_time or now)

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
