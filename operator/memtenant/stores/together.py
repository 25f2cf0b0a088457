"""Group commit: calls that come while one is under way are made together, as one.

A round trip costs the operator more than what it carries. With one call in flight at a time, the
calls of all reconciles that work on a store at that moment share the next one; a single call waits
for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

__all__ = ["Together"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Together(Generic[Item, Result]):
    """``work`` on the items of all callers that wait; each of them gets the whole result.

    An error is the error of all of them: what they asked for is retried by each on its own. A
    caller that is cancelled leaves the others undisturbed.
    """

    def __init__(self, work: Callable[[list[Item]], Awaitable[Result]]) -> None:
        self._work = work
        self._items: list[Item] = []
        self._next: asyncio.Future[Result] | None = None
        self._under_way: asyncio.Task[None] | None = None

    async def __call__(self, items: Iterable[Item]) -> Result:
        """Take part in the next call; its result, which speaks of the others' items too."""
        self._items += items
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        outcome = self._next
        if self._under_way is None:
            self._start()
        return await asyncio.shield(outcome)

    def _start(self) -> None:
        items, self._items = self._items, []
        outcome, self._next = self._next, None
        assert outcome is not None  # noqa: S101 - whoever starts has just put it there
        self._under_way = asyncio.create_task(self._call(items, outcome))

    async def _call(self, items: list[Item], outcome: asyncio.Future[Result]) -> None:
        try:
            result = await self._work(items)
        except BaseException as error:
            if not outcome.done():
                outcome.set_exception(error)
                # Every caller may have been cancelled meanwhile: then nobody retrieves it.
                outcome.exception()
            if not isinstance(error, Exception):
                raise
        else:
            if not outcome.done():
                outcome.set_result(result)
        finally:
            self._under_way = None
            if self._next is not None:
                self._start()
