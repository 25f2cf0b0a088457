"""`python -m tests.bench.worker CONTESTANT`: appends and reads as it is told, and says how long.

A line of JSON in, a line of JSON out; the first line says where (a URL or a folder). One process a
contestant, so that none waits for another's garbage and each has its own packages.
"""

import asyncio
import gc
import json
import sys
import time
from typing import Any

from tests.bench.contestants import Append, Contestant, Read, at_once, contestant
from tests.bench.texts import texts


async def main(name: str) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    contender: Contestant | None = None
    sessions: dict[str, tuple[Append, Read]] = {}

    def session(which: str) -> tuple[Append, Read]:
        assert contender is not None
        if which not in sessions:
            sessions[which] = contender.session(which)
        return sessions[which]

    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        answer: dict[str, Any] = {}
        match order["do"]:
            case "open":
                contender = contestant(name, order["where"])
            case "append":
                chosen = [session(which)[0] for which in order["sessions"]]
                threads = contender is not None and contender.blocks and len(chosen) > 1
                answer = await _append(chosen, order["count"], order["batch"], threads=threads)
            case "read":
                answer = await _read(session(order["session"])[1], order["times"])
        print(json.dumps(answer), flush=True)
    if contender is not None:
        await contender.close()


async def _append(
    sessions: list[Append], count: int, batch: int, *, threads: bool
) -> dict[str, Any]:
    """``count`` appends by each of the writers, one session a writer (or the same one often)."""
    latencies: list[float] = []
    prepared = [texts(count * batch, seed=number) for number in range(len(sessions))]
    gc.collect()

    async def write(number: int) -> None:
        append, mine = sessions[number], prepared[number]
        for place in range(0, len(mine), batch):
            part = mine[place : place + batch]
            begun = time.perf_counter()
            await append(part)
            latencies.append(time.perf_counter() - begun)

    cpu, started = time.process_time(), time.perf_counter()
    await at_once(len(sessions), write, threads=threads)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cpu": time.process_time() - cpu, "latencies": latencies}


async def _read(read: Read, times: int) -> dict[str, Any]:
    """The quickest of several reads, and how many messages came."""
    seconds = []
    found: Any = []
    for _ in range(times):
        gc.collect()
        begun = time.perf_counter()
        found = await read()
        seconds.append(time.perf_counter() - begun)
    return {"seconds": sorted(seconds)[len(seconds) // 2], "messages": len(found)}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
