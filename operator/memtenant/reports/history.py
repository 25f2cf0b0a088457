"""What is kept of earlier reports: objects by number, files by the record class evidence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from memtenant.clock import utc_from_rfc3339
from memtenant.errors import ReportInvalid, UsageError
from memtenant.reports.artefacts import MANIFEST, Manifest, read_report
from memtenant.reports.report import Report
from memtenant.resources.port import Declared
from memtenant.resources.reportobjects import ReportObjects
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import PolicyFacts
from memtenant.rules.retention import cut_offs

__all__ = ["newest_report", "prune_files", "prune_objects"]


def newest_report(folder: Path) -> Report | None:
    """The newest whole report below a policy's folder; None where there is none. One that was
    changed is no report to compare with."""
    for run in sorted(_runs(folder), reverse=True):
        try:
            return read_report(run)[0]
        except ReportInvalid:
            continue
    return None


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
    if any(hold.since <= now for hold in policy.spec.legal_holds):
        return ()
    cut = cut_offs(policy.resolution, now)[RecordClass.EVIDENCE].expire_before
    gone = []
    for run in sorted(_runs(folder)):
        made = _made(run)
        if made is not None and made < cut:
            _remove(run)
            gone.append(run.name)
    return tuple(gone)


def _runs(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (run for run in folder.iterdir() if (run / MANIFEST).is_file())


def _made(run: Path) -> datetime | None:
    try:
        return utc_from_rfc3339(Manifest.parse((run / MANIFEST).read_bytes()).made)
    except (OSError, ValueError, ReportInvalid):
        return None


def _remove(run: Path) -> None:
    try:
        shutil.rmtree(run)
    except OSError as error:
        raise UsageError(f"{run} cannot be removed: {error.strerror or error}") from None
