"""A primary and its replica die, freeze, change places, and have no room left on a disk."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from tests.chaos.faults.breakage import Breakage
from tests.chaos.schedule import Kind
from tests.chaos.stores import Standalone
from tests.chaos.world import World
from tests.e2e.scene import eventually
from tests.support.servers import Server

__all__ = ["FAMILY"]


@contextmanager
def _store_killed(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    node.kill9()
    try:
        yield world.store.named(node)
    finally:
        node.start()


@contextmanager
def _store_restarted(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    node.stop()
    try:
        yield world.store.named(node)
    finally:
        node.start()


@contextmanager
def _store_frozen(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    node.freeze()
    try:
        yield world.store.named(node)
    finally:
        node.thaw()


@contextmanager
def _failover(world: World, chance: random.Random) -> Iterator[str]:
    """The primary dies, the replica takes its place and address, and the dead one follows it when
    it is back. As Sentinels do, nobody promotes a replica that lost its primary before."""
    store = _of(world)
    primary, replica = store.nodes
    if not _follows(replica):
        yield "nothing: the replica did not follow"
        return
    primary.kill9()
    replica.promote()
    store.proxy.point_to(replica.host, replica.port)
    store.nodes.reverse()
    try:
        yield f"{replica.endpoint} is the primary"
    finally:
        primary.replica_of = replica
        primary.start()
        primary.wait_for_sync()


@contextmanager
def _disk_full(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    disk = next(one for one in _of(world).disks if one.root == node.folder.parent)
    disk.fill()
    try:
        yield world.store.named(node)
    finally:
        disk.free()
        if node.alive:
            _rewrite(node)
        else:  # a replica ends where it cannot write what its primary told it
            node.start()


def _of(world: World) -> Standalone:
    assert isinstance(world.store, Standalone)
    return world.store


def _rewrite(node: Server) -> None:
    """As docs/operations.md says. Valkey cuts off what it wrote by half and goes on behind it: what
    is between are zeros, and the file is refused at the next start."""
    with node.admin() as admin:

        def told() -> dict[str, Any]:
            return dict(admin.info("persistence"))

        def begun() -> bool:
            with suppress(redis.ResponseError):  # one is under way, of before there was room
                admin.bgrewriteaof()
                return True
            return False

        eventually(begun, "the AOF is not written anew")
        eventually(
            lambda: not (told()["aof_rewrite_in_progress"] or told()["aof_rewrite_scheduled"]),
            "the AOF is not written anew",
        )
        assert told()["aof_last_bgrewrite_status"] == "ok", told()


def _follows(replica: Server) -> bool:
    try:
        with replica.admin() as admin:
            return bool(admin.info("replication").get("master_link_status") == "up")
    except redis.RedisError:
        return False


FAMILY = (
    Breakage(
        Kind("store-killed", "store", 3.0),
        "SIGKILL for the primary or the replica; it starts again with what is on its disk",
        _store_killed,
    ),
    Breakage(Kind("store-restarted", "store", 2.0), "SIGTERM, and it starts", _store_restarted),
    Breakage(
        Kind("store-frozen", "store", 6.0), "SIGSTOP for the primary or the replica", _store_frozen
    ),
    Breakage(
        Kind("failover", "store", 4.0),
        "the primary dies, the replica is promoted behind the same address",
        _failover,
    ),
    Breakage(Kind("disk-full", "store", 5.0), "no block is left for a server's AOF", _disk_full),
)
