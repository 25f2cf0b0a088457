"""How a pass over a whole store leaves the server to others: small pieces, and a rest after each.

A server does one thing at a time, and runs whatever arrived from one client in one go. So nobody
waits longer for a pass than its longest piece takes, and what goes in one piece is to cost the
server about a tenth of a millisecond; each caller knows how many of its commands that are. The rest
is several times as long as what was done since the last one, seen from outside: where the server is
busy, a piece takes longer, and the rest with it. A removal, which is a transaction with a Function
in it and goes to the server's file as well, takes several times as long as any other piece and
cannot be made smaller; so there are fewer of them in a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from memtenant.clock import Clock, system_clock
from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, Reply
from memtenant.stores.keyspace import Keyspace

__all__ = ["Pace", "PacedPass"]


_REMOVAL = 0.01
"""Seconds of work as which a removal counts at least, so that there are two dozen in a second and
not two hundred: where others meet more of them than every hundredth time, their p99 is a wait for
one. With 20 in a second it was 2.5 times as long as idle, with 6 1.6 times (measured)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of the time a pass may work: ``duty`` of the wall clock, 1.0 for no pause."""

    duty: float = 0.2
    clock: Clock = system_clock

    def begin(self) -> PacedPass:
        """A pass that begins now."""
        return PacedPass(self)

    async def rest(self, busy: float) -> None:
        """Sleep as long as ``busy`` seconds of work ask for."""
        await asyncio.sleep(busy * (1 / self.duty - 1))


class PacedPass:
    """One pass at work. All that happens between two rests counts as work, whoever does it."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._since = pace.clock.monotonic()

    async def run(
        self, where: Keyspace, commands: Iterable[Command], *, at_once: int
    ) -> list[Reply]:
        """As `Keyspace.run`, in pieces of so many commands."""
        replies: list[Reply] = []
        for piece in batches(commands, at_once):
            replies += await where.run(piece)
            await self.rest()
        return replies

    async def rest(self, *, removed: bool = False) -> None:
        """After each piece."""
        busy = self._pace.clock.monotonic() - self._since
        await self._pace.rest(max(busy, _REMOVAL) if removed else busy)
        self._since = self._pace.clock.monotonic()
