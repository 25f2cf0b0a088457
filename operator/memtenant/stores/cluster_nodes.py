"""What a Cluster says of itself, without I/O: CLUSTER NODES and CLUSTER INFO, read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from memtenant.stores.connection import Address

__all__ = ["ClusterMap", "ClusterNode", "Shard", "parse_nodes"]

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One line. ``follows`` is the id of a replica's primary; ``epoch`` grows whenever slots become
    the node's; ``moving``: a slot of the node that
    was asked is on its way to or from another; ``gone``: the others agree that it is down, or it
    was never met."""

    id: str
    address: Address
    follows: str
    slots: tuple[Range, ...]
    epoch: int
    moving: bool
    gone: bool


@dataclass(frozen=True, slots=True)
class Shard:
    """A primary, its replicas, and its slots (none: it was added and holds nothing yet) since
    which ``epoch``."""

    primary: Address
    replicas: tuple[Address, ...]
    slots: tuple[Range, ...]
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """All nodes that are not down, as one of them sees it. ``moving`` as in `ClusterNode`."""

    shards: tuple[Shard, ...]
    moving: bool = False

    @classmethod
    def of(cls, nodes: Sequence[ClusterNode]) -> ClusterMap:
        """The shards by their first slots, empty ones last."""
        there = [node for node in nodes if not node.gone]
        shards = [
            Shard(
                node.address,
                tuple(sorted(one.address for one in there if one.follows == node.id)),
                node.slots,
                node.epoch,
            )
            for node in there
            if not node.follows
        ]
        shards.sort(key=lambda shard: (not shard.slots, shard.slots, shard.primary))
        return cls(tuple(shards), any(node.moving for node in nodes))

    @property
    def covered(self) -> bool:
        """Whether some node has each slot."""
        return sum(end - begin + 1 for shard in self.shards for begin, end in shard.slots) == 16_384

    @property
    def layout(self) -> str:
        """Which primary has which slots, as a digest; another one also where slots left a primary
        and came back."""
        held = [shard for shard in self.shards if shard.slots]
        text = repr([(str(shard.primary), shard.slots, shard.epoch) for shard in held])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Of all nodes, each primary before its replicas."""
        return tuple(
            address for shard in self.shards for address in (shard.primary, *shard.replicas)
        )

    def shard_of(self, slot: int) -> Shard | None:
        """Whose slot it is."""
        for shard in self.shards:
            if any(begin <= slot <= end for begin, end in shard.slots):
                return shard
        return None


def parse_nodes(text: str, asked: Address) -> list[ClusterNode]:
    """The lines of CLUSTER NODES. A node that nobody has met yet does not know its own address:
    it is where it was asked."""
    return [_node(line.split(" "), asked) for line in text.splitlines() if line.count(" ") >= 7]


def _node(words: Sequence[str], asked: Address) -> ClusterNode:
    identity, where, flags, follows = words[:4]
    host, _, port = where.partition("@")[0].partition(",")[0].rpartition(":")
    slots = [word for word in words[8:] if not word.startswith("[")]
    known = flags.split(",")
    return ClusterNode(
        id=identity,
        address=Address(host or asked.host, int(port)) if port.isdecimal() else asked,
        follows="" if follows == "-" else follows,
        slots=tuple(sorted(_range(word) for word in slots)),
        epoch=int(words[6]),
        moving=len(words) > 8 + len(slots),
        gone=bool({"fail", "handshake", "noaddr"} & set(known)),
    )


def _range(word: str) -> Range:
    begin, _, end = word.partition("-")
    return int(begin), int(end or begin)
