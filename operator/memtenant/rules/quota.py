"""Quota by measurement: from what a scan found to what the tenant may still do.

Redis has no quota per prefix, and a tenant that may call the write path may also write around it
(reference: one Function runs with its caller's rights). So the operator measures, and the ACL
enforces: writes go at 100 % of a limit and come back under 95 %; a warning stands from 80 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from memtenant.clock import rfc3339, utc_from_rfc3339

__all__ = [
    "FLOOD_LIMIT",
    "FLOOD_RETURN",
    "Limits",
    "Pressure",
    "QuotaState",
    "Usage",
    "judge",
    "percent",
]

STOP_AT = 1.0
RETURN_UNDER = 0.95
WARN_AT = 0.80

FLOOD_LIMIT = 16 * 1024 * 1024
"""Bytes that a tenant's queues, subject index and keys may each hold before its users are
switched off. They keep their writes over quota, so only this stops a flood (measured: 64 MB were
pushed to a queue after the quota flip)."""

FLOOD_RETURN = FLOOD_LIMIT // 2
"""Bytes under which all of them must fall before the users are switched on again."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one scan found of a tenant: bytes as the server's MEMORY USAGE counts them.

    ``memory`` is content with its bookkeeping; ``queue`` (audit events and erasure requests
    together) is not part of it, ``index``, ``keys`` and
    ``heads`` (of conversations, with the tenant's counters) are.
    """

    memory: int = 0
    conversations: int = 0
    queue: int = 0
    index: int = 0
    keys: int = 0
    heads: int = 0

    @property
    def largest_bookkeeping(self) -> int:
        """Bytes of the largest of the queues, subject index and subject keys."""
        return max(self.queue, self.index, self.keys)


@dataclass(frozen=True, slots=True)
class Limits:
    """A tenant's quota: bytes, and a number of conversations; None is no limit."""

    memory: int | None
    conversations: int | None


class Pressure(StrEnum):
    """How near a tenant is to its quota."""

    NORMAL = "Normal"
    WARNING = "Warning"
    OVER = "Over"


@dataclass(frozen=True, slots=True)
class QuotaState:
    """What measurement decided last, kept on the store so that every node renders the same ACL.

    ``since`` is when ``pressure`` or ``flooded`` last changed; ``over`` names the limits reached
    (``memory``, ``conversations``).
    """

    pressure: Pressure = Pressure.NORMAL
    over: tuple[str, ...] = ()
    flooded: bool = False
    since: datetime | None = None

    def to_fields(self) -> dict[str, str]:
        """The fields of the tenant's access hash."""
        return {
            "pressure": self.pressure.value,
            "over": ",".join(self.over),
            "flooded": "1" if self.flooded else "0",
            "quota_since": "" if self.since is None else rfc3339(self.since),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> QuotaState:
        """The state that `to_fields` wrote; what is missing or unreadable is the default."""
        known = {member.value for member in Pressure}
        pressure = fields.get("pressure", "")
        try:
            since = utc_from_rfc3339(fields.get("quota_since", ""))
        except ValueError:
            since = None
        return cls(
            Pressure(pressure) if pressure in known else Pressure.NORMAL,
            tuple(part for part in fields.get("over", "").split(",") if part),
            fields.get("flooded") == "1",
            since,
        )


def percent(used: int, limit: int | None) -> int:
    """Share of a limit in whole per cent, rounded down; 0 without a limit."""
    return 0 if not limit else used * 100 // limit


def judge(before: QuotaState, usage: Usage, limits: Limits, now: datetime) -> QuotaState:
    """The state after a measurement, with the hysteresis above; ``before`` if nothing changed."""
    shares = {
        "memory": _share(usage.memory, limits.memory),
        "conversations": _share(usage.conversations, limits.conversations),
    }
    over = tuple(
        name
        for name, share in shares.items()
        if share >= (RETURN_UNDER if name in before.over else STOP_AT)
    )
    if over:
        pressure = Pressure.OVER
    else:
        pressure = Pressure.WARNING if max(shares.values()) >= WARN_AT else Pressure.NORMAL
    threshold = FLOOD_RETURN if before.flooded else FLOOD_LIMIT
    flooded = _floods(usage, limits, threshold)
    after = QuotaState(pressure, over, flooded, before.since)
    if (pressure, flooded) != (before.pressure, before.flooded):
        return replace(after, since=now)
    return before if after == before else after


def _floods(usage: Usage, limits: Limits, threshold: int) -> bool:
    """Whether what keeps its writes over quota outgrew its limit. Heads of conversations count as
    memory, so they may take the whole quota, and no more than the limit beyond it.
    """
    beyond_quota = usage.heads - (limits.memory or usage.heads)
    return usage.largest_bookkeeping >= threshold or beyond_quota >= threshold


def _share(used: int, limit: int | None) -> float:
    return 0.0 if not limit else used / limit
