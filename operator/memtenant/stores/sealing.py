"""One store as the sealer's user sees it: queues to read and shorten, and two hashes to write.

Over a connection of its own with the reader that the SDK has: redis-py reads 170,000 to 270,000
entries of a queue a second where this reads a million (measured), and a drain has other work to do.
One instance belongs to one task.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import InvalidResource, LoginRefused, StoreRefused, StoreUnavailable
from memtenant.memory.topology import (
    MOST_MOVES,
    Way,
    asking_for_primary,
    moved_to,
    primary_from,
)
from memtenant.memory.wire import ErrorReply, LoginFailed, Replies, logged_in, login, packed
from memtenant.stores.batches import batches
from memtenant.stores.connection import StoreTls
from memtenant.stores.slots import slot_of
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.sentinel import SentinelAccess
from memtenant.tenancy.storesfile import CLUSTER, Endpoint, StoreAccess

__all__ = ["Heartbeat", "Page", "Queue", "Roster", "SealingStore", "queue_of"]

_READ_BYTES = 1 << 20
_MOST_BYTES = 32 << 20
"""Of one answer: half again what a page of the longest entries that a Function takes has."""

_BEGINNING = 9000
"""More than an entry of the log may have, so that it is told as what it is: oversized."""

_FEWER = 20
"""How many times fewer entries are asked for where so many are too large."""

_LONGEST_NUMBER = 18
_BATCH = 100
_TRIES = 5
_AWAY = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MOVED",
        "NOREPLICAS",
        "TRYAGAIN",
        "UNBLOCKED",
    }
)

Word = str | bytes | int
_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that is to be drained."""

    log: str
    length: int
    audited: Audited | None = None


@dataclass(frozen=True, slots=True)
class Roster:
    """What is to be drained on a store; ``unreadable`` are entries that no version wrote."""

    queues: tuple[Queue, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Entries as they were read. ``cut``: one that is too large, of which there is the beginning of
    the server's answer, which tells its size."""

    entries: tuple[bytes, ...] = ()
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """When a tenant's queue was last said to be drained (milliseconds of the server, 0: never), and
    whether its agents go on without events when that is long ago."""

    at: int
    drops: bool


class _TooMuch(StoreRefused):
    """More than `_MOST_BYTES` came; ``beginning`` are the first of them."""

    def __init__(self, beginning: bytes) -> None:
        super().__init__(f"The store's answer has more than {_MOST_BYTES} bytes")
        self.beginning = beginning


def queue_of(log: str) -> str:
    """The key of the queue whose entries belong to a log."""
    if log == INSTALLATION_LOG:
        return keys.INSTALLATION_QUEUE
    return keys.audit_queue(TenantId.parse(log))


class SealingStore:
    """Connects at the first call, and anew after any failure. ``access`` is asked each time, so
    that a rotated password is honoured without a restart. In a Cluster it learns from each node's
    answer which node has a log's keys.

    Every method raises `StoreUnavailable`, `LoginRefused` or `StoreRefused`.
    """

    def __init__(
        self,
        access: Callable[[], StoreAccess],
        *,
        connect_timeout: float = 3.0,
        timeout: float = 10.0,
    ) -> None:
        self._access = access
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._lines: dict[Endpoint, _Line] = {}
        self._owners: dict[int, Endpoint] = {}
        self._failures = 0
        self._way = Way()
        self._entries: dict[bytes, tuple[bytes, Audited | None]] = {}

    async def close(self) -> None:
        """Close the connections; what is on its way is lost."""
        lines, self._lines = self._lines, {}
        self._owners.clear()
        for _, writer in lines.values():
            writer.transport.abort()

    async def roster(self) -> Roster:
        """Whose queues there are, and how long they are."""
        found = (await self._run([("HGETALL", keys.STORE_AUDITED)]))[0]
        entries = {name: (value, self._entry(name, value)) for name, value in _pairs(found)}
        self._entries = entries
        audited = {_text(name): one for name, (_, one) in entries.items() if one is not None}
        logs = [*sorted(audited), INSTALLATION_LOG]
        lengths = await self._run([("LLEN", queue_of(log)) for log in logs])
        return Roster(
            tuple(
                Queue(log, _number(length), audited.get(log))
                for log, length in zip(logs, lengths, strict=True)
            ),
            tuple(_text(name) for name, (_, one) in entries.items() if one is None),
        )

    def _entry(self, name: bytes, value: bytes) -> Audited | None:
        """What an entry of the roster says, None for nonsense; as it is known, if it is the same:
        it is read every second, of thousands of tenants."""
        known = self._entries.get(name)
        if known is not None and known[0] == value:
            return known[1]
        try:
            TenantId.parse(_text(name))
            return Audited.from_json(value)
        except InvalidResource:
            return None

    async def dropped(self, tenants: Sequence[TenantId]) -> dict[TenantId, int]:
        """How many events of the tenants the server counted and did not write, while nobody drained
        and they were to go on. An agent may put anything in the place of that count, or of the
        hash: that is 0, and no other tenant's trouble."""
        asked = [("HGET", keys.usage(tenant), "dropped") for tenant in tenants]
        try:
            found = await self._replies(asked)
        except _TooMuch:
            if len(tenants) == 1:
                return {tenants[0]: 0}
            half = len(tenants) // 2
            return await self.dropped(tenants[:half]) | await self.dropped(tenants[half:])
        await self._refuse(reply for reply in found if not _is_wrong_type(reply))
        return {tenant: _number(count) for tenant, count in zip(tenants, found, strict=True)}

    async def writes_per_second(self, tenants: Sequence[TenantId]) -> list[int]:
        """What each tenant's agents may make together, as the operator wrote it; 0 if it did
        not."""
        asked = [("HGET", keys.limits(tenant), "writes_per_second") for tenant in tenants]
        return [_number(one) for one in await self._run(asked)]

    async def pages(self, logs: Sequence[str], most: int) -> list[Page] | None:
        """The oldest entries of each queue, at most so many; None where those of several are too
        large to be read together.

        An agent may push what it likes, and one entry of hundreds of megabytes must not take the
        sealer of all tenants down: of one that is too large to be read its first bytes are taken.
        """
        try:
            replies = await self._run([("LRANGE", queue_of(log), 0, most - 1) for log in logs])
        except _TooMuch as much:
            if len(logs) > 1:
                return None
            if most > 1:
                return await self.pages(logs, max(most // _FEWER, 1))
            return [Page((much.beginning,), cut=True)]
        found = [reply if isinstance(reply, list) else [] for reply in replies]
        return [Page(tuple(one for one in page if isinstance(one, bytes))) for page in found]

    async def trim(self, read: Mapping[str, Page]) -> dict[str, bool]:
        """Remove the entries that were read, of each queue in which they still are where they were
        read; in which they were.

        Nobody but the sealer shortens a queue. A server that lost or got back entries meanwhile (a
        restore, a failover) is read anew; what was taken already is recognised then.
        """
        asked = [(log, page) for log, page in read.items() if not page.cut]
        ends: list[tuple[Word, ...]] = []
        for log, page in asked:
            last = len(page.entries) - 1
            ends += [("LRANGE", queue_of(log), 0, 0), ("LRANGE", queue_of(log), last, last)]
        replies = await self._run(ends)
        stays = dict.fromkeys(read, True)
        for (log, page), first, end in zip(asked, replies[::2], replies[1::2], strict=True):
            stays[log] = first == [page.entries[0]] and end == [page.entries[-1]]
        await self._run(
            [("LTRIM", queue_of(log), len(read[log].entries), -1) for log in read if stays[log]]
        )
        return stays

    async def heartbeats(self, tenants: Sequence[TenantId]) -> dict[TenantId, Heartbeat]:
        """The last one of each tenant. Its agents may not write there."""
        asked = ("audit_heartbeat", "audit", "on_failure")
        replies = await self._run([("HMGET", keys.limits(tenant), *asked) for tenant in tenants])
        found = (reply if isinstance(reply, list) else [None] * 3 for reply in replies)
        return {
            tenant: Heartbeat(_number(at), audit == b"1" and on_failure == b"Open")
            for tenant, (at, audit, on_failure) in zip(tenants, found, strict=True)
        }

    async def time(self) -> int:
        """The server's clock, in milliseconds."""
        return _milliseconds((await self._run([("TIME",)]))[0])

    async def beat(self, tenants: Sequence[TenantId]) -> int:
        """Say to the Functions that the tenants' queues are drained, by the server's clock: its
        milliseconds. A tenant whose limits are gone gets none back by this."""
        now = await self.time()
        # A transaction of a Cluster holds one tenant's keys.
        for batch in batches(tenants, 1 if self._access().flavour == CLUSTER else _BATCH):
            names = [keys.limits(tenant) for tenant in batch]
            for _ in range(_TRIES):
                replies = await self._run(
                    [("WATCH", *names), *(("HGET", name, "format") for name in names)], at=names[0]
                )
                there = [name for name, one in zip(names, replies[1:], strict=True) if one]
                beats = [("HSET", name, "audit_heartbeat", now) for name in there]
                replies = await self._run([("MULTI",), *beats, ("EXEC",)], at=names[0])
                if replies[-1] is not None:
                    break
        return now

    async def told(self, names: Sequence[str]) -> list[dict[str, str]]:
        """What was told under each key before."""
        return [
            {name.decode(): value.decode("utf-8", "replace") for name, value in _pairs(reply)}
            for reply in await self._run([("HGETALL", name) for name in names])
        ]

    async def tell(self, hashes: Mapping[str, Mapping[str, str]]) -> None:
        """Write what the operator shows: key → fields."""
        for batch in batches(hashes.items(), _BATCH):
            await self._run(
                [
                    ("HSET", name, *(word for pair in sorted(fields.items()) for word in pair))
                    for name, fields in batch
                ]
            )

    # --- the connections -------------------------------------------------------------------

    async def _run(
        self, commands: Sequence[Sequence[Word]], *, at: str | None = None
    ) -> list[object]:
        """The replies, of each command from where its key is, or all from where ``at`` is. Raises
        what one of them was refused with."""
        replies = await self._replies(commands, at=at)
        await self._refuse(replies)
        return replies

    async def _refuse(self, replies: Iterable[object]) -> None:
        for reply in replies:
            if isinstance(reply, ErrorReply):
                seed = self._seed()
                where = f"{seed.host}:{seed.port}"
                await self.close()
                raise _refusal(where, reply)

    async def _replies(
        self, commands: Sequence[Sequence[Word]], *, at: str | None = None
    ) -> list[object]:
        """And refusals among them."""
        replies: list[object] = [None] * len(commands)
        waiting = list(range(len(commands)))
        for _ in range(MOST_MOVES):
            moved: list[int] = []
            for node, places in self._by_node(commands, waiting, at).items():
                found = await self._answered(node, [commands[place] for place in places])
                for place, reply in zip(places, found, strict=True):
                    replies[place] = reply
                    if self._learns(commands[place], reply, node):
                        moved.append(place)
            # What belongs together is not sent again in parts, nor without what it watched.
            waiting = list(range(len(commands))) if moved and at is not None else moved
            if not waiting or commands[0][0] == "MULTI":
                break
        return replies

    def _by_node(
        self, commands: Sequence[Sequence[Word]], places: Sequence[int], at: str | None
    ) -> dict[Endpoint, list[int]]:
        if self._access().flavour != CLUSTER:
            return {self._seed(): list(places)} if places else {}
        found: dict[Endpoint, list[int]] = {}
        for place in places:
            words = commands[place]
            key = at if at is not None else words[1] if len(words) > 1 else ""
            node = self._owners.get(slot_of(str(key)), self._seed())
            found.setdefault(node, []).append(place)
        return found

    def _learns(self, words: Sequence[Word], reply: object, node: Endpoint) -> bool:
        """Whether the key is on another node, which is asked from here on."""
        if not isinstance(reply, ErrorReply) or reply.code != "MOVED" or words[0] == "EXEC":
            return False
        elsewhere = moved_to(reply, (node.host, node.port))
        if elsewhere is not None:
            self._owners[slot_of(str(words[1]))] = Endpoint(*elsewhere)
        return elsewhere is not None

    def _seed(self) -> Endpoint:
        """The primary, or after each failure another node of those that are named."""
        endpoints = self._access().endpoints
        return endpoints[self._failures % len(endpoints)]

    async def _answered(self, node: Endpoint, commands: Sequence[Sequence[Word]]) -> list[object]:
        where = f"{node.host}:{node.port}"
        try:
            if node not in self._lines:
                self._lines[node] = await self._connected(node)
            async with asyncio.timeout(self._timeout):
                return await _answers(self._lines[node], commands)
        except BaseException as error:
            self._failures += 1
            await self.close()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(
                    f"{where} did not answer in time", reason="StoreTimeout"
                ) from None
            if isinstance(error, OSError):
                raise StoreUnavailable(f"{where} cannot be reached: {error}") from None
            raise

    async def _connected(self, node: Endpoint) -> _Line:
        access = self._access()
        context = None
        if access.tls:
            context = StoreTls(
                access.ca_crt or None, access.client_crt or None, access.client_key or None
            ).context()
        name = access.server_name or access.endpoints[0].host
        where = node if access.sentinel is None else await self._primary(access.sentinel, context)
        async with asyncio.timeout(self._connect_timeout):
            line = await _opened(where, context, name)
            try:
                logged_in(await _answers(line, login(access.username, access.password)))
            except LoginFailed:
                line[1].transport.abort()
                raise LoginRefused(
                    f"{node.host}:{node.port} does not let {access.username} in: the operator "
                    "makes this user, and the mounted Secret follows a change within minutes"
                ) from None
            except BaseException:
                line[1].transport.abort()
                raise
        return line

    async def _primary(self, sentinel: SentinelAccess, context: ssl.SSLContext | None) -> Endpoint:
        """Where the first Sentinel that answers says that it is."""
        failure: OSError = ConnectionRefusedError("no Sentinel is known")
        for host, port in self._way.sentinels(sentinel):
            line: _Line | None = None
            try:
                async with asyncio.timeout(self._connect_timeout):
                    line = await _opened(
                        Endpoint(host, port), context, sentinel.server_name or host
                    )
                    return Endpoint(
                        *primary_from(await _answers(line, asking_for_primary(sentinel)))
                    )
            except OSError as error:
                failure = error
                self._way.turn()
            finally:
                if line is not None:
                    line[1].transport.abort()
        raise failure


async def _answers(line: _Line, commands: Sequence[Sequence[Word]]) -> list[object]:
    reader, writer = line
    writer.write(packed([tuple(command) for command in commands]))
    found, size, beginning = Replies(), 0, b""
    while len(found.ready) < len(commands):
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionResetError("it closed the connection")
        if len(beginning) < _BEGINNING:
            beginning += data[:_BEGINNING]
        size += len(data)
        if size > _MOST_BYTES:
            raise _TooMuch(beginning[:_BEGINNING])
        found.feed(data)
    return found.ready


async def _opened(where: Endpoint, context: ssl.SSLContext | None, name: str) -> _Line:
    return await asyncio.open_connection(
        where.host,
        where.port,
        ssl=context,
        server_hostname=name if context else None,
        limit=_READ_BYTES,
    )


def _refusal(where: str, reply: ErrorReply) -> StoreUnavailable | StoreRefused:
    if reply.code == "READONLY":
        return StoreUnavailable(f"{where} is a replica now, not the primary", reason="NotPrimary")
    if reply.code in _AWAY:
        return StoreUnavailable(f"{where} cannot answer now: {reply.code}")
    if reply.code == "NOPERM":
        return StoreRefused(
            f"{where}: the sealer's user lacks a permission. The operator puts it back",
            reason="StorePermissionMissing",
        )
    return StoreRefused(f"{where} refused a command of the sealer: {reply.code or 'ERR'}")


def _is_wrong_type(reply: object) -> bool:
    return isinstance(reply, ErrorReply) and reply.code == "WRONGTYPE"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _pairs(reply: object) -> list[tuple[bytes, bytes]]:
    items = reply if isinstance(reply, list) else []
    return list(zip(items[::2], items[1::2], strict=True))


def _number(reply: object) -> int:
    if isinstance(reply, int):
        return reply
    # Python refuses to read a number of thousands of digits.
    if not isinstance(reply, bytes) or not reply.isdigit() or len(reply) > _LONGEST_NUMBER:
        return 0
    return int(reply)


def _milliseconds(reply: object) -> int:
    assert isinstance(reply, list)  # noqa: S101 - TIME has no other answer
    return int(reply[0]) * 1000 + int(reply[1]) // 1000
