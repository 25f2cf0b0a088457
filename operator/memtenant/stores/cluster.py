"""A Cluster: its nodes found, and commands brought to where their keys are.

Nothing here follows a transaction's redirect: while a slot moves, what works on its tenants fails
as a store that cannot answer at the moment, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from redis.exceptions import AskError, MovedError, ResponseError

from memtenant.errors import StoreRefused, StoreUnavailable
from memtenant.stores.cluster_nodes import ClusterMap, parse_nodes
from memtenant.stores.connection import Address, Argument, Command, NodeClient, Reply
from memtenant.stores.inspection import info_of
from memtenant.stores.keyspace import Part
from memtenant.stores.nodes import on_every_node
from memtenant.stores.refusals import required
from memtenant.stores.slots import slot_of

__all__ = ["ClusterKeyspace", "find_cluster"]

_KEYLESS = frozenset({"ACL", "CLIENT", "COMMAND", "CONFIG", "FUNCTION", "INFO", "TIME"})
_SCRIPTS = frozenset({"EVAL_RO", "FCALL", "FCALL_RO"})

ClientOf = Callable[[Address], NodeClient]


@dataclass(frozen=True, slots=True)
class _View:
    map: ClusterMap
    sound: bool
    epoch: int


async def find_cluster(client: ClientOf, seeds: Iterable[Address]) -> ClusterMap:
    """The Cluster as the nodes see it that are with its majority and know of its latest change.

    Raises `StoreUnavailable`: ``ClusterDown`` where it does not serve all slots, or what the first
    node said that did not answer; `StoreRefused`.
    """
    asked = await on_every_node(dict.fromkeys(seeds), lambda address: _view(client(address)))
    if not asked.results:
        asked.require_all()
    sound = [view for view in asked.results.values() if view.sound and view.map.covered]
    if not sound:
        where = ", ".join(str(address) for address in sorted(asked.results))
        raise StoreUnavailable(
            f"The Cluster of {where} does not serve all of its slots now: a primary is away and "
            "has no replica that could take its place, or slots are assigned to nobody",
            reason="ClusterDown",
        )
    return max(sound, key=lambda view: view.epoch).map


async def _view(node: NodeClient) -> _View:
    info, nodes = await node.run([("CLUSTER", "INFO"), ("CLUSTER", "NODES")])
    if isinstance(info, ResponseError) and "cluster support disabled" in str(info):
        raise StoreRefused(
            f"{node.address} runs in standalone mode, but the store is declared as a Cluster: say "
            "standalone in the MemoryStore",
            reason="StoreModeUnsupported",
        )
    facts = info_of(node, info)
    return _View(
        _map(node, nodes),
        facts.get("cluster_state") == "ok",
        int(facts.get("cluster_current_epoch", "0")),
    )


def _map(node: NodeClient, reply: Reply) -> ClusterMap:
    required(reply, node.address)
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    return ClusterMap.of(parse_nodes(text, node.address))


class ClusterKeyspace:
    """The keys of a Cluster, as it was when it was looked at last."""

    def __init__(self, found: ClusterMap, client: ClientOf) -> None:
        self._map = found
        self._client = client
        self.shards = tuple(client(shard.primary) for shard in found.shards if shard.slots)
        self.address = self.shards[0].address

    async def run(self, commands: Iterable[Command], *, wait: float | None = None) -> list[Reply]:
        """As `Keyspace.run`: to each shard what is its, at once; a redirect is followed once."""
        batch = list(commands)
        by_node: dict[Address, list[int]] = defaultdict(list)
        for place, command in enumerate(batch):
            by_node[self._node_of(command).address].append(place)
        replies: list[Reply] = [None] * len(batch)

        async def on(address: Address, places: Sequence[int]) -> None:
            chosen = [batch[place] for place in places]
            found = await self._client(address).run(chosen, wait=wait)
            for place, reply in zip(places, found, strict=True):
                replies[place] = await self._followed(batch[place], reply)

        await asyncio.gather(*(on(*one) for one in by_node.items()))
        return replies

    async def call(self, *command: Argument, wait: float | None = None) -> Reply:
        """As `Keyspace.call`."""
        reply = (await self.run([command], wait=wait))[0]
        return required(reply, self._node_of(command).address)

    def parts(self, commands: Sequence[Command]) -> list[Part]:
        """A transaction holds the keys of one slot."""
        by_slot: dict[int, list[int]] = defaultdict(list)
        for place, command in enumerate(commands):
            key = _key(command)
            by_slot[-1 if key is None else slot_of(key)].append(place)
        return [Part(self._node_at(slot), tuple(places)) for slot, places in by_slot.items()]

    async def steady(self) -> str:
        """As `Keyspace.steady`: every primary is asked, as each knows of its own slots only
        whether they are on their way."""
        found = await asyncio.gather(*(_view(node) for node in self.shards))
        layouts = {view.map.layout for view in found} | {self._map.layout}
        if len(layouts) > 1 or any(view.map.moving for view in found):
            raise StoreUnavailable(
                f"Slots of the Cluster of {self.address} move from node to node, so that a pass "
                "over all keys could miss some: it begins anew when they have settled",
                reason="SlotsMoving",
            )
        return self._map.layout

    async def _followed(self, command: Command, reply: Reply) -> Reply:
        if isinstance(reply, MovedError):
            return (await self._at(reply).run([command]))[0]
        if isinstance(reply, AskError):
            async with self._at(reply).session() as session:
                return (await session.run([("ASKING",), command]))[1]
        return reply

    def _at(self, redirect: AskError) -> NodeClient:
        return self._client(Address(redirect.host or self.address.host, redirect.port))

    def _node_of(self, command: Command) -> NodeClient:
        key = _key(command)
        return self._node_at(-1 if key is None else slot_of(key))

    def _node_at(self, slot: int) -> NodeClient:
        shard = None if slot < 0 else self._map.shard_of(slot)
        return self.shards[0] if shard is None else self._client(shard.primary)


def _key(command: Command) -> bytes | str | None:
    """The first key of a command that the operator sends; None where it has none."""
    name = command[0]
    if name in _KEYLESS:
        return None
    key = command[3 if name in _SCRIPTS else 2 if name == "MEMORY" else 1]
    assert not isinstance(key, int)  # noqa: S101 - no key of memtenant's is a number
    return key
