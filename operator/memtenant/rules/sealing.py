"""What the sealer says of itself on a store, and what the operator makes of it.

The sealer writes two hashes (``mt:store:sealer``, ``o:audit`` of each tenant); times in them are
milliseconds since 1970 by the store's clock, or by the sealer's for what it sealed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding
from memtenant.tenancy.identity import TenantId

__all__ = [
    "IRREGULARITY_SHOWN",
    "SEALER_PATIENCE",
    "LogReport",
    "SealView",
    "SealerReport",
    "log_finding",
    "store_finding",
]

SEALER_PATIENCE = timedelta(seconds=60)
"""How long after a heartbeat the Functions go on: then agents are refused, or events dropped."""

IRREGULARITY_SHOWN = timedelta(days=1)
"""How long a condition tells of a gap or a bad MAC. The log tells for ever."""


@dataclass(frozen=True, slots=True)
class LogReport:
    """What the sealer says of one log. ``irregular_at`` is when it last found a gap, or an event
    that is not what it claims to be; ``stopped``: it had its share of the archive for today.
    ``filled`` are the bytes of it that it used on a ``day`` (as Python numbers them).
    ``read_back_since``: its queue waits until enough of the log is read to know what of it was
    sealed. ``dropped`` is what the store counts, ``dropped_told`` what of it stands in the log."""

    size: int = 0
    sealed_at: int = 0
    queue: int = 0
    gaps: int = 0
    bad: int = 0
    dropped: int = 0
    irregular_at: int = 0
    stopped: bool = False
    filled: int = 0
    day: int = 0
    read_back_since: int = 0
    dropped_told: int = 0

    def to_fields(self) -> dict[str, str]:
        """As ``o:audit`` has it."""
        return {
            "size": str(self.size),
            "sealed_at": str(self.sealed_at),
            "queue": str(self.queue),
            "gaps": str(self.gaps),
            "bad": str(self.bad),
            "dropped_seen": str(self.dropped),
            "irregular_at": str(self.irregular_at),
            "stopped": str(int(self.stopped)),
            "filled": str(self.filled),
            "filled_on": str(self.day),
            "read_back_since": str(self.read_back_since),
            "dropped_told": str(self.dropped_told),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> LogReport:
        """What `to_fields` wrote; 0 for what is not there or no number."""
        return cls(
            size=_number(fields, "size"),
            sealed_at=_number(fields, "sealed_at"),
            queue=_number(fields, "queue"),
            gaps=_number(fields, "gaps"),
            bad=_number(fields, "bad"),
            dropped=_number(fields, "dropped_seen"),
            irregular_at=_number(fields, "irregular_at"),
            stopped=bool(_number(fields, "stopped")),
            filled=_number(fields, "filled"),
            day=_number(fields, "filled_on"),
            read_back_since=_number(fields, "read_back_since"),
            dropped_told=_number(fields, "dropped_told"),
        )


@dataclass(frozen=True, slots=True)
class SealerReport:
    """What the sealer says of itself: the last checkpoint, when it was seen to live, and since when
    something keeps it from its work, in words."""

    origin: str = ""
    window: int = 0
    size: int = 0
    root: str = ""
    sealed_at: int = 0
    beat_at: int = 0
    trouble: str = ""

    def to_fields(self) -> dict[str, str]:
        """As ``mt:store:sealer`` has it."""
        return {
            "origin": self.origin,
            "window": str(self.window),
            "tree_size": str(self.size),
            "root": self.root,
            "sealed_at": str(self.sealed_at),
            "beat_at": str(self.beat_at),
            "trouble": self.trouble,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> SealerReport:
        """What `to_fields` wrote; empty for what is not there."""
        return cls(
            origin=fields.get("origin", "")[:256],
            window=_number(fields, "window"),
            size=_number(fields, "tree_size"),
            root=fields.get("root", "")[:64],
            sealed_at=_number(fields, "sealed_at"),
            beat_at=_number(fields, "beat_at"),
            trouble=fields.get("trouble", "")[:512],
        )


@dataclass(frozen=True, slots=True)
class SealView:
    """What the operator saw of the sealing of one store at one look. ``now`` is the store's time.

    ``sealer`` is None where none was ever there; ``audited`` are the tenants whose queues it is to
    drain, each with what was said of its log.
    """

    now: int
    sealer: SealerReport | None = None
    audited: Mapping[TenantId, LogReport] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether a sealer drained the queues lately."""
        patience = int(SEALER_PATIENCE.total_seconds() * 1000)
        return self.sealer is not None and self.now - self.sealer.beat_at <= patience


def store_finding(view: SealView) -> Finding | None:
    """The condition ``AuditSealed`` of a store; None where nobody is audited on it."""
    if not view.audited:
        return None
    if not view.alive:
        return _stale(view.sealer)
    assert view.sealer is not None  # noqa: S101 - it is alive
    stopped = sorted(tenant for tenant, log in view.audited.items() if log.stopped)
    if stopped:
        words = f"The logs of {_some(stopped)} had their share of the archive for today"
        return _false("ArchiveShareUsed", f"{words}: see the tenants")
    waiting = sorted(t for t, log in view.audited.items() if _waits(log, view.now))
    if waiting:
        words = f"The logs of {_some(waiting)} are read back, and their queues wait"
        return _false("LogReadBack", f"{words}: see the tenants")
    irregular = sorted(t for t, log in view.audited.items() if _is_irregular(log, view.now))
    if irregular:
        bad = any(view.audited[tenant].bad for tenant in irregular)
        return _irregular(
            f"The audit logs of {_some(irregular)} are not whole: see the tenants", bad
        )
    return _sealed(f"{len(view.audited)} logs are sealed")


def log_finding(view: SealView, tenant: TenantId) -> Finding | None:
    """The condition ``AuditSealed`` of a tenant; None for one that is not audited."""
    log = view.audited.get(tenant)
    if log is None:
        return None
    if not view.alive:
        return _stale(view.sealer)
    if log.stopped:
        return _false(
            "ArchiveShareUsed",
            "The tenant's events had its share of the archive's room for today: until midnight UTC "
            "no more are taken, and its agents are refused, or events are dropped where the policy "
            "says onFailure Open. Find out what it does so often, or enlarge the archive's volume",
        )
    if _waits(log, view.now):
        return _false(
            "LogReadBack",
            "An agent pushed events of writers that are long gone: until its log is read, which "
            "says what of them was sealed, none of the tenant's events are taken, and its agents "
            "are refused, or events are dropped where the policy says onFailure Open. If it does "
            "not end, find out which agent pushes them, and take its access away",
        )
    if _is_irregular(log, view.now):
        at = datetime.fromtimestamp(log.irregular_at / 1000, UTC)
        words = f"{_irregularities(log)}, the last at {at:%Y-%m-%dT%H:%M:%SZ}"
        return _irregular(words, bool(log.bad))
    return _sealed("The tenant's audit log is sealed")


def _some(tenants: Sequence[TenantId]) -> str:
    more = f" and {len(tenants) - 5} more" if len(tenants) > 5 else ""
    return ", ".join(str(tenant) for tenant in tenants[:5]) + more


def _stale(sealer: SealerReport | None) -> Finding:
    if sealer is not None and sealer.trouble:
        return _false("SealerStale", f"The sealer cannot go on: {sealer.trouble}")
    return _false(
        "SealerStale",
        "Nobody drains the audit queues: agents are refused, or events are dropped where the "
        "policy says onFailure Open. Start the sealer, and see what it logs",
    )


def _irregular(words: str, bad: bool) -> Finding:
    return _false("BadMACs", words) if bad else _false("AuditGaps", words)


def _irregularities(log: LogReport) -> str:
    found = []
    if log.bad:
        found.append(f"{log.bad} entries of the queue are not what they claim to be")
    if log.gaps:
        found.append(f"events are missing in {log.gaps} places")
    if log.dropped:
        found.append(f"{log.dropped} events were dropped while nobody drained")
    words = " and ".join(found) or "the queue lost entries"
    return words[:1].upper() + words[1:]


def _is_irregular(log: LogReport, now: int) -> bool:
    shown = int(IRREGULARITY_SHOWN.total_seconds() * 1000)
    return bool(log.irregular_at) and now - log.irregular_at <= shown


def _waits(log: LogReport, now: int) -> bool:
    """Whether its agents have had no heartbeat for so long that they are refused."""
    patience = int(SEALER_PATIENCE.total_seconds() * 1000)
    return bool(log.read_back_since) and now - log.read_back_since > patience


def _sealed(message: str) -> Finding:
    return Finding(ConditionType.AUDIT_SEALED, ConditionStatus.TRUE, "Sealed", message)


def _false(reason: str, message: str) -> Finding:
    return Finding(ConditionType.AUDIT_SEALED, ConditionStatus.FALSE, reason, message)


def _number(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
