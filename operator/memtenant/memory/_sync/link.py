"""One connection, and the few things that differ with and without asyncio.

Written by hand beside ``_async/link.py``; everything else in this package is generated.
"""

from __future__ import annotations

import contextvars
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from memtenant.functions.fcall import Words
from memtenant.functions.versions import CURRENT_VERSION
from memtenant.memory.options import Options
from memtenant.memory.topology import Endpoint
from memtenant.memory.wire import Replies, packed

if TYPE_CHECKING:
    from memtenant.memory.summaries import Summariser, SummaryRequest

__all__ = ["Gate", "Link", "Lock", "aside", "asked", "check_left", "home", "sleep"]

Lock = threading.Lock
sleep = time.sleep
T = TypeVar("T")

_READ_BYTES = 64 * 1024


def home() -> object:
    """Where the caller runs: locks and connections do not outlive a fork."""
    return os.getpid()


def check_left(before: object) -> None:
    """Nothing to check: threads share what is here, and a fork leaves it."""


def aside(work: Callable[[], T]) -> T:
    """Do what takes long here: only this thread waits for it."""
    return work()


def asked(summariser: Summariser, request: SummaryRequest, seconds: float) -> object:
    """What the summariser answers. Raises ``TimeoutError``, and what it raises.

    In a thread of its own: one that is late is left alone, and what it answers then is ignored.
    """
    answers: queue.SimpleQueue[tuple[object, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((summariser(request), None))
        except Exception as error:  # noqa: BLE001 - raised to the caller
            answers.put((None, error))

    threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name="summariser", daemon=True
    ).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return answer


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

    def __init__(
        self, connected: socket.socket, options: Options, generation: int, where: Endpoint
    ) -> None:
        self._socket = connected
        self._options = options
        self._timeout = options.connect_timeout
        self._replies = Replies()
        self.generation = generation
        self.where = where
        self.version = CURRENT_VERSION  # of the Functions that this server holds

    @classmethod
    def connect(
        cls,
        where: Endpoint,
        name: str,
        options: Options,
        context: ssl.SSLContext | None,
        generation: int,
    ) -> Link:
        """Connect; with TLS, to a server whose certificate has the name. Raises ``OSError``."""
        connected = socket.create_connection(where, options.connect_timeout)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if context is not None:
                connected = context.wrap_socket(connected, server_hostname=name)
        except BaseException:
            connected.close()
            raise
        return cls(connected, options, generation, where)

    def opened(self) -> None:
        """Logged in: from here on answers may take as long as any."""
        self._timeout = self._options.timeout
        self._socket.settimeout(self._timeout)

    def exchange(self, commands: Sequence[Words]) -> list[object]:
        """Send the commands in one write and read their replies; an error reply is an `ErrorReply`
        in its place. Raises ``OSError``."""
        replies, until = self._replies, time.monotonic() + self._timeout
        self._socket.sendall(packed(commands))
        while len(replies.ready) < len(commands):
            # The socket's own timeout begins anew with each byte.
            if time.monotonic() > until:
                raise TimeoutError
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the connection was closed")
            replies.feed(data)
        found, replies.ready = replies.ready, []
        return found

    def drop(self) -> None:
        """Close at once."""
        self._socket.close()

    def close(self) -> None:
        """Close in good order."""
        self._socket.close()

    def is_cut(self) -> bool:
        """Only a fork leaves connections behind here, and they are the parent's."""
        return False
