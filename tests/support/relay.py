"""A TCP proxy that tests can cut, freeze, slow down and point elsewhere; and a TLS relay.

Both listen on a free port of 127.0.0.1 and run in a thread of their own, so that synchronous and
asynchronous tests use them alike:

    with Proxy.to(primary.host, primary.port) as proxy:
        ...
        proxy.point_to(replica.host, replica.port)   # what a failover does to a Service
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from tests.support.certificates import Authority
from tests.support.loop import LoopThread

_CHUNK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger {on, 0 s}


@dataclass(frozen=True, slots=True)
class Target:
    """Where connections go."""

    host: str
    port: int


class Readable(Protocol):
    """Where bytes come from."""

    async def read(self, most: int, /) -> bytes:
        """The next bytes; none at the end."""


class Proxy:
    """Forwards bytes to a target that can change while it runs."""

    def __init__(self, target: Target, *, tls: ssl.SSLContext | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self._target = target
        self._tls = tls
        self._thread = LoopThread("proxy")
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._refusing = False
        self._thread.run(self._listen())

    @classmethod
    def to(cls, host: str, port: int) -> Self:
        """A proxy before `host:port`."""
        return cls(Target(host, port))

    @property
    def endpoint(self) -> str:
        """`host:port` of the proxy itself."""
        return f"{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._connections)

    def point_to(self, host: str, port: int) -> None:
        """New connections go there; the open ones are cut, as after a failover."""
        self._target = Target(host, port)
        self.cut()

    def cut(self) -> None:
        """Reset every open connection. New ones are accepted."""
        self._thread.run(self._cut())

    def refuse(self) -> None:
        """Cut, and reset every new connection until `accept`."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        """Undo `refuse`."""
        self._refusing = False

    def freeze(self) -> None:
        """Connections stay open and are accepted, and no byte passes until `thaw`."""
        self._thread.call(self._flowing.clear)

    def thaw(self) -> None:
        """Undo `freeze`; what was held back arrives now."""
        self._thread.call(self._flowing.set)

    def delay(self, seconds: float) -> None:
        """Hold every chunk of bytes back for so long, in both directions. 0 ends it."""
        self._delay = seconds

    def close(self) -> None:
        """Cut everything and stop listening."""
        self._thread.run(self._stop())
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        tasks = [connection.abort() for connection in self._connections]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _Connection(reader, writer).reset()
            return
        connection = _Connection(reader, writer)
        self._connections.add(connection)
        try:
            await connection.open(self._target)
            async with asyncio.TaskGroup() as both:
                for source, sink in connection.directions():
                    both.create_task(self._pump(source, sink))
        except* (OSError, asyncio.CancelledError):
            pass  # a side went away, or `cut`: in both cases both sides end here
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _pump(self, source: Readable, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flowing.wait()
            sink.write(chunk)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
        else:
            sink.close()


class _Connection:
    """A client's connection and the one to the target that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client = reader, writer
        self._target: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._task = asyncio.current_task()

    async def open(self, target: Target) -> None:
        self._target = await asyncio.open_connection(target.host, target.port)

    def directions(self) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        assert self._target is not None
        return [(self._client[0], self._target[1]), (self._target[0], self._client[1])]

    def close(self) -> None:
        """Close both sides; what was already written still arrives."""
        for writer in self._writers():
            writer.close()

    def reset(self) -> None:
        """End both sides with a TCP reset; what was not sent yet is lost."""
        for writer in self._writers():
            if (raw := writer.get_extra_info("socket")) is not None:  # None: it is closed already
                with contextlib.suppress(OSError):  # it was closed a moment ago
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    def abort(self) -> "asyncio.Task[Any]":
        """Reset both sides and end the task that serves them, even a frozen one."""
        self.reset()
        assert self._task is not None
        self._task.cancel()
        return self._task

    def _writers(self) -> list[asyncio.StreamWriter]:
        return [side[1] for side in (self._client, self._target) if side is not None]


class TlsRelay(Proxy):
    """Ends TLS before a server that speaks none; trust `authority.certificate` to use it."""

    def __init__(
        self, target: Target, authority: Authority, *, require_client_certificate: bool = False
    ) -> None:
        self.authority = authority
        super().__init__(target, tls=_server_context(authority, require_client_certificate))


def _server_context(authority: Authority, require_client_certificate: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        files = authority.issue("relay").write(Path(folder), "relay")
        context.load_cert_chain(files.certificate, files.key)
    if require_client_certificate:
        context.load_verify_locations(cadata=authority.certificate.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context
