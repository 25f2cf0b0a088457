"""An event loop in a thread of its own, for helpers that synchronous tests drive."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for callers in other threads until it is closed."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 120.0) -> T:
        """The result of `work`, which runs in the loop's thread. Raises what `work` raises."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def call(self, action: Callable[[], None]) -> None:
        """Run a plain function in the loop's thread."""

        async def work() -> None:
            action()

        self.run(work())

    def close(self) -> None:
        """Cancel what still runs there and end the thread."""
        if self._loop.is_closed():
            return
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
