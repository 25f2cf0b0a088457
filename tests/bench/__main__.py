"""`python -m tests.bench [--quick] [--tenants N] [--json FILE]`."""

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

from tests.bench import measurements, report
from tests.bench.api import connect
from tests.bench.measurements import Results
from tests.bench.stage import Stage, built
from tests.support.processes import Unavailable


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 tenants, to try it out")
    parser.add_argument("--tenants", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    options = parser.parse_args()
    results = Results(tenants=200 if options.quick else options.tenants)
    machine = report.machine()
    try:
        with built() as stage:
            asyncio.run(_measure(stage, results))
    except Unavailable as missing:
        print(missing, file=sys.stderr)
        return 1
    lines = report.rows(results)
    print(f"\n{machine}\n\n{report.table(lines)}")
    if results.convergence is not None:
        print(f"\n{report.costs(results.convergence)}")
    if options.json is not None:
        found = {
            "machine": machine,
            "rows": [dataclasses.asdict(line) for line in lines],
            "results": dataclasses.asdict(results),
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


async def _measure(stage: Stage, results: Results) -> None:
    async with connect(stage.cluster, stage.account) as api:
        await _step("new tenants", measurements.converge(stage, api, results))
        await _step("nothing to do", measurements.resync(stage, api, results))
        await _step("users lost", asyncio.to_thread(measurements.repair, stage, results))
        await _step("restart", measurements.restart(stage, api, results))


async def _step(name: str, work: Awaitable[None]) -> None:
    print(f"{name} …", file=sys.stderr, end=" ", flush=True)
    started = time.monotonic()
    await work
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
