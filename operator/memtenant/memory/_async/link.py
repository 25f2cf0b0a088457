"""One connection, and the few things that differ with and without asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeVar, cast

from memtenant.errors import UsageError
from memtenant.functions.fcall import Words
from memtenant.functions.versions import CURRENT_VERSION
from memtenant.memory.options import Options
from memtenant.memory.topology import Endpoint
from memtenant.memory.wire import Replies, packed

if TYPE_CHECKING:
    from memtenant.memory.summaries import Summariser, SummaryRequest

__all__ = ["Gate", "Link", "Lock", "aside", "asked", "check_left", "home", "sleep"]

Lock = asyncio.Lock
sleep = asyncio.sleep
T = TypeVar("T")

_READ_BYTES = 64 * 1024


def home() -> object:
    """Where the caller runs: locks and connections do not outlive a fork, nor an event loop."""
    return os.getpid(), asyncio.get_running_loop()


def check_left(before: object) -> None:
    """Raises `UsageError` where the home before is an event loop that still runs: two that take
    turns would throw away each other's connections, and what waits for them."""
    if not isinstance(before, tuple):
        return
    process, loop = before
    if process == os.getpid() and loop.is_running():
        raise UsageError(
            "This Tenant is in use in another event loop, which still runs: open a Tenant for each "
            "event loop, or use memtenant.sync, whose Tenant threads may share"
        )


async def aside(work: Callable[[], T]) -> T:
    """Do what takes long in a thread, so that the event loop goes on."""
    return await asyncio.to_thread(work)


async def asked(summariser: Summariser, request: SummaryRequest, seconds: float) -> object:
    """What the summariser answers. Raises ``TimeoutError``, and what it raises."""
    async with asyncio.timeout(seconds):
        answer = summariser(request)
        return await answer if isawaitable(answer) else answer


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

    def __init__(self, options: Options, generation: int, where: Endpoint) -> None:
        self._options = options
        self._timeout = options.connect_timeout
        self._process = os.getpid()
        self._stream = _Stream()
        self.generation = generation
        self.where = where
        self.version = CURRENT_VERSION  # of the Functions that this server holds

    @classmethod
    async def connect(
        cls,
        where: Endpoint,
        name: str,
        options: Options,
        context: ssl.SSLContext | None,
        generation: int,
    ) -> Link:
        """Connect; with TLS, to a server whose certificate has the name. Raises ``OSError``."""
        link = cls(options, generation, where)
        try:
            async with asyncio.timeout(options.connect_timeout):
                await asyncio.get_running_loop().create_connection(
                    lambda: link._stream,
                    *where,
                    ssl=context,
                    server_hostname=name if context else None,
                )
        except BaseException:
            await link.drop()
            raise
        return link

    def opened(self) -> None:
        """Logged in: from here on answers may take as long as any."""
        self._timeout = self._options.timeout

    async def exchange(self, commands: Sequence[Words]) -> list[object]:
        """Send the commands in one write and read their replies; an error reply is an `ErrorReply`
        in its place. Raises ``OSError``."""
        return await self._stream.exchange(packed(commands), len(commands), self._timeout)

    async def drop(self) -> None:
        """Close at once, whatever is on its way."""
        self._stream.abort()

    async def close(self) -> None:
        """Close in good order."""
        self._stream.close()

    def is_cut(self) -> bool:
        """Cut the connection from outside of its event loop, which may have ended; whether it was:
        a forked child leaves it to its parent."""
        if self._process != os.getpid():
            return False
        self._stream.cut()
        return True


class _Stream(asyncio.BufferedProtocol):
    """Bytes out, replies in; for one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._replies = Replies()
        self._expected = 0
        self._waiter: asyncio.Future[None] | None = None

    async def exchange(self, data: bytes, count: int, seconds: float) -> list[object]:
        if self._transport is None:
            raise _gone()
        loop = asyncio.get_running_loop()
        self._expected = count
        self._waiter = loop.create_future()
        # A third of what asyncio.timeout takes.
        clock = loop.call_later(seconds, self._settle, TimeoutError())
        try:
            self._transport.write(data)
            await self._waiter
        finally:
            clock.cancel()
        found, self._replies.ready = self._replies.ready, []
        return found

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def cut(self) -> None:
        if self._transport is None:
            return
        raw = self._transport.get_extra_info("socket")
        # A loop of another make has sockets that cannot, and closes them when it ends.
        with suppress(OSError, TypeError, AttributeError):
            raw.shutdown(socket.SHUT_RDWR)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._settle(error if isinstance(error, OSError) else _gone())

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._replies.feed(bytes(self._view[:nbytes]))
        except ConnectionError as error:
            self._settle(error)
            self.abort()
            return
        if len(self._replies.ready) >= self._expected:
            self._settle(None)

    def _settle(self, error: OSError | None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)


def _gone() -> ConnectionError:
    return ConnectionResetError("the connection was closed")
