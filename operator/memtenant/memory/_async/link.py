"""One connection, and the few things that differ with and without asyncio.

redis-py carries the bytes (connect, TLS, AUTH, RESP); its client layer is not used: its retries
would send a write twice, and its reply callbacks differ between versions.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from memtenant.functions.calls import Words
from memtenant.memory.options import Options
from memtenant.memory.wire import packed
from memtenant.tenancy.binding import Binding

__all__ = ["Gate", "Link", "Lock", "home", "sleep"]

Lock = asyncio.Lock
sleep = asyncio.sleep


def home() -> object:
    """Where the caller runs: locks and connections do not outlive a fork, nor an event loop."""
    return os.getpid(), asyncio.get_running_loop()


class Gate:
    """Lets so many in at a time."""

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    async def enter(self, seconds: float) -> bool:
        """Whether a place was free in that time; `leave` gives it back."""
        if not self._places.locked():
            return await self._places.acquire()
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self._places.acquire()
        except TimeoutError:
            return False

    def leave(self) -> None:
        """Give the place back."""
        self._places.release()


class Link:
    """One connection with the credentials of one generation of the binding.

    A call that does not end as it should leaves the connection unusable: `drop` it.
    """

    def __init__(self, connection: AbstractConnection, options: Options, generation: int) -> None:
        self._connection = connection
        self._timeout = options.timeout
        self.generation = generation

    @classmethod
    async def open(
        cls, binding: Binding, options: Options, context: ssl.SSLContext | None, generation: int
    ) -> Link:
        """Connect and log in. Raises redis-py's errors, ``OSError`` or ``TimeoutError``."""
        arguments: dict[str, Any] = {
            "host": binding.host,
            "port": binding.port,
            "username": binding.username,
            "password": binding.password,
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": options.connect_timeout,
            "socket_keepalive": True,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
        }
        connection: AbstractConnection
        if context is None:
            connection = Connection(**arguments)
        else:
            connection = SSLConnection(**arguments)
            connection.ssl_context.context = context
        link = cls(connection, options, generation)
        try:
            async with asyncio.timeout(options.connect_timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await link.drop()
            raise
        return link

    async def exchange(self, commands: Sequence[Words]) -> list[object]:
        """Send the commands in one write and read their replies; an error reply is a
        ``ResponseError`` in its place."""
        data = packed(commands)
        async with asyncio.timeout(self._timeout):
            await self._connection.send_packed_command(data, check_health=False)
            return [await self._read() for _ in commands]

    async def _read(self) -> object:
        try:
            return await self._connection.read_response()
        except ResponseError as refusal:
            return refusal

    async def drop(self) -> None:
        """Close at once, whatever is on its way."""
        await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close in good order."""
        await self._connection.disconnect()
