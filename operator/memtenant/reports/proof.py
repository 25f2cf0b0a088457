"""The proof of a report: its files by the manifest, the manifest by a leaf of the sealed log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from memtenant.archive import ArchiveReader, SealedEntry
from memtenant.archive.verify import Result, verify
from memtenant.audit import Operation
from memtenant.audit.checkpoint import SignedCheckpoint
from memtenant.audit.leaf import Verdict
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import AuditEventMalformed, ReportInvalid
from memtenant.reports.artefacts import Manifest, read_report
from memtenant.reports.report import Report
from memtenant.reports.submission import report_detail
from memtenant.rules.systemusers import SystemRole

__all__ = ["Proof", "prove"]

_LONGEST_RUN: Final = timedelta(hours=1)
"""After which the log was told of a report, from the time that it bears: when its run began."""


@dataclass(frozen=True, slots=True)
class Proof:
    """``result`` is that of `memtenant.archive.verify`; ``said`` tells what was found, in words;
    ``leaf`` is where the log has the manifest."""

    result: Result
    said: tuple[str, ...]
    leaf: str = ""
    report: Report | None = None


def prove(
    folder: Path,
    archive: Path,
    *,
    public_key: VerifyingKey | None = None,
    trusted: SignedCheckpoint | None = None,
) -> Proof:
    """Whether the files are those that the log was told of, and the log is what was signed.

    Needs no server and no secret. What the files show by themselves needs no archive either;
    `ArchiveUnavailable` where it is needed and is none.
    """
    try:
        report, manifest = read_report(folder)
    except ReportInvalid as error:
        return Proof(Result.TAMPERED, (str(error),))
    reader = ArchiveReader.open(archive)
    found = verify(reader, public_key=public_key, trusted=trusted, log_ids=[INSTALLATION_LOG])
    said = tuple(str(one) for one in found.findings)
    if found.result is Result.TAMPERED:
        return Proof(Result.TAMPERED, said, report=report)
    told = _told(reader, manifest)
    leaf = next((one for one in told if one.event().detail == report_detail(manifest)), None)
    if leaf is None:
        return _unknown(report, reader, said, is_told=bool(told))
    sealed = next((one.sealed for one in found.logs if one.log_id == INSTALLATION_LOG), 0)
    where = str(leaf.place)
    if leaf.place.index >= sealed:
        words = (
            f"{where} has the manifest, and is not sealed yet: run this again after the next seal"
        )
        return Proof(Result.INCOMPLETE, (*said, words), where, report)
    if not found.anchored:
        said += (
            "no trusted checkpoint was given: who holds the log's key could have made all of it",
        )
    return Proof(found.result, said, where, report)


def _told(reader: ArchiveReader, manifest: Manifest) -> list[SealedEntry]:
    """What the log was told of this run, whatever the manifest."""
    found = []
    for one in reader.events(INSTALLATION_LOG):
        if one.verdict is not Verdict.GOOD or manifest.run.encode() not in one.raw:
            continue
        try:
            event = one.event()
            detail = json.loads(event.detail)
        except (AuditEventMalformed, ValueError, RecursionError):
            continue
        is_report = event.operation is Operation.REPORT
        if (
            is_report
            and event.agent == SystemRole.REPORTER.value
            and isinstance(detail, dict)
            and (detail.get("policy"), detail.get("run")) == (manifest.policy, manifest.run)
        ):
            found.append(one)
    return found


def _unknown(
    report: Report, reader: ArchiveReader, said: tuple[str, ...], *, is_told: bool
) -> Proof:
    """The log does not have it: not yet, or somebody made the files. ``is_told``: it has another
    one of the run."""
    if is_told:
        words = (
            "the log does not have this manifest, and has another one of this run: the files are "
            "not those that memtenant wrote"
        )
        return Proof(Result.TAMPERED, (*said, words), report=report)
    sealed = max((one.time for one in reader.seals(report.made)), default=None)
    last = max((one.sealed_at for one in reader.events(INSTALLATION_LOG)), default=None)
    if sealed is not None and last is not None and last > report.made + _LONGEST_RUN:
        words = (
            "the log does not have this manifest, and has later events: the files are not those "
            "that memtenant wrote, or the log was never told of them"
        )
        return Proof(Result.TAMPERED, (*said, words), report=report)
    words = (
        "the log does not have this manifest yet: seal it (`memtenant seal`), then run this again"
    )
    return Proof(Result.INCOMPLETE, (*said, words), report=report)
