"""The tenant records of the home namespace: found by their labels, and by what they hold where they
lost one.

A record is read by name for a tenant that is declared. What a tenant left is found by labels alone,
and anybody who may edit Secrets may take one away: such a record would be nobody's data, and with
all of them lost the root key over them would be made anew.
"""

from __future__ import annotations

import logging

from memtenant.errors import KeyUnavailable
from memtenant.resources.port import Resources, SecretDraft, StoredSecret
from memtenant.rules.record import (
    LABEL_PHASE,
    RECORD_COMPONENT,
    RECORD_LABEL,
    Phase,
    TenantRecord,
    record_labels,
    recorded_tenant,
)

__all__ = [
    "RECORD_OWNER",
    "FoundRecord",
    "count_records",
    "put_labels_back",
    "records_in",
    "unlabelled_records",
]

RECORD_OWNER = "tenant-record"

_OURS = {RECORD_LABEL: RECORD_COMPONENT}
_log = logging.getLogger(__name__)

FoundRecord = tuple[StoredSecret, TenantRecord]


async def records_in(resources: Resources, phase: Phase) -> list[FoundRecord]:
    """The records that say so by their labels.

    One that cannot be read is left for a backup to mend, and does not stop the others.
    """
    labels = {**_OURS, LABEL_PHASE: phase.value}
    found = []
    for stored in await resources.list_secrets(resources.home, labels):
        try:
            found.append((stored, TenantRecord.from_data(stored.data, stored.name)))
        except KeyUnavailable as damage:
            _log.error("%s", damage)
    return found


async def unlabelled_records(resources: Resources) -> list[FoundRecord]:
    """The records that no list by component and phase shows."""
    home = resources.home
    lost = {
        stored.name: stored
        for stored in (
            *await resources.list_secrets_lacking(home, RECORD_LABEL, {}),
            *await resources.list_secrets_lacking(home, LABEL_PHASE, _OURS),
        )
        if recorded_tenant(stored.name) is not None
    }
    found = []
    for name, stored in sorted(lost.items()):
        try:
            found.append((stored, TenantRecord.from_data(stored.data, name)))
        except KeyUnavailable:
            continue  # a stranger's Secret may have such a name
    return found


async def put_labels_back(
    resources: Resources, stored: StoredSecret, record: TenantRecord
) -> StoredSecret:
    """The Secret with the labels that the record says; no write if it has them.

    `ResourceConflict` with reason `FOREIGN_SECRET` if it lost those that say whose it is.
    """
    draft = SecretDraft(
        namespace=stored.namespace,
        name=stored.name,
        owner=RECORD_OWNER,
        data=stored.data,
        labels=record_labels(record),
    )
    mended = await resources.apply_secret(draft, current=stored)
    if mended is not stored:
        _log.warning("%s/%s had lost labels: they are put back", stored.namespace, stored.name)
    return mended


async def count_records(resources: Resources) -> int:
    """How many there are, of whatever phase."""
    labelled = await resources.list_secrets(resources.home, _OURS)
    names = {stored.name for stored in labelled}
    names |= {stored.name for stored, _ in await unlabelled_records(resources)}
    return len(names)
