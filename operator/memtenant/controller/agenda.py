"""What is to be done next: the pure half of the work queue.

The words and the guarantees are those of controller-runtime's work queue: a key is worked on by
one worker at a time, a key added while it is worked on is done again afterwards, a key added many
times is done once. On top of it: lanes (what is urgent goes first, nothing starves), groups (the
keys of one store share a limit, and a store that does not answer holds all of its keys back but the
most urgent), and a pause for everything (the API server is away).

Nothing here waits or reads a clock: time is passed in, in seconds on any monotonic scale.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

__all__ = ["Agenda"]

K = TypeVar("K", bound=Hashable)
G = TypeVar("G", bound=Hashable)

_NOW = float("-inf")
"""The due time of what may start at once."""


class _State(Enum):
    READY = "ready"
    DELAYED = "delayed"
    RUNNING = "running"


@dataclass(slots=True)
class _Item(Generic[G]):
    state: _State
    lane: int
    group: G | None
    ticket: int
    due: float = _NOW
    again: _Again[G] | None = None


@dataclass(frozen=True, slots=True)
class _Again(Generic[G]):
    """What was asked for a key while it was worked on."""

    lane: int
    group: G | None
    due: float


class Agenda(Generic[K, G]):
    """Keys in lanes and groups, each at most once waiting and at most once running.

    ``lanes`` is how many lanes there are, the first the most urgent. One take in ``fair_every``
    goes to the key that has been ready longest, whatever its lane: so a key in the last lane waits
    for at most ``fair_every`` takes for each key that was there before it. ``group_limit`` is how
    many keys of one group may run at once; keys of the group None are not limited.
    """

    def __init__(self, *, lanes: int, group_limit: int, fair_every: int = 8) -> None:
        self._lanes = lanes
        self._group_limit = group_limit
        self._fair_every = fair_every
        self._takes = 0
        self._tickets = itertools.count()
        self._items: dict[K, _Item[G]] = {}
        # A waiting line holds (ticket, key); a line that a key has left since is skipped lazily.
        self._ready: dict[G | None, list[deque[tuple[int, K]]]] = {}
        self._delayed: list[tuple[float, int, K]] = []
        self._running: dict[G | None, int] = {}
        self._held: set[G] = set()
        self._paused_until = _NOW

    def add(self, key: K, *, lane: int, group: G | None = None, due: float = _NOW) -> None:
        """Ask for ``key`` to be done at ``due`` (the default: as soon as its turn comes).

        A key that waits already keeps the earlier due time and the more urgent lane; one that is
        being worked on will be done once more.
        """
        item = self._items.get(key)
        if item is None:
            self._place(key, lane, group, due)
        elif item.state is _State.RUNNING:
            again = item.again
            item.again = _Again(
                lane if again is None else min(lane, again.lane),
                group,
                due if again is None else min(due, again.due),
            )
        elif lane < item.lane or due < item.due or group != item.group:
            self._place(key, min(lane, item.lane), group, min(due, item.due))

    def _place(self, key: K, lane: int, group: G | None, due: float) -> None:
        ticket = next(self._tickets)
        if due > _NOW:
            self._items[key] = _Item(_State.DELAYED, lane, group, ticket, due)
            heapq.heappush(self._delayed, (due, ticket, key))
            return
        self._items[key] = _Item(_State.READY, lane, group, ticket)
        lines = self._ready.get(group)
        if lines is None:
            lines = self._ready[group] = [deque() for _ in range(self._lanes)]
        lines[lane].append((ticket, key))

    def take(self, now: float) -> K | None:
        """The key to work on next, or None if nothing may start now. Answer it with `done`."""
        self._promote(now)
        if self.paused(now):
            return None
        heads = list(self._heads())
        if not heads:
            return None
        self._takes += 1
        oldest = self._takes % self._fair_every == 0
        lane, ticket, key = min(heads, key=lambda head: head[1] if oldest else head[:2])
        item = self._items[key]
        self._ready[item.group][lane].popleft()
        self._drop_empty_lines(item.group)
        item.state = _State.RUNNING
        item.ticket = ticket
        self._running[item.group] = self._running.get(item.group, 0) + 1
        return key

    def _promote(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            _, ticket, key = heapq.heappop(self._delayed)
            item = self._items.get(key)
            if item is not None and item.state is _State.DELAYED and item.ticket == ticket:
                self._place(key, item.lane, item.group, _NOW)

    def _heads(self) -> Iterator[tuple[int, int, K]]:
        """(lane, ticket, key) of the first in every line of every group that may start one."""
        for group, lines in self._ready.items():
            if group is not None and self._running.get(group, 0) >= self._group_limit:
                continue
            open_lanes = lines[:1] if group in self._held else lines
            for lane, line in enumerate(open_lanes):
                while line and not self._waits(line[0]):
                    line.popleft()
                if line:
                    ticket, key = line[0]
                    yield lane, ticket, key

    def _waits(self, place: tuple[int, K]) -> bool:
        ticket, key = place
        item = self._items.get(key)
        return item is not None and item.state is _State.READY and item.ticket == ticket

    def _drop_empty_lines(self, group: G | None) -> None:
        if not any(self._ready[group]):
            del self._ready[group]

    def done(self, key: K) -> None:
        """The work on a taken key ended, well or not."""
        item = self._items[key]
        if item.state is not _State.RUNNING:
            raise ValueError(f"{key} was not taken")
        del self._items[key]
        left = self._running[item.group] - 1
        if left:
            self._running[item.group] = left
        else:
            del self._running[item.group]
        if item.again is not None:
            self._place(key, item.again.lane, item.again.group, item.again.due)

    def hold(self, group: G) -> None:
        """Start nothing more of this group until `release`, but for its most urgent lane; what runs
        goes on."""
        self._held.add(group)

    def release(self, group: G) -> None:
        """Let the group's keys start again."""
        self._held.discard(group)

    def held(self, group: G) -> bool:
        """Whether `hold` stands for the group."""
        return group in self._held

    def pause_until(self, moment: float) -> None:
        """Start nothing at all before ``moment``."""
        self._paused_until = moment

    def paused(self, now: float) -> bool:
        """Whether a pause lasts."""
        return now < self._paused_until

    def next_due(self, now: float) -> float | None:
        """When `take` may have an answer that it has not now, if only time must pass."""
        if self.paused(now) and (self._items or self._delayed):
            return self._paused_until
        while self._delayed:
            due, ticket, key = self._delayed[0]
            item = self._items.get(key)
            if item is not None and item.state is _State.DELAYED and item.ticket == ticket:
                return due
            heapq.heappop(self._delayed)
        return None

    def ready_by_lane(self) -> list[int]:
        """How many keys are ready and not yet started, by lane; held ones included."""
        counts = [0] * self._lanes
        for item in self._items.values():
            if item.state is _State.READY:
                counts[item.lane] += 1
        return counts

    def delayed(self) -> int:
        """How many keys wait for their time."""
        return sum(1 for item in self._items.values() if item.state is _State.DELAYED)

    def running(self) -> int:
        """How many keys are being worked on."""
        return sum(self._running.values())

    def running_in(self, group: G | None) -> int:
        """How many keys of one group are being worked on."""
        return self._running.get(group, 0)
