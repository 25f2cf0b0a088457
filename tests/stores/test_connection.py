"""What the operator hears when a store cannot be reached or refuses it."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from memtenant.errors import StoreRefused, StoreUnavailable
from memtenant.stores import Address, StoreSettings, StoreTls
from memtenant.stores.connection import NodeClient
from tests.conftest import StartServer
from tests.stores.operators import (
    OPERATOR,
    OPERATOR_PASSWORD,
    leading,
    looking_at,
    make_operator,
    settings_for,
)
from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.support.relay import Proxy, Target, TlsRelay
from tests.support.servers import Flavour, Options, Server


async def test_a_wrong_password_is_told_apart(redis_server: Server) -> None:
    make_operator(redis_server)
    wrong = replace(settings_for(redis_server), password=lambda: "guess")
    async with looking_at(redis_server, settings=wrong) as store:
        with pytest.raises(StoreRefused, match="username or password") as refusal:
            await store.discover()
    assert refusal.value.reason == "StoreWrongPassword"
    assert "guess" not in str(refusal.value)


async def test_a_rotated_password_is_honoured_at_the_next_connect(valkey: Server) -> None:
    make_operator(valkey)
    passwords = [OPERATOR_PASSWORD]
    rotating = replace(settings_for(valkey), password=lambda: passwords[-1])
    async with looking_at(valkey, settings=rotating) as store:
        await store.discover()
        with valkey.admin() as admin:
            admin.execute_command("ACL", "SETUSER", OPERATOR, "resetpass", ">rotated")
            admin.execute_command("CLIENT", "KILL", "USER", OPERATOR)
        passwords.append("rotated")
        # The first call may still find a connection that the server has just closed.
        with contextlib.suppress(StoreUnavailable):
            await store.discover()
        assert (await store.discover()).primary.version


async def test_nobody_listening_is_unavailable_and_worth_a_retry() -> None:
    address = Address("127.0.0.1", free_port())
    settings = StoreSettings(address, OPERATOR, lambda: OPERATOR_PASSWORD)
    client = NodeClient(address, settings)
    with pytest.raises(StoreUnavailable, match=str(address)) as failure:
        await client.call("PING")
    assert failure.value.retryable


async def test_a_frozen_server_is_unavailable(start_server: StartServer) -> None:
    server = start_server(Flavour.VALKEY_9)
    make_operator(server)
    hasty = replace(settings_for(server), timeout=2.0, connect_timeout=2.0)
    async with looking_at(server, settings=hasty) as store:
        await store.discover()
        server.freeze()
        with pytest.raises(StoreUnavailable) as failure:
            await store.discover()
        assert failure.value.reason == "StoreTimeout"
        server.thaw()
        await store.discover()


async def test_a_write_whose_answer_was_lost_is_not_sent_again(start_server: StartServer) -> None:
    server = start_server(Flavour.VALKEY_9)
    make_operator(server)
    settings = replace(settings_for(server), timeout=2.0)
    client = NodeClient(settings.endpoint, settings)
    await client.call("PING")
    server.freeze()
    with pytest.raises(StoreUnavailable):
        await client.call("HSET", "mt:counter", "field", "1")
    server.thaw()
    assert await client.call("HGETALL", "mt:counter") == [b"field", b"1"]
    await client.close()
    with server.admin() as admin:
        assert admin.info("commandstats")["cmdstat_hset"]["calls"] == 1


async def test_a_command_that_was_cut_off_never_answers_the_next_one(valkey: Server) -> None:
    make_operator(valkey)
    with Proxy.to(valkey.host, valkey.port) as proxy:
        settings = replace(
            settings_for(valkey),
            endpoint=Address(proxy.host, proxy.port),
            timeout=2.0,
            connections_per_node=1,
        )
        client = NodeClient(settings.endpoint, settings)
        await client.call("SET", "mt:store:epoch", "first")
        proxy.freeze()
        with pytest.raises(StoreUnavailable):
            await client.call("GET", "mt:store:epoch")
        proxy.thaw()
        assert await client.call("PING") == b"PONG"
        await client.close()


async def test_errors_show_no_argument(redis_server: Server) -> None:
    make_operator(redis_server)
    client = NodeClient(settings_for(redis_server).endpoint, settings_for(redis_server))
    digest = "ab" * 31
    with pytest.raises(StoreRefused) as refusal:
        await client.call("ACL", "SETUSER", "mt.a.b.c.a", f"#{digest}")
    assert digest not in str(refusal.value)
    with pytest.raises(StoreRefused) as refusal:
        await client.call("NOSUCHCOMMAND", "a-secret")
    assert "a-secret" not in str(refusal.value)
    await client.close()


async def test_tls_is_verified_natively_and_through_a_relay(
    start_server: StartServer, valkey: Server
) -> None:
    authority = Authority()
    native = start_server(Flavour.REDIS_7, Options(tls=authority))
    trusting = StoreTls(ca=authority.certificate.decode())
    async with leading(native, settings=replace(settings_for(native), tls=trusting)) as store:
        assert store.facts.primary.version.startswith("7.0")
    make_operator(valkey)
    with TlsRelay(Target(valkey.host, valkey.port), authority) as relay:
        relayed = replace(
            settings_for(valkey), endpoint=Address(relay.host, relay.port), tls=trusting
        )
        async with looking_at(valkey, settings=relayed) as store:
            await store.discover()
        stranger = replace(relayed, tls=StoreTls(ca=Authority().certificate.decode()))
        async with looking_at(valkey, settings=stranger) as store:
            with pytest.raises(StoreUnavailable, match="certificate"):
                await store.discover()


async def test_a_client_certificate_is_shown_where_the_server_asks_for_one(
    valkey: Server, tmp_path: Path
) -> None:
    authority = Authority()
    make_operator(valkey)
    files = authority.issue("operator").write(tmp_path, "operator")
    with TlsRelay(
        Target(valkey.host, valkey.port), authority, require_client_certificate=True
    ) as relay:
        base = replace(settings_for(valkey), endpoint=Address(relay.host, relay.port))
        shown = StoreTls(
            ca=authority.certificate.decode(),
            client_certificate=files.certificate.read_text(),
            client_key=files.key.read_text(),
        )
        async with looking_at(valkey, settings=replace(base, tls=shown)) as store:
            await store.discover()
        nameless = replace(base, tls=StoreTls(ca=authority.certificate.decode()))
        async with looking_at(valkey, settings=nameless) as store:
            with pytest.raises(StoreUnavailable):
                await store.discover()


def test_unusable_certificates_are_named_without_their_content() -> None:
    with pytest.raises(ValueError, match="not usable PEM"):
        StoreTls(ca="-----BEGIN CERTIFICATE-----\nsecret\n-----END CERTIFICATE-----").context()
