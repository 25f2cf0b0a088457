"""The way to the store, of operators, sealer and agents alike."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.faults.breakage import Breakage
from tests.chaos.schedule import Kind
from tests.chaos.stores import Standalone
from tests.chaos.world import World
from tests.e2e.cutting import CuttingProxy

__all__ = ["FAMILY"]


@contextmanager
def _cut(world: World, _: random.Random) -> Iterator[str]:
    count = _proxy(world).connections
    _proxy(world).cut()
    yield f"{count} connections"


@contextmanager
def _refused(world: World, _: random.Random) -> Iterator[str]:
    _proxy(world).refuse()
    try:
        yield ""
    finally:
        _proxy(world).accept()


@contextmanager
def _silent(world: World, _: random.Random) -> Iterator[str]:
    _proxy(world).freeze()
    try:
        yield ""
    finally:
        _proxy(world).thaw()


@contextmanager
def _slow(world: World, chance: random.Random) -> Iterator[str]:
    seconds = chance.uniform(0.02, 0.4)
    _proxy(world).delay(seconds)
    try:
        yield f"{seconds * 1000:.0f} ms each way"
    finally:
        _proxy(world).delay(0)


@contextmanager
def _torn(world: World, _: random.Random) -> Iterator[str]:
    _proxy(world).break_()
    try:
        yield ""
    finally:
        _proxy(world).heal()
        _proxy(world).cut()  # some are half way through their ration


def _proxy(world: World) -> CuttingProxy:
    assert isinstance(world.store, Standalone)
    return world.store.proxy


FAMILY = (
    Breakage(Kind("link-cut", "link", 0.5), "every connection is reset", _cut),
    Breakage(Kind("link-refused", "link", 4.0), "connections are reset at once", _refused),
    Breakage(Kind("link-silent", "link", 6.0), "connections stay, and no byte passes", _silent),
    Breakage(Kind("link-slow", "link", 8.0), "every byte comes late", _slow),
    Breakage(
        Kind("link-torn", "link", 5.0),
        "connections are reset in the middle of a command or reply",
        _torn,
    ),
)
