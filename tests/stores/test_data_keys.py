"""Data keys are replaced where they are still what was read, and nowhere else."""

import asyncio

import pytest

from memtenant.errors import FencedOut
from memtenant.stores import ScanPosition, StoreAdmin, StoredDataKey
from memtenant.stores.data_keys import replace_data_keys
from memtenant.stores.fence import Term
from memtenant.tenancy import keys
from tests.stores.operators import ACME, GLOBEX, INSTALLATION, leading
from tests.support.servers import Server


def put(server: Server, alias: str, value: bytes, tenant: object = ACME) -> StoredDataKey:
    with server.admin() as admin:
        admin.hset(keys.dek(tenant, alias), "dek", value)  # type: ignore[arg-type]
    return StoredDataKey(ACME, alias, value)


def stored(server: Server, alias: str) -> bytes | None:
    with server.admin() as admin:
        return admin.hget(keys.dek(ACME, alias), "dek")


async def seen(store: StoreAdmin) -> list[StoredDataKey]:
    batches = store.data_keys(lambda tenant: tenant == ACME, ScanPosition())
    return [one async for batch in batches for one in batch]


async def test_one_pass_sees_the_data_keys_of_the_wanted_tenants(redis_server: Server) -> None:
    wanted = [put(redis_server, f"subject-{number}", b"%d" % number) for number in range(700)]
    put(redis_server, "neighbour", b"x", GLOBEX)
    with redis_server.admin() as admin:
        admin.hset(keys.dek(ACME, "erased"), "erased", b"tombstone")
        admin.set(keys.dek(ACME, "no-hash"), b"x")
        admin.set(f"{keys.prefix(ACME)}u", b"x")
    async with leading(redis_server) as store:
        found = await seen(store)
    assert sorted(found, key=lambda one: one.alias) == sorted(
        [*wanted, StoredDataKey(ACME, "no-hash", b"")], key=lambda one: one.alias
    )


async def test_only_what_is_still_as_it_was_read_is_replaced(redis_server: Server) -> None:
    names = ("same", "changed", "erased", "same-too")
    read = [put(redis_server, name, name.encode()) for name in names]
    put(redis_server, "changed", b"by another job")
    with redis_server.admin() as admin:
        admin.hdel(keys.dek(ACME, "erased"), "dek")
        admin.hset(keys.dek(ACME, "erased"), "erased", b"tombstone")
    async with leading(redis_server) as store:
        done = await store.replace_data_keys([(one, b"anew") for one in read])
        assert done == {ACME: 2}
        assert await store.replace_data_keys([(one, b"again") for one in read[1:3]]) == {}
    assert [stored(redis_server, name) for name in names] == [
        *(b"anew", b"by another job"),
        *(None, b"anew"),
    ]


async def test_an_erasure_in_the_middle_of_a_replacement_wins(redis_server: Server) -> None:
    """It removes the key again and again, at any moment of the other's WATCH, HGET, MULTI."""

    async def erase(name: str) -> None:
        with redis_server.admin() as admin:
            await asyncio.to_thread(admin.hdel, name, "dek")

    async with leading(redis_server) as store:
        for number in range(40):
            one = put(redis_server, f"subject-{number}", b"before")
            await asyncio.gather(store.replace_data_keys([(one, b"anew")]), erase(one.name))
            assert stored(redis_server, one.alias) is None


async def test_a_former_leader_replaces_nothing(valkey: Server) -> None:
    one = put(valkey, "subject", b"before")
    async with leading(valkey) as former:
        node, number = former._nodes.keyspace, former._fence()
        async with leading(valkey):
            with pytest.raises(FencedOut):
                await replace_data_keys(node, Term(number, INSTALLATION), [(one, b"anew")])
    assert stored(valkey, "subject") == b"before"
