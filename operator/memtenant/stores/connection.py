"""One node of a store: a bounded pool of connections, raw commands in, raw replies out.

redis-py connects (AUTH, TLS) and pools; its client layer is not used. Its retries would send a
write twice (one RPUSH over a stalled server was stored twice: measured) and its reply callbacks
differ between versions, so replies here are RESP2 as the server sent them. They are read by the
SDK's reader, a chunk at a time: redis-py's awaits each line of a reply, and the ACL users of ten
thousand tenants are a million lines.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.exceptions
from redis._parsers.base import BaseParser
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    SSLConnection,
)
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from memtenant.memory.wire import ErrorReply, Replies, packed
from memtenant.stores.keyspace import Part
from memtenant.stores.refusals import required, translated
from memtenant.tenancy.keys import STORE_EPOCH

__all__ = [
    "Address",
    "Argument",
    "Command",
    "EpochPlace",
    "NodeClient",
    "Reply",
    "Session",
    "StoreSettings",
    "StoreTls",
]

_CHUNK = 65_536

Argument = str | bytes | int
Command = Sequence[Argument]
Reply = object
"""What a RESP2 server answers: bytes, int, None, a list of these, or a `ResponseError`."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StoreTls:
    """TLS to a store, as PEM text.

    ca: whom to trust; None trusts what the machine trusts. client_certificate, client_key: shown
    to servers that ask for one.
    """

    ca: str | None = None
    client_certificate: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """A context that verifies the chain and the name; `ValueError` for unusable PEM."""
        if self.ca is not None and not self.ca.strip():
            # To ssl it would be as None: everybody's authorities, and not the one that was meant.
            raise ValueError("the store's TLS certificates are not usable PEM: the CA is empty")
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.client_certificate is not None:
                _load_client_certificate(context, self.client_certificate, self.client_key or "")
        except (ssl.SSLError, TypeError) as error:  # TypeError: a letter that is not ASCII
            raise ValueError(f"the store's TLS certificates are not usable PEM: {error}") from None
        return context


def _load_client_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    # ssl reads a chain from files only; the file is private and gone at once.
    with tempfile.TemporaryDirectory(prefix="memtenant-tls-") as folder:
        chain = Path(folder) / "chain.pem"
        chain.touch(mode=0o600)
        chain.write_text(f"{certificate.rstrip()}\n{key}")
        context.load_cert_chain(chain)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How to reach a store's nodes.

    endpoint: the primary's address, or of several Sentinels the first's. cluster: of a Cluster, the
    nodes from which the others are found. password is asked at each
    connect, so that a rotated Secret is honoured without a restart. server_name is the name to
    expect in certificates (None: the endpoint's host). connect_timeout and timeout (for the
    replies to one batch) are in seconds.
    """

    endpoint: Address
    username: str
    password: Callable[[], str] = field(repr=False)
    tls: StoreTls | None = None
    server_name: str | None = None
    cluster: tuple[Address, ...] = ()
    connect_timeout: float = 3.0
    timeout: float = 5.0
    connections_per_node: int = 4


@dataclass(frozen=True, slots=True)
class EpochPlace:
    """Where the leader's term is looked up for writes to a node.

    follower: the node serves keys of its primary's only to who says READONLY. elsewhere: the node
    of a Cluster has no slot with such a key (it was just added): it is looked up there.
    """

    key: str = STORE_EPOCH
    follower: bool = False
    elsewhere: NodeClient | None = None


class NodeClient:
    """Commands to one node over a few pooled connections; a `Keyspace` of its own.

    ``wait`` is the longest time for all the replies, in seconds.
    Every method raises `StoreUnavailable` when the node does not answer (what was sent may have
    been executed) and `StoreRefused` when it refuses the login.
    """

    def __init__(self, address: Address, settings: StoreSettings, *, login: bool = True) -> None:
        """Without ``login`` a new connection sends nothing by itself: its user sends AUTH."""
        self.address = address
        self.epoch = EpochPlace()
        self.username = settings.username
        self._timeout = settings.timeout
        self._connect_timeout = settings.connect_timeout + settings.timeout
        options: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "credential_provider": _Login(settings) if login else None,
            "protocol": 2,
            "decode_responses": False,
            "socket_connect_timeout": settings.connect_timeout,
            # Timeouts are set here and not by redis-py, which answers nil for a reply that did
            # not come in the time that its caller named.
            "socket_timeout": None,
            "socket_keepalive": True,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
        }
        if not login:
            options["driver_info"] = None
        connection: type[AbstractConnection] = _PlainConnection
        if settings.tls is not None:
            connection = _TlsConnection
            options["context"] = settings.tls.context()
            options["verified_name"] = settings.server_name or settings.endpoint.host
        self._pool = BlockingConnectionPool(
            max_connections=settings.connections_per_node,
            timeout=settings.timeout,
            connection_class=connection,
            **options,
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """One connection for the block, for what belongs together (WATCH … EXEC).

        A block that ends in any exception closes the connection: nothing half-read, no open
        transaction and no watched key goes back to the pool.
        """
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        except (redis.exceptions.RedisError, OSError) as error:
            raise translated(error, str(self.address)) from None
        clean = False
        try:
            yield Session(connection, self.address, self._timeout)
            clean = True
        finally:
            if not clean:
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def run(self, commands: Iterable[Command], *, wait: float | None = None) -> list[Reply]:
        """Pipeline the commands; a command's own error is its reply (a `ResponseError`)."""
        async with self.session() as session:
            return await session.run(commands, wait=wait)

    async def call(self, *command: Argument, wait: float | None = None) -> Reply:
        """One command; its error is raised as `StoreRefused` or `StoreUnavailable`."""
        reply = (await self.run([command], wait=wait))[0]
        return required(reply, self.address)

    @property
    def shards(self) -> tuple[NodeClient, ...]:
        """Itself."""
        return (self,)

    def parts(self, commands: Sequence[Command]) -> list[Part]:
        """All commands in one."""
        return [Part(self, tuple(range(len(commands))))]

    async def steady(self) -> str:
        """Keys stay on the node."""
        return ""

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class Session:
    """One connection, held by `NodeClient.session`."""

    def __init__(
        self, connection: _PlainConnection | _TlsConnection, address: Address, timeout: float
    ) -> None:
        self.address = address
        self._connection = connection
        self._timeout = timeout

    async def run(self, commands: Iterable[Command], *, wait: float | None = None) -> list[Reply]:
        """Pipeline the commands in one write; see `NodeClient.run`."""
        batch = [tuple(command) for command in commands]
        wait = self._timeout if wait is None else wait
        try:
            async with asyncio.timeout(wait):
                await self._connection.send_packed_command(packed(batch))
                return await self._replies(len(batch))
        except (redis.exceptions.RedisError, OSError) as error:
            raise translated(error, str(self.address)) from None

    async def _replies(self, count: int) -> list[Reply]:
        stream, replies = self._connection.incoming, Replies()
        while len(replies.ready) < count:
            data = b"" if stream is None else await stream.read(_CHUNK)
            if not data:
                raise redis.exceptions.ConnectionError("the server closed the connection")
            replies.feed(data)
        return [_with_errors(reply) for reply in replies.ready]


def _with_errors(reply: Reply) -> Reply:
    """The reply, with redis-py's exceptions for the errors in it (also within an EXEC's). One that
    says that the connection is of no use, or the server of none yet, is raised.
    """
    if isinstance(reply, list):
        return [_with_errors(one) for one in reply]
    if not isinstance(reply, ErrorReply):
        return reply
    text = reply.text if reply.code else f"ERR {reply.text}"
    error: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    if isinstance(error, redis.exceptions.ConnectionError):
        raise error
    return error


class _Login(CredentialProvider):
    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str, str]:
        return self._settings.username, self._settings.password()

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


class _PlainConnection(Connection):
    @property
    def incoming(self) -> asyncio.StreamReader | None:
        """What the server sends; None while there is no connection."""
        return self._reader


class _TlsConnection(SSLConnection):
    """TLS with a ready context.

    A replica is known by the IP address that INFO tells, which its certificate rarely names; it
    must be valid for the name under which the store was declared.
    """

    def __init__(self, *, context: ssl.SSLContext, verified_name: str, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context
        self._verified_name = verified_name

    @property
    def incoming(self) -> asyncio.StreamReader | None:
        """What the server sends; None while there is no connection."""
        return self._reader

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self._verified_name}
