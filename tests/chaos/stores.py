"""The store that tenants share, in each shape that a MemoryStore may have."""

import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import redis

from memtenant.functions.library import libraries
from tests.chaos.disk import Disk
from tests.e2e.cutting import CuttingProxy
from tests.e2e.scene import Scene
from tests.support.clusters import Nodes, cluster
from tests.support.sentinels import MASTER, Watched, watched
from tests.support.servers import Flavour, Options, Server

__all__ = [
    "MAKERS",
    "PEERS",
    "InCluster",
    "Standalone",
    "Store",
    "UnderSentinels",
    "functions_missing",
    "lacking",
]

_CUT_AFTER = 40_000

PEERS = "peers"
"""As whom servers under Sentinels, and these, log in to each other: who is shut out of one, nobody
follows it, and to the Sentinels it is down, while agents and the operator reach it."""

_AGENTS_OF_SENTINELS = "memtenant-agents-"


class Store(Protocol):
    """What every shape has."""

    @property
    def splits(self) -> bool:
        """Whether a primary may go on for a while beside the one that took its place."""

    @property
    def nodes(self) -> list[Server]:
        """Every server of it, of which those that are frozen or killed will be back."""

    def primaries(self) -> list[Server]:
        """Those that have keys now."""

    def named(self, node: Server) -> str:
        """A server as a report names it."""

    def declare(self, scene: Scene) -> None:
        """Make it a MemoryStore."""

    def lacking(self) -> Iterator[str]:
        """What it is not whole without, in words."""


@dataclass
class Standalone:
    """A primary, which comes first, and a replica, on a disk each; agents and the operator reach
    the primary through the proxy."""

    nodes: list[Server]
    disks: list[Disk]
    proxy: CuttingProxy
    splits = False

    def primaries(self) -> list[Server]:
        """The one."""
        return self.nodes[:1]

    def named(self, node: Server) -> str:
        """By its role."""
        return "the primary" if node is self.nodes[0] else "the replica"

    def declare(self, scene: Scene) -> None:
        """By the address of the proxy."""
        scene.store(self.nodes[0], endpoint=self.proxy.endpoint)

    def lacking(self) -> Iterator[str]:
        """A replica that follows, and Functions."""
        yield from lacking(self.nodes, replicas=1)


@dataclass
class UnderSentinels:
    """A primary and two replicas, of which three Sentinels make another the primary."""

    watched: Watched
    splits = True

    @property
    def nodes(self) -> list[Server]:
        """As they were started: which is the primary, the Sentinels say."""
        return list(self.watched.nodes)

    def primaries(self) -> list[Server]:
        """The one on which the Sentinels agree and that the others follow; it is waited for."""
        return [self.watched.settle()]

    def named(self, node: Server) -> str:
        """By its address."""
        return node.endpoint

    def declare(self, scene: Scene) -> None:
        """By all Sentinels."""
        name = f"{scene.store_name}-sentinels"
        scene.secret(scene.home, name, {"password": self.watched.password.encode()})
        sentinel = {
            "endpoints": self.watched.endpoints,
            "masterName": MASTER,
            "authSecretRef": {"name": name, "key": "password"},
        }
        scene.store(self.watched.nodes[0], sentinel=sentinel)

    def lacking(self) -> Iterator[str]:
        """Also Sentinels that agree, and let agents ask."""
        told = {one.told() for one in self.watched.sentinels}
        if len(told) > 1:
            yield f"Sentinels that agree: they name {told}"
        for one in self.watched.sentinels:
            with one.client() as client:
                users = [_text(name) for name in client.acl_users()]
            if not any(name.startswith(_AGENTS_OF_SENTINELS) for name in users):
                yield f"agents' user on the Sentinel {one.endpoint}"
        yield from lacking(self.nodes, replicas=2)


@dataclass
class InCluster:
    """Three shards of a primary and a replica."""

    cluster: Nodes
    splits = True

    @property
    def nodes(self) -> list[Server]:
        """Of all shards."""
        return self.cluster.servers

    def primaries(self) -> list[Server]:
        """Those that have slots, when all nodes agree; that is waited for."""
        self.cluster.settle()
        return self.cluster.primaries()

    def named(self, node: Server) -> str:
        """By its address."""
        return node.endpoint

    def declare(self, scene: Scene) -> None:
        """By three nodes, as they were started: one of each shard, at first."""
        scene.store(self.nodes[0], cluster={"endpoints": self.cluster.endpoints[:3]})

    def lacking(self) -> Iterator[str]:
        """Also a view that all nodes share."""
        self.cluster.settle()
        yield from lacking(self.nodes, replicas=len(self.nodes) // 2)


def functions_missing(node: Server) -> list[str]:
    """The libraries of memtenant's that it has not."""
    with node.admin() as admin:
        loaded = str(admin.function_list())
    return [library.name for library in libraries() if library.name not in loaded]


def lacking(nodes: list[Server], replicas: int) -> Iterator[str]:
    """What these nodes of a store lack, of which so many are replicas."""
    following = 0
    for node in nodes:
        try:
            upstream = node.upstream
            following += bool(upstream)
            if upstream == 0:
                yield f"a primary that {node.endpoint} hears from"
            yield from (f"{name} on {node.endpoint}" for name in functions_missing(node))
        except redis.RedisError as error:
            yield f"the answer of {node.endpoint}: {error}"
    if following != replicas:
        yield f"{replicas} replicas that follow a primary: there are {following}"


def _standalone(scene: Scene, chance: random.Random, folder: Path) -> Standalone:
    aclfile = chance.random() < 0.5  # else a restart forgets users
    disks = [Disk.mounted(folder / f"disk-{name}") for name in ("one", "two")]
    first, second = (Options(aclfile=aclfile, appendonly=True, parent=disk.root) for disk in disks)
    primary = scene.server(first)
    replica = scene.server(second, replica_of=primary)
    proxy = scene.stack.enter_context(
        CuttingProxy.before(primary.host, primary.port, chance, _CUT_AFTER)
    )
    return Standalone([primary, replica], disks, proxy)


def _under_sentinels(scene: Scene, chance: random.Random, folder: Path) -> UnderSentinels:
    password = secrets.token_hex(16)
    config = {
        "user": f"{PEERS} on >{password} ~* &* +@all",
        "masteruser": PEERS,
        "masterauth": password,
    }
    options = Options(appendonly=True, config=config, parent=_disk(folder))
    found = scene.stack.enter_context(watched(Flavour.VALKEY_9, options=options))
    scene.stack.enter_context(found.hurried())
    scene.servers += found.nodes
    scene.secrets_made += [password.encode(), found.password.encode()]
    return UnderSentinels(found)


def _in_cluster(scene: Scene, chance: random.Random, folder: Path) -> InCluster:
    # A fault lasts for seconds: a primary has to be replaced within them.
    nodes = cluster(Flavour.VALKEY_9, parent=_disk(folder), hurried=True)
    found = scene.stack.enter_context(nodes)
    scene.servers += found.servers
    return InCluster(found)


def _disk(folder: Path) -> Path:
    """One for all servers: a file system whose writes do not wait for another's."""
    return Disk.mounted(folder / "disk-store").root


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode()


MAKERS: Mapping[str, Callable[[Scene, random.Random, Path], Store]] = {
    "standalone": _standalone,
    "sentinel": _under_sentinels,
    "cluster": _in_cluster,
}
"""By the name of the shape in a MemoryStore."""
