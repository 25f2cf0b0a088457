"""A store's servers, in whatever shape, forget users and have no room left; nor has the archive."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from memtenant.rules.systemusers import is_memtenants
from tests.chaos.faults.breakage import Breakage
from tests.chaos.schedule import Kind
from tests.chaos.world import World
from tests.e2e.invariants import Node

__all__ = ["FAMILY", "lose_users"]


@contextmanager
def _users_lost(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.nodes)
    yield f"{len(lose_users(node))} users of {world.store.named(node)}"


def lose_users(node: Node) -> list[str]:
    """Delete what memtenant made there; their names."""
    with node.admin() as admin:
        users = [name if isinstance(name, str) else name.decode() for name in admin.acl_users()]
        lost = [name for name in users if is_memtenants(name)]
        if lost:
            admin.acl_deluser(*lost)
    return lost


@contextmanager
def _memory_full(world: World, chance: random.Random) -> Iterator[str]:
    node = chance.choice(world.store.primaries())
    with node.admin() as admin:
        used = admin.info("memory")["used_memory"]
        admin.config_set("maxmemory", max(1 << 20, used - (64 << 10)))
    try:
        yield f"{world.store.named(node)}, at {used >> 10} KiB"
    finally:
        with node.admin() as admin:
            admin.config_set("maxmemory", 0)


@contextmanager
def _archive_full(world: World, _: random.Random) -> Iterator[str]:
    world.disk.fill()
    try:
        yield ""
    finally:
        world.disk.free()


FAMILY = (
    Breakage(
        Kind("users-lost", "store", 0.5),
        "all users of memtenant's are deleted on a server",
        _users_lost,
    ),
    Breakage(
        Kind("memory-full", "store", 5.0), "maxmemory is less than what is used", _memory_full
    ),
    Breakage(Kind("archive-full", "archive", 6.0), "no block is left for the log", _archive_full),
)
