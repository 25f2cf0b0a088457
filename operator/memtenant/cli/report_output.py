"""How ``memtenant report`` shows a report and a difference in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from memtenant.cli import output
from memtenant.clock import rfc3339
from memtenant.reports.checks import Status
from memtenant.reports.report import Report, Row

__all__ = ["show_difference", "show_report"]

_STYLES: Final = {
    Status.FAIL: "bold red",
    Status.ERROR: "red",
    Status.WARN: "yellow",
    Status.PASS: "green",
}


def show_report(report: Report) -> None:
    """The controls, what is not as it should be, and what to do."""
    output.line(
        f"{report.policy}, generation {report.generation}, {rfc3339(report.made)}, "
        f"tenants: {len(report.tenants)}",
        style="bold",
    )
    for framework in report.frameworks:
        output.line()
        output.line(f"{framework.title} ({framework.source})", style="bold")
        for result in framework.controls:
            judgement = result.judgement
            output.line(
                f"  {judgement.status:7} {result.control.clause}: {result.control.title}",
                style=_STYLES.get(judgement.status, ""),
            )
            output.line(f"          {judgement.looked or result.control.why}", style="dim")
            for one in judgement.findings:
                output.line(f"          {one.subject}: {one.words}")
            if judgement.total > len(judgement.findings):
                output.line(f"          and {judgement.total - len(judgement.findings)} more")
    if report.recommendations:
        output.line()
        output.line("What to do", style="bold")
        for row in report.recommendations:
            output.line(f"  {row['do']}")
    if report.difference is not None:
        output.line()
        show_difference(report.difference)
    output.line()
    counts = ", ".join(f"{many} {name}" for name, many in report.counts().items() if many)
    output.line(counts or "The policy names no framework: no control to judge", style="bold")


def show_difference(row: Row) -> None:
    """Which control turned, and what came and went."""
    output.line(f"Since {row['since']}", style="bold")
    turned = row.get("turned")
    for one in turned if isinstance(turned, list) else ():
        if isinstance(one, Mapping):
            output.line(
                f"  {one['before']} -> {one['after']}  {one['framework']} {one['control']}: "
                f"{one['title']}",
                style="green" if one["better"] else "red",
            )
    if not turned:
        output.line("  no control turned")
    for words, name in (
        ("new tenants", "tenantsAdded"),
        ("tenants gone", "tenantsGone"),
        ("new controls", "controlsAdded"),
        ("controls gone", "controlsGone"),
    ):
        names = row.get(name)
        if isinstance(names, list) and names:
            output.line(f"  {words}: {', '.join(map(str, names[:20]))}")
