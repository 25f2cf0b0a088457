"""The cut-offs that the Functions obey: what is older has expired.

Redis has no calendar. So the operator writes the moment before which a class of record has expired
(DATA.md, Expiry), and moves it in steps: a day, or a thirtieth of the period where that is shorter,
but never less than a minute. Between two steps nothing changes, so a look at a settled tenant
writes nothing; each tenant's steps fall on a time of its own, so that not all move at midnight.

Nothing expires early. A record goes at the first step after its period has passed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from memtenant.rules.frameworks import RecordClass
from memtenant.rules.retention import Resolution, cut_offs
from memtenant.tenancy.identity import TenantId

__all__ = ["CUTOFF_FIELDS", "Expiry", "expiry", "step"]

CUTOFF_FIELDS: Final = {
    RecordClass.CONTENT: "cutoff_content",
    RecordClass.DERIVED: "cutoff_derived",
}
"""The fields of ``o:limits``."""

_LONGEST_STEP: Final = 86_400
_SHORTEST_STEP: Final = 60
_STEPS: Final = 30


@dataclass(frozen=True, slots=True)
class Expiry:
    """Fields of ``o:limits`` in milliseconds since 1970, and when they move next."""

    fields: Mapping[str, str]
    next_step: datetime


def expiry(tenant: TenantId, resolution: Resolution, now: datetime, *, held: bool) -> Expiry:
    """The cut-offs at ``now``. Under a legal hold there are none: nothing expires, and what had
    expired and was not removed yet can be read again."""
    every = step(resolution)
    at = _last_step(tenant, every, now)
    cuts = {} if held else cut_offs(resolution, at)
    return Expiry(
        {
            field: str(milliseconds)
            for record_class, field in CUTOFF_FIELDS.items()
            if record_class in cuts
            and (milliseconds := _milliseconds(cuts[record_class].expire_before)) > 0
        },
        at + timedelta(seconds=every),
    )


def step(resolution: Resolution) -> int:
    """Seconds between two steps: derived records are kept the shortest."""
    seconds = int(resolution.derived.effective.period.days * 86_400) // _STEPS
    return min(max(seconds, _SHORTEST_STEP), _LONGEST_STEP)


def _last_step(tenant: TenantId, every: int, now: datetime) -> datetime:
    digest = hashlib.sha256(str(tenant).encode()).digest()
    offset = int.from_bytes(digest[:8], "big") % every
    seconds = int(now.timestamp()) - offset
    return datetime.fromtimestamp(seconds - seconds % every + offset, UTC)


def _milliseconds(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
