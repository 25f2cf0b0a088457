"""What a report tells the audit log, as the reporter: that it reads the log, and its manifest's
hash."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final

from memtenant.audit import NOBODY, Entry, Event, Operation, Outcome
from memtenant.audit.deed import new_writer
from memtenant.crypto.primitives import Random, SecretKey
from memtenant.reports.artefacts import Manifest
from memtenant.rules.systemusers import SystemRole
from memtenant.tenancy.document import canonical_json

__all__ = ["read_entry", "report_detail", "report_entry"]

_VERSION: Final = 0
"""Of a binding: the reporter has none."""


def report_detail(manifest: Manifest) -> bytes:
    """Which report, and the hash by which its files are proven."""
    return canonical_json(
        {"policy": manifest.policy, "run": manifest.run, "manifest": manifest.digest.hex()}
    )


def report_entry(
    manifest: Manifest, audit_key: SecretKey, now: datetime, random: Random = secrets.token_bytes
) -> bytes:
    """The entry for the installation's queue (docs/audit-format.md): one event of a writer of its
    own, whose detail names the report and its manifest's SHA-256."""
    return _entry(Operation.REPORT, report_detail(manifest), audit_key, now, random)


def read_entry(
    policy: str, audit_key: SecretKey, now: datetime, random: Random = secrets.token_bytes
) -> bytes:
    """The entry that tells that a report is about to read the log."""
    detail = canonical_json({"command": "report", "policy": policy})
    return _entry(Operation.LOG_READ, detail, audit_key, now, random)


def _entry(
    operation: Operation, detail: bytes, audit_key: SecretKey, now: datetime, random: Random
) -> bytes:
    event = Event(
        operation=operation,
        agent=SystemRole.REPORTER.value,
        binding_version=_VERSION,
        writer=new_writer(now, random),
        counter=1,
        count=1,
        subject=NOBODY.subject,
        place=NOBODY.place,
        commitment=NOBODY.commit(()),
        detail=detail,
    )
    return Entry(event.to_bytes(audit_key), Outcome.DONE, int(now.timestamp() * 1000), 0).to_bytes()
