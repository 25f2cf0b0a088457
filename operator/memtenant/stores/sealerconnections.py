"""The sealer's connections to the nodes of one store, and which node has a key.

With the reader that the SDK has: redis-py reads 170,000 to 270,000 entries of a queue a second
where this reads a million (measured), and a drain has other work to do.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence

from memtenant.errors import LoginRefused, StoreRefused, StoreUnavailable
from memtenant.memory.topology import (
    MOST_MOVES,
    Way,
    asking_for_primary,
    moved_to,
    primary_from,
)
from memtenant.memory.wire import ErrorReply, LoginFailed, Replies, logged_in, login, packed
from memtenant.stores.connection import StoreTls
from memtenant.stores.slots import slot_of
from memtenant.tenancy.sentinel import SentinelAccess
from memtenant.tenancy.storesfile import CLUSTER, Endpoint, StoreAccess

__all__ = ["Command", "SealerConnections", "TooMuch"]

_READ_BYTES = 1 << 20
_MOST_BYTES = 32 << 20
"""Of one answer: half again what a page of the longest entries that a Function takes has."""

_BEGINNING = 9000
"""More than an entry of the log may have, so that it is told as what it is: oversized."""

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
Command = Sequence[Word]
_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TooMuch(StoreRefused):
    """More than `_MOST_BYTES` came; ``beginning`` are the first of them."""

    def __init__(self, beginning: bytes) -> None:
        super().__init__(f"The store's answer has more than {_MOST_BYTES} bytes")
        self.beginning = beginning


class SealerConnections:
    """Connects at the first call, and anew after any failure. ``access`` is asked each time, so
    that a rotated password is honoured without a restart. In a Cluster it learns from each node's
    answer which node has a key.

    Raises `StoreUnavailable`, `LoginRefused` or `StoreRefused`.
    """

    def __init__(
        self, access: Callable[[], StoreAccess], *, connect_timeout: float, timeout: float
    ) -> None:
        self._access = access
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._lines: dict[Endpoint, _Line] = {}
        self._owners: dict[int, Endpoint] = {}
        self._failures = 0
        self._way = Way()

    async def close(self) -> None:
        """Close the connections; what is on its way is lost."""
        lines, self._lines = self._lines, {}
        self._owners.clear()
        for _, writer in lines.values():
            writer.transport.abort()

    async def run(self, commands: Sequence[Command], *, at: str | None = None) -> list[object]:
        """The replies, of each command from where its key is, or all from where ``at`` is. Raises
        what one of them was refused with."""
        replies = await self.replies(commands, at=at)
        await self.refuse(replies)
        return replies

    async def refuse(self, replies: Iterable[object]) -> None:
        """Raise what one of the replies is a refusal of."""
        for reply in replies:
            if isinstance(reply, ErrorReply):
                seed = self._seed()
                where = f"{seed.host}:{seed.port}"
                await self.close()
                raise _refusal(where, reply)

    async def replies(self, commands: Sequence[Command], *, at: str | None = None) -> list[object]:
        """As `run`, with refusals among them."""
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
        self, commands: Sequence[Command], places: Sequence[int], at: str | None
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

    async def _answered(self, node: Endpoint, commands: Sequence[Command]) -> list[object]:
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


async def _answers(line: _Line, commands: Sequence[Command]) -> list[object]:
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
            raise TooMuch(beginning[:_BEGINNING])
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
