"""What is kept of earlier reports: objects by number, files by the record class evidence."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final

from memtenant.clock import utc_from_rfc3339
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import MemtenantError, ReportInvalid, UsageError
from memtenant.files import read_plain
from memtenant.reports.artefacts import (
    MANIFEST,
    Manifest,
    check_files,
    is_unfinished,
    read_report,
)
from memtenant.reports.evidence import Evidence, LogEvidence, Missing, ReportFiles, ToldReport
from memtenant.reports.report import Report
from memtenant.reports.revisions import rightly_gone
from memtenant.resources.port import Declared
from memtenant.resources.reportobjects import ReportObjects
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import PolicyFacts
from memtenant.rules.retention import cut_offs

__all__ = [
    "Earlier",
    "kept_files",
    "newest_report",
    "prune_files",
    "prune_objects",
    "prune_unfinished",
    "told_until",
]

_log = logging.getLogger(__name__)

_ABANDONED: Final = timedelta(days=1)
"""After which no run is still writing."""

_SETTLED: Final = timedelta(hours=1)
"""In which a report's event is on its way to the log."""

_RUN_NAME: Final = "%Y%m%dt%H%M%Sz"


@dataclass(frozen=True, slots=True)
class Earlier:
    """The newest whole report, None where there is none. ``doubts`` tell, in words, which later
    ones there were that are changed or gone; ``not_believed`` are their runs."""

    report: Report | None = None
    doubts: tuple[str, ...] = ()
    not_believed: frozenset[str] = frozenset()


async def newest_report(folder: Path, objects: ReportObjects, policy: str) -> Earlier:
    """The newest whole report below a policy's folder. One that was changed is no report to
    compare with, nor is one that somebody put there: ComplianceReports tell which should be there,
    and by which hash."""
    doubts: list[str] = []
    try:
        known = await objects.of_policy(policy)
    except MemtenantError as error:
        known = ()
        doubts.append(f"the ComplianceReports before this one cannot be listed: {error}")
    digests = dict(map(_due, known))
    due = _due(known[-1])[0] if known else ""
    runs = sorted(_runs(folder), reverse=True)
    if due and due not in {run.name for run in runs}:
        doubts.append(f"the files of the report {due} are gone, or in another folder")
    refused: set[str] = set()
    for run in runs:
        found = _believed(run, due, digests)
        if isinstance(found, Report):
            return Earlier(found, tuple(doubts), frozenset(refused))
        doubts.append(found)
        refused.add(run.name)
    return Earlier(None, tuple(doubts), frozenset(refused))


def _believed(run: Path, due: str, digests: Mapping[str, str]) -> Report | str:
    """A run's report, or in words why it is not believed."""
    if due and run.name > due and run.name not in digests:
        return f"the report {run.name} has no ComplianceReport"
    try:
        report, manifest = read_report(run)
    except ReportInvalid:
        return f"the files of the report {run.name} were changed, or cannot be read"
    digest = manifest.digest.hex()
    if digests.get(run.name, digest) != digest:
        return f"the files of the report {run.name} are not those of its ComplianceReport"
    return report


def told_until(folder: Path, now: datetime, but: Collection[str] = ()) -> datetime | None:
    """Where the periods of a policy's reports have come to without a gap, but for runs that are not
    believed. One that somebody chose is beside them, and so is one that was made by a clock which
    was ahead."""
    for run in sorted(_runs(folder), reverse=True):
        if run.name in but:
            continue
        try:
            report, _ = read_report(run)
        except ReportInvalid:
            continue  # from the one before it on, nothing is left out
        if not report.period.chosen and report.made <= now:
            # One that was to end later told nothing of what came after it.
            return min(report.period.until, report.made)
    return None


def kept_files(folder: Path, evidence: Evidence) -> ReportFiles | Missing:
    """The files of the policy's reports against the leaves that the log has of them. Each file is
    read."""
    log, told = evidence.log, evidence.installation
    if isinstance(log, Missing):
        return log
    if isinstance(told, Missing):
        return told
    wanted = cut_offs(evidence.policy.resolution, evidence.now)[RecordClass.EVIDENCE].expire_before
    since = max(wanted, log.pruned.get(INSTALLATION_LOG, wanted))
    due = [one for one in told.reports if one.at >= wanted + _ABANDONED]
    digests: dict[str, str] = {}
    changed: dict[str, str] = {}
    for run in _runs(folder):
        try:
            digests[run.name] = check_files(run).digest.hex()
        except ReportInvalid as error:
            changed[run.name] = str(error)
    lost = {
        one.run: changed.get(one.run, words)
        for one in due
        if (words := _lost(one, digests.get(one.run), folder))
    }
    before = rightly_gone(told.revisions.get(evidence.policy.name, ()), _let_go)
    lapsed = tuple(
        one.run
        for one in due
        if before is not None
        and one.at < before + _ABANDONED
        and not {one.run} & (digests.keys() | changed.keys())
    )
    known = {(one.run, one.manifest) for one in told.reports}
    unknown = [
        run
        for run, digest in sorted(digests.items())
        if (run, digest) not in known and run not in lost
    ]
    return ReportFiles(
        at=evidence.now,
        folder=str(folder),
        since=since,
        wanted=wanted,
        due=len(due),
        lost={run: words for run, words in lost.items() if run not in lapsed},
        lapsed=lapsed,
        untold=tuple(run for run in unknown if _should_be_told(run, since, log)),
        waiting=tuple(run for run in unknown if _is_on_its_way(run, log)),
    )


def _let_go(policy: PolicyFacts, at: datetime) -> datetime | None:
    """From before which a policy let files go at that time; None where a hold kept all."""
    if any(hold.since <= at for hold in policy.spec.legal_holds):
        return None
    return cut_offs(policy.resolution, at)[RecordClass.EVIDENCE].expire_before


def _lost(told: ToldReport, digest: str | None, folder: Path) -> str:
    if digest is None:
        return (
            f"its files are not in {folder}: they were removed before the period of evidence was "
            "over, or are kept in another folder"
        )
    if digest != told.manifest:
        return f"its files in {folder} are not those of which the log was told"
    return ""


def _begun(run: str) -> datetime | None:
    """When a run began, by its name."""
    try:
        return datetime.strptime(run, _RUN_NAME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _is_on_its_way(run: str, log: LogEvidence) -> bool:
    made = _begun(run)
    return made is not None and (log.sealed_at is None or made >= log.sealed_at - _SETTLED)


def _should_be_told(run: str, since: datetime, log: LogEvidence) -> bool:
    made = _begun(run)
    if made is None:
        return True
    return log.sealed_at is not None and since <= made < log.sealed_at - _SETTLED


def _due(newest: Declared) -> tuple[str, str]:
    """The run of a ComplianceReport, and the hash of its manifest; empty where it tells none."""
    artefacts = newest.status.get("artefacts") or {}
    location = PurePosixPath(str(artefacts.get("location", "")))
    return location.name, str(artefacts.get("manifestSha256", ""))


async def prune_objects(objects: ReportObjects, policy: str, limit: int) -> tuple[Declared, ...]:
    """Delete the oldest ComplianceReports beyond so many; what was deleted. No file is touched."""
    there = await objects.of_policy(policy)
    surplus = there[: max(0, len(there) - limit)]
    for one in surplus:
        await objects.delete(one)
    return surplus


def prune_files(folder: Path, policy: PolicyFacts, now: datetime) -> tuple[str, ...]:
    """Remove the files of runs that passed the policy's period of evidence; the runs. Never under
    a minimum, and nothing at all while a legal hold stands. What has no manifest that can be read
    is left: nothing tells its age.
    """
    cut = _let_go(policy, now)
    if cut is None:
        return ()
    gone = []
    for run in sorted(_runs(folder)):
        made = _made(run)
        if made is not None and made < cut and _remove(run):
            gone.append(run.name)
    return tuple(gone)


def prune_unfinished(folder: Path, now: datetime) -> None:
    """Remove what runs left that were killed while they wrote."""
    for found in folder.iterdir() if folder.is_dir() else ():
        if is_unfinished(found) and _changed(found) < now - _ABANDONED:
            _remove(found)


def _runs(folder: Path) -> Iterator[Path]:
    try:
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        yield from (one for one in there if (one / MANIFEST).exists() and not is_unfinished(one))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from None


def _changed(run: Path) -> datetime:
    try:
        return datetime.fromtimestamp(run.stat().st_mtime, UTC)
    except OSError:
        return datetime.max.replace(tzinfo=UTC)  # it was finished, or is gone


def _made(run: Path) -> datetime | None:
    try:
        return utc_from_rfc3339(Manifest.parse(read_plain(run / MANIFEST)).made)
    except (OSError, ValueError, ReportInvalid):
        return None


def _remove(run: Path) -> bool:
    """Whether it could be removed: the report is made already, and the next run tries again."""
    try:
        shutil.rmtree(run)
    except OSError as error:
        _log.warning("%s cannot be removed: %s", run, error.strerror or error)
        return False
    return True
