"""Shards of a Cluster lose their primaries, slots move under load, nodes come and go."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from memtenant.rules.systemusers import is_memtenants
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.chaos.faults.breakage import OPERATOR_AWAY, Breakage
from tests.chaos.schedule import Kind
from tests.chaos.stores import InCluster, functions_missing
from tests.chaos.world import World
from tests.e2e.scene import eventually
from tests.support import servers
from tests.support.clusters import Nodes, slot_of
from tests.support.servers import Server

__all__ = ["FAMILY"]


@contextmanager
def _primary_killed(world: World, chance: random.Random) -> Iterator[str]:
    primary = chance.choice(world.store.primaries())
    with _dead(world, primary):
        yield primary.endpoint


@contextmanager
def _replica_killed(world: World, chance: random.Random) -> Iterator[str]:
    replica = chance.choice(_replicas(world))
    with _dead(world, replica):
        yield replica.endpoint


@contextmanager
def _primary_frozen(world: World, chance: random.Random) -> Iterator[str]:
    primary = chance.choice(world.store.primaries())
    primary.freeze()
    try:
        yield primary.endpoint
    finally:
        primary.thaw()
        _settle(world)


@contextmanager
def _handed_over(world: World, chance: random.Random) -> Iterator[str]:
    replica = chance.choice(_replicas(world))
    _of(world).run(replica, "CLUSTER", "FAILOVER")
    try:
        yield f"to {replica.endpoint}"
    finally:
        _settle(world)


@contextmanager
def _slot_moved_key_by_key(world: World, chance: random.Random) -> Iterator[str]:
    tenant, slot = _a_tenants_slot(world, chance)
    to = _another(world, chance, slot)
    with _of(world).moving(slot, to):
        yield f"{tenant} to {to.endpoint}"


@contextmanager
def _slot_moved_at_once(world: World, chance: random.Random) -> Iterator[str]:
    tenant, slot = _a_tenants_slot(world, chance)
    to = _another(world, chance, slot)
    _of(world).move_slot_at_once(slot, to)
    yield f"{tenant} to {to.endpoint}"


@contextmanager
def _shard_added(world: World, chance: random.Random) -> Iterator[str]:
    """As docs/operations.md says: slots move to it when the operator has made it whole."""
    nodes = _of(world)
    tenant, slot = _a_tenants_slot(world, chance)
    before = nodes.owner_of(slot)
    added = nodes.add()
    replica = nodes.add(replica_of=added)
    try:
        for node in (added, replica):
            _wait_until_whole(node, before)
        nodes.move_slot_at_once(slot, added)
        yield f"{added.endpoint} has the slot of {tenant} for a while"
    finally:
        if nodes.owner_of(slot) is added:
            nodes.move_slot_at_once(slot, before)
        for node in (replica, added):
            nodes.remove(node)
            servers.discard(node)
        _settle(world)


@contextmanager
def _replica_replaced(world: World, chance: random.Random) -> Iterator[str]:
    """Never one of the nodes that were declared: of these some have to stay."""
    nodes = _of(world)
    going = [one for one in _replicas(world) if one not in nodes.servers[:3]]
    if not going:
        yield "nothing: all replicas are declared"
        return
    gone = chance.choice(going)
    primary = next(one for one in nodes.primaries() if gone in nodes.replicas_of(one))
    fresh = nodes.add(replica_of=primary)
    nodes.remove(gone)
    servers.discard(gone)
    try:
        yield f"{gone.endpoint} by {fresh.endpoint}"
    finally:
        _settle(world)


@contextmanager
def _dead(world: World, node: Server) -> Iterator[None]:
    node.kill9()
    try:
        yield
    finally:
        node.start()
        _settle(world)


def _settle(world: World) -> None:
    """Wait until every shard has a primary and a replica that follows it."""
    nodes = _of(world)

    def whole() -> bool:
        nodes.settle()
        primaries = nodes.primaries()
        ports = {one.port for one in primaries}
        return all(one.upstream in ports for one in world.nodes if one not in primaries)

    eventually(whole, "replicas that follow")


def _replicas(world: World) -> list[Server]:
    primaries = world.store.primaries()
    return [one for one in world.nodes if one not in primaries]


def _another(world: World, chance: random.Random, slot: int) -> Server:
    nodes = _of(world)
    owner = nodes.owner_of(slot)
    return chance.choice([one for one in nodes.primaries() if one is not owner])


def _a_tenants_slot(world: World, chance: random.Random) -> tuple[TenantId, int]:
    tenant = TenantId(*chance.choice(sorted(world.people.steady)))
    return tenant, slot_of(keys.prefix(tenant))


def _wait_until_whole(node: Server, like: Server) -> None:
    def lacking() -> list[str]:
        return [*functions_missing(node), *sorted(_users_of(like) - _users_of(node))]

    eventually(
        lambda: not lacking(), lambda: f"{node.endpoint} lacks {lacking()}", timeout=OPERATOR_AWAY
    )


def _users_of(node: Server) -> set[str]:
    with node.admin() as admin:
        names = [name if isinstance(name, str) else name.decode() for name in admin.acl_users()]
    return {name for name in names if is_memtenants(name)}


def _of(world: World) -> Nodes:
    assert isinstance(world.store, InCluster)
    return world.store.cluster


FAMILY = (
    Breakage(
        Kind("shard-primary-killed", "store", 5.0),
        "SIGKILL for a primary, often for long enough that its replica takes its place",
        _primary_killed,
    ),
    Breakage(
        Kind("shard-replica-killed", "store", 3.0),
        "SIGKILL for a replica; it starts again",
        _replica_killed,
    ),
    Breakage(
        Kind("shard-primary-frozen", "store", 6.0),
        "SIGSTOP for a primary, often for long enough that its replica takes its place",
        _primary_frozen,
    ),
    Breakage(
        Kind("shard-handed-over", "store", 1.0),
        "a replica is told to take its primary's place",
        _handed_over,
    ),
    Breakage(
        Kind("slot-moved-key-by-key", "store", 4.0),
        "a tenant's slot goes to another shard, and stands half-way for a while",
        _slot_moved_key_by_key,
    ),
    Breakage(
        Kind("slot-moved-at-once", "store", 0.5),
        "a tenant's slot goes to another shard as Valkey 9 does it",
        _slot_moved_at_once,
    ),
    Breakage(
        Kind("shard-added", "store", 5.0),
        "a shard comes, gets a tenant's slot, gives it back and goes",
        _shard_added,
    ),
    Breakage(
        Kind("replica-replaced", "store", 1.0),
        "a new replica comes, and another one of its shard leaves the Cluster for good",
        _replica_replaced,
    ),
)
