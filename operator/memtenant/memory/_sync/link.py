"""One connection, and the few things that differ with and without asyncio.

Written by hand beside ``_async/link.py``; everything else in this package is generated.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ResponseError
from redis.retry import Retry

from memtenant.functions.calls import Words
from memtenant.memory.options import Options
from memtenant.memory.wire import packed
from memtenant.tenancy.binding import Binding

__all__ = ["Gate", "Link", "Lock", "home", "sleep"]

Lock = threading.Lock
sleep = time.sleep


def home() -> object:
    """Where the caller runs: locks and connections do not outlive a fork."""
    return os.getpid()


class Gate:
    """Lets so many in at a time."""

    def __init__(self, places: int) -> None:
        self._places = threading.BoundedSemaphore(places)

    def enter(self, seconds: float) -> bool:
        """Whether a place was free in that time; `leave` gives it back."""
        return self._places.acquire(timeout=max(seconds, 0.0))

    def leave(self) -> None:
        """Give the place back."""
        self._places.release()


class Link:
    """One connection with the credentials of one generation of the binding.

    A call that does not end as it should leaves the connection unusable: `drop` it.
    """

    def __init__(self, connection: AbstractConnection, generation: int) -> None:
        self._connection = connection
        self.generation = generation

    @classmethod
    def open(
        cls, binding: Binding, options: Options, context: ssl.SSLContext | None, generation: int
    ) -> Link:
        """Connect and log in. Raises redis-py's errors, ``OSError`` or ``TimeoutError``."""
        arguments: dict[str, Any] = {
            "host": binding.host,
            "port": binding.port,
            "username": binding.username,
            "password": binding.password,
            "protocol": 2,
            "socket_timeout": options.timeout,
            "socket_connect_timeout": options.connect_timeout,
            "socket_keepalive": True,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
        }
        connection: AbstractConnection
        if context is None:
            connection = Connection(**arguments)  # type: ignore[no-untyped-call]
        else:
            connection = _TlsConnection(context, **arguments)
        link = cls(connection, generation)
        try:
            connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            link.drop()
            raise
        return link

    def exchange(self, commands: Sequence[Words]) -> list[object]:
        """Send the commands in one write and read their replies; an error reply is a
        ``ResponseError`` in its place."""
        data = packed(commands)
        self._connection.send_packed_command([data], check_health=False)  # type: ignore[no-untyped-call]
        return [self._read() for _ in commands]

    def _read(self) -> object:
        try:
            return self._connection.read_response()
        except ResponseError as refusal:
            return refusal

    def drop(self) -> None:
        """Close at once."""
        self._connection.disconnect()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close in good order."""
        self._connection.disconnect()  # type: ignore[no-untyped-call]


class _TlsConnection(SSLConnection):
    """TLS with a ready context."""

    def __init__(self, context: ssl.SSLContext, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._ready_context = context

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        return self._ready_context.wrap_socket(sock, server_hostname=self.host)
