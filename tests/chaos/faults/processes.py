"""The operators and the sealer are killed, frozen, asked to stop; their clocks run wrong."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.chaos.faults.breakage import Breakage
from tests.chaos.schedule import Kind
from tests.chaos.world import World

__all__ = ["FAMILY"]

_WRONG_BY = (-7200, -90, 45, 600, 7200, 2 * 86_400)
"""Seconds: a clock that was never set, a small step, another time zone, another month."""


@contextmanager
def _operator_killed(world: World, chance: random.Random) -> Iterator[str]:
    which = chance.choice(["leader", "leader", "standby", "both"])
    for one in world.operators(which):
        one.kill()
    yield which


@contextmanager
def _operator_frozen(world: World, chance: random.Random) -> Iterator[str]:
    which = chance.choice(["leader", "leader", "both"])
    frozen = [one.pid for one in world.operators(which)]
    with _stopped(*frozen):
        yield which


@contextmanager
def _operator_stopped(world: World, chance: random.Random) -> Iterator[str]:
    which = chance.choice(["leader", "standby", "both"])
    for one in world.operators(which):
        os.kill(one.pid, signal.SIGTERM)
    yield which


@contextmanager
def _sealer_killed(world: World, _: random.Random) -> Iterator[str]:
    world.sealer.kill()
    yield ""


@contextmanager
def _sealer_frozen(world: World, _: random.Random) -> Iterator[str]:
    with _stopped(world.sealer.pid):
        yield ""


@contextmanager
def _clock_wrong(world: World, chance: random.Random) -> Iterator[str]:
    who, by = chance.choice(sorted(world.clocks)), chance.choice(_WRONG_BY)
    world.clocks[who].run_wrong(by)
    try:
        yield f"{who}, by {by} s"
    finally:
        world.clocks[who].run_wrong(0)


@contextmanager
def _stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


FAMILY = (
    Breakage(
        Kind("operator-killed", "operator", 1.0),
        "SIGKILL for the leader, the standby or both; they start again",
        _operator_killed,
    ),
    Breakage(
        Kind("operator-frozen", "operator", 7.0),
        "SIGSTOP for the leader or both, often for longer than the Lease",
        _operator_frozen,
    ),
    Breakage(
        Kind("operator-stopped", "operator", 1.0),
        "SIGTERM for one or both, as when a node is drained",
        _operator_stopped,
    ),
    Breakage(Kind("sealer-killed", "sealer", 1.0), "SIGKILL; it starts again", _sealer_killed),
    Breakage(Kind("sealer-frozen", "sealer", 6.0), "SIGSTOP", _sealer_frozen),
    Breakage(
        Kind("clock-wrong", "clock", 5.0),
        "the wall clock of the operators or the sealer steps by up to two days, and back",
        _clock_wrong,
    ),
)
