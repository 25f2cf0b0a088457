"""The work queue: an `Agenda` on which workers wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from memtenant.controller.agenda import Agenda

__all__ = ["WorkQueue"]

K = TypeVar("K", bound=Hashable)
G = TypeVar("G", bound=Hashable)


class WorkQueue(Generic[K, G]):
    """Hands keys to workers in the agenda's order; see `Agenda` for what it guarantees.

    Belongs to one event loop: every method is called in its thread. ``clock`` is monotonic
    seconds.
    """

    def __init__(
        self,
        *,
        lanes: int,
        group_limit: int,
        fair_every: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agenda: Agenda[K, G] = Agenda(
            lanes=lanes, group_limit=group_limit, fair_every=fair_every
        )
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def agenda(self) -> Agenda[K, G]:
        """What is ready, delayed and running, for metrics."""
        return self._agenda

    def add(self, key: K, *, lane: int, group: G | None = None, after: float = 0.0) -> None:
        """Ask for ``key`` to be done, ``after`` so many seconds."""
        if after > 0:
            self._agenda.add(key, lane=lane, group=group, due=self._clock() + after)
        else:
            self._agenda.add(key, lane=lane, group=group)
        self._wake()

    async def get(self) -> K | None:
        """Wait for the next key; None once the queue is closed. Answer each key with `done`."""
        while not self._closed:
            key = self._agenda.take(self._clock())
            if key is not None:
                self._wake()  # there may be work for one more
                return key
            self._set_alarm()
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # The wake-up must not be lost with the worker that it was meant for.
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        return None

    def done(self, key: K) -> None:
        """The work on ``key`` ended, well or not."""
        self._agenda.done(key)
        self._wake()

    def hold(self, group: G) -> None:
        """Start nothing more of this group until `release`, but for its most urgent lane."""
        self._agenda.hold(group)

    def release(self, group: G) -> None:
        """Let the group's keys start again."""
        self._agenda.release(group)
        self._wake()

    def pause(self, seconds: float) -> None:
        """Start nothing at all for so long."""
        self._agenda.pause_until(self._clock() + seconds)
        self._wake()  # a worker sets the alarm for the new moment

    def paused(self) -> bool:
        """Whether a pause lasts."""
        return self._agenda.paused(self._clock())

    def close(self) -> None:
        """Hand out nothing more; every `get` answers None."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        while self._waiting:
            self._wake()

    def _wake(self) -> None:
        """Let one waiting worker look again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now = self._clock()
        due = self._agenda.next_due(now)
        if due is not None:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, due - now), self._wake)
