"""Workers that wait on the queue; the order itself is test_agenda's."""

import asyncio

from memtenant.controller.queue import WorkQueue


def queue(limit: int = 100) -> WorkQueue[str, str]:
    return WorkQueue(lanes=4, group_limit=limit)


async def test_a_waiting_worker_gets_a_key_that_is_added_later() -> None:
    work = queue()
    worker = asyncio.create_task(work.get())
    await asyncio.sleep(0)
    work.add("a", lane=2)
    assert await worker == "a"


async def test_every_waiting_worker_is_woken_for_work_that_it_may_do() -> None:
    work = queue()
    workers = [asyncio.create_task(work.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in "abc":
        work.add(key, lane=2)
    assert sorted([str(await worker) for worker in workers]) == ["a", "b", "c"]


async def test_a_delayed_key_comes_by_itself() -> None:
    work = queue()
    work.add("a", lane=2, after=0.01)
    assert await work.get() == "a"


async def test_an_earlier_delay_is_not_slept_through() -> None:
    work = queue()
    work.add("late", lane=2, after=3600)
    worker = asyncio.create_task(work.get())
    await asyncio.sleep(0)
    work.add("early", lane=2, after=0.01)
    assert await worker == "early"


async def test_a_pause_ends_by_itself() -> None:
    work = queue()
    work.pause(0.01)
    work.add("a", lane=2)
    workers = [asyncio.create_task(work.get()) for _ in range(2)]
    await asyncio.sleep(0)
    work.add("b", lane=2)
    assert sorted([str(await worker) for worker in workers]) == ["a", "b"]


async def test_a_key_that_is_done_frees_its_store_for_a_waiting_worker() -> None:
    work = queue(limit=1)
    work.add("a", lane=2, group="eu")
    work.add("b", lane=2, group="eu")
    assert await work.get() == "a"
    worker = asyncio.create_task(work.get())
    await asyncio.sleep(0)
    assert not worker.done()
    work.done("a")
    assert await worker == "b"


async def test_a_cancelled_worker_passes_its_wake_up_on() -> None:
    work = queue()
    first, second = (asyncio.create_task(work.get()) for _ in range(2))
    await asyncio.sleep(0)
    work.add("a", lane=2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await second == "a"


async def test_a_closed_queue_sends_every_worker_home() -> None:
    work = queue()
    workers = [asyncio.create_task(work.get()) for _ in range(3)]
    await asyncio.sleep(0)
    work.add("a", lane=2, after=3600)
    work.close()
    assert await asyncio.gather(*workers) == [None, None, None]
    assert await work.get() is None
