"""A run: evidence gathered, every control of the policy's frameworks judged, a report made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from memtenant.clock import Clock, system_clock
from memtenant.errors import FrameworkInvalid
from memtenant.reports.checks import CHECKS, PARAMETERS, Judgement, Status
from memtenant.reports.collect import collect
from memtenant.reports.difference import difference
from memtenant.reports.evidence import Evidence, Period
from memtenant.reports.history import kept_files
from memtenant.reports.looking import Progress
from memtenant.reports.report import ControlResult, FrameworkResult, Report
from memtenant.reports.sources import Sources
from memtenant.reports.tables import (
    event_totals,
    log_row,
    recommendations,
    store_rows,
    tenant_rows,
)
from memtenant.rules.controls import MANUAL, Control, ParameterInvalid
from memtenant.rules.frameworks import Framework
from memtenant.stores.pace import Pace

__all__ = ["judge", "make_report", "report_of"]


async def make_report(
    sources: Sources,
    policy: str,
    period: Period,
    previous: Report | None = None,
    *,
    doubts: tuple[str, ...] = (),
    files: Path | None = None,
    installation: str = "",
    clock: Clock = system_clock,
    pace: Pace | None = None,
    progress: Progress = lambda _done, _due: None,
) -> Report:
    """The report about one policy and all that is under it. ``doubts``: what is wrong with the
    report before it, in words; ``files`` is where the policy's reports are kept.

    What cannot be looked at is in the report, as an error of each control that needs it. Raises
    only where there is nothing to judge by: `ResourceNotFound` for a policy that is not declared,
    `InvalidResource` for one that cannot be resolved, `FrameworkInvalid` for a control whose check
    does not exist.
    """
    evidence = await collect(
        sources,
        policy,
        period,
        now=clock.now(),
        trusted=previous.checkpoint if previous else "",
        nodes_before=previous.nodes if previous else {},
        pace=pace,
        progress=progress,
    )
    if files is not None:
        evidence = replace(evidence, reports=kept_files(files, evidence))
    return report_of(replace(evidence, doubts=doubts), installation, previous)


def report_of(evidence: Evidence, installation: str, previous: Report | None) -> Report:
    """What the evidence comes to."""
    frameworks = tuple(_framework(one, evidence) for one in evidence.policy.frameworks)
    report = Report(
        installation=installation,
        policy=evidence.policy.name,
        generation=evidence.generation,
        made=_whole_second(evidence.now),
        period=Period(
            _whole_second(evidence.period.since),
            _whole_second(evidence.period.until),
            evidence.period.chosen,
        ),
        frameworks=frameworks,
        tenants=tenant_rows(evidence),
        stores=store_rows(evidence),
        events=event_totals(evidence),
        log=log_row(evidence.log),
        recommendations=recommendations(frameworks),
    )
    if previous is None:
        return report
    return replace(report, difference=difference(previous, report))


def judge(control: Control, evidence: Evidence) -> Judgement:
    """One control. Raises `FrameworkInvalid` where its check or a parameter of it is unknown."""
    if control.check == MANUAL:
        return Judgement(Status.MANUAL, "")
    check = CHECKS.get(control.check)
    if check is None:
        raise FrameworkInvalid(
            f"control {control.id} names the check {control.check!r}, which this memtenant does "
            f"not have: use {', '.join(CHECKS)} or {MANUAL}"
        )
    for name in control.parameters.values.keys() - PARAMETERS.get(control.check, frozenset()):
        raise FrameworkInvalid(
            f"control {control.id}, parameters: {name} is none that {control.check} knows"
        )
    try:
        return check(evidence, control.parameters)
    except ParameterInvalid as error:
        raise FrameworkInvalid(f"control {control.id}, parameters: {error}") from None


def _framework(framework: Framework, evidence: Evidence) -> FrameworkResult:
    return FrameworkResult(
        framework.id,
        framework.title,
        framework.source,
        framework.date.isoformat(),
        tuple(_judged(framework.controls, evidence)),
    )


def _judged(controls: Iterable[Control], evidence: Evidence) -> Iterable[ControlResult]:
    for control in controls:
        yield ControlResult(control, judge(control, evidence))


def _whole_second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
