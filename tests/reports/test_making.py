"""A run from end to end: files, the event in the log's queue, the object, and what is pruned."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memtenant.api.policy import RetentionPolicySpec
from memtenant.clock import Clock, rfc3339
from memtenant.crypto.primitives import SecretKey
from memtenant.reports.artefacts import MANIFEST, PAGE, Manifest, read_report, write_report
from memtenant.reports.checks import Status
from memtenant.reports.evidence import Period
from memtenant.reports.folder import FolderSources
from memtenant.reports.history import prune_files
from memtenant.reports.making import Made, make_and_keep
from memtenant.reports.report import ControlResult
from memtenant.resources.port import Kind, ObjectKey
from memtenant.resources.reportobjects import reports_in_folder
from memtenant.rules.policy import policy_facts
from memtenant.rules.systemusers import SystemRole
from memtenant.tenancy import keys
from tests.reports.conftest import Scene, words


async def _made(scene: Scene, period: Period | None = None) -> Made:
    resources = scene.ground.resources
    stored = await resources.get_secret(resources.home, SystemRole.REPORTER.secret_name)
    assert stored is not None
    clock = Clock(now=scene.now)
    sources = FolderSources(resources, archive=scene.archive, signer=scene.signer, clock=clock)
    return await make_and_keep(
        sources,
        reports_in_folder(resources),
        "standard",
        scene.folder / "reports",
        audit_key=SecretKey(stored.data["audit.key"]),
        period=period,
        clock=clock,
    )


async def test_a_run_leaves_files_an_event_and_an_object(scene: Scene) -> None:
    scene.frameworks = ("GDPR", "HIPAA", "SOX", "PCI_DSS")
    await scene.declare(policy={"legalBasis": "contract"})

    made = await _made(scene)

    report, manifest = read_report(made.folder)
    assert report.to_json() == made.report.to_json()
    with scene.server.admin() as admin:
        entry = admin.lindex(keys.INSTALLATION_QUEUE, -1)
    assert manifest.digest.hex().encode() in bytes(entry)
    shown = await scene.ground.resources.get(
        ObjectKey.report(scene.ground.resources.home, made.name)
    )
    assert shown is not None
    status = shown.status
    assert status["artefacts"]["manifestSha256"] == manifest.digest.hex()
    assert scene.folder / "reports" / status["artefacts"]["location"] == made.folder
    counts = {name.lower(): count for name, count in report.counts().items()}
    assert status["summary"] == counts
    assert sum(status["summary"].values()) == len(report.results())
    failing = {
        f"{framework.id}/{one.control.id}"
        for framework in report.frameworks
        for one in framework.controls
        if one.judgement.status.value in ("Fail", "Error")
    }
    assert status["failingTotal"] == len(failing)
    assert {one["id"] for one in status["failing"]} == failing
    assert failing

    await scene.ground.settle()
    tenant = await scene.ground.tenant_status("acme")
    assert tenant.last_report is not None
    assert (tenant.last_report.name, tenant.last_report.failed) == (made.name, counts["fail"])


async def test_the_next_run_begins_where_the_last_one_ended(scene: Scene) -> None:
    await scene.declare()
    first = await _made(scene)
    scene.ahead = timedelta(hours=1)

    second = await _made(scene)

    assert second.report.period.since == first.report.period.until
    assert second.report.difference is not None
    scene.ahead = timedelta(hours=2)
    ahead = await _made(scene, Period(scene.now(), scene.now() + timedelta(days=400)))
    scene.ahead = timedelta(hours=3)
    assert (await _made(scene)).report.period.since == ahead.report.made


async def test_an_earlier_report_that_was_changed_or_is_gone_is_told(scene: Scene) -> None:
    scene.frameworks = ("SOX",)
    await scene.declare()
    await scene.seal()
    for breaks, says in (
        (_a_changed_page, "the files of the report {} were changed, or cannot be read"),
        (_another_report, "the files of the report {} are not those of its ComplianceReport"),
        (shutil.rmtree, "the files of the report {} are gone, or in another folder"),
    ):
        made = await _made(scene)
        assert _log_verifies(made).judgement.status is Status.PASS
        breaks(made.folder)
        scene.ahead += timedelta(hours=1)
        after = _log_verifies(await _made(scene))
        assert after.judgement.status is Status.WARN
        assert says.format(made.folder.name) in words(after)
        scene.ahead += timedelta(hours=1)


def _log_verifies(made: Made) -> ControlResult:
    return next(one for one in made.report.results() if one.control.check == "LogVerifies")


def _a_changed_page(run: Path) -> None:
    (run / PAGE).write_text("all is well")


def _another_report(run: Path) -> None:
    """One that proves itself: its manifest fits, and the ComplianceReport names another."""
    report, _ = read_report(run)
    shutil.rmtree(run)
    write_report(replace(report, installation="elsewhere"), run)


async def test_the_history_limit_takes_objects_and_no_files(scene: Scene) -> None:
    await scene.declare(policy={"report": {"schedule": "@daily", "historyLimit": 2}})
    made = []
    for hours in range(4):
        scene.ahead = timedelta(hours=hours)
        made.append(await _made(scene))

    there = await scene.ground.resources.list(Kind.REPORT)

    assert {one.key.name for one in there} == {one.name for one in made[-2:]}
    assert all((one.folder / MANIFEST).exists() for one in made)


async def test_formats_choose_the_page_and_never_the_document(scene: Scene) -> None:
    await scene.declare(policy={"report": {"schedule": "@daily", "formats": ["HTML"]}})
    assert {one.name for one in (await _made(scene)).folder.iterdir()} == {
        *("report.json", "report.html", "manifest.json")
    }
    scene.ahead = timedelta(hours=1)
    await scene.declare(policy={"report": {"schedule": "@daily", "formats": ["JSON"]}})
    assert {one.name for one in (await _made(scene)).folder.iterdir()} == {
        *("report.json", "manifest.json")
    }


_NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def _runs(folder: Path, *ages: int) -> None:
    for days in ages:
        run = folder / f"run-{days:05}"
        run.mkdir(parents=True, exist_ok=True)
        manifest = Manifest("gdpr", rfc3339(_NOW - timedelta(days=days)), {})
        (run / MANIFEST).write_bytes(manifest.to_json())


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ({"retention": {"evidence": {"default": "30d"}}}, [0, 10]),
        ({"retention": {"evidence": {"min": "100d", "default": "100d"}}}, [0, 10, 90]),
        ({"frameworks": ["HIPAA"]}, [0, 10, 90, 400]),
        (
            {
                "retention": {"evidence": {"default": "30d"}},
                "legalHolds": [
                    {"matter": "M-1", "tenantSelector": {}, "since": "2026-01-01T00:00:00Z"}
                ],
            },
            [0, 10, 90, 400],
        ),
    ],
)
def test_files_go_when_the_period_of_evidence_is_over(
    spec: dict[str, Any], kept: list[int], tmp_path: Path
) -> None:
    _runs(tmp_path, 0, 10, 90, 400)
    (tmp_path / "run-without-manifest").mkdir()
    facts = policy_facts("gdpr", RetentionPolicySpec.model_validate(spec))

    gone = prune_files(tmp_path, facts, _NOW)

    left = {run.name for run in tmp_path.iterdir()}
    assert left == {f"run-{days:05}" for days in kept} | {"run-without-manifest"}
    assert len(gone) == 4 - len(kept)
