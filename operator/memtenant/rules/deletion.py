"""May a tenant's data be deleted now, and if not, why and until when.

Retain never removes data, so nothing stands in its way. Delete and Shred wait while a legal hold
names the tenant or a content minimum has not passed for its youngest record (COMPLIANCE.md,
Retention; 18 USC 1519 for records under hold).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from memtenant.api.fields import DeletionPolicy
from memtenant.clock import rfc3339
from memtenant.tenancy.period import Period

__all__ = ["Content", "Obstacle", "obstacle_to_deletion"]


@dataclass(frozen=True, slots=True)
class Content:
    """What a pass over a tenant's records found: how many, the youngest's time, and how many have
    no readable header (their age is unknown, so they count as written now)."""

    records: int = 0
    youngest: datetime | None = None
    undated: int = 0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why data stays: a condition's reason and message; ``until`` where time alone removes it."""

    reason: str
    message: str
    until: datetime | None = None


def obstacle_to_deletion(
    deletion_policy: DeletionPolicy,
    matters: Iterable[str],
    content_minimum: Period | None,
    content: Content,
    now: datetime,
) -> Obstacle | None:
    """What keeps ``deletion_policy`` from removing the tenant's data at ``now``, if anything."""
    if deletion_policy is DeletionPolicy.RETAIN:
        return None
    held = sorted(matters)
    if held:
        return Obstacle(
            "LegalHold",
            f"Deletion policy {deletion_policy} waits: legal hold {', '.join(held)} names this "
            "tenant. Release the hold in the RetentionPolicy, or set deletionPolicy: Retain",
        )
    if content_minimum is None or not content.records:
        return None
    if content.undated or content.youngest is None:
        return Obstacle(
            "RetentionMinimum",
            f"Deletion policy {deletion_policy} waits: content is kept for at least "
            f"{content_minimum}, and {content.undated or content.records} of {content.records} "
            "records do not say when they were written. Set deletionPolicy: Retain",
        )
    until = content_minimum.after(content.youngest)
    if until <= now:
        return None
    return Obstacle(
        "RetentionMinimum",
        f"Deletion policy {deletion_policy} waits until {rfc3339(until)}: content is kept for at "
        f"least {content_minimum}. Set deletionPolicy: Retain to let the tenant go now",
        until,
    )
