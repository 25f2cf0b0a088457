"""A tenant's status from what was found and done: kstatus-clean, stable from try to try.

The findings of one reconcile replace the conditions that they speak of; everything else of a
status stays as it was, so that a tenant that is refused a change goes on showing what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding, find, merge
from memtenant.api.quantity import quantity_of_bytes
from memtenant.api.resource import Status
from memtenant.api.tenant import (
    AccessMode,
    AccessStatus,
    AuditInForce,
    BindingRef,
    BindingStatus,
    KeysStatus,
    MemoryTenantSpec,
    MemoryTenantStatus,
    RetentionStatus,
    Usage,
)
from memtenant.rules.desired import Desired
from memtenant.rules.keymotion import KeyAdvance, KeyScan
from memtenant.rules.placement import Refusal
from memtenant.rules.quota import Pressure, QuotaState, percent
from memtenant.rules.quota import Usage as Measured
from memtenant.rules.withheld import Withheld
from memtenant.tenancy.identity import binding_name

__all__ = [
    "CANNOT_SAVE",
    "SHOW_AGAIN_AT",
    "Provisioned",
    "as_json",
    "deletion_blocked",
    "enforced",
    "instance_away",
    "ready_status",
    "refused",
    "unreadable_data_keys",
    "waiting",
    "with_findings",
]

SHOW_AGAIN_AT = 5
"""Points of a quota by which usage must move before a status is written again."""

CANNOT_SAVE = (
    "The tenant's instance cannot write its append-only file: agents can read and not write. If "
    "its volume is full, raise spec.quota.memory, which makes it larger; the pod's log says why"
)

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a reconcile that reached its end has to say. ``cannot_save``: the tenant's own instance
    refuses writes."""

    spec: MemoryTenantSpec
    desired: Desired
    quota_state: QuotaState
    keys: KeyAdvance
    key_scan: KeyScan | None
    key_available: bool
    key_secret: str
    retention: RetentionStatus
    audit: AuditInForce
    retention_findings: tuple[Finding, ...]
    usage: Measured | None
    measured_at: datetime | None
    withheld: Withheld | None = None
    cannot_save: bool = False


def ready_status(
    before: MemoryTenantStatus, found: Provisioned, *, now: datetime, generation: int
) -> MemoryTenantStatus:
    """The status of a tenant that is as declared. Its agents can work, unless they flooded their
    bookkeeping and are switched off, the name of their binding is on somebody else's Secret, or
    their instance's disk is full."""
    record = found.desired.record
    agents = [agent.name for agent in found.spec.agents_or_default()]
    without = found.withheld.agents if found.withheld else frozenset()
    bindings = tuple(
        BindingStatus(
            agent=agent,
            name=binding_name(record.tenant, agent),
            username=found.desired.bindings[agent].username,
            version=found.desired.bindings[agent].version,
            rotated_at=_rotated_at(found.desired, agent),
        )
        for agent in agents
        if agent not in without
    )
    first = [BindingRef(name=one.name) for one in bindings if one.agent == agents[0]]
    status = before.model_copy(
        update={
            "tenant_id": str(record.tenant),
            "store": record.store,
            "key_version": found.keys.opened.active.version,
            "key_made_at": found.keys.opened.keyring.active.created,
            "keys": _keys(before.keys, found.keys, found.key_scan),
            "access": _access(before.access, found.desired.state.mode, now),
            "retention": found.retention,
            "audit": found.audit,
            "usage": _usage(before.usage, found),
            "binding": first[0] if first else None,
            "bindings": bindings,
        }
    )
    return with_findings(status, _findings(found, len(agents)), now=now, generation=generation)


def _keys(before: KeysStatus | None, keys: KeyAdvance, scan: KeyScan | None) -> KeysStatus | None:
    """Shown while the key turns. Before the first pass since the start, as it was last shown."""
    keyring = keys.opened.keyring
    if len(keyring.keks) == 1:
        return None
    shown = KeysStatus(
        active=keyring.active.version,
        pending=tuple(kek.version for kek in keyring.pending),
        retiring=tuple(kek.version for kek in keyring.retiring),
        since=keyring.keks[1].created,
    )
    if scan is not None and scan.stage.active == shown.active:
        counts = {
            "data_keys": scan.total,
            "remaining": scan.remaining,
            "unreadable": scan.unreadable or None,
        }
        return shown.model_copy(update=counts)
    if before is not None and before.active == shown.active:
        counts = before.model_dump(include={"data_keys", "remaining", "unreadable"})
        return shown.model_copy(update=counts)
    return shown


def _rotated_at(desired: Desired, agent: str) -> datetime:
    binding = desired.bindings[agent]
    for principal in desired.record.principals.values():
        for credential in principal.slots.values():
            if credential.password == binding.password:
                return credential.created
    raise LookupError(f"the credential in the binding of agent {agent} is in no slot")


def _access(before: AccessStatus | None, mode: AccessMode, now: datetime) -> AccessStatus:
    if before is not None and before.mode is mode:
        return before
    return AccessStatus(mode=mode, since=now.replace(microsecond=0))


def _usage(before: Usage | None, found: Provisioned) -> Usage | None:
    """Written again on a change of state or of 5 points; live figures are metrics."""
    if found.usage is None or found.measured_at is None:
        return before
    quota = found.spec.quota
    usage = Usage(
        memory=quantity_of_bytes(found.usage.memory),
        memory_limit=quantity_of_bytes(quota.memory.bytes),
        memory_percent=percent(found.usage.memory, quota.memory.bytes),
        conversations=found.usage.conversations,
        conversations_limit=quota.conversations,
        conversations_percent=percent(found.usage.conversations, quota.conversations),
        since=found.measured_at.replace(microsecond=0),
    )
    return before if before is not None and not _worth_showing(before, usage) else usage


def _worth_showing(before: Usage, after: Usage) -> bool:
    moved = max(
        abs(before.memory_percent - after.memory_percent),
        abs(before.conversations_percent - after.conversations_percent),
    )
    limits = (before.memory_limit, before.conversations_limit)
    return (
        moved >= SHOW_AGAIN_AT
        or limits != (after.memory_limit, after.conversations_limit)
        or _band(before) != _band(after)
    )


def _band(usage: Usage) -> int:
    share = max(usage.memory_percent, usage.conversations_percent)
    return sum(share >= bound for bound in (80, 95, 100))


def _findings(found: Provisioned, agents: int) -> tuple[Finding, ...]:
    record = found.desired.record
    many = "1 agent" if agents == 1 else f"{agents} agents"
    provisioned = f"{many} can work on store {record.store}"
    ready = Finding(ConditionType.READY, _TRUE, "Provisioned", provisioned)
    stalled = Finding(ConditionType.STALLED, _FALSE, "Done")
    if found.withheld is not None:
        reason, message = found.withheld.refusal.reason, found.withheld.refusal.message
        ready = Finding(ConditionType.READY, _FALSE, reason, message)
        stalled = Finding(ConditionType.STALLED, _TRUE, reason, message)
    if found.cannot_save:
        ready = Finding(ConditionType.READY, _FALSE, "StoreCannotSave", CANNOT_SAVE)
    if found.desired.state.off:
        ready = _flooded_finding(ConditionType.READY)
    return (
        ready,
        Finding(
            ConditionType.ISOLATION_VERIFIED,
            _TRUE,
            "Proven",
            "The agents' users reach the tenant's own keys and no others, on every node",
        ),
        _key_finding(found),
        *_data_keys_findings(found),
        _quota_finding(found.quota_state),
        Finding(ConditionType.RECONCILING, _FALSE, "Done"),
        stalled,
        Finding(ConditionType.DELETION_BLOCKED, _FALSE, "Done"),
        *found.retention_findings,
    )


def _key_finding(found: Provisioned) -> Finding:
    if found.key_available:
        return Finding(
            ConditionType.KEY_AVAILABLE,
            _TRUE,
            "KeyAvailable",
            f"Key version {found.keys.opened.active.version} is in use",
        )
    return Finding(
        ConditionType.KEY_AVAILABLE,
        _FALSE,
        "KeySecretMissing",
        f"{found.key_secret} is gone: put it back. Agents go on with their bindings; no new key is "
        "made in its place",
    )


def _data_keys_findings(found: Provisioned) -> tuple[Finding, ...]:
    """Before the first pass since the start, what was told stands."""
    kind, scan = ConditionType.DATA_KEYS_UNREADABLE, found.key_scan
    if scan is not None and scan.unreadable:
        return (Finding(kind, _TRUE, "DataKeyDamaged", unreadable_data_keys(scan)),)
    if scan is None and found.keys.waits:
        return ()
    return (Finding(kind, _FALSE, "DataKeyDamaged"),)


def unreadable_data_keys(scan: KeyScan) -> str:
    """What is told of data keys that open with no version of the tenant's key."""
    named = ", ".join(f"k:{alias}" for alias in scan.examples)
    return (
        f"{scan.unreadable} data keys open with no version of the tenant's key ({named}): restore "
        "them from a backup, or remove their field dek as the store's admin and give those "
        "subjects' records up. Until then no retired version is destroyed"
    )


def _quota_finding(state: QuotaState) -> Finding:
    kind = ConditionType.WITHIN_QUOTA
    if state.flooded:
        return _flooded_finding(kind)
    if state.pressure is Pressure.OVER:
        what = " and ".join(state.over)
        return Finding(
            kind,
            _FALSE,
            "QuotaExceeded",
            f"The quota of {what} is used up: agents can read and delete; writing returns under "
            "95 %. Delete conversations, or raise spec.quota",
        )
    if state.pressure is Pressure.WARNING:
        return Finding(kind, _TRUE, "QuotaNearlyUsed", "80 % of a quota or more is in use")
    return Finding(kind, _TRUE, "WithinQuota", "Less than 80 % of each quota is in use")


def _flooded_finding(kind: ConditionType) -> Finding:
    return Finding(
        kind,
        _FALSE,
        "Flooded",
        "The audit queue, the subject index or the subjects' keys outgrew their limit, so the "
        "agents' users are off: find the agent that floods them, then trim (LTRIM, DEL) as the "
        "store's admin",
    )


def enforced(
    before: MemoryTenantStatus,
    mode: AccessMode,
    quota: QuotaState,
    *,
    now: datetime,
    generation: int,
) -> MemoryTenantStatus:
    """The status of a tenant whose users may do this now, although it is not as declared."""
    status = before.model_copy(update={"access": _access(before.access, mode, now)})
    return with_findings(status, (_quota_finding(quota),), now=now, generation=generation)


def refused(
    before: MemoryTenantStatus, refusal: Refusal, *, now: datetime, generation: int
) -> MemoryTenantStatus:
    """The status of a tenant that cannot be as declared; what it already has stays."""
    message = f"{refusal.field}: {refusal.message}" if refusal.field else refusal.message
    return with_findings(
        before,
        (
            Finding(ConditionType.READY, _FALSE, refusal.reason, message),
            Finding(ConditionType.STALLED, _TRUE, refusal.reason, message),
            Finding(ConditionType.RECONCILING, _FALSE, "Stalled"),
        ),
        now=now,
        generation=generation,
    )


def waiting(
    before: MemoryTenantStatus, reason: str, message: str, *, now: datetime, generation: int
) -> MemoryTenantStatus:
    """The status while something passes that nobody has to mend: a tenant that was Ready for this
    generation stays so.
    """
    ready = find(before.conditions, ConditionType.READY)
    findings = [
        Finding(ConditionType.RECONCILING, _TRUE, reason, message),
        Finding(ConditionType.STALLED, _FALSE, reason),
    ]
    if ready is None or ready.status is not _TRUE or ready.observed_generation != generation:
        findings.append(Finding(ConditionType.READY, _UNKNOWN, reason, message))
    return with_findings(before, findings, now=now, generation=generation)


def instance_away(
    before: MemoryTenantStatus, reason: str, message: str, *, now: datetime, generation: int
) -> MemoryTenantStatus:
    """The status of a tenant whose own instance does not answer: its agents cannot work, and
    nobody has to mend it yet."""
    return with_findings(
        before,
        (
            Finding(ConditionType.READY, _FALSE, reason, message),
            Finding(ConditionType.RECONCILING, _TRUE, reason, message),
            Finding(ConditionType.STALLED, _FALSE, reason),
        ),
        now=now,
        generation=generation,
    )


def deletion_blocked(
    before: MemoryTenantStatus, reason: str, message: str, *, now: datetime, generation: int
) -> MemoryTenantStatus:
    """The status of a tenant in deletion whose data may not go yet."""
    return with_findings(
        before,
        (
            Finding(ConditionType.READY, _FALSE, reason, message),
            Finding(ConditionType.DELETION_BLOCKED, _TRUE, reason, message),
            Finding(ConditionType.RECONCILING, _FALSE, reason),
            Finding(ConditionType.STALLED, _FALSE, reason),
        ),
        now=now,
        generation=generation,
    )


def with_findings(
    before: MemoryTenantStatus, findings: Iterable[Finding], *, now: datetime, generation: int
) -> MemoryTenantStatus:
    """The status with these findings merged into its conditions."""
    conditions = merge(before.conditions, findings, now=now, generation=generation)
    return before.model_copy(update={"conditions": conditions, "observed_generation": generation})


def as_json(status: Status) -> Mapping[str, Any]:
    """The status as it is written: what is not known is left out, at every depth."""
    dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: _known(value) for name, value in dumped.items() if not _is_blank(value)}


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _known(inner) for name, inner in value.items() if not _is_blank(inner)}
    if isinstance(value, list):
        return [_known(inner) for inner in value]
    return value


def _is_blank(value: Any) -> bool:
    return value in ("", [], {})
