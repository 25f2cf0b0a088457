"""What was sealed, for people and other programs: as plain JSON, and in the form of OCSF.

OCSF 6005 is Datastore Activity (https://schema.ocsf.io): the form in which collectors of security
events take it. Only the export has it; what is evidence are the leaves.
"""

from __future__ import annotations

import json
from importlib import metadata
from typing import Final

from memtenant.archive.reader import SealedEntry, SealedGap
from memtenant.audit.event import Entry, Event, Outcome
from memtenant.audit.leaf import Verdict
from memtenant.audit.operation import Operation
from memtenant.clock import rfc3339
from memtenant.errors import AuditEventMalformed

__all__ = ["as_data", "as_ocsf", "verdict_name"]

_OCSF: Final = "1.4.0"
_CLASS: Final = 6005
_CATEGORY: Final = 6
_READ, _UPDATE, _WRITE, _CREATE, _DELETE, _LIST, _DECRYPT, _OTHER = 1, 2, 5, 6, 7, 8, 10, 99
_ACTIVITIES: Final = {
    Operation.APPEND: _WRITE,
    Operation.UPDATE: _UPDATE,
    Operation.POP: _DELETE,
    Operation.REMOVE: _DELETE,
    Operation.CLEAR: _DELETE,
    Operation.DELETE: _DELETE,
    Operation.READ: _READ,
    Operation.SUMMARISE: _WRITE,
    Operation.READ_SUMMARIES: _READ,
    Operation.LIST: _LIST,
    Operation.CONTEXT_CREATE: _CREATE,
    Operation.CONTEXT_UPDATE: _UPDATE,
    Operation.CONTEXT_DELETE: _DELETE,
    Operation.CONTEXT_READ: _READ,
    Operation.CONTEXT_CHANGES: _READ,
    Operation.CHECKPOINT_WRITE: _WRITE,
    Operation.CHECKPOINT_READ: _READ,
    Operation.CHECKPOINT_DELETE: _DELETE,
    Operation.EXPORT: _READ,
    Operation.FORGET: _DELETE,
    Operation.DECRYPTION_FAILED: _DECRYPT,
}
_NAMES: Final = {
    _READ: "Read",
    _UPDATE: "Update",
    _WRITE: "Write",
    _CREATE: "Create",
    _DELETE: "Delete",
    _LIST: "List",
    _DECRYPT: "Decrypt",
    _OTHER: "Other",
}
_INFORMATIONAL, _HIGH = 1, 4
_SUCCESS, _FAILURE = 1, 2
_OUTCOMES: Final = {
    Outcome.DONE: "Done",
    Outcome.CONFLICT: "Conflict",
    Outcome.REFUSED: "Refused",
}


def verdict_name(verdict: Verdict) -> str:
    """As ``BadMAC``."""
    return "BadMAC" if verdict is Verdict.BAD_MAC else verdict.name.title().replace("_", "")


def as_data(one: SealedEntry | SealedGap) -> dict[str, object]:
    """Everything that a leaf says, for JSON. What is binary is hexadecimal."""
    shown: dict[str, object] = {
        "log": one.place.log_id,
        "leaf": one.place.index,
        "sealedAt": rfc3339(one.sealed_at),
    }
    if isinstance(one, SealedGap):
        counters = {"first": one.first, "last": one.last}
        return shown | {"gap": {"agent": one.agent, "writer": one.writer.hex(), **counters}}
    shown["verdict"] = verdict_name(one.verdict)
    read = _read(one)
    if read is None:
        return shown | {"raw": one.raw.hex()}
    entry, event = read
    # What somebody else pushed under the operator's name tells nothing.
    told = _told(event) if one.verdict is Verdict.GOOD else None
    return shown | {
        "operation": event.operation.name.title().replace("_", ""),
        "agent": event.agent,
        "bindingVersion": event.binding_version,
        "writer": event.writer.hex(),
        "counter": event.counter,
        "count": event.count,
        "subject": event.subject.hex(),
        "place": event.place.hex(),
        "commitment": event.commitment.hex(),
        "detail": event.detail.hex(),
        "outcome": _OUTCOMES[entry.outcome],
        "time": entry.time,
        "sequence": entry.sequence,
        **({} if told is None else {"told": told}),
    }


def as_ocsf(one: SealedEntry | SealedGap) -> dict[str, object]:
    """A leaf as an event of OCSF 6005. What memtenant says beyond it is in ``unmapped``."""
    data = as_data(one)
    read = _read(one) if isinstance(one, SealedEntry) else None
    is_good = isinstance(one, SealedEntry) and one.verdict is Verdict.GOOD
    activity, time, done, actor = _OTHER, int(one.sealed_at.timestamp() * 1000), False, "unknown"
    if read is not None:
        entry, event = read
        activity = _ACTIVITIES.get(event.operation, _OTHER)
        time, done, actor = entry.time, entry.outcome is Outcome.DONE, event.agent
    name = _NAMES[activity] if activity != _OTHER else str(data.get("operation", "Gap"))
    writer = data.get("writer") or (one.writer.hex() if isinstance(one, SealedGap) else "unknown")
    return {
        "activity_id": activity,
        "activity_name": name,
        "actor": {"app_name": actor, "user": {"name": actor, "type_id": 3, "type": "System"}},
        "category_name": "Application Activity",
        "category_uid": _CATEGORY,
        "class_name": "Datastore Activity",
        "class_uid": _CLASS,
        "databucket": {"name": one.place.log_id, "type_id": 99, "type": "Tenant"},
        "metadata": {
            "log_name": one.place.log_id,
            "product": {
                "name": "memtenant",
                "vendor_name": "memtenant",
                "version": metadata.version("memtenant"),
            },
            "sequence": one.place.index,
            "uid": f"{one.place.log_id}/{one.place.index}",
            "version": _OCSF,
        },
        "severity": "Informational" if is_good else "High",
        "severity_id": _INFORMATIONAL if is_good else _HIGH,
        "src_endpoint": {"name": actor, "uid": writer},
        "status": "Success" if done and is_good else "Failure",
        "status_id": _SUCCESS if done and is_good else _FAILURE,
        "time": time,
        "type_name": f"Datastore Activity: {_NAMES[activity]}",
        "type_uid": _CLASS * 100 + activity,
        "unmapped": data,
    }


def _told(event: Event) -> object:
    """The detail of what is no agent's, which is JSON; None where there is none."""
    if event.binding_version or not event.detail:
        return None
    try:
        return json.loads(event.detail)
    except (ValueError, RecursionError):
        return None


def _read(one: SealedEntry) -> tuple[Entry, Event] | None:
    """What it says, whoever said it; None where that cannot be read."""
    if one.verdict is Verdict.OVERSIZED:
        return None
    try:
        return one.entry(), one.event()
    except AuditEventMalformed:
        return None
