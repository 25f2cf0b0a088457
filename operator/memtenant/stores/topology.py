"""Which servers a store has: the primary or those of a Cluster, replicas, and connections to them.

A Sentinel says which is the primary now, a Cluster which node has which slots. Both change without
being asked to, so `StoreNodes.discover` is repeated, and what follows from it is kept here alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

from memtenant.errors import FencedOut, MemtenantError, StoreUnavailable
from memtenant.stores.cluster import ClusterKeyspace, find_cluster
from memtenant.stores.cluster_nodes import ClusterMap, Shard
from memtenant.stores.connection import Address, EpochPlace, NodeClient, StoreSettings
from memtenant.stores.inspection import inspect_node
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.nodes import (
    NodeFacts,
    NodeResults,
    Role,
    StoreFacts,
    on_every_node,
)
from memtenant.stores.sentinel import SentinelWatch
from memtenant.stores.slots import epoch_keys

__all__ = ["StoreNodes"]

T = TypeVar("T")


class StoreNodes:
    """The nodes of one store, as they were found last."""

    def __init__(self, settings: StoreSettings, sentinels: SentinelWatch | None = None) -> None:
        """With ``sentinels`` these are asked where the primary is, at each `discover`."""
        self._settings = settings
        self._sentinels = sentinels
        self._map: ClusterKeyspace | None = None
        self._facts: StoreFacts | None = None
        self._clients: dict[Address, NodeClient] = {}

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()
        if self._sentinels is not None:
            await self._sentinels.close()

    @property
    def cluster(self) -> ClusterKeyspace | None:
        """Of a Cluster that was looked at: where its keys are."""
        return self._map

    async def admit_agents(self) -> int:
        """Let agents ask the Sentinels for the primary; how many Sentinels did not know them."""
        return 0 if self._sentinels is None else await self._sentinels.admit_agents()

    @property
    def facts(self) -> StoreFacts:
        """What `discover` found last; `StoreUnavailable` before the first time."""
        if self._facts is None:
            raise StoreUnavailable(f"{self._settings.endpoint} has not been looked at yet")
        return self._facts

    async def discover(self) -> StoreFacts:
        """Find the primary and every replica, also replicas of replicas; of a Cluster, all nodes.

        Raises what `inspect_node` raises for the primary, what `SentinelWatch.primary` raises, and
        `StoreUnavailable` (``NotPrimary``) where a replica is in its place. Replicas that fail are
        in the facts as unreachable.
        """
        return await self._discover({})

    async def refresh(self) -> StoreFacts:
        """As `discover`; a process that was looked at before is asked only for what changes while
        it runs, and not what it knows and what the operator may do there."""
        known = () if self._facts is None else self._facts.nodes
        return await self._discover({node.address: node for node in known})

    async def _discover(self, before: Mapping[Address, NodeFacts]) -> StoreFacts:
        async def inspect(address: Address) -> NodeFacts:
            mode = "cluster" if self._settings.cluster else "standalone"
            return await inspect_node(self.client(address), mode, before=before.get(address))

        if self._settings.cluster:
            self._facts = await self._discover_cluster(inspect)
            await self._forget_all_but({node.address for node in self._facts.nodes})
            return self._facts
        where = self._settings.endpoint
        if self._sentinels is not None:
            where = await self._sentinels.primary()
        primary = await inspect(where)
        if primary.role is not Role.PRIMARY:
            why = (
                "the store's endpoint must be the primary's"
                if self._sentinels is None
                else "the Sentinels replace the primary at the moment"
            )
            raise StoreUnavailable(
                f"{primary.address} is a replica: {why}",
                reason="NotPrimary",
            )
        replicas: dict[Address, NodeFacts] = {}
        unreachable: dict[Address, MemtenantError] = {}
        layer = primary.replicas
        while layer:
            found = await on_every_node(layer, inspect)
            replicas |= found.results
            unreachable |= {at: _may_pass(error) for at, error in found.failures.items()}
            known = replicas.keys() | unreachable.keys()
            below = (address for node in found.results.values() for address in node.replicas)
            layer = tuple(address for address in below if address not in known)
        self._facts = StoreFacts(primary, tuple(replicas.values()), unreachable=unreachable)
        await self._forget_all_but({where, *replicas})
        return self._facts

    async def _discover_cluster(
        self, inspect: Callable[[Address], Awaitable[NodeFacts]]
    ) -> StoreFacts:
        known = [] if self._facts is None else [node.address for node in self._facts.nodes]
        found = await find_cluster(self.client, (*self._settings.cluster, *known))
        inspected = await on_every_node(found.addresses, inspect)
        nodes, failures = inspected.results, dict(inspected.failures)
        for shard in found.shards:
            if not shard.slots:
                continue
            if shard.primary in failures:
                raise failures[shard.primary]
            if nodes[shard.primary].role is not Role.PRIMARY:
                raise StoreUnavailable(
                    f"{shard.primary} is a replica: the Cluster replaces a primary at the moment",
                    reason="NotPrimary",
                )
        primaries = [nodes[shard.primary] for shard in found.shards if shard.primary in nodes]
        replicas = [
            nodes[address]
            for shard in found.shards
            for address in shard.replicas
            if address in nodes
        ]
        self._map = ClusterKeyspace(found, self.client)
        self._place_epochs(found)
        return StoreFacts(
            primaries[0],
            tuple(replicas),
            others=tuple(primaries[1:]),
            cluster=found,
            unreachable={at: _may_pass(error) for at, error in failures.items()},
        )

    def _place_epochs(self, found: ClusterMap) -> None:
        """Say for each node where the term that leads it stands."""
        held = [(shard, key) for shard in found.shards if (key := _epoch_key(shard)) is not None]
        first = self.client(held[0][0].primary)
        by_shard = {shard.primary: key for shard, key in held}
        for shard in found.shards:
            key = by_shard.get(shard.primary)
            for address in (shard.primary, *shard.replicas):
                self.client(address).epoch = (
                    EpochPlace(elsewhere=first)
                    if key is None
                    else EpochPlace(key, follower=address != shard.primary)
                )

    async def _forget_all_but(self, addresses: Collection[Address]) -> None:
        # All at once: another look may let go of them, too, while they are closed.
        gone = [self._clients.pop(one) for one in self._clients.keys() - set(addresses)]
        for client in gone:
            await client.close()

    def client(self, address: Address) -> NodeClient:
        """The connections to one node, kept until it is no node of the store any more."""
        if address not in self._clients:
            self._clients[address] = NodeClient(address, self._settings)
        return self._clients[address]

    @property
    def keyspace(self) -> Keyspace:
        """Where the keys are: the primary, or those of a Cluster."""
        if self._settings.cluster:
            if self._map is None:
                raise StoreUnavailable(f"{self._settings.endpoint} has not been looked at yet")
            return self._map
        if self._sentinels is None:
            return self.client(self._settings.endpoint)
        return self.client(self.facts.primary.address)

    @property
    def replaceable(self) -> frozenset[Address]:
        """The primaries in whose place a replica may come without the operator: those of which
        Sentinels or the Cluster know one, whoever follows at the moment."""
        facts = self.facts
        if facts.cluster is not None:
            return frozenset(shard.primary for shard in facts.cluster.shards if shard.replicas)
        if self._sentinels is not None and self._sentinels.replicas:
            return frozenset({facts.primary.address})
        return frozenset()

    async def everywhere(self, operation: Callable[[NodeClient], Awaitable[T]]) -> NodeResults[T]:
        """The operation on every node; replicas known as unreachable are failures at once.

        A fence is the whole store's affair: where one node holds it, `FencedOut` is raised.
        """
        facts = self.facts
        found = await on_every_node(
            (node.address for node in facts.nodes),
            lambda address: operation(self.client(address)),
        )
        failures = {**facts.unreachable, **found.failures}
        for failure in failures.values():
            if isinstance(failure, FencedOut):
                raise failure
        return NodeResults(found.results, failures)


def _epoch_key(shard: Shard) -> str | None:
    """The first key of a term in the shard's slots."""
    for slot, key in epoch_keys().items():
        if any(begin <= slot <= end for begin, end in shard.slots):
            return key
    return None


def _may_pass(error: MemtenantError) -> MemtenantError:
    """What a replica's failure means to the store: a new replica lacks the operator's user until
    somebody makes it there, and tenants wait for that without a change of their own."""
    if error.retryable:
        return error
    return StoreUnavailable(str(error), reason=error.reason)
