"""A report in small: what the ComplianceReport says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding, merge
from memtenant.api.fields import NameRef
from memtenant.api.report import (
    MAX_FAILING,
    Artefact,
    Artefacts,
    ComplianceReportSpec,
    ComplianceReportStatus,
    FailingControl,
    FrameworkResult,
    ReportPeriod,
    ResultCounts,
    Verdict,
)
from memtenant.reports.artefacts import Manifest
from memtenant.reports.checks import Status
from memtenant.reports.report import ControlResult, Report
from memtenant.rules.controls import Severity
from memtenant.rules.status import as_json

__all__ = ["report_name", "run_name", "spec_of", "status_of"]

_FAILED = (Status.FAIL, Status.ERROR)
_GRAVITY = {severity: place for place, severity in enumerate(Severity)}
_LONGEST_FINDING = 1024
_LONGEST_CLAUSE = 256


def run_name(made: datetime) -> str:
    """The run, as its folder and the end of its object are called: ``20261128t220500z``."""
    return made.strftime("%Y%m%dt%H%M%Sz")


def report_name(policy: str, run: str) -> str:
    """The name of the ComplianceReport. A policy's name has 40 characters at most."""
    return f"{policy}-{run}"


def spec_of(report: Report) -> dict[str, Any]:
    """What the report is about."""
    period = ReportPeriod(since=report.period.since, until=report.period.until)
    spec = ComplianceReportSpec(policy_ref=NameRef(name=report.policy), period=period)
    return spec.model_dump(mode="json", by_alias=True)


def status_of(report: Report, manifest: Manifest, location: PurePosixPath) -> dict[str, Any]:
    """What was found. ``location`` is the folder of the files, below the volume of reports."""
    results = report.results()
    failing = sorted(
        (
            (framework.id, one)
            for framework in report.frameworks
            for one in framework.controls
            if one.judgement.status in _FAILED
        ),
        key=_gravest,
    )
    status = ComplianceReportStatus(
        observed_generation=1,
        made_at=report.made,
        tenants=len(report.tenants),
        summary=_counts(results),
        frameworks=tuple(
            FrameworkResult(name=one.id, **dict(_counts(one.controls))) for one in report.frameworks
        ),
        failing_total=len(failing),
        failing=tuple(_failing(framework, one) for framework, one in failing[:MAX_FAILING]),
        artefacts=Artefacts(
            location=str(location),
            manifest_sha256=manifest.digest.hex(),
            files=tuple(
                Artefact(name=name, sha256=digest)
                for name, digest in sorted(manifest.files.items())
            ),
        ),
        conditions=merge((), (_complete(len(results)),), now=report.made, generation=1),
    )
    return dict(as_json(status))


def _counts(results: Iterable[ControlResult]) -> ResultCounts:
    found = Counter(one.judgement.status for one in results)
    return ResultCounts(
        passed=found[Status.PASS],
        fail=found[Status.FAIL],
        warn=found[Status.WARN],
        error=found[Status.ERROR],
        skip=found[Status.SKIP],
        manual=found[Status.MANUAL],
    )


def _gravest(found: tuple[str, ControlResult]) -> tuple[int, int, str, str]:
    framework, result = found
    judgement, control = result.judgement, result.control
    place = _FAILED.index(judgement.status)
    return _GRAVITY[control.severity], place, framework, control.id


def _failing(framework: str, result: ControlResult) -> FailingControl:
    control, judgement = result.control, result.judgement
    first = next((one for one in judgement.findings if one.status is judgement.status), None)
    words = f"{first.subject}: {first.words}" if first else judgement.looked
    return FailingControl(
        id=f"{framework}/{control.id}",
        clause=control.clause[:_LONGEST_CLAUSE],
        severity=control.severity.value,
        verdict=Verdict(judgement.status.value),
        finding=words[:_LONGEST_FINDING],
    )


def _complete(controls: int) -> Finding:
    return Finding(
        ConditionType.READY,
        ConditionStatus.TRUE,
        "Complete",
        f"{controls} controls were judged. This is technical evidence, no verdict of a court",
    )
