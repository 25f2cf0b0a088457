"""The API server dies, freezes, refuses, and lets watches end."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.faults.breakage import Breakage
from tests.chaos.schedule import Kind
from tests.chaos.world import World

__all__ = ["FAMILY"]

_CODES = (409, 410, 429, 500, 503, 504)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PLURALS = ("memorytenants", "memorystores", "retentionpolicies", "secrets", "namespaces")


@contextmanager
def _killed(world: World, _: random.Random) -> Iterator[str]:
    world.scene.cluster.kill_api()
    try:
        yield ""
    finally:
        world.scene.cluster.start_api()


@contextmanager
def _frozen(world: World, _: random.Random) -> Iterator[str]:
    world.scene.cluster.freeze_api()
    try:
        yield ""
    finally:
        world.scene.cluster.thaw_api()


@contextmanager
def _refuses(world: World, chance: random.Random) -> Iterator[str]:
    chosen = chance.sample(_METHODS, chance.randint(1, len(_METHODS)))
    codes = []
    for method in chosen:
        code = chance.choice(_CODES)
        again = 1 if code == 429 else None
        world.api.refuse(code, chance.randint(1, 12), method=method, retry_after=again)
        codes.append(f"{method} {code}")
    try:
        yield ", ".join(codes)
    finally:
        world.api.heal()


@contextmanager
def _watches_lost(world: World, chance: random.Random) -> Iterator[str]:
    chosen = chance.sample(_PLURALS, chance.randint(1, 3))
    for plural in chosen:
        world.api.lose_watch(plural)
    try:
        yield ", ".join(chosen)
    finally:
        world.api.heal()


FAMILY = (
    Breakage(Kind("api-killed", "api", 2.0), "SIGKILL; it starts again", _killed),
    Breakage(Kind("api-frozen", "api", 4.0), "SIGSTOP: requests time out", _frozen),
    Breakage(
        Kind("api-refuses", "api", 4.0),
        "the operators' and the sealer's next requests are answered by 409 to 504",
        _refuses,
    ),
    Breakage(
        Kind("api-watches-lost", "api", 5.0),
        "the operators' watches end, do not open for a while, and then are expired (410)",
        _watches_lost,
    ),
)
