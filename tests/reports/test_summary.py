"""What etcd holds of a report stays small, whatever was found."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from memtenant.api.parse import parse
from memtenant.api.validate import validate
from memtenant.reports.artefacts import Manifest
from memtenant.reports.checks import Finding, Judgement, Status
from memtenant.reports.evidence import Period
from memtenant.reports.report import ControlResult, FrameworkResult, Report
from memtenant.reports.summary import report_name, run_name, spec_of, status_of
from memtenant.rules.controls import Control, Severity

_NOW = datetime(2026, 11, 28, 22, 5, tzinfo=UTC)


def _result(number: int, status: Status, severity: Severity) -> ControlResult:
    control = Control(f"c-{number:03}", "x" * 500, "title", severity, "Encrypted")
    words = "y" * 5000
    return ControlResult(control, Judgement(status, "1/1", _NOW, (Finding(status, "a", words),), 1))


def _report(*results: ControlResult) -> Report:
    framework = FrameworkResult("GDPR", "title", "source", "2026-11-23", results)
    other = replace(framework, id="HIPAA")
    return Report("i", "p" * 40, 1, _NOW, Period(_NOW, _NOW), (framework, other))


def test_a_status_is_capped_and_the_gravest_come_first() -> None:
    many = [_result(number, Status.FAIL, Severity.LOW) for number in range(200)]
    grave = _result(900, Status.ERROR, Severity.CRITICAL)

    report = _report(*many, grave, _result(901, Status.PASS, Severity.CRITICAL))
    status = status_of(report, Manifest("p", "m", {}), PurePosixPath("p", "r"))

    assert status["failingTotal"] == 402
    assert len(status["failing"]) == 50
    assert [one["id"] for one in status["failing"][:2]] == ["GDPR/c-900", "HIPAA/c-900"]
    assert status["summary"] | {"manual": 0} == {
        "pass": 2,
        "fail": 400,
        "warn": 0,
        "error": 2,
        "skip": 0,
        "manual": 0,
    }
    assert len(json.dumps(status)) < 100_000


def test_the_object_is_one_that_the_api_takes() -> None:
    report = _report(_result(1, Status.FAIL, Severity.HIGH))
    name = report_name(report.policy, run_name(report.made))
    raw = {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": "ComplianceReport",
        "metadata": {"name": name},
        "spec": spec_of(report),
    }
    status = status_of(report, Manifest("p", "m", {}), PurePosixPath("p", "r"))

    assert validate(raw) == ()
    assert name.endswith("-20261128t220500z")
    parse({**raw, "status": status})
