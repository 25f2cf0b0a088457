"""The store's servers die, freeze, fail over, forget their users, and have no room left."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from memtenant.rules.systemusers import is_memtenants
from tests.chaos.faults.breakage import Breakage
from tests.chaos.schedule import Kind
from tests.chaos.world import World
from tests.e2e.scene import eventually
from tests.support.servers import Server

__all__ = ["FAMILY"]


@contextmanager
def _store_killed(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    node.kill9()
    try:
        yield _named(world, node)
    finally:
        node.start()


@contextmanager
def _store_restarted(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    node.stop()
    try:
        yield _named(world, node)
    finally:
        node.start()


@contextmanager
def _store_frozen(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    node.freeze()
    try:
        yield _named(world, node)
    finally:
        node.thaw()


@contextmanager
def _failover(world: World, chance: random.Random) -> Iterator[str]:
    """The primary dies, the replica takes its place and address, and the dead one follows it when
    it is back. As Sentinels do, nobody promotes a replica that lost its primary before."""
    primary, replica = world.nodes
    if not _follows(replica):
        yield "nothing: the replica did not follow"
        return
    primary.kill9()
    replica.promote()
    world.proxy.point_to(replica.host, replica.port)
    world.nodes.reverse()
    try:
        yield f"{replica.endpoint} is the primary"
    finally:
        primary.replica_of = replica
        primary.start()
        primary.wait_for_sync()


@contextmanager
def _users_lost(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    with node.admin() as admin:
        users = [name if isinstance(name, str) else name.decode() for name in admin.acl_users()]
        lost = [name for name in users if is_memtenants(name)]
        if lost:
            admin.acl_deluser(*lost)
    yield f"{len(lost)} users of {_named(world, node)}"


@contextmanager
def _disk_full(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    disk = next(one for one in world.disks.values() if one.root == node.folder.parent)
    disk.fill()
    try:
        yield _named(world, node)
    finally:
        disk.free()
        if node.alive:
            _rewrite(node)
        else:  # a replica ends where it cannot write what its primary told it
            node.start()


@contextmanager
def _memory_full(world: World, _: random.Random) -> Iterator[str]:
    node = world.nodes[0]
    with node.admin() as admin:
        used = admin.info("memory")["used_memory"]
        admin.config_set("maxmemory", max(1 << 20, used - (64 << 10)))
        try:
            yield f"{_named(world, node)}, at {used >> 10} KiB"
        finally:
            admin.config_set("maxmemory", 0)


@contextmanager
def _archive_full(world: World, _: random.Random) -> Iterator[str]:
    world.disks["archive"].fill()
    try:
        yield ""
    finally:
        world.disks["archive"].free()


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


def _named(world: World, node: Server) -> str:
    return "the primary" if node is world.nodes[0] else "the replica"


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
    Breakage(
        Kind("users-lost", "store", 0.5),
        "all users of memtenant's are deleted on a server",
        _users_lost,
    ),
    Breakage(Kind("disk-full", "store", 5.0), "no block is left for a server's AOF", _disk_full),
    Breakage(
        Kind("memory-full", "store", 5.0), "maxmemory is less than what is used", _memory_full
    ),
    Breakage(Kind("archive-full", "archive", 6.0), "no block is left for the log", _archive_full),
)
