"""A real Cluster: shards with replicas, slots that move, nodes that come and go.

with cluster(Flavour.VALKEY_9) as found:
    found.move_slot(found.slot_of("{support.acme}"), to=found.shards[1].primary)
"""

import contextlib
import secrets
import time
from binascii import crc_hqx
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import processes, servers
from tests.support.certificates import Authority
from tests.support.servers import Flavour, Options, Server

_SLOTS = 16_384
_PATIENT, _HURRIED = "20000", "1500"
"""Milliseconds without a word after which a node takes another for dead, and a half of which it
lets pass before it asks. A busy machine is silent for a second or two."""


@dataclass(slots=True)
class Nodes:
    """The servers of a Cluster, whatever their roles are now."""

    flavour: Flavour
    admin_password: str
    tls: Authority | None = None
    by_name: bool = False
    parent: Path | None = None
    patience: str = _PATIENT
    servers: list[Server] = field(default_factory=list)
    _is_hurried: bool = False
    _is_made: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def endpoints(self) -> list[str]:
        """Of all nodes."""
        return [server.endpoint for server in self.servers]

    def start(self) -> Server:
        """One more server, which is in no Cluster yet."""
        config = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": self.patience,
            "cluster-port": str(processes.free_port()),
            "cluster-replica-validity-factor": "0",
            "repl-ping-replica-period": "1",
        }
        if self.tls is not None:
            config["tls-cluster"] = "yes"
        if self.by_name:
            config["cluster-announce-hostname"] = "localhost"
            config["cluster-preferred-endpoint-type"] = "hostname"
        options = Options(appendonly=True, tls=self.tls, config=config, parent=self.parent)
        server = servers.start(self.flavour, options, admin_password=self.admin_password)
        self._stack.callback(servers.discard, server)
        self.servers.append(server)
        if self._is_hurried:
            self._take_for_dead_after(_HURRIED)
        if not self._is_made:
            self._let_replicas_take_over(server, "no")
        return server

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """Within it the nodes talk often, and what is down is soon replaced."""
        self._is_hurried = True
        self._take_for_dead_after(_HURRIED)
        try:
            yield
        finally:
            self._is_hurried = False
            self._take_for_dead_after(self.patience)

    def add(self, *, replica_of: Server | None = None) -> Server:
        """One more node of the Cluster, without slots, or as a replica."""
        server = self.start()
        self.meet(server)
        if replica_of is not None:
            primary = self.id_of(replica_of)
            processes.wait_until(lambda: primary in self._known(server), what="the primary")
            self.run(server, "CLUSTER", "REPLICATE", primary)
            server.wait_for_sync()
        return server

    def remove(self, server: Server) -> None:
        """Take a node without slots out of the Cluster, as `redis-cli --cluster del-node` does."""
        identity = self.id_of(server)
        self.servers.remove(server)
        for one in self.servers:
            if one.alive:
                self.run(one, "CLUSTER", "FORGET", identity)
        self.run(server, "CLUSTER", "RESET", "SOFT")
        self.settle()

    def meet(self, server: Server) -> None:
        """Make the node one of the Cluster: all others know it, and it knows them."""
        bus = server.options.config["cluster-port"]
        others = [one for one in self.servers if one.alive and one is not server]
        for one in others:  # by gossip alone it takes as long as it happens to take
            self.run(one, "CLUSTER", "MEET", server.host, server.port, bus)
        for one in others:
            self._wait_until_known(server, by=one)
            self._wait_until_known(one, by=server)

    def settle(self) -> None:
        """Wait until all nodes that are up agree that all is well, on who is who."""

        def is_settled() -> bool:
            there = [one for one in self.servers if one.alive]
            states = [self.run(one, "CLUSTER", "INFO") for one in there]
            owners = {frozenset(self._owners(one).items()) for one in there}
            return all("cluster_state:ok" in state for state in states) and len(owners) == 1

        processes.wait_until(is_settled, what="a Cluster that agrees")

    def owner_of(self, slot: int) -> Server:
        """The node that has the slot, as the nodes say that are up."""
        port = self._owner(next(one for one in self.servers if one.alive), slot)
        return next(one for one in self.servers if one.port == port)

    def primaries(self) -> list[Server]:
        """The nodes that have slots, as the nodes say that are up."""
        first = next(one for one in self.servers if one.alive)
        ports = set(self._owners(first).values())
        return [one for one in self.servers if one.port in ports]

    def replicas_of(self, primary: Server) -> list[Server]:
        """The nodes that follow it."""
        found = []
        for one in self.servers:
            if one.alive and one is not primary:
                with one.admin() as admin:
                    facts = admin.info("replication")
                if facts.get("master_port") == primary.port:
                    found.append(one)
        return found

    def move_slot(self, slot: int, to: Server, *, pause: float = 0.0) -> None:
        """Move a slot as `redis-cli --cluster reshard` does, key by key; ``pause`` seconds with
        some keys here and some there."""
        with self.moving(slot, to):
            time.sleep(pause)

    @contextlib.contextmanager
    def moving(self, slot: int, to: Server) -> Iterator[None]:
        """Move a slot so, with some keys here and some there during the block."""
        self.settle()  # a node that has just come takes no keys yet: CLUSTERDOWN
        source = self.owner_of(slot)
        there, here = self.id_of(to), self.id_of(source)
        self.run(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        self.run(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        self._migrate(slot, source, to)
        try:
            yield
        finally:
            while self._migrate(slot, source, to):
                pass
            for one in (to, source, *self.servers):
                with contextlib.suppress(Exception):  # a replica takes no such order
                    self.run(one, "CLUSTER", "SETSLOT", slot, "NODE", there)
            self.settle()

    def _migrate(self, slot: int, source: Server, to: Server) -> bool:
        """Move some keys of the slot; whether there were any."""
        keys = self._raw(source, "CLUSTER", "GETKEYSINSLOT", slot, 3)
        assert isinstance(keys, list)
        if keys:
            login = ("AUTH2", source.admin_user, self.admin_password)
            self.run(source, "MIGRATE", to.host, to.port, "", 0, 5000, *login, "KEYS", *keys)
        return bool(keys)

    def move_slot_at_once(self, slot: int, to: Server) -> None:
        """Move a slot as Valkey 9 does by itself: no client sees it half-way."""
        self.settle()
        source = self.owner_of(slot)
        there = self.id_of(to)
        self.run(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", there)
        processes.wait_until(
            lambda: all(self._owner(one, slot) == to.port for one in self.servers if one.alive),
            what="a moved slot",
        )

    def id_of(self, server: Server) -> str:
        """The node's id."""
        return self.run(server, "CLUSTER", "MYID")

    def run(self, server: Server, *words: object) -> str:
        """A command to one node, as the administrator; its answer as a text."""
        answer = self._raw(server, *words)
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    def close(self) -> None:
        """End all of them."""
        self._stack.close()

    def made(self) -> None:
        """From now on a replica takes the place of its primary: before, a busy machine would have
        it do so while all of them hurry, and who is started as what is not known any more."""
        self._is_made = True
        for one in self.servers:
            self._let_replicas_take_over(one, "yes")

    def _let_replicas_take_over(self, server: Server, may: str) -> None:
        no_failover = "no" if may == "yes" else "yes"
        self.run(server, "CONFIG", "SET", "cluster-replica-no-failover", no_failover)

    def _take_for_dead_after(self, milliseconds: str) -> None:
        for one in self.servers:
            if one.alive:
                self.run(one, "CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def _raw(self, server: Server, *words: object) -> object:
        with server.admin() as admin:
            admin.response_callbacks.clear()
            return admin.execute_command(*words)

    def _known(self, server: Server) -> str:
        """Whom it knows and does not only shake hands with."""
        lines = self.run(server, "CLUSTER", "NODES").splitlines()
        return "\n".join(line for line in lines if "handshake" not in line)

    def _wait_until_known(self, server: Server, *, by: Server) -> None:
        identity = self.id_of(server)
        processes.wait_until(lambda: identity in self._known(by), what="a node that is known")

    def _owner(self, server: Server, slot: int) -> int | None:
        """The port of the slot's owner as the node knows it, which it may lack for a moment."""
        owners = self._owners(server).items()
        return next((port for (begin, end), port in owners if begin <= slot <= end), None)

    def _owners(self, server: Server) -> dict[tuple[int, int], int]:
        owners = {}
        for line in self.run(server, "CLUSTER", "NODES").splitlines():
            words = line.split(" ")
            port = int(words[1].partition("@")[0].rpartition(":")[2])
            for word in words[8:]:
                if not word.startswith("["):
                    begin, _, end = word.partition("-")
                    owners[int(begin), int(end or begin)] = port
        return owners


def slot_of(key: str) -> int:
    """The slot of a key, by its hash tag."""
    tag = key.partition("{")[2].partition("}")[0] or key
    return crc_hqx(tag.encode(), 0) % _SLOTS


@contextlib.contextmanager
def cluster(
    flavour: Flavour,
    *,
    shards: int = 3,
    replicas: int = 1,
    tls: Authority | None = None,
    by_name: bool = False,
    parent: Path | None = None,
    hurried: bool = False,
) -> Iterator[Nodes]:
    """That many primaries with that many replicas each; ``by_name``: clients are sent to
    localhost, not to an address. Folders are made in ``parent``, as `Options` says; ``hurried``:
    what is down is soon replaced, and not only within `Nodes.hurried`."""
    patience = _HURRIED if hurried else _PATIENT
    found = Nodes(flavour, secrets.token_hex(16), tls, by_name, parent, patience)
    with contextlib.closing(found):
        primaries = [found.start() for _ in range(shards)]
        with found.hurried():
            for number, primary in enumerate(primaries):
                found.run(primary, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in primaries[1:]:
                found.meet(other)
            for number, primary in enumerate(primaries):
                begin, end = (_SLOTS * part // shards for part in (number, number + 1))
                found.run(primary, "CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
            for primary in primaries:
                for _ in range(replicas):
                    found.add(replica_of=primary)
            found.settle()
        found.made()
        yield found
