"""A finished report, told to the audit log: its manifest's hash, as an event of the reporter."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final

from memtenant.audit import NOBODY, Event, Operation, Outcome
from memtenant.crypto.primitives import Random, SecretKey
from memtenant.reports.artefacts import Manifest
from memtenant.rules.systemusers import SystemRole
from memtenant.tenancy.document import canonical_json

__all__ = ["report_detail", "report_entry"]

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
    event = Event(
        operation=Operation.REPORT,
        agent=SystemRole.REPORTER.value,
        binding_version=_VERSION,
        writer=int(now.timestamp()).to_bytes(4, "big") + random(4),
        counter=1,
        count=1,
        subject=NOBODY.subject,
        place=NOBODY.place,
        commitment=NOBODY.commit(()),
        detail=report_detail(manifest),
    )
    time = int(now.timestamp() * 1000).to_bytes(6, "big")
    return event.to_bytes(audit_key) + Outcome.DONE.value.encode() + time + bytes(5)
