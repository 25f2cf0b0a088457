"""Conditions: how a status says what is so and why (kstatus; KEP-1623).

``lastTransitionTime`` moves only with ``status``, so that a no-op reconcile computes the status
that is already there. Reconciling and Stalled exist only while True: tools read their presence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from memtenant.api.fields import Model, Timestamp

__all__ = [
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "Finding",
    "find",
    "is_true",
    "merge",
]

MAX_MESSAGE = 4096


class ConditionStatus(StrEnum):
    """True, False, or not known."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """Every type of condition that memtenant writes."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    # MemoryTenant
    ISOLATION_VERIFIED = "IsolationVerified"
    KEY_AVAILABLE = "KeyAvailable"
    DATA_KEYS_UNREADABLE = "DataKeysUnreadable"
    WITHIN_QUOTA = "WithinQuota"
    RETENTION_RESOLVED = "RetentionResolved"
    RETENTION_UNJUSTIFIED = "RetentionUnjustified"
    DELETION_BLOCKED = "DeletionBlocked"
    # MemoryTenant and MemoryStore
    AUDIT_SEALED = "AuditSealed"
    # MemoryTenant and RetentionPolicy
    STALE = "Stale"
    # RetentionPolicy
    REPORT_SCHEDULED = "ReportScheduled"
    # MemoryStore
    REACHABLE = "Reachable"
    DURABLE = "Durable"
    OWNED = "Owned"


PRESENT_ONLY_WHILE_TRUE = frozenset(
    {
        ConditionType.RECONCILING,
        ConditionType.STALLED,
        ConditionType.DATA_KEYS_UNREADABLE,
        ConditionType.RETENTION_UNJUSTIFIED,
        ConditionType.DELETION_BLOCKED,
        ConditionType.STALE,
    }
)
"""Types whose presence alone means trouble or work: they are removed, never written as False."""


class Condition(Model):
    """One observation of one aspect of an object."""

    type: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{0,62}$", max_length=63)] = (
        Field(description="What is observed, as Ready.")
    )
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=128)
    ] = Field(description="Why, in one word that programs can rely on.")
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE)] = Field(
        default="", description="Why, for a person, and what to do about it."
    )
    last_transition_time: Timestamp = Field(description="When status last changed.")
    observed_generation: int | None = Field(
        default=None, description="The metadata.generation that this was observed for.", ge=0
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """What a reconcile found about one type: a condition before it has a time."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str = ""


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of this type, if there is one."""
    return next((one for one in conditions if one.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether the condition of this type is there and True."""
    found = find(conditions, type_)
    return found is not None and found.status is ConditionStatus.TRUE


def merge(
    conditions: Iterable[Condition],
    findings: Iterable[Finding],
    *,
    now: datetime,
    generation: int,
) -> tuple[Condition, ...]:
    """The conditions after these findings, sorted by type.

    A type without a finding stays as it is. A finding that is not True removes a type that is
    `PRESENT_ONLY_WHILE_TRUE`. The time of a condition is kept while its status stays. Of several
    findings of one type the last counts. Messages beyond 4096 characters are cut.
    """
    kept = {one.type: one for one in conditions}
    for finding in findings:
        before = kept.pop(finding.type, None)
        if finding.type in PRESENT_ONLY_WHILE_TRUE and finding.status is not ConditionStatus.TRUE:
            continue
        unchanged = before is not None and before.status is finding.status
        kept[finding.type] = Condition(
            type=str(finding.type),
            status=finding.status,
            reason=finding.reason,
            message=finding.message[:MAX_MESSAGE],
            last_transition_time=before.last_transition_time
            if before is not None and unchanged
            else now.replace(microsecond=0),
            observed_generation=generation,
        )
    return tuple(kept[name] for name in sorted(kept))
