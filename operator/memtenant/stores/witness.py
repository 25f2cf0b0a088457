"""A store as somebody sees it who may only read: its nodes, their users, and what tenants have.

The operator's own connection (`StoreAdmin`) is not used, so that what is told of a store does not
rest on the word of who administers it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from redis.exceptions import ResponseError

from memtenant.errors import MemtenantError, StoreUnavailable
from memtenant.functions.passes import Passes
from memtenant.stores.cluster import ClusterKeyspace, find_cluster
from memtenant.stores.connection import Address, Command, NodeClient, Reply, StoreSettings
from memtenant.stores.inspection import count_keys, info_of, replays_transactions
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.refusals import required, translated
from memtenant.stores.survey import Held, queued, survey
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["NodeView", "Standing", "StoreWitness", "SubjectView"]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node. ``linked``: it is a primary, or in step with its own. ``users`` has what ACL
    GETUSER answered of every user. CONFIG is not asked: it also tells the password by which
    replicas log in. ``durable``: data survives a restart and is never evicted."""

    address: Address
    version: str
    primary: bool
    linked: bool
    durable: bool
    commands: frozenset[str] = field(repr=False)
    categories: Mapping[str, frozenset[str]] = field(repr=False)
    users: Mapping[str, Mapping[object, object]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SubjectView:
    """A person's own keys: the wrapped data key and the tombstone, None where there is none, and
    how many places the index names."""

    data_key: bytes | None = field(repr=False)
    mark: bytes | None
    indexed: int


@dataclass(frozen=True, slots=True)
class Standing:
    """``time`` by the clock of the server that is furthest on, ``earliest`` by that which is
    furthest behind; ``servers`` says which they are."""

    time: datetime
    earliest: datetime
    servers: tuple[object, ...] = field(repr=False)


class StoreWitness:
    """Reads one store; `close` it afterwards."""

    def __init__(self, settings: StoreSettings, *, pace: Pace | None = None) -> None:
        self._settings = settings
        self._pace = pace or Pace()
        self._clients: dict[Address, NodeClient] = {}
        self._cluster: ClusterKeyspace | None = None
        self._members: tuple[Address, ...] = ()

    @property
    def tls(self) -> bool:
        """Whether the connection is under TLS."""
        return self._settings.tls is not None

    @property
    def address(self) -> Address:
        """The primary's, or that of one node of a Cluster."""
        return self._settings.endpoint

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _keys(self) -> Keyspace:
        """Where the keys are: on the primary, or on those of a Cluster as it was at first."""
        if not self._settings.cluster:
            return self._client(self.address)
        if self._cluster is None:
            found = await find_cluster(self._client, self._settings.cluster)
            self._cluster = ClusterKeyspace(found, self._client)
            self._members = found.addresses
        return self._cluster

    async def nodes(
        self, known: Sequence[Collection[str]] = ()
    ) -> tuple[tuple[NodeView, ...], Mapping[Address, MemtenantError]]:
        """The primaries and their replicas, and of those that did not answer why not. Raises what
        the first primary answers with.

        ``known`` are the nodes that the store had, each as they were seen once. One of these that
        no primary names any more is asked too: if it answers, it was cut off; if not, it counts as
        lost unless as many nodes are there as were.
        """
        first, *others = (self.address,)
        if self._settings.cluster:
            await self._keys()
            first, *others = self._members
        primary, replicas = await self._view(first)
        if not primary.primary:
            # Its primary, and what else hangs on that, would not be looked at.
            raise StoreUnavailable(
                f"{first} is a replica now: run the report again when the operator has followed"
            )
        found: list[NodeView] = [primary]
        lost: dict[Address, MemtenantError] = {}
        waiting, seen = [*others, *replicas], {first}
        while waiting:
            address = waiting.pop()
            if address in seen:
                continue
            seen.add(address)
            try:
                node, below = await self._view(address)
            except MemtenantError as error:
                lost[address] = error
                continue
            found.append(node)
            waiting += below
            if not node.linked:
                lost[address] = _cut_off()
        strays, silent = await self._strays({one for names in known for one in names}, seen)
        lost |= {node.address: _cut_off() for node in strays}
        if any(len(seen) < len(names) for names in known):
            lost |= silent
        return (*found, *strays), lost

    async def _strays(
        self, known: Collection[str], seen: Collection[Address]
    ) -> tuple[list[NodeView], Mapping[Address, MemtenantError]]:
        """Of the nodes that were known and are named by nobody: who answers, and who does not."""
        found, silent = [], {}
        for address in sorted(set(map(_address, known)) - set(seen), key=str):
            try:
                node, _ = await self._view(address)
            except MemtenantError as error:
                silent[address] = error
            else:
                found.append(node)
        return found, silent

    async def standing(self) -> Standing:
        """Who has the keys, and since when: what was read in between is whole only where that stays
        the same. Raises `StoreUnavailable` where keys are on the move."""
        if self._settings.cluster:
            found = await find_cluster(self._client, self._settings.cluster)
            if found.moving:
                raise StoreUnavailable(
                    f"slots of the Cluster of {self.address} are on the move: run the report again "
                    "when they have arrived"
                )
            shards: tuple[object, ...] = tuple((one.primary, one.slots) for one in found.shards)
        else:
            shards = ()
        servers, times = [], []
        for node in (await self._keys()).shards:
            replies = await node.run([("INFO", "server"), ("INFO", "replication"), ("TIME",)])
            server, replication = (info_of(node, one) for one in replies[:2])
            servers.append(
                (server.get("run_id"), replication.get("role"), replication.get("master_replid"))
            )
            seconds, micros = replies[2] if isinstance(replies[2], list) else (b"0", b"0")
            # In milliseconds, as its Functions tell times.
            since = timedelta(seconds=int(seconds), milliseconds=int(micros) // 1000)
            times.append(datetime(1970, 1, 1, tzinfo=UTC) + since)
        return Standing(max(times), min(times), (*shards, *servers))

    async def contents(
        self,
        wanted: Callable[[TenantId, bytes], bool],
        progress: Callable[[int], None] = lambda _keys: None,
    ) -> AsyncIterator[Held]:
        """Every key that is wanted, by its tenant and the rest of its name, but for queues."""
        async for page in survey(
            await self._keys(), wanted=wanted, pace=self._pace, progress=progress
        ):
            yield page

    async def queued(self, key: str) -> AsyncIterator[list[bytes]]:
        """What stands in a queue."""
        async for page in queued(await self._keys(), key):
            yield page

    async def hash(self, key: str) -> dict[str, str]:
        """A hash of texts; empty where there is none."""
        reply = await (await self._keys()).call("HGETALL", key)
        texts = [_text(one) for one in reply] if isinstance(reply, list) else []
        return dict(zip(texts[::2], texts[1::2], strict=True))

    async def passes(self, tenant: TenantId) -> Passes:
        """When the operator looked at all that the tenant has."""
        reply = await (await self._keys()).call("GET", keys.passes(tenant))
        return Passes.parse(reply if isinstance(reply, bytes) else None)

    async def subjects(self, tenant: TenantId, aliases: Sequence[str]) -> list[SubjectView]:
        """What there is of persons, each by the alias in its keys' names."""
        node = await self._keys()
        commands: list[Command] = []
        for one in aliases:
            commands.append(("HMGET", keys.dek(tenant, one), "dek", "erased"))
            commands.append(("LLEN", keys.subject_index(tenant, one)))
        replies = await node.run(commands)
        for reply in replies:
            if isinstance(reply, ResponseError) and not str(reply).startswith("WRONGTYPE"):
                raise translated(reply, str(node.address))
        return [
            SubjectView(*_octets(fields), indexed if isinstance(indexed, int) else 0)
            for fields, indexed in zip(replies[::2], replies[1::2], strict=True)
        ]

    async def count_keys(self) -> int:
        """How many keys the store has, of tenants and others."""
        return await count_keys((await self._keys()).shards)

    async def push(self, key: str, entry: bytes) -> None:
        """Append to the installation's queue: the one thing that a report writes to a store."""
        await (await self._keys()).call("RPUSH", key, entry)

    def _client(self, address: Address) -> NodeClient:
        if address not in self._clients:
            self._clients[address] = NodeClient(address, self._settings)
        return self._clients[address]

    async def _view(self, address: Address) -> tuple[NodeView, list[Address]]:
        node = self._client(address)
        replies = await node.run(
            [
                ("INFO", "server"),
                ("INFO", "replication"),
                ("INFO", "persistence"),
                ("INFO", "memory"),
                ("COMMAND", "LIST"),
                ("ACL", "USERS"),
                ("ACL", "CAT"),
            ]
        )
        server, replication, persistence, memory = (info_of(node, one) for one in replies[:4])
        names = _required(node, replies[5])
        groups = _required(node, replies[6])
        users = await node.run(("ACL", "GETUSER", name) for name in names)
        members = await node.run(("ACL", "CAT", name) for name in groups)
        default = dict(zip(names, users, strict=True)).get("default")
        view = NodeView(
            address=address,
            version=server.get("valkey_version") or server.get("redis_version", "unknown"),
            primary=replication.get("role") == "master",
            linked=replication.get("master_link_status", "up") == "up",
            durable=persistence.get("aof_enabled") == "1"
            and memory.get("maxmemory_policy") == "noeviction"
            and replays_transactions(server, default),
            commands=frozenset(one.lower() for one in _required(node, replies[4])),
            categories={
                group: frozenset(one.lower() for one in _required(node, reply))
                for group, reply in zip(groups, members, strict=True)
            },
            users={
                name: _fields(node, reply)
                for name, reply in zip(names, users, strict=True)
                if reply is not None  # it was removed since
            },
        )
        return view, _replicas(replication)


def _cut_off() -> MemtenantError:
    return StoreUnavailable(
        "it answers, and is not in step with a primary of the store: what it has may be old. "
        "Connect it again, or shut it down"
    )


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port) if port.isdecimal() else 0)


def _replicas(replication: Mapping[str, str]) -> list[Address]:
    found = []
    for number in range(int(replication.get("connected_slaves", "0"))):
        entry = replication.get(f"slave{number}", "")
        fields = dict(part.partition("=")[::2] for part in entry.split(","))
        if fields.get("ip") and fields.get("port", "").isdecimal():
            found.append(Address(fields["ip"], int(fields["port"])))
    return found


def _octets(reply: Reply) -> tuple[bytes | None, bytes | None]:
    data_key, mark = reply if isinstance(reply, list) else (None, None)
    return (
        data_key if isinstance(data_key, bytes) else None,
        mark if isinstance(mark, bytes) else None,
    )


def _required(node: NodeClient, reply: Reply) -> list[str]:
    required(reply, node.address)
    return [_text(one) for one in reply] if isinstance(reply, list) else []


def _fields(node: NodeClient, reply: Reply) -> dict[object, object]:
    required(reply, node.address)
    if not isinstance(reply, list):
        raise StoreUnavailable(f"{node.address} answered ACL GETUSER in a way not understood")
    return {_text(reply[at]): reply[at + 1] for at in range(0, len(reply) - 1, 2)}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
