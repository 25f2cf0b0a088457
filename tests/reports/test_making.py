"""A run from end to end: files, the event in the log's queue, the object, and what is pruned."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memtenant.api.policy import RetentionPolicySpec
from memtenant.archive.verify import Result
from memtenant.audit import Entry, Event, Operation
from memtenant.clock import rfc3339
from memtenant.errors import UsageError
from memtenant.reports.artefacts import MANIFEST, PAGE, Manifest, read_report, write_report
from memtenant.reports.checks import Status
from memtenant.reports.evidence import Period
from memtenant.reports.history import prune_files
from memtenant.reports.making import Made
from memtenant.reports.proof import prove
from memtenant.reports.report import ControlResult
from memtenant.reports.summary import run_name
from memtenant.resources.port import Kind, ObjectKey
from memtenant.rules.policy import policy_facts
from memtenant.tenancy import keys
from tests.reports.conftest import Scene, words


async def test_where_no_sealer_ever_was_nothing_is_put_into_a_queue(scene: Scene) -> None:
    await scene.declare()
    with scene.server.admin() as admin:
        admin.delete(keys.STORE_SEALER)
        before = admin.llen(keys.INSTALLATION_QUEUE)
        assert (await scene.keep()).in_log == ""
        assert admin.llen(keys.INSTALLATION_QUEUE) == before


async def test_a_run_leaves_files_an_event_and_an_object(scene: Scene) -> None:
    scene.frameworks = ("GDPR", "HIPAA", "SOX", "PCI_DSS")
    await scene.declare(policy={"legalBasis": "contract"})

    made = await scene.keep()

    report, manifest = read_report(made.folder)
    assert report.to_json() == made.report.to_json()
    with scene.server.admin() as admin:
        read, entry = map(bytes, admin.lrange(keys.INSTALLATION_QUEUE, -2, -1))
    assert Event.parse(Entry.parse(read).event).operation is Operation.LOG_READ
    assert manifest.digest.hex().encode() in entry
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
    first = await scene.keep()
    scene.ahead = timedelta(hours=1)

    second = await scene.keep()

    assert second.report.period.since == first.report.period.until
    assert second.report.difference is not None


async def test_a_period_that_somebody_chose_leaves_no_gap_before_the_next_one(
    scene: Scene,
) -> None:
    await scene.declare()
    scene.ahead = timedelta(hours=1)
    lately = await scene.keep(Period(scene.now() - timedelta(minutes=5), scene.now()))
    scene.ahead = timedelta(hours=2)
    first = await scene.keep()
    policy = await scene.ground.resources.get(ObjectKey.policy("standard"))
    assert policy is not None
    assert first.report.period.since == policy.creation_timestamp
    for period in (
        Period(scene.now() - timedelta(minutes=5), scene.now()),
        Period(scene.now(), scene.now() + timedelta(days=400)),
    ):
        scene.ahead += timedelta(hours=1)
        chosen = await scene.keep(period)
        assert chosen.report.period.chosen
    scene.ahead += timedelta(hours=1)
    joined = await scene.keep()
    assert joined.report.period.since == first.report.period.until
    assert lately.report.period.chosen
    assert not joined.report.period.chosen


async def test_a_report_that_was_told_after_the_last_seal_is_not_taken_for_a_forged_one(
    scene: Scene,
) -> None:
    """A long run: what the log is told at its begin is sealed before it ends."""
    await scene.declare()
    made = await scene.keep()
    with scene.server.admin() as admin:
        told = admin.rpop(keys.INSTALLATION_QUEUE)
        scene.ahead = timedelta(minutes=2)
        await scene.seal()
        assert prove(made.folder, scene.archive).result is Result.INCOMPLETE
        admin.rpush(keys.INSTALLATION_QUEUE, told)
    await scene.seal()
    assert prove(made.folder, scene.archive).leaf
    _another_report(made.folder)
    forged = prove(made.folder, scene.archive)
    assert forged.result is Result.TAMPERED
    assert "another one of this run" in "".join(forged.said)
    unheard = made.folder.with_name("elsewhere")
    write_report(replace(made.report, policy="other"), unheard)
    assert prove(unheard, scene.archive).result is Result.INCOMPLETE
    scene.ahead = timedelta(hours=2)
    await scene.keep()
    await scene.seal()
    assert prove(unheard, scene.archive).result is Result.TAMPERED


async def test_what_a_killed_run_leaves_is_no_report_and_goes(scene: Scene) -> None:
    await scene.declare()
    made = await scene.keep()
    left = made.folder.with_name(".20260131t093000z.00000000.new")
    shutil.copytree(made.folder, left)
    scene.ahead = timedelta(hours=1)
    second = await scene.keep()
    assert second.report.period.since == made.report.period.until
    assert left.exists()  # it may still be writing
    scene.ahead = timedelta(days=2)
    await scene.keep()
    assert not left.exists()
    assert made.folder.exists()


async def test_an_earlier_report_that_was_changed_or_is_gone_is_told(scene: Scene) -> None:
    scene.frameworks = ("SOX",)
    await scene.declare()
    await scene.seal()
    for breaks, says in (
        (_a_changed_page, "the files of the report {} were changed, or cannot be read"),
        (_another_report, "the files of the report {} are not those of its ComplianceReport"),
        (shutil.rmtree, "the files of the report {} are gone, or in another folder"),
    ):
        made = await scene.keep()
        assert _log_verifies(made).judgement.status is Status.PASS
        breaks(made.folder)
        scene.ahead += timedelta(hours=1)
        after = _log_verifies(await scene.keep())
        assert after.judgement.status is Status.WARN
        assert says.format(made.folder.name) in words(after)
        scene.ahead += timedelta(hours=1)


async def test_a_report_that_somebody_put_beside_the_others_is_not_believed(scene: Scene) -> None:
    """It would leave a time out, and hold the log against nothing."""
    scene.frameworks = ("SOX",)
    await scene.declare()
    await scene.seal()
    made = await scene.keep()
    scene.ahead = timedelta(hours=2)
    put = replace(
        made.report,
        made=scene.now().replace(microsecond=0) - timedelta(hours=1),
        period=Period(made.report.made, scene.now()),
        log={**made.report.log, "checkpoint": ""},
    )
    write_report(put, made.folder.with_name(run_name(put.made)))
    after = await scene.keep()
    assert after.report.period.since == made.report.period.until
    found = _log_verifies(after)
    assert found.judgement.status is Status.WARN
    assert f"the report {run_name(put.made)} has no ComplianceReport" in words(found)
    assert after.report.log["anchored"]


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
        made.append(await scene.keep())

    there = await scene.ground.resources.list(Kind.REPORT)

    assert {one.key.name for one in there} == {one.name for one in made[-2:]}
    assert all((one.folder / MANIFEST).exists() for one in made)


async def test_formats_choose_the_page_and_never_the_document(scene: Scene) -> None:
    await scene.declare(policy={"report": {"schedule": "@daily", "formats": ["HTML"]}})
    assert {one.name for one in (await scene.keep()).folder.iterdir()} == {
        *("report.json", "report.html", "manifest.json")
    }
    scene.ahead = timedelta(hours=1)
    await scene.declare(policy={"report": {"schedule": "@daily", "formats": ["JSON"]}})
    assert {one.name for one in (await scene.keep()).folder.iterdir()} == {
        *("report.json", "manifest.json")
    }


async def test_a_folder_that_cannot_be_written_is_told_before_anything_is_looked_at(
    scene: Scene,
) -> None:
    await scene.declare()
    (scene.folder / "reports").write_text("no folder")
    with scene.server.admin() as admin:
        before = admin.info("commandstats")["cmdstat_scan"]["calls"]
        with pytest.raises(UsageError, match="cannot be written: Not a directory"):
            await scene.keep()
        assert admin.info("commandstats")["cmdstat_scan"]["calls"] == before


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
    (tmp_path / "elsewhere").symlink_to(tmp_path / "run-00400")  # a link is not followed
    facts = policy_facts("gdpr", RetentionPolicySpec.model_validate(spec))

    gone = prune_files(tmp_path, facts, _NOW)

    left = {run.name for run in tmp_path.iterdir()}
    assert left == {f"run-{days:05}" for days in kept} | {"run-without-manifest", "elsewhere"}
    assert len(gone) == 4 - len(kept)
