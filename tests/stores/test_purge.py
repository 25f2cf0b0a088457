"""Purging removes whole tenants in bounded batches, and looking at records reads only headers."""

import asyncio
import os
import signal

import pytest

from memtenant.errors import StoreUnavailable
from memtenant.stores import LatestRecord
from memtenant.stores.connection import NodeClient
from memtenant.stores.replication import require_replicated
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.conftest import StartServer
from tests.stores.operators import ACME, GLOBEX, leading, settings_for
from tests.support.servers import Flavour, Server

NAMESAKE = TenantId("support", "acme2")


def plant(server: Server, tenant: TenantId, conversations: int) -> None:
    with server.admin() as admin:
        pipeline = admin.pipeline(transaction=False)
        for number in range(conversations):
            pipeline.rpush(f"{keys.records(tenant)}s:{number}:l", "first", f"last {number}")
            pipeline.hset(f"{keys.records(tenant)}s:{number}:h", "seq", number)
        pipeline.rpush(keys.audit_queue(tenant), "event")
        pipeline.hset(keys.limits(tenant), "memory", 1)
        pipeline.execute()


async def test_every_key_of_the_tenants_goes_and_no_other(redis_server: Server) -> None:
    for tenant in (ACME, GLOBEX, NAMESAKE):
        plant(redis_server, tenant, 700)
    told: list[dict[TenantId, int]] = []
    nobody = TenantId("no", "body")
    async with leading(redis_server) as store:
        with redis_server.admin() as admin:
            admin.config_resetstat()
        removed = await store.purge(
            [ACME, GLOBEX, nobody], progress=lambda counts: told.append(dict(counts))
        )
        with redis_server.admin() as admin:
            stats = admin.info("commandstats")
    assert removed == {ACME: 1402, GLOBEX: 1402, nobody: 0}
    assert told[-1] == removed
    assert [sum(counts.values()) for counts in told] == sorted(
        sum(counts.values()) for counts in told
    )
    # One shared pass: as many SCANs as one tenant alone would have cost.
    assert stats["cmdstat_scan"]["calls"] <= 4300 // 50 + 5
    assert "cmdstat_keys" not in stats
    with redis_server.admin() as admin:
        left = {name.split(b"}")[0] for name in admin.scan_iter("mt:{*")}
        assert left == {b"mt:{support.acme2"}
        assert admin.exists(keys.STORE_EPOCH, keys.STORE_OWNER) == 2


async def test_the_latest_record_of_each_conversation_is_told_by_its_first_bytes(
    redis_server: Server,
) -> None:
    plant(redis_server, GLOBEX, 3)
    with redis_server.admin() as admin:
        admin.rpush(f"{keys.records(ACME)}s:a:l", "old", "n" * 5_000_000)
        admin.rpush(f"{keys.records(ACME)}s:b:l", "only")
        admin.set(f"{keys.records(ACME)}not-a-list:l", "text")
        admin.rpush(f"{keys.records(ACME)}s:b:s", "a summary")
    async with leading(redis_server) as store:
        found = [record async for record in store.latest_records([ACME])]
    assert sorted(found, key=lambda record: record.records) == [
        LatestRecord(ACME, b"only", 1),
        LatestRecord(ACME, b"n" * 64, 2),
    ]


async def test_a_purge_ends_when_the_replicas_have_it_too(start_server: StartServer) -> None:
    """After a failover in between, the keys would be back, and nobody's."""
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    plant(primary, ACME, 3)
    async with leading(primary, replica) as store:
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            gone = asyncio.Event()
            purging = asyncio.create_task(store.purge([ACME], progress=lambda _: gone.set()))
            await gone.wait()
            done, _ = await asyncio.wait({purging}, timeout=0.5)
            assert not done
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        assert await purging == {ACME: 8}
    with replica.admin() as admin:
        assert not list(admin.scan_iter("mt:{support.acme}*"))


async def test_a_purge_tells_which_replica_does_not_have_it(start_server: StartServer) -> None:
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    settings = settings_for(primary)
    client = NodeClient(settings.endpoint, settings)
    async with leading(primary, replica):
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            plant(primary, ACME, 1)
            with pytest.raises(StoreUnavailable, match=replica.endpoint) as refused:
                await require_replicated([client], patience=0.2)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
            await client.close()
    assert refused.value.reason == "ReplicasBehind"
