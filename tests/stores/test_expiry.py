"""After a pass a full look finds nothing past its cut-off, and nothing younger is missing.

What is there is read by a reader of the test's own, which knows the stored bytes and nothing of the
operator.
"""

import asyncio
import random
from collections.abc import Iterable

import pytest

from memtenant.errors import StoreRefused
from memtenant.functions.keyspace import ContextKeys, ConversationKeys
from memtenant.stores import ExpiryScan, StoreAdmin, Tally
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.functions.catalogue import Place, fill
from tests.functions.tenants import Agent, Lane, in_ms, provision, set_limits
from tests.stores.operators import ACME, GLOBEX, OPERATOR, leading
from tests.support.servers import Server

HOUR = 3_600_000
HELD = TenantId("support", "held")
TENANTS = (ACME, GLOBEX, HELD)


def header(sequence: int, time: int, kind: int = 0x10) -> bytes:
    return (
        bytes([kind])
        + sequence.to_bytes(5, "big")
        + time.to_bytes(6, "big")
        + (1).to_bytes(3, "big")
    )


def every_record(server: Server, tenant: TenantId) -> list[tuple[str, int]]:
    """What a reader could find: where, and the time. Tombstones hold nothing."""
    found = []
    with server.admin() as admin:
        for key in sorted(admin.scan_iter(f"{keys.records(tenant)}*", count=1000)):
            name = key.decode()
            if name.endswith((":l", ":s")):
                values: Iterable[bytes] = admin.lrange(key, 0, -1)
            elif name.split(":r:")[1].startswith("c:") and name.count(":") == 4:
                values = admin.hvals(key)
            else:
                continue
            found += [
                (name, int.from_bytes(value[6:12], "big"))
                for value in values
                if value[0] not in (0x12, 0x13)
            ]
    return sorted(found)


def plant(server: Server, tenant: TenantId, now: int, chance: random.Random) -> None:
    """Conversations and contexts of every age, some of them not in ``x``, some with an entry in a
    subject's index."""
    with server.admin() as admin, admin.pipeline(transaction=False) as pipe:
        for number in range(60):
            talk = ConversationKeys.of(tenant, "_", f"conversation-{number}")
            ages = sorted(chance.randrange(48) for _ in range(chance.randrange(1, 40)))[::-1]
            times = [now - age * HOUR // 2 - 1 for age in ages]
            pipe.rpush(talk.list, *(header(at, time) + b"\xfar" for at, time in enumerate(times)))
            pipe.rpush(talk.summaries, header(len(times), times[0]) + b"\xfas")
            pipe.rpush(keys.subject_index(tenant, "subject"), f"_:conversation-{number}")
            if number % 3:
                pipe.zadd(keys.conversations(tenant), {f"_:conversation-{number}": times[0]})
        for number in range(20):
            context = ContextKeys.of(tenant, f"context-{number}")
            for value in range(5):
                time = now - chance.randrange(48) * HOUR // 2 - 1
                pipe.hset(context.values, f"v{value}", header(value, time) + b"\xfav")
                pipe.hset(context.versions, f"v{value}", header(value, time))
                pipe.rpush(keys.subject_index(tenant, "subject"), f"c:context-{number}:v{value}")
            pipe.hset(context.versions, "#", header(5, now))
        pipe.zadd(keys.conversations(tenant), {"nothing of ours": 1, "_:never-was": 2, "c:none": 3})
        pipe.execute()


async def passed(store: StoreAdmin, *, most: int = 150) -> ExpiryScan:
    """A whole pass, in parts."""
    scan = ExpiryScan()
    while not await store.expire_scanned(scan, most=most):
        pass
    return scan


def left_to_do(tallies: dict[TenantId, Tally]) -> int:
    return sum(
        one.records + one.conversations + one.contexts + one.redated for one in tallies.values()
    )


async def test_a_pass_removes_all_that_has_expired_and_nothing_else(redis_server: Server) -> None:
    now, chance = in_ms(), random.Random(5)
    cutoff, derived = now - 12 * HOUR, now - 6 * HOUR
    for tenant in TENANTS:
        await asyncio.to_thread(provision, redis_server, tenant=tenant)
        plant(redis_server, tenant, now, chance)
    before = {tenant: every_record(redis_server, tenant) for tenant in TENANTS}
    with redis_server.admin() as admin:
        for tenant in (ACME, GLOBEX):
            admin.hset(keys.limits(tenant), "cutoff_content", cutoff)
            admin.hset(keys.limits(tenant), "cutoff_derived", derived)
    async with leading(redis_server) as store:
        would = await store.count_expiring(None)
        due = await store.expire_due(TENANTS, most=10_000)
        scan = await passed(store)
        assert left_to_do(await store.count_expiring(None)) == 0
        assert left_to_do(await store.expire_due(TENANTS, most=10_000)) == 0
        await passed(store)  # an index may have been seen before what it names went
    for tenant in (ACME, GLOBEX):
        wanted = [
            (name, time)
            for name, time in before[tenant]
            if time >= (derived if name.endswith(":s") else cutoff)
        ]
        assert every_record(redis_server, tenant) == wanted
        went = len(before[tenant]) - len(wanted)
        assert due[tenant].records + scan.removed[tenant].records == went
        assert scan.removed[tenant].conversations > 0  # the net found what `x` did not tell
        assert would[tenant].records == went
        assert would[tenant].conversations == (
            due[tenant].conversations + scan.removed[tenant].conversations
        )
        assert scan.left[tenant].oldest == min(time for _, time in wanted)
        with redis_server.admin() as admin:
            members = {name for name, _ in admin.zscan_iter(keys.conversations(tenant))}
            places = {name.split(":r:")[1].removesuffix(":l") for name, _ in wanted}
            assert members <= {name.encode() for name in places}
            index = admin.lrange(keys.subject_index(tenant, "subject"), 0, -1)
            assert {one for one in index if one.startswith(b"_:")} == {
                name.encode() for name in places if name.startswith("_:") and name[-2:] != ":s"
            }
    assert every_record(redis_server, HELD) == before[HELD]
    assert HELD not in would or left_to_do({HELD: would[HELD]}) == 0


async def test_an_append_meanwhile_is_never_lost(redis_server: Server) -> None:
    """Writers go on in conversations that expire under them all the time."""
    user = await asyncio.to_thread(provision, redis_server)
    with Agent(redis_server, user.name) as agent:
        talks = [ConversationKeys.of(ACME, "_", f"busy-{number}") for number in range(4)]
        lanes = [Lane(talk) for talk in talks]
        stored: dict[bytes, set[bytes]] = {talk.list: set() for talk in talks}
        loop = asyncio.get_running_loop()

        def write() -> None:
            for number in range(400):
                lane = lanes[number % 4]
                body = b"\xfa%d" % number
                agent.append(lane.append(body))
                if number >= 200:
                    stored[lane.conversation.list].add(body)
                if number == 199:
                    # From here on nothing expires.
                    set_limits(redis_server, cutoff_content=in_ms() - 60_000)

        set_limits(redis_server, cutoff_content=in_ms() + HOUR)
        writing = loop.run_in_executor(None, write)
        async with leading(redis_server) as store:
            while not writing.done():
                await store.expire_due([ACME], most=10_000)
                await passed(store)
        await writing
        with redis_server.admin() as admin:
            for talk in talks:
                found = {entry[15:] for entry in admin.lrange(talk.list, 0, -1)}
                assert stored[talk.list] <= found
                assert admin.hget(talk.head, "state")


async def test_a_pass_that_was_cut_off_goes_on(redis_server: Server) -> None:
    now = in_ms()
    await asyncio.to_thread(provision, redis_server)
    with redis_server.admin() as admin, admin.pipeline(transaction=False) as pipe:
        for number in range(3000):
            talk = ConversationKeys.of(ACME, "_", f"conversation-{number}")
            pipe.rpush(talk.list, header(1, now - 2 * HOUR))
        pipe.hset(keys.limits(ACME), "cutoff_content", now - HOUR)
        pipe.execute()
    scan = ExpiryScan()
    async with leading(redis_server) as store:
        assert not await store.expire_scanned(scan, most=500)
        first = scan.take()[ACME].conversations
        assert 0 < first < 3000
    async with leading(redis_server) as store:  # another leader of the same store
        while not await store.expire_scanned(scan, most=500):
            pass
        assert first + scan.take()[ACME].conversations == 3000
        assert len(await store.expire_due([ACME], most=10)) == 0


async def test_of_a_thread_with_all_that_it_can_have_nothing_is_left(redis_server: Server) -> None:
    user = await asyncio.to_thread(provision, redis_server)
    with Agent(redis_server, user.name) as agent:
        fill(agent, Place(ACME))
    set_limits(redis_server, cutoff_content=in_ms() + HOUR)
    async with leading(redis_server) as store:
        scan = await passed(store)
        removed = scan.take()[ACME]
        assert removed.checkpoints > 0
        assert (removed.messages, removed.summaries, removed.values) == (5, 1, 2)
        assert (removed.conversations, removed.contexts) == (1, 1)
    with redis_server.admin() as admin:
        talk, context = Place(ACME).conversation, Place(ACME).context
        left = set(admin.scan_iter(f"{keys.records(ACME)}*"))
        assert left == {talk.head, context.versions}
        assert admin.ttl(talk.head) > 0
        assert admin.hkeys(context.versions) == [b"#"]
        assert admin.hmget(keys.usage(ACME), "messages", "conversations") == [b"0", b"0"]


async def test_tenants_take_turns_and_a_round_is_bounded(redis_server: Server) -> None:
    now = in_ms()
    for tenant in (ACME, GLOBEX):
        await asyncio.to_thread(provision, redis_server, tenant=tenant)
        with redis_server.admin() as admin, admin.pipeline(transaction=False) as pipe:
            for number in range(200):
                talk = ConversationKeys.of(tenant, "_", f"conversation-{number}")
                pipe.rpush(talk.list, header(1, now - 2 * HOUR))
                pipe.zadd(keys.conversations(tenant), {f"_:conversation-{number}": 1})
            pipe.hset(keys.limits(tenant), "cutoff_content", now - HOUR)
            pipe.execute()
    async with leading(redis_server) as store:
        removed = await store.expire_due([ACME, GLOBEX], most=100)
        assert {tenant: one.conversations for tenant, one in removed.items()} == {
            ACME: 50,
            GLOBEX: 50,
        }


async def test_what_is_due_costs_a_removal_for_each_part_that_is_there(
    redis_server: Server,
) -> None:
    """A removal is the dearest piece of a pass, and there are two dozen of them in a second."""
    now = in_ms()
    await asyncio.to_thread(provision, redis_server, tenant=ACME)
    with redis_server.admin() as admin, admin.pipeline(transaction=False) as pipe:
        for number in range(20):
            talk = ConversationKeys.of(ACME, "_", f"conversation-{number}")
            pipe.rpush(talk.list, header(1, now - 2 * HOUR))
            pipe.zadd(keys.conversations(ACME), {f"_:conversation-{number}": 1})
        pipe.rpush(talk.summaries, header(1, now - 2 * HOUR) + b"\xfas")
        pipe.zadd(keys.conversations(ACME), {"_:never-was": 1})
        pipe.hset(keys.limits(ACME), "cutoff_content", now - HOUR)
        pipe.execute()
    async with leading(redis_server) as store:
        with redis_server.admin() as admin:
            admin.config_resetstat()
            removed = await store.expire_due([ACME], most=100)
            calls = admin.info("commandstats")["cmdstat_fcall"]["calls"]
            assert admin.exists(keys.conversations(ACME)) == 0
    assert (removed[ACME].conversations, removed[ACME].summaries) == (20, 1)
    assert calls == 20 + 1 + 1  # of one its summary, too, and the name of what never was


async def test_a_part_of_a_pass_is_bounded_by_what_it_removes_too(redis_server: Server) -> None:
    """Else what the tenants' lists say is due would wait for hours behind it."""
    now = in_ms()
    await asyncio.to_thread(provision, redis_server, tenant=ACME)
    with redis_server.admin() as admin, admin.pipeline(transaction=False) as pipe:
        for number in range(400):
            talk = ConversationKeys.of(ACME, "_", f"conversation-{number}")
            pipe.rpush(talk.list, header(1, now - 2 * HOUR))
        pipe.hset(keys.limits(ACME), "cutoff_content", now - HOUR)
        pipe.execute()
    async with leading(redis_server) as store:
        scan = ExpiryScan()
        assert not await store.expire_scanned(scan, most=500)
        assert 0 < scan.removed[ACME].conversations < 300
        while not await store.expire_scanned(scan, most=500):
            pass
        assert scan.removed[ACME].conversations == 400


async def test_what_tells_no_time_is_counted_and_stays(redis_server: Server) -> None:
    await asyncio.to_thread(provision, redis_server)
    with redis_server.admin() as admin:
        admin.set(f"{keys.records(ACME)}_:a-text:l", "secret")
        admin.set(f"{keys.records(ACME)}anything", "secret")
        admin.rpush(f"{keys.records(ACME)}_:junk:l", "junk")
        admin.hset(keys.limits(ACME), "cutoff_content", in_ms() - HOUR)
    async with leading(redis_server) as store:
        scan = await passed(store)
    assert scan.left[ACME].undated == 3
    assert not scan.take()
    with redis_server.admin() as admin:
        assert admin.get(f"{keys.records(ACME)}anything") == b"secret"


async def test_no_name_that_a_tenant_chooses_stops_the_pass_over_its_neighbours(
    redis_server: Server,
) -> None:
    now = in_ms()
    strange = ContextKeys.of(ACME, "strange").values
    talk = ConversationKeys.of(GLOBEX, "_", "conversation")
    with redis_server.admin() as admin:
        for tenant in (ACME, GLOBEX):
            await asyncio.to_thread(provision, redis_server, tenant=tenant)
            admin.hset(keys.limits(tenant), "cutoff_content", now - HOUR)
        admin.hset(strange, b"a" * 70_000, header(1, now) + b"x" * 5_000_000)
        for name in ("", "b"):
            admin.hset(strange, name, header(2, 1))
        admin.zadd(keys.conversations(ACME), {"c:strange": 1})
        admin.rpush(talk.list, header(1, 1))
    async with leading(redis_server) as store:
        removed = await store.expire_due([ACME], most=10)
        scan = await passed(store)
        assert removed[ACME].values == 2
        assert (scan.left[ACME].undated, scan.take()[GLOBEX].messages) == (1, 1)


async def test_what_an_agent_names_by_bytes_that_are_no_text_expires_too(
    redis_server: Server,
) -> None:
    now, name = in_ms(), b"\xff\x00\xc3("
    user = await asyncio.to_thread(provision, redis_server)
    records = keys.records(ACME).encode()
    talk, context = records + b"_:" + name + b":", records + b"c:" + name
    with Agent(redis_server, user.name) as agent:
        for key in (talk + b"l", talk + b"s"):
            agent.send(("RPUSH", key, header(1, now - 2 * HOUR) + b"\xfar"))
        agent.send(("HSET", context, name, header(1, now - 2 * HOUR) + b"\xfav"))
        agent.send(("HSET", context + b":v", name, header(1, now - 2 * HOUR)))
        agent.send(("ZADD", keys.conversations(ACME), 1, b"c:" + name))
    set_limits(redis_server, cutoff_content=now - HOUR)
    async with leading(redis_server) as store:
        assert (await store.expire_due([ACME], most=10))[ACME].values == 1
        removed = (await passed(store)).take()[ACME]
    assert (removed.messages, removed.conversations) == (1, 1)
    with redis_server.admin() as admin:
        left = set(admin.scan_iter(f"{keys.records(ACME)}*"))
        assert left <= {talk + b"h", context + b":v"}
        assert admin.exists(talk + b"l", talk + b"s", context) == 0


async def test_a_pass_leaves_nothing_of_a_tenant_that_was_purged_meanwhile(
    redis_server: Server,
) -> None:
    now = in_ms()
    await asyncio.to_thread(provision, redis_server)
    set_limits(redis_server, cutoff_content=now - HOUR)
    with redis_server.admin() as admin:
        for number in range(500):
            admin.rpush(ConversationKeys.of(ACME, "_", f"c{number}").list, header(1, now) + b"r")
        async with leading(redis_server) as store:
            scan = ExpiryScan()
            assert not await store.expire_scanned(scan, most=1)
            assert ACME in scan.left
            await store.purge([ACME])
            while not await store.expire_scanned(scan, most=150):
                pass
        assert list(admin.scan_iter(f"{keys.prefix(ACME)}*", count=1000)) == []


async def test_an_operator_without_the_permission_is_told_which_command_prints_it(
    redis_server: Server,
) -> None:
    await asyncio.to_thread(provision, redis_server)
    with redis_server.admin() as admin:
        admin.rpush(ConversationKeys.of(ACME, "_", "old").list, header(1, 1))
        admin.hset(keys.limits(ACME), "cutoff_content", in_ms() - HOUR)
    for command in ("fcall", "fcall_ro", "unlink", "zrangebyscore"):
        async with leading(redis_server) as store:
            with redis_server.admin() as admin:
                admin.execute_command("ACL", "SETUSER", OPERATOR, f"-{command}")
            with pytest.raises(StoreRefused, match="store acl") as refused:
                await both(store)
            assert refused.value.reason == "StorePermissionMissing"


async def both(store: StoreAdmin) -> None:
    """What the tenants' lists tell, and a pass."""
    await store.expire_due([ACME], most=10)
    await passed(store)
