"""The proxy breaks connections as networks do; the relay gives TLS to servers that have none."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.certificates import Authority
from tests.support.relay import Proxy, Target, TlsRelay
from tests.support.servers import Server

StartServer = Callable[..., Server]


@pytest.fixture
def proxy(valkey: Server) -> Iterator[Proxy]:
    with Proxy.to(valkey.host, valkey.port) as proxy:
        yield proxy


def client(
    server: Server, proxy: Proxy, *, timeout: float = 60.0, ca_file: Path | None = None
) -> "redis.Redis":
    return redis.Redis(
        proxy.host,
        proxy.port,
        username=server.admin_user,
        password=server.admin_password,
        socket_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        ssl=ca_file is not None,
        ssl_ca_certs=str(ca_file) if ca_file else None,
    )


def test_bytes_pass_unchanged(valkey: Server, proxy: Proxy) -> None:
    value = bytes(range(256)) * 8192
    with client(valkey, proxy) as through, valkey.admin() as direct:
        through.set("k", value)
        assert direct.get("k") == value
        assert through.get("k") == value


def test_a_cut_connection_ends_and_the_next_one_works(valkey: Server, proxy: Proxy) -> None:
    with socket.create_connection((proxy.host, proxy.port), timeout=60) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100).startswith(b"-NOAUTH")
        assert proxy.connections == 1
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            raw.recv(100)
    with client(valkey, proxy) as through:
        assert through.ping()


def test_a_refusing_proxy_lets_nobody_in_until_it_accepts(valkey: Server, proxy: Proxy) -> None:
    proxy.refuse()
    with client(valkey, proxy) as through:
        with pytest.raises(redis.ConnectionError):
            through.ping()
        proxy.accept()
        assert through.ping()


def test_a_frozen_connection_hangs_and_what_was_sent_arrives_later(
    valkey: Server, proxy: Proxy
) -> None:
    with client(valkey, proxy, timeout=2.0) as through, valkey.admin() as direct:
        through.ping()
        proxy.freeze()
        with pytest.raises(redis.TimeoutError):
            through.incr("n")
        assert direct.get("n") is None
        proxy.thaw()
        assert through.ping()


def test_a_frozen_connection_can_be_cut(valkey: Server, proxy: Proxy) -> None:
    with client(valkey, proxy, timeout=2.0) as through:
        through.ping()
        proxy.freeze()
        with pytest.raises(redis.TimeoutError):
            through.ping()
        proxy.cut()
        assert proxy.connections == 0
        proxy.thaw()
        assert through.ping()


def test_a_delay_holds_every_answer_back(valkey: Server, proxy: Proxy) -> None:
    with client(valkey, proxy) as through:
        through.ping()
        proxy.delay(0.1)
        before = time.monotonic()
        through.ping()
        assert time.monotonic() - before >= 0.2  # there and back


def test_after_a_failover_clients_reach_the_promoted_replica(
    valkey: Server, proxy: Proxy, start_server: StartServer
) -> None:
    replica = start_server(valkey.flavour, replica_of=valkey)
    replica.promote()
    with replica.admin() as direct:
        direct.set("who", "replica")
    with client(replica, proxy) as before:
        assert before.get("who") is None
    proxy.point_to(replica.host, replica.port)
    with client(replica, proxy) as after:
        assert after.get("who") == b"replica"


def test_a_target_that_is_gone_is_a_reset_connection(
    valkey: Server, proxy: Proxy, start_server: StartServer
) -> None:
    gone = start_server(valkey.flavour)
    gone.kill9()
    proxy.point_to(gone.host, gone.port)
    with client(valkey, proxy) as through, pytest.raises(redis.ConnectionError):
        through.ping()


def test_the_relay_gives_tls_to_a_server_without(redis_server: Server, tmp_path: Path) -> None:
    authority = Authority()
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(authority.certificate)
    target = Target(redis_server.host, redis_server.port)
    value = bytes(300_000)
    with (
        TlsRelay(target, authority) as relay,
        client(redis_server, relay, ca_file=ca_file) as through,
    ):
        through.set("k", value)
        assert through.get("k") == value


def test_a_client_that_trusts_another_authority_does_not_connect(
    valkey: Server, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(Authority("another").certificate)
    with (
        TlsRelay(Target(valkey.host, valkey.port), Authority()) as relay,
        client(valkey, relay, ca_file=ca_file) as through,
        pytest.raises(redis.ConnectionError, match="certificate verify failed"),
    ):
        through.ping()


def test_a_relay_can_demand_a_client_certificate(valkey: Server, tmp_path: Path) -> None:
    authority = Authority()
    files = authority.issue("operator").write(tmp_path, "operator")
    target = Target(valkey.host, valkey.port)
    with TlsRelay(target, authority, require_client_certificate=True) as relay:

        def ping() -> str:
            with redis.Redis(
                relay.host,
                relay.port,
                username=valkey.admin_user,
                password=valkey.admin_password,
                retry=Retry(NoBackoff(), 0),
                ssl=True,
                ssl_ca_data=authority.certificate.decode(),
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
            ) as through:
                return str(through.ping())

        certfile = keyfile = None
        with pytest.raises(redis.ConnectionError):
            ping()
        certfile, keyfile = str(files.certificate), str(files.key)
        assert ping() == "True"
