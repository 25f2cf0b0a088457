"""Group commit: who waits shares the next call, and nobody's failure or end is another's."""

from __future__ import annotations

import asyncio

import pytest

from memtenant.stores.together import Together


class Recorder:
    """A call that ends when it is told to, and remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.open = asyncio.Event()

    async def __call__(self, items: list[str]) -> dict[str, int]:
        self.calls.append(items)
        await self.open.wait()
        if "bad" in items:
            raise ValueError("bad")
        return {item: len(self.calls) for item in items}


async def test_calls_that_wait_are_made_as_one() -> None:
    recorder = Recorder()
    together = Together(recorder)
    tasks = [asyncio.create_task(together([name])) for name in "abc"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    recorder.open.set()
    results = await asyncio.gather(*tasks)
    assert recorder.calls == [["a"], ["b", "c"]]
    assert [result[name] for result, name in zip(results, "abc", strict=True)] == [1, 2, 2]


async def test_an_error_is_of_its_own_call_only() -> None:
    recorder = Recorder()
    together = Together(recorder)
    first = asyncio.create_task(together(["bad"]))
    await asyncio.sleep(0)
    second = asyncio.create_task(together(["good"]))
    recorder.open.set()
    with pytest.raises(ValueError, match="bad"):
        await first
    assert await second == {"good": 2}


async def test_a_cancelled_caller_leaves_the_others_undisturbed() -> None:
    recorder = Recorder()
    together = Together(recorder)
    first = asyncio.create_task(together(["first"]))
    await asyncio.sleep(0)
    cancelled, staying = (asyncio.create_task(together([name])) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    cancelled.cancel()
    recorder.open.set()
    assert await staying == {"gone": 2, "stays": 2}
    assert await first == {"first": 1}
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_it_goes_on_after_all_have_left() -> None:
    recorder = Recorder()
    recorder.open.set()
    together = Together(recorder)
    assert await together(["a"]) == {"a": 1}
    assert await together(["b"]) == {"b": 2}
