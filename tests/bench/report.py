"""The table: what the design asks for, what was measured, and whether it holds."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measurements import Convergence, NoOp, Results

_LIMIT_RATE = 100.0
_LIMIT_RATIO = 2.5
_LIMIT_REPAIR = 10.0
_LIMIT_RESTART = 60.0
_LIMIT_NEWCOMER = 2.0
_LIMIT_RSS = 300.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``holds`` is None where the design sets no limit."""

    what: str
    limit: str
    measured: str
    holds: bool | None


def machine() -> str:
    """What the figures belong to."""
    cpus = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    gib = int(memory[1]) / 2**20 if memory else 0
    load = Path("/proc/loadavg").read_text().split()[0]
    return (
        f"{len(cpus)} x {cpus[0] if cpus else platform.machine()}, {gib:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}; load {load}"
    )


def rows(results: Results) -> list[Row]:
    """The table's lines."""
    return [*_convergence(results), *_no_ops(results), *_rest(results), *_late(results)]


def _late(results: Results) -> list[Row]:
    return [
        Row(f"{step}: all of it", "", f"not within {seconds:.0f} s", False)
        for step, seconds in results.late.items()
    ]


def _convergence(results: Results) -> list[Row]:
    found = results.convergence
    if found is None:
        return []
    made = found.operator
    return [
        Row(
            f"converge {results.tenants:,} new tenants",
            f"≥ {_LIMIT_RATE:.0f}/s",
            f"{made.rate:.0f}/s (the first thousand {found.first_rate:.0f}/s, the last "
            f"{found.last_rate:.0f}/s)",
            made.rate >= _LIMIT_RATE,
        ),
        Row(
            "… beside the bare loop",
            f"≤ {_LIMIT_RATIO} x",
            f"{found.ratio:.2f} x (bare: {found.before.rate:.0f}/s before, "
            f"{found.after.rate:.0f}/s after, {found.concurrency} at once)",
            found.ratio <= _LIMIT_RATIO,
        ),
    ]


def _no_ops(results: Results) -> list[Row]:
    made: list[Row] = []
    if results.resync is not None:
        made += [
            Row(
                f"{results.tenants:,} tenants looked at with nothing to do",
                "",
                f"{results.resync.seconds:.1f} s, {results.resync.cpu:.1f} s CPU",
                None,
            ),
            Row(
                "… writes",
                "0 that are not due",
                _writes(results.resync),
                _wrote_the_due(results.resync),
            ),
        ]
    if results.restart is not None:
        made += [
            Row(
                f"restart with {results.tenants:,} settled tenants",
                f"< {_LIMIT_RESTART:.0f} s at 10,000",
                f"{results.restart.seconds:.1f} s, {results.restart.cpu:.1f} s CPU",
                results.restart.seconds < _LIMIT_RESTART,
            ),
            Row(
                "… writes",
                "0",
                f"{_writes(results.restart)}, its term and the proof's own users",
                not results.restart.api_writes,
            ),
        ]
    return made


def _rest(results: Results) -> list[Row]:
    made: list[Row] = []
    if results.newcomers is not None:
        made.append(
            Row(
                f"a new tenant Ready meanwhile ({len(results.newcomers.seconds)} of them)",
                f"p99 < {_LIMIT_NEWCOMER:.0f} s",
                f"median {results.newcomers.median:.2f} s, p99 {results.newcomers.p99:.2f} s, "
                f"worst {results.newcomers.worst:.2f} s",
                results.newcomers.p99 < _LIMIT_NEWCOMER,
            )
        )
    if results.repaired_users:
        made.append(
            Row(
                f"{results.repaired_users:,} ACL users lost on a node",
                f"back in < {_LIMIT_REPAIR:.0f} s",
                f"{results.repair_seconds:.1f} s",
                results.repair_seconds < _LIMIT_REPAIR,
            )
        )
    if results.idle is not None:
        found = results.idle
        made.append(
            Row(
                f"CPU of the operator at rest, {found.seconds:.0f} s",
                "",
                f"{100 * found.cpu / found.seconds:.1f} % of a core; writes: {_writes(found)}",
                None,
            )
        )
    most = max(results.rss_before, results.rss_after, results.rss_end)
    made.append(
        Row(
            "memory of the operator (RSS)",
            f"< {_LIMIT_RSS:.0f} MB",
            f"{results.rss_before:.0f} MB at first, {results.rss_after:.0f} MB with "
            f"{results.tenants:,} tenants, {results.rss_end:.0f} MB after a restart",
            most < _LIMIT_RSS,
        )
    )
    return made


def _writes(found: NoOp) -> str:
    named = ", ".join(f"{n} {name}" for name, n in sorted(found.api_writes.items()))
    return (
        f"{sum(found.api_writes.values())} to the API server{f' ({named})' if named else ''}, "
        f"{found.store_writes} to the store: "
        f"{found.due} cut-offs were due"
    )


def _wrote_the_due(found: NoOp) -> bool:
    return not found.api_writes and found.store_writes <= found.due


def table(lines: list[Row]) -> str:
    """Markdown, aligned for a terminal."""
    cells: list[tuple[str, ...]] = [("what", "limit", "measured", "holds")]
    cells += [(r.what, r.limit or "-", r.measured, _verdict(r.holds)) for r in lines]
    return grid(cells)


def grid(cells: list[tuple[str, ...]]) -> str:
    """A table in Markdown; the first line is its head."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _verdict(holds: bool | None) -> str:
    return "-" if holds is None else "yes" if holds else "NO"


def costs(found: Convergence) -> str:
    """Where the time of a new tenant goes: whose CPU, and which requests."""
    lines = ["CPU per new tenant, ms             its maker   API server + etcd"]
    for name, one in (
        ("bare loop, before", found.before),
        ("operator", found.operator),
        ("bare loop, after", found.after),
    ):
        lines.append(f"  {name:<30} {one.cpu_ms:10.1f} {one.api_cpu_ms:19.1f}")
    lines.append("Requests per new tenant            bare loop   operator")
    bare, made = found.before, found.operator
    lines += [
        f"  {request:<30} {bare.per_tenant(request):12.2f} {made.per_tenant(request):10.2f}"
        for request in sorted(bare.requests.keys() | made.requests.keys())
        if max(bare.per_tenant(request), made.per_tenant(request)) >= 0.05
    ]
    return "\n".join(lines)
