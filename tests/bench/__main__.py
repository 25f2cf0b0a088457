"""`python -m tests.bench [--only operator|sdk|audit] [--quick] [--tenants N] [--json FILE]`."""

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.bench import (
    auditlog,
    context,
    erasure,
    measurements,
    report,
    reporting,
    sdk,
    sdk_report,
    sealing,
    strict,
    sweep,
)
from tests.bench.api import connect
from tests.bench.measurements import Results
from tests.bench.progress import Progress
from tests.bench.sdk import SdkResults
from tests.bench.stage import Stage, built
from tests.support.processes import Unavailable

_LONGEST_STEP, _SLOWEST = 240.0, 20.0
"""Seconds that a step of the operator's half may take, and tenants a second on top of them."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=("operator", "sdk", "audit"), help="one part")
    parser.add_argument("--quick", action="store_true", help="less of everything, to try it out")
    parser.add_argument("--tenants", type=int, default=10_000, help="how many (default 10,000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": report.machine()}
    print(found["machine"])
    try:
        if options.only in (None, "sdk"):
            found["sdk"] = _sdk(quick=options.quick)
        if options.only in (None, "audit"):
            found["audit"] = _audit(quick=options.quick)
        if options.only in (None, "operator"):
            found["operator"] = (
                _operator(200, 2_000, 5, idle=10.0)
                if options.quick
                else _operator(options.tenants, 100_000, 50, idle=60.0)
            )
    except Unavailable as missing:
        print(missing, file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _sdk(*, quick: bool) -> dict[str, Any]:
    results = SdkResults()
    sdk.measure(results, quick=quick)
    with Progress() as progress:
        progress.step("facts that a context budget keeps", 1)
        kept = context.rows(each=4 if quick else context.EACH)
        progress.step("an erasure", 1)
        erased = erasure.measure(20_000 if quick else 1_000_000)
    lines = [*sdk_report.rows(results), *kept, *sdk_report.erasure_rows(erased)]
    print(f"\n{report.table(lines)}\n\n{sdk_report.tables(results)}")
    return {**_figures(lines, results), "erasure": dataclasses.asdict(erased)}


def _audit(*, quick: bool) -> dict[str, Any]:
    with Progress() as progress:
        progress.step("the audit log", 1)
        logged = auditlog.measure(100_000 if quick else 1_000_000)
        progress.step("from a server's queue into the log", 1)
        drained = sealing.measure(100_000 if quick else 1_000_000)
        progress.step("compliance reports", 1)
        made = reporting.measure(100 if quick else 1000, 100 if quick else 1000)
    lines = [*auditlog.rows(logged), *sealing.rows(drained), *reporting.rows(made)]
    print(f"\n{report.table(lines)}")
    rows = [dataclasses.asdict(line) for line in lines]
    parts = {"log": dataclasses.asdict(logged), "sealer": dataclasses.asdict(drained)}
    return {"rows": rows, **parts, "reports": [dataclasses.asdict(one) for one in made]}


def _operator(tenants: int, conversations: int, instances: int, *, idle: float) -> dict[str, Any]:
    results = Results(tenants=tenants)
    with Progress() as progress, built() as stage:
        asyncio.run(_measure(stage, results, progress, idle))
    swept = sweep.measure(conversations)
    own = strict.measure(instances)
    lines = [*report.rows(results), *sweep.rows(swept), *strict.rows(own)]
    print(f"\n{report.table(lines)}")
    if results.convergence is not None:
        print(f"\n{report.costs(results.convergence)}")
    return {
        **_figures(lines, results),
        "sweep": dataclasses.asdict(swept),
        "strict": dataclasses.asdict(own),
    }


def _figures(lines: list[report.Row], results: Results | SdkResults) -> dict[str, Any]:
    return {
        "rows": [dataclasses.asdict(line) for line in lines],
        "results": dataclasses.asdict(results),
    }


async def _measure(stage: Stage, results: Results, progress: Progress, idle: float) -> None:
    """One step after the other; one that does not end in time leaves the others their turn."""
    async with connect(stage.cluster, stage.account) as api:
        await _step(results, "new tenants", measurements.converge(stage, api, results, progress))
        for name, step in (
            ("nothing to do", measurements.resync(stage, api, results)),
            ("users lost", measurements.repair(stage, results)),
            ("restart", measurements.restart(stage, api, results)),
            ("restart with newcomers", measurements.newcomers(stage, api, results)),
            ("at rest", measurements.idle(stage, api, results, idle)),
        ):
            progress.step(name, 1)
            await _step(results, name, step)


async def _step(results: Results, name: str, step: Coroutine[None, None, None]) -> None:
    most = _LONGEST_STEP + results.tenants / _SLOWEST
    try:
        async with asyncio.timeout(most):
            await step
    except TimeoutError:
        results.late[name] = most


if __name__ == "__main__":
    sys.exit(main())
