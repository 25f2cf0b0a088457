"""One pass counts every tenant's bytes and conversations, exactly, whatever the keys look like."""

import asyncio
import itertools
from collections import defaultdict
from dataclasses import replace

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtenant.errors import StoreUnavailable
from memtenant.rules.quota import Usage
from memtenant.stores import Address, Pace, ScanPosition, StoreAdmin, UsageScan
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.stores.operators import (
    ACME,
    GLOBEX,
    INSTALLATION,
    leading,
    make_operator,
    settings_for,
)
from tests.support.relay import Proxy
from tests.support.servers import Server

names = st.sampled_from(["acme", "acme2", "a", "globex"])
tenants = st.builds(TenantId, st.sampled_from(["support", "sales"]), names)
parts = st.sampled_from(
    ["r:s:c1:l", "r:s:c2:l", "r:s:c1:h", "r:c:ctx", "r:l", "x", "u", "q", "e", "k:a", "i:a", "o:e"]
)
planted = st.dictionaries(st.tuples(tenants, parts), st.integers(0, 5000), max_size=40)
foreign = st.lists(
    st.sampled_from(["mt:store:epoch", "mt:{support.acme", "mt:{Bad.name}:q", "app:1", "mt:{}:x"])
)


def expected(
    admin: "redis.Redis", wanted: dict[tuple[TenantId, str], int]
) -> dict[TenantId, Usage]:
    """What the pass should find, by asking for each key that was planted."""
    found: dict[TenantId, Usage] = defaultdict(Usage)
    for tenant, part in wanted:
        size = admin.memory_usage(f"mt:{{{tenant}}}:{part}", samples=0)
        assert isinstance(size, int)
        usage = found[tenant]
        if part in ("q", "e"):
            found[tenant] = replace(usage, queue=usage.queue + size)
        elif not part.startswith("o:"):
            found[tenant] = replace(
                usage,
                memory=usage.memory + size,
                conversations=usage.conversations + (part[:2] == "r:" and part[-2:] == ":l"),
                index=usage.index + (size if part.startswith("i:") else 0),
                keys=usage.keys + (size if part.startswith("k:") else 0),
                heads=usage.heads + (size if _is_head(part) else 0),
            )
    return dict(found)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(planted, foreign)
def test_every_key_is_counted_once_for_its_own_tenant(
    redis_server: Server, wanted: dict[tuple[TenantId, str], int], others: list[str]
) -> None:
    with redis_server.admin() as admin:
        admin.flushall()
        for (tenant, part), size in wanted.items():
            admin.set(f"mt:{{{tenant}}}:{part}", "x" * size)
        for name in others:
            admin.set(name, "not a tenant's")
        make_operator(redis_server)
        assert asyncio.run(measured(redis_server)) == expected(admin, wanted)


def _is_head(part: str) -> bool:
    return part in ("x", "u") or (part.startswith("r:") and part.endswith(":h"))


async def measured(server: Server) -> dict[TenantId, Usage]:
    async with StoreAdmin(
        settings_for(server), installation=INSTALLATION, fence=lambda: 1, pace=Pace(1.0)
    ) as store:
        return await store.measure()


async def test_small_elements_at_the_head_hide_no_large_ones(redis_server: Server) -> None:
    """MEMORY USAGE samples five elements by default, which a tenant could choose."""
    async with leading(redis_server) as store:
        with redis_server.admin() as admin:
            admin.rpush(f"{keys.records(ACME)}s:c:l", *["x" * 8000] * 10)
            admin.rpush(f"{keys.records(ACME)}s:c:l", *["x" * 100_000] * 50)
            admin.hset(f"{keys.records(ACME)}s:c:h", mapping={f"f{n}": "x" for n in range(2000)})
            admin.hset(f"{keys.records(ACME)}s:c:h", "large", "x" * 1_000_000)
        usage = (await store.measure())[ACME]
    assert usage.memory > 50 * 100_000 + 1_000_000
    assert usage.conversations == 1


async def test_keys_that_come_and_go_during_a_pass_do_no_harm(redis_server: Server) -> None:
    async with leading(redis_server) as store:
        with redis_server.admin() as admin:
            stable = [f"{keys.records(ACME)}s:{number}:l" for number in range(2000)]
            for name in stable:
                admin.rpush(name, "x" * 50)
        stop = asyncio.Event()

        async def churn() -> None:
            with redis_server.admin() as admin:
                for number in itertools.count():
                    batch = [f"{keys.records(GLOBEX)}{number}:{n}" for n in range(300)]
                    admin.mset(dict.fromkeys(batch, "x"))
                    await asyncio.sleep(0)
                    admin.delete(*batch)
                    if stop.is_set():
                        return

        churning = asyncio.create_task(churn())
        found = await store.measure()
        stop.set()
        await churning
    with redis_server.admin() as admin:
        sizes = [admin.memory_usage(name, samples=0) for name in stable]
    assert found[ACME].conversations == len(stable)
    assert found[ACME].memory == sum(size for size in sizes if isinstance(size, int))


async def test_a_key_that_scan_returns_twice_is_counted_once() -> None:
    position = ScanPosition()
    batch = [b"mt:{a.b}:%d" % number for number in range(5000)]
    assert position.unseen([*batch, *batch[:9]]) == batch
    assert position.unseen(batch) == batch, "nobody is done with them yet"
    position.handled(batch)
    assert position.unseen([*batch[::3], b"mt:{a.b}:new"]) == [b"mt:{a.b}:new"]


async def test_a_pass_that_was_cut_off_goes_on_where_it_stood(valkey: Server) -> None:
    make_operator(valkey)
    with valkey.admin() as admin:
        for number in range(5000):
            admin.rpush(f"{keys.records(ACME)}s:{number}:l", "x")
    with Proxy.to(valkey.host, valkey.port) as proxy:
        through = replace(settings_for(valkey), endpoint=Address(proxy.host, proxy.port))
        async with StoreAdmin(
            through, installation=INSTALLATION, fence=lambda: 1, pace=Pace(1.0)
        ) as store:
            scan = UsageScan()
            proxy.delay(0.005)
            passing = asyncio.create_task(store.measure(scan))
            while not scan.result():  # noqa: ASYNC110 - another task
                await asyncio.sleep(0)
            proxy.cut()
            with pytest.raises(StoreUnavailable):
                await passing
            assert 0 < scan.result()[ACME].conversations < 5000
            assert not scan.position.done
            proxy.delay(0)
            assert (await store.measure(scan))[ACME].conversations == 5000


async def test_the_marks_of_erased_persons_are_noted_on_the_way(redis_server: Server) -> None:
    with redis_server.admin() as admin:
        admin.hset(keys.dek(ACME, "ada"), "erased", b"mark")
        admin.hset(keys.dek(ACME, "bob"), "dek", b"key")
    scan = UsageScan()
    async with leading(redis_server) as store:
        await store.measure(scan)
    assert scan.marks == {ACME: {"ada": b"mark"}}
