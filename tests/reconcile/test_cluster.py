"""A store that is a Cluster: agents go on while slots move, primaries fail and nodes are added."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from memtenant.api.store_status import NodeRole, StoreFlavour
from memtenant.functions.library import libraries
from memtenant.reconcile.once import settle
from memtenant.resources.port import ObjectKey
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.reconcile.at_work import (
    STORE,
    Writer,
    has_users,
    nothing_lost,
    operating,
    users_of,
    written,
)
from tests.reconcile.conftest import Ground
from tests.support import processes
from tests.support.certificates import Authority
from tests.support.clusters import Nodes, slot_of
from tests.support.servers import Flavour, Server

AGENTS = ("one", "two")


@pytest.fixture(scope="module", params=[Flavour.VALKEY_9, Flavour.REDIS_7], ids=str)
def nodes(
    request: pytest.FixtureRequest, redis_clusters: Callable[..., AbstractContextManager[Nodes]]
) -> Iterator[Nodes]:
    """Three shards of a primary and a replica; by TLS where the program has it, else clients are
    sent from one to the other by name."""
    tls = Authority("tests") if request.param.speaks_tls else None
    with redis_clusters(request.param, tls=tls, by_name=tls is None) as found:
        yield found


@pytest.fixture
async def on_cluster(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Ground]:
    """The store declared by one node of each shard."""
    made = Ground(nodes.servers[0], tmp_path / "state")
    made.open()
    made.policy()
    secret = {"password": nodes.admin_password}
    tls = {}
    ca = nodes.servers[0].ca_file
    if ca is not None:
        secret["ca.crt"] = ca.read_text()
        reference = {"name": "admin", "key": "ca.crt"}
        tls = {"tls": {"caSecretRef": reference, "serverName": "localhost"}}
    made.resources.declare_secret(
        made.resources.home, "admin", {key: text.encode() for key, text in secret.items()}
    )
    made.resources.declare(
        STORE,
        {
            "cluster": {"endpoints": nodes.endpoints[:3]},
            "adminUsername": nodes.servers[0].admin_user,
            "adminSecretRef": {"name": "admin", "key": "password"},
            **tls,
        },
    )
    yield made
    made.close()


def slot(name: str) -> int:
    return slot_of(keys.prefix(TenantId("support", name)))


def one_on_each(nodes: Nodes) -> list[str]:
    """A tenant's name for each of the first three nodes, in their order."""
    names: dict[int, str] = {}
    for number in range(1000):
        names.setdefault(nodes.owner_of(slot(f"t{number}")).port, f"t{number}")
        if len(names) == 3:
            break
    return [names[server.port] for server in nodes.servers if server.port in names]


def libraries_of(nodes: Nodes, server: Server) -> set[str]:
    listed = nodes.run(server, "FUNCTION", "LIST")
    return {one.name for one in libraries() if one.name in listed}


async def test_agents_go_on_whatever_happens_to_the_nodes(nodes: Nodes, on_cluster: Ground) -> None:
    tenants = one_on_each(nodes)
    first, moved_to = nodes.servers[:2]
    mover = tenants[0]
    for name in tenants:
        on_cluster.tenant(name, durability="Replicated", agents=[{"name": one} for one in AGENTS])
    async with operating(on_cluster) as world:
        status = await on_cluster.store_status("shared")
        assert status.flavour is StoreFlavour.CLUSTER
        roles = Counter(node.role for node in status.nodes)
        assert roles == {NodeRole.PRIMARY: 3, NodeRole.REPLICA: 3}
        writers = [Writer(on_cluster, agent, name) for name in tenants for agent in AGENTS]
        stop = asyncio.Event()
        writing = [asyncio.create_task(one.write(stop)) for one in writers]
        await written(writers, 3)
        users = users_of(first)
        assert len(users) == len(writers)
        assert all(users_of(one) == users for one in nodes.servers)
        with nodes.servers[0].admin() as admin:
            limits = keys.limits(TenantId("support", mover))
            assert admin.hget(limits, "replicas") == b"1"

        # A tenant's slot moves to another shard, and stands half-way for a while.
        await asyncio.to_thread(nodes.move_slot, slot(mover), moved_to, pause=1.0)
        await written(writers, 3)

        # A primary is killed; its replica takes its place, and gets a replica when it is back.
        await asyncio.to_thread(kill_and_bring_back, nodes, moved_to)
        await asyncio.to_thread(
            processes.wait_until, lambda: has_users(moved_to, users), what="its users"
        )
        await written(writers, 3)

        # A shard is added. It has users and Functions before a slot is moved there.
        added = await asyncio.to_thread(nodes.add)
        its_replica = await asyncio.to_thread(nodes.add, replica_of=added)
        await asyncio.to_thread(
            processes.wait_until, lambda: has_users(added, users), what="its users"
        )
        assert libraries_of(nodes, added) == {one.name for one in libraries()}
        moving = nodes.move_slot_at_once if nodes.flavour is Flavour.VALKEY_9 else nodes.move_slot
        await asyncio.to_thread(moving, slot(mover), added)
        await written(writers, 3)

        # The shard goes again: its slot moves back, and its nodes are the Cluster's no more.
        staying = await asyncio.to_thread(nodes.owner_of, slot(tenants[1]))
        await asyncio.to_thread(moving, slot(mover), staying)
        for leaving in (its_replica, added):
            await asyncio.to_thread(nodes.remove, leaving)
        await written(writers, 3)
        await asyncio.to_thread(
            processes.wait_until,
            lambda: len(world.links["shared"].facts.nodes) == 6,  # type: ignore[union-attr]
            what="the operator without them",
        )

        await world.links["shared"].admin.discover()
        usage = await world.links["shared"].admin.measure()
        assert {tenant.name for tenant in usage} == set(tenants)
        stop.set()
        await asyncio.gather(*writing)
        await nothing_lost(writers)

        for name in tenants:
            key = ObjectKey.tenant("support", name)
            on_cluster.resources.delete(key)
        await settle(world)
    assert not any(users_of(one) for one in nodes.servers)


def kill_and_bring_back(nodes: Nodes, server: Server) -> None:
    (replica,) = nodes.replicas_of(server)

    def promoted() -> bool:
        with replica.admin() as admin:
            return bool(admin.info("replication")["role"] == "master")

    with nodes.hurried():
        server.kill9()
        processes.wait_until(promoted, what="a promoted replica")
        nodes.settle()
    server.start()
    server.wait_for_sync()
    nodes.settle()
