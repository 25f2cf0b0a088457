"""A Cluster as the operator sees it: who is there, who may write, and what moves."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from memtenant.errors import FencedOut, StoreRefused, StoreUnavailable
from memtenant.rules.systemusers import SystemRole, render_system_user
from memtenant.stores import Address, ExpiryScan, Pace, StateChange, StoreAdmin, StoreSettings
from memtenant.stores.cluster_nodes import ClusterMap, parse_nodes
from memtenant.stores.sealing import Page, SealingStore
from memtenant.stores.slots import SLOTS, epoch_keys, slot_of
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.storesfile import CLUSTER, Endpoint, StoreAccess
from tests.conftest import StartServer
from tests.stores.operators import (
    ACME,
    GLOBEX,
    INSTALLATION,
    OPERATOR,
    PASSWORD,
    agent,
    make_operator,
    next_term,
    settings_for,
)
from tests.support.clusters import Nodes
from tests.support.servers import Flavour, Server

ASKED = Address("10.0.0.9", 7000)
LINES = """\
aa 10.0.0.1:7000@17000,one.example master - 0 1 1 connected 0-5460 5462 [5461->-bb]
bb :7000@17000 myself,master - 0 1 2 connected 5461 5463-16383
cc 10.0.0.3:7000@17000 slave aa 0 1 1 connected
dd 10.0.0.4:7000@17000 master,fail - 1 1 3 disconnected
ee :0@0 master,noaddr - 1 1 3 disconnected
ff 10.0.0.6:7000@17000 master - 0 1 4 connected
"""


@pytest.fixture(scope="module")
def nodes(
    redis_clusters: Callable[..., AbstractContextManager[Nodes]],
) -> Iterator[Nodes]:
    """Two shards, of which the first has a replica, and a node without slots."""
    with redis_clusters(Flavour.VALKEY_9, shards=2, replicas=0) as found:
        found.add(replica_of=found.servers[0])
        found.add()
        found.settle()  # who has just come answers nothing for some seconds: CLUSTERDOWN
        make_operator(*found.servers)
        yield found


@asynccontextmanager
async def operator(
    server: Server, term: int | None = None, *, patience: float = 30.0
) -> AsyncIterator[StoreAdmin]:
    """A `StoreAdmin` that looked at the Cluster, and waits so long for replicas."""
    number = next_term() if term is None else term
    admin = StoreAdmin(
        replace(settings_for(server), cluster=(Address(server.host, server.port),)),
        installation=INSTALLATION,
        fence=lambda: number,
        pace=Pace(duty=1.0),
        replication_patience=patience,
    )
    async with admin:
        await admin.discover()
        yield admin


def test_slots_are_those_of_the_servers() -> None:
    assert slot_of("123456789") == 0x31C3
    assert slot_of("mt:{support.acme}:u") == slot_of(b"support.acme")
    assert slot_of("a{}b") == slot_of(b"a{}b") != slot_of("b")


def test_each_64_slots_have_a_place_for_the_term() -> None:
    assert list(epoch_keys()) == list(range(0, SLOTS, 64))
    assert all(slot_of(key) == slot for slot, key in epoch_keys().items())


def test_what_nodes_say_of_each_other_is_read() -> None:
    found = ClusterMap.of(parse_nodes(LINES, ASKED))
    assert [str(shard.primary) for shard in found.shards] == [
        "10.0.0.1:7000",
        "10.0.0.9:7000",
        "10.0.0.6:7000",
    ]
    assert found.shards[0].replicas == (Address("10.0.0.3", 7000),)
    assert found.shards[0].slots == ((0, 5460), (5462, 5462))
    assert found.shards[2].slots == ()
    assert (found.moving, found.covered) == (True, True)
    shard = found.shard_of(5461)
    assert shard is not None
    assert str(shard.primary) == "10.0.0.9:7000"


async def test_a_former_leader_writes_to_no_node_whatever_slots_moved_since(
    nodes: Nodes,
) -> None:
    before, after = next_term(), next_term()
    first = nodes.servers[0]
    async with (
        operator(first, before, patience=0.5) as former,  # for what never comes
        operator(first, after) as leader,
    ):
        await former.lead()
        users = [agent(former, tenant) for tenant in (ACME, GLOBEX)]
        (await former.users.set(users)).require_all()
        nodes.move_slot(0, nodes.servers[1])  # where the former leader looks for its term
        await leader.discover()
        await leader.lead()
        for server in nodes.servers:
            nodes.run(server, "ACL", "DELUSER", *(user.name for user in users))
        # It still looks where its term was; then it looks anew.
        for told in ((FencedOut, StoreUnavailable), (FencedOut,)):
            with pytest.raises(told):
                (await former.users.set(users)).require_all()
            for tenant in (ACME, GLOBEX):
                with pytest.raises(told):
                    await former.write_states({tenant: StateChange(limits={"held": "1"})})
            await former.discover()
        with pytest.raises(FencedOut):
            await former.lead()
        for server in nodes.servers:
            assert "mt.support" not in nodes.run(server, "ACL", "USERS")
        assert (await leader.users.set(users)).complete
        assert {name for one in nodes.servers for name in names_of(nodes, one)} == {
            user.name for user in users
        }


async def test_keys_are_read_and_written_where_they_are(nodes: Nodes) -> None:
    tenants = [TenantId("many", f"t{number}") for number in range(20)]
    async with operator(nodes.servers[0]) as store:
        await store.lead()
        await store.load_functions()
        await store.write_states({one: StateChange(limits={"held": "0"}) for one in tenants})
        states = await store.read_states(tenants)
        assert all(states[one].limits == {"held": "0"} for one in tenants)
        slots = {store.facts.cluster.shard_of(slot_of(keys.prefix(one))) for one in tenants}  # type: ignore[union-attr]
        assert len(slots) == 2
        assert set(tenants) <= (await store.measure()).keys()
        assert sum((await store.purge(tenants)).values()) == len(tenants)
        assert not set(tenants) & (await store.measure()).keys()


async def test_what_was_removed_is_told_where_it_was_and_once(nodes: Nodes) -> None:
    tenants = [TenantId("told", f"t{number}") for number in range(8)]
    limits = {"format": "1", "audit": "1", "cutoff_content": "9999999999999"}
    change = StateChange(limits=limits, access={"told": "x"}, audited=Audited(1).to_json())
    async with operator(nodes.servers[0]) as store:
        await store.lead()
        await store.load_functions()
        await store.write_states(dict.fromkeys(tenants, change))
        for tenant in tenants:
            owner = nodes.owner_of(slot_of(keys.prefix(tenant)))
            with owner.admin() as admin:
                entry = b"\x10" + bytes(4) + b"\x01" + bytes(5) + b"\x01" + bytes(3) + b"old"
                admin.rpush(f"{keys.records(tenant)}_:talk:l", entry)
        scan = ExpiryScan()
        while not await store.expire_scanned(scan, most=1000):
            pass
        expired = await store.untold.read(tenants)
        assert {one.expired["messages"] for one in expired.values()} == {1}
        await store.purge(tenants)
        purged = await store.untold.read(tenants)
        assert {(one.keys, one.expired["messages"]) for one in purged.values()} == {(4, 1)}
        for tenant in tenants:
            assert not await store.untold.tell(tenant, expired[tenant], [b"too late"])
            assert await store.untold.tell(tenant, purged[tenant], [b"event"])
            assert not await store.untold.tell(tenant, purged[tenant], [b"again"])
            assert await store.queued_events(tenant) == 1
        assert await store.untold.read(tenants) == {}
        await store.write_states(dict.fromkeys(tenants, StateChange(audited="")))
        await store.purge(tenants)


async def test_the_sealer_and_the_reporter_reach_every_tenant(nodes: Nodes) -> None:
    tenants = [TenantId("logged", f"t{number}") for number in range(8)]
    changes = {
        one: StateChange(limits={"format": "1"}, audited=Audited(1).to_json(), events=[b"event"])
        for one in tenants
    }
    async with operator(nodes.servers[0]) as store:
        await store.lead()
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        users = [
            render_system_user(role, password_hashes=(digest,), commands=store.facts.commands)
            for role in SystemRole
        ]
        (await store.users.set(users)).require_all()
        await store.write_states(changes)

        where = tuple(Endpoint(one.host, one.port) for one in nodes.servers[:2])
        access = StoreAccess("shared", CLUSTER, where, SystemRole.SEALER.user, PASSWORD)
        sealer = SealingStore(lambda: access)
        queues = {one.log: one.length for one in (await sealer.roster()).queues}
        assert all(queues[str(tenant)] == 1 for tenant in tenants)
        assert await sealer.beat(tenants) > 0
        for tenant in tenants:
            pages = await sealer.pages([str(tenant)], 10)
            assert pages == [Page((b"event",))]
            assert await sealer.trim({str(tenant): pages[0]}) == {str(tenant): True}
        states = await store.read_states(tenants)
        assert all("audit_heartbeat" in state.limits for state in states.values())
        await sealer.close()

        seeds = (Address(nodes.servers[0].host, nodes.servers[0].port),)
        reporter = StoreSettings(
            seeds[0], SystemRole.REPORTER.user, lambda: PASSWORD, cluster=seeds
        )
        witness = StoreWitness(reporter, pace=Pace(duty=1.0))
        found, lost = await witness.nodes()
        assert ({one.address.port for one in found}, lost) == (
            {server.port for server in nodes.servers},
            {},
        )
        held = [page.tenant async for page in witness.contents(lambda one, _part: one in tenants)]
        assert set(held) == set(tenants)
        assert await witness.count_keys() >= len(tenants)
        await witness.close()

        ended = {one: StateChange(audited=Audited(1, closing=True).to_json()) for one in tenants}
        await store.write_states(ended)
        assert set(await store.finish_closed(sealed_before=True)) == set(tenants)
        await store.purge(tenants)
        (await store.users.drop([user.name for user in users])).require_all()


async def test_a_pass_over_all_keys_does_not_trust_slots_that_move(nodes: Nodes) -> None:
    moving, there = 16_383, nodes.servers[0]
    source = nodes.owner_of(moving)
    async with operator(nodes.servers[0]) as store:
        await store.measure()
        nodes.run(source, "CLUSTER", "SETSLOT", moving, "MIGRATING", nodes.id_of(there))
        with pytest.raises(StoreUnavailable) as failure:
            await store.measure()
        nodes.run(source, "CLUSTER", "SETSLOT", moving, "STABLE")
        assert failure.value.reason == "SlotsMoving"
        await store.measure()


async def test_what_the_operator_lacks_on_a_node_is_named(nodes: Nodes) -> None:
    nodes.run(nodes.servers[1], "ACL", "SETUSER", OPERATOR, "-readonly")
    with pytest.raises(StoreRefused, match="may not run readonly") as failure:
        async with operator(nodes.servers[0]):
            pass
    make_operator(nodes.servers[1])
    assert failure.value.reason == "StorePermissionMissing"


async def test_a_server_that_is_no_cluster_is_refused(start_server: StartServer) -> None:
    server = start_server(Flavour.VALKEY_9)
    make_operator(server)
    with pytest.raises(StoreRefused, match="standalone") as failure:
        async with operator(server):
            pass
    assert failure.value.reason == "StoreModeUnsupported"


async def test_a_cluster_that_lacks_slots_is_down(nodes: Nodes) -> None:
    """Last in this module: a shard is gone afterwards."""
    with nodes.hurried():
        nodes.servers[1].kill9()
        with pytest.raises(StoreUnavailable) as failure:
            await until_it_fails(nodes.servers[0])
    assert failure.value.reason in ("ClusterDown", "StoreUnavailable")


async def until_it_fails(server: Server) -> None:
    async with asyncio.timeout(60):
        while True:
            async with operator(server):
                await asyncio.sleep(0.1)


def names_of(nodes: Nodes, server: Server) -> set[str]:
    with server.admin() as admin:
        return {str(name) for name in admin.acl_users() if str(name).startswith("mt.")}
