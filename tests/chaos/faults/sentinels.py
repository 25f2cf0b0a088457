"""A primary under Sentinels dies, freezes and is cut off, so that they replace it; so do they."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.chaos.faults.breakage import OPERATOR_AWAY, Breakage
from tests.chaos.schedule import Kind
from tests.chaos.stores import PEERS, UnderSentinels
from tests.chaos.world import World
from tests.e2e.scene import eventually
from tests.support.sentinels import Watched
from tests.support.servers import Server

__all__ = ["FAMILY"]


@contextmanager
def _primary_killed(world: World, _: random.Random) -> Iterator[str]:
    primary = _of(world).settle()
    with _dead(world, primary, None):
        yield primary.endpoint


@contextmanager
def _replica_killed(world: World, chance: random.Random) -> Iterator[str]:
    primary, replicas = _roles(world)
    replica = chance.choice(replicas)
    with _dead(world, replica, primary):
        yield replica.endpoint


@contextmanager
def _primary_frozen(world: World, _: random.Random) -> Iterator[str]:
    primary = _of(world).settle()
    primary.freeze()
    try:
        yield primary.endpoint
    finally:
        primary.thaw()
        _settle(world)


@contextmanager
def _primary_cut_off(world: World, _: random.Random) -> Iterator[str]:
    """Replicas and Sentinels are shut out. They choose another primary, and agents that are there
    stay with the former one, until the Sentinels get in again and make it a replica."""
    primary = _of(world).settle()
    with primary.admin() as admin:
        admin.acl_setuser(PEERS, enabled=False)
        admin.execute_command("CLIENT", "KILL", "USER", PEERS)
    try:
        yield primary.endpoint
    finally:
        with primary.admin() as admin:
            admin.acl_setuser(PEERS, enabled=True)
        _settle(world)


@contextmanager
def _replicas_cut_off(world: World, chance: random.Random) -> Iterator[str]:
    """One or both hear nothing of the primary, on which all is well."""
    primary, replicas = _roles(world)
    lost = chance.sample(replicas, chance.randint(1, len(replicas)))
    for replica in lost:
        _log_in_as_peer(replica, "wrong")
    with primary.admin() as admin:
        admin.execute_command("CLIENT", "KILL", "TYPE", "replica")
    try:
        yield ", ".join(replica.endpoint for replica in lost)
    finally:
        for replica in lost:
            _log_in_as_peer(replica, replica.peer[1])
        _settle(world)


@contextmanager
def _handed_over(world: World, chance: random.Random) -> Iterator[str]:
    watched = _of(world)
    former = watched.settle()
    with chance.choice(watched.sentinels).client() as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", "main")
    try:
        yield f"by {former.endpoint}"
    finally:
        _settle(world)


@contextmanager
def _sentinel_killed(world: World, chance: random.Random) -> Iterator[str]:
    sentinel = chance.choice(_of(world).sentinels)
    sentinel.kill9()
    try:
        yield sentinel.endpoint
    finally:
        sentinel.start_again()


@contextmanager
def _sentinel_replaced(world: World, _: random.Random) -> Iterator[str]:
    """Always the same: a former primary that was away is made a replica only by Sentinels that
    knew it."""
    sentinel = _of(world).sentinels[-1]
    sentinel.discard()
    try:
        yield sentinel.endpoint
    finally:
        sentinel.start()


@contextmanager
def _sentinel_frozen(world: World, chance: random.Random) -> Iterator[str]:
    sentinel = chance.choice(_of(world).sentinels)
    sentinel.freeze()
    try:
        yield sentinel.endpoint
    finally:
        sentinel.thaw()


@contextmanager
def _dead(world: World, node: Server, follows: Server | None) -> Iterator[None]:
    """Killed; it comes back as what it was, which its configuration says."""
    node.replica_of = follows
    node.kill9()
    try:
        yield
    finally:
        node.start()
        _settle(world)


def _settle(world: World) -> None:
    """Wait until the operator counts both replicas again: before, agents wait for one alone, and a
    failover may choose the other (docs/operations.md)."""

    def counted() -> bool:
        with suppress(redis.RedisError), _of(world).settle().admin() as admin:
            return all(admin.hget(keys.limits(one), "replicas") == b"2" for one in tenants)
        return False

    tenants = [TenantId(*one.tenant) for one in world.agents.all if one.durable]
    eventually(counted, "an operator that counts both replicas", timeout=OPERATOR_AWAY)


def _roles(world: World) -> tuple[Server, list[Server]]:
    primary = _of(world).settle()
    return primary, [node for node in world.nodes if node is not primary]


def _log_in_as_peer(replica: Server, password: str) -> None:
    with replica.admin() as admin:
        admin.config_set("masterauth", password)


def _of(world: World) -> Watched:
    assert isinstance(world.store, UnderSentinels)
    return world.store.watched


FAMILY = (
    Breakage(
        Kind("primary-killed", "store", 5.0),
        "SIGKILL, often for long enough that a replica takes its place; then it comes back",
        _primary_killed,
    ),
    Breakage(
        Kind("replica-killed", "store", 3.0), "SIGKILL for one; it starts again", _replica_killed
    ),
    Breakage(
        Kind("primary-frozen", "store", 8.0),
        "SIGSTOP, often for long enough that a replica takes its place",
        _primary_frozen,
    ),
    Breakage(
        Kind("primary-cut-off", "store", 10.0),
        "replicas and Sentinels cannot reach the primary, agents can",
        _primary_cut_off,
    ),
    Breakage(
        Kind("replicas-cut-off", "store", 6.0),
        "one or both replicas cannot reach the primary",
        _replicas_cut_off,
    ),
    Breakage(
        Kind("handed-over", "store", 1.0), "a Sentinel is told to replace the primary", _handed_over
    ),
    Breakage(
        Kind("sentinel-killed", "sentinels", 4.0), "SIGKILL; it starts again", _sentinel_killed
    ),
    Breakage(
        Kind("sentinel-replaced", "sentinels", 4.0),
        "SIGKILL; another comes at its address, which knows the first primary and nobody else",
        _sentinel_replaced,
    ),
    Breakage(Kind("sentinel-frozen", "sentinels", 6.0), "SIGSTOP", _sentinel_frozen),
)
