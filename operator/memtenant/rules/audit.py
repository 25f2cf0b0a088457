"""Whether a tenant is audited, and how: from its policy, the frameworks, and its own choice.

A tenant may switch the audit on where nothing requires it, never off where something does
(`memtenant.rules.placement` refuses that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from memtenant.api.fields import AuditFailure, EnforcementMode
from memtenant.api.tenant import AuditInForce, AuditMode, MemoryTenantSpec
from memtenant.errors import InvalidResource
from memtenant.rules.placement import PolicyView, requires_audit
from memtenant.rules.retention import Resolution
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.period import Period

__all__ = [
    "NOT_AUDITED",
    "AuditTerms",
    "audit_entry",
    "audit_terms",
    "closing_entry",
    "keep_months",
]

_READING: Final = ("access_logging", "access_monitoring")
_SHORTEST_MONTHS: Final = (0, 28, 59, 89, 120, 150, 181, 212, 242, 273, 303, 334)
"""Days that so many months in a row have at least."""


@dataclass(frozen=True, slots=True)
class AuditTerms:
    """How one tenant is audited. ``clause`` is what asks for it; empty where nothing does."""

    enabled: bool = False
    reads: bool = False
    on_failure: AuditFailure = AuditFailure.CLOSED
    seal_every: int = 60
    clause: str = ""

    def to_fields(self) -> Mapping[str, str]:
        """The fields of ``o:limits`` that the Functions obey."""
        return {
            "audit": "1" if self.enabled else "0",
            "audit_reads": "1" if self.reads else "0",
            "on_failure": self.on_failure.value,
        }

    @property
    def status(self) -> AuditInForce:
        """As the tenant's status shows it."""
        return AuditInForce(
            mode=AuditMode.ENABLED if self.enabled else AuditMode.DISABLED,
            reads=AuditMode.ENABLED if self.reads else AuditMode.DISABLED,
            on_failure=self.on_failure,
            clause=self.clause,
        )


NOT_AUDITED: Final = AuditTerms()


def audit_terms(policy: PolicyView, spec: MemoryTenantSpec) -> AuditTerms:
    """What is in force for a tenant under the policy."""
    asked = policy.spec.audit
    clause = requires_audit(policy)
    if not clause and spec.audit.mode is AuditMode.ENABLED:
        clause = "spec.audit.mode"
    reads = asked.reads is EnforcementMode.REQUIRED or any(
        one in policy.features for one in _READING
    )
    return AuditTerms(
        enabled=bool(clause),
        reads=bool(clause) and reads,
        on_failure=asked.on_failure,
        seal_every=round(asked.seal_every.days * 86_400),
        clause=clause,
    )


def audit_entry(terms: AuditTerms, retention: Resolution, before: str, *, held: bool) -> str:
    """The tenant's entry in ``mt:store:audited``; empty for none. Under a hold its log is kept
    whatever its age.

    One that is not audited any more is closing until what is left in its queue is sealed and the
    entry removed: an audit that was switched off ends with what it was told.
    """
    if not terms.enabled:
        return closing_entry(before)
    return Audited(
        terms.seal_every,
        keep_months=None if held else keep_months(retention.audit.effective.period),
        evidence_months=None if held else keep_months(retention.evidence.effective.period),
    ).to_json()


def closing_entry(before: str) -> str:
    """The entry of a tenant whose queue is drained for the last time; none where there was none."""
    if not before:
        return ""
    try:
        entry = Audited.from_json(before.encode())
    except InvalidResource:
        entry = Audited(NOT_AUDITED.seal_every)
    return replace(entry, closing=True).to_json()


def keep_months(period: Period) -> int:
    """For how many calendar months a log is kept that is kept for the period: never shorter."""
    if period.unit in ("mo", "y"):
        return period.count * (12 if period.unit == "y" else 1)
    years, days = divmod(ceil(period.days), 365)
    return years * 12 + next(
        (months for months, least in enumerate(_SHORTEST_MONTHS) if least >= days), 12
    )
