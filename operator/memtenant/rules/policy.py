"""What a RetentionPolicy comes to: for any tenant under it, and for one in particular.

Resolved once per generation of the policy; a policy that contradicts itself, or names a framework
that is not known, raises `InvalidResource` and stalls its tenants with the same words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding
from memtenant.api.fields import EnforcementMode, RightMode
from memtenant.api.policy import (
    FrameworkVersion,
    LegalHold,
    ResolvedRetention,
    ResolvedRetentionByClass,
    RetentionPolicySpec,
)
from memtenant.api.tenant import MemoryTenantSpec, RetentionInForce, RetentionStatus
from memtenant.errors import InvalidResource
from memtenant.rules.frameworks import (
    Feature,
    Framework,
    RecordClass,
    built_in_frameworks,
    required_features,
    select_frameworks,
)
from memtenant.rules.placement import PolicyView
from memtenant.rules.retention import Bound, ClassBounds, ClassRetention, Resolution, resolve
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.masking import Detector, MaskingPolicy
from memtenant.tenancy.period import Period
from memtenant.tenancy.policy import SubjectRights

__all__ = [
    "Matters",
    "PolicyFacts",
    "chosen_by",
    "chosen_from",
    "chosen_of",
    "chosen_to",
    "hold_labels",
    "matters_from",
    "matters_to",
    "policy_facts",
    "retention_findings",
    "retention_status",
]

Matters = Mapping[str, str]
"""Matter → digest of the selector that held the tenant: while the policy's selector stays, a
tenant does not slip out of a hold by changing its own labels."""


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A policy's spec, the frameworks' data, and the resolution for tenants that choose nothing."""

    name: str
    spec: RetentionPolicySpec
    frameworks: tuple[Framework, ...]
    resolution: Resolution

    @property
    def view(self) -> PolicyView:
        """What placement asks of a policy."""
        features = required_features(self.frameworks)
        return PolicyView(self.name, self.spec, {str(name): by for name, by in features.items()})

    @property
    def rights(self) -> SubjectRights:
        """What a Steward may do at a person's request."""
        erasure, portability = self.spec.erasure, self.spec.portability
        return SubjectRights(
            erasure=erasure.mode is not RightMode.FORBIDDEN,
            consent_required=erasure.consent_required
            or Feature.CONSENT in required_features(self.frameworks),
            portability=portability.mode is not RightMode.FORBIDDEN,
        )

    @property
    def masking(self) -> MaskingPolicy:
        """What agents must mask, or get where they switch masking on."""
        asked, rules = self.spec.masking, [one.masking for one in self.frameworks]
        refused = {one for rule in rules for one in rule.refused}
        wanted = set(Detector if asked.detectors is None else asked.detectors)
        wanted |= refused | {one for rule in rules for one in rule.detectors}
        return MaskingPolicy(
            required=asked.mode is EnforcementMode.REQUIRED
            or Feature.MASKING in required_features(self.frameworks),
            action=asked.action,
            detectors=tuple(one for one in Detector if one in wanted),
            tools=asked.tools.mode is EnforcementMode.REQUIRED,
            refused=tuple(one for one in Detector if one in refused),
        )

    @property
    def content_minimum(self) -> Period | None:
        """For how long content must be kept, if for any time."""
        floor = self.resolution.content.floor
        return floor.period if floor else None

    def resolve_for(self, spec: MemoryTenantSpec) -> Resolution:
        """The retention of a tenant; `InvalidResource` where its choice is out of bounds."""
        return self.resolve_chosen(chosen_by(spec))

    def resolve_chosen(self, chosen: Mapping[RecordClass, Period]) -> Resolution:
        """The retention of a tenant that chose so; `InvalidResource` as `resolve_for`."""
        return resolve(_bounds(self.spec), self.frameworks, chosen, self.spec.legal_basis or "")

    def matters_of(
        self, labels: Mapping[str, str], before: Matters, now: datetime
    ) -> dict[str, str]:
        """The holds that stand at ``now`` for a tenant with these labels (`hold_labels`).

        ``before`` are those that stood: each goes on while the policy has the matter with the same
        selector, whatever the tenant's labels say now.
        """
        held: dict[str, str] = {}
        for hold in self.spec.legal_holds:
            digest = _digest(hold)
            begun = hold.since <= now and hold.tenant_selector.matches(labels)
            if begun or before.get(hold.matter) == digest:
                held[hold.matter] = digest
        return held

    def next_hold(self, now: datetime) -> datetime | None:
        """When the next hold begins that does not stand yet, if one is declared."""
        return min((one.since for one in self.spec.legal_holds if one.since > now), default=None)

    def still_holds(self, before: Matters) -> tuple[str, ...]:
        """Those of the matters that this policy still holds in the same way."""
        digests = {hold.matter: _digest(hold) for hold in self.spec.legal_holds}
        return tuple(sorted(m for m, digest in before.items() if digests.get(m) == digest))

    def framework_versions(self) -> tuple[FrameworkVersion, ...]:
        """Which data is in force, for the policy's status."""
        return tuple(
            FrameworkVersion(name=one.id, version=one.date.isoformat()) for one in self.frameworks
        )

    def resolved_status(self) -> ResolvedRetentionByClass:
        """Floor, ceiling and default per class, for the policy's status."""
        return ResolvedRetentionByClass(
            **{
                record_class.value: _resolved(retention)
                for record_class, retention in self.resolution.by_class().items()
            }
        )


def policy_facts(name: str, spec: RetentionPolicySpec) -> PolicyFacts:
    """Resolve a policy; `InvalidResource` names the field and the clauses that do not agree."""
    frameworks = select_frameworks(built_in_frameworks(), spec.frameworks)
    _check_rights(spec, required_features(frameworks))
    resolution = resolve(_bounds(spec), frameworks, legal_basis=spec.legal_basis or "")
    return PolicyFacts(name, spec, frameworks, resolution)


def _check_rights(spec: RetentionPolicySpec, asked: Mapping[Feature, str]) -> None:
    """A policy cannot rule out what a framework that it names gives to a person."""
    for feature, mode in (
        (Feature.ERASURE, spec.erasure.mode),
        (Feature.PORTABILITY, spec.portability.mode),
    ):
        if mode is RightMode.FORBIDDEN and feature in asked:
            raise InvalidResource(
                f"spec.{feature}.mode is Forbidden, and a framework asks for it "
                f"({asked[feature]}): set it to Optional or Required, or leave the framework out",
                field=f"spec.{feature}.mode",
                reason="FrameworkContradicted",
            )


def hold_labels(
    tenant: TenantId, labels: Mapping[str, str], namespace_labels: Mapping[str, str]
) -> dict[str, str]:
    """What a hold's selector sees: the namespace's labels, the tenant's own, and its two names.

    The names win, and the namespace's labels win over the tenant's: a team can write the labels of
    its tenant, not those of its namespace.
    """
    return {
        **labels,
        **namespace_labels,
        "memtenant.dev/namespace": tenant.namespace,
        "memtenant.dev/tenant": tenant.name,
    }


def chosen_by(spec: MemoryTenantSpec) -> dict[RecordClass, Period]:
    """The periods that a tenant chose."""
    return {
        record_class: period
        for record_class in RecordClass
        if (period := getattr(spec.retention, record_class.value)) is not None
    }


def chosen_to(chosen: Mapping[RecordClass, Period]) -> str:
    """As kept in the tenant's access hash."""
    return json.dumps({one.value: str(period) for one, period in sorted(chosen.items())})


def chosen_from(text: str) -> dict[RecordClass, Period] | None:
    """What `chosen_to` wrote; None where it was never written or cannot be read."""
    try:
        return chosen_of(json.loads(text))
    except ValueError:
        return None


def chosen_of(found: object) -> dict[RecordClass, Period] | None:
    """The periods by class, as a JSON object has them; None where it has none that can be read."""
    if not isinstance(found, dict):
        return None
    try:
        return {RecordClass(name): Period.parse(one) for name, one in found.items()}
    except (ValueError, TypeError, InvalidResource):
        return None


def matters_to(matters: Matters) -> str:
    """As kept in the tenant's access hash."""
    return json.dumps(dict(sorted(matters.items())), separators=(",", ":"))


def matters_from(text: str) -> Matters:
    """What `matters_to` wrote; nothing where it was never written or cannot be read."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def retention_status(resolution: Resolution) -> RetentionStatus:
    """The retention in force, for a tenant's status."""
    return RetentionStatus(
        **{
            record_class.value: _in_force(retention)
            for record_class, retention in resolution.by_class().items()
        }
    )


def retention_findings(resolution: Resolution) -> tuple[Finding, ...]:
    """What the conditions of a tenant or policy say about its retention."""
    unjustified = resolution.unjustified
    return (
        Finding(
            ConditionType.RETENTION_RESOLVED,
            ConditionStatus.TRUE,
            "Resolved",
            f"Content is kept for {resolution.content.effective.period} "
            f"({resolution.content.effective.reason})",
        ),
        Finding(
            ConditionType.RETENTION_UNJUSTIFIED,
            ConditionStatus.TRUE if unjustified else ConditionStatus.FALSE,
            "NoLegalBasis",
            " ".join(one.message for one in unjustified),
        ),
    )


def _bounds(spec: RetentionPolicySpec) -> dict[RecordClass, ClassBounds]:
    found = {}
    for record_class in RecordClass:
        bounds = getattr(spec.retention, record_class.value)
        if bounds is not None:
            found[record_class] = ClassBounds(bounds.min, bounds.max, bounds.default)
    return found


def _digest(hold: LegalHold) -> str:
    selector = hold.tenant_selector.model_dump_json(by_alias=True)
    return hashlib.sha256(selector.encode()).hexdigest()[:16]


def _in_force(retention: ClassRetention) -> RetentionInForce:
    floor, ceiling = retention.floor, retention.ceiling
    return RetentionInForce(
        period=retention.effective.period,
        clause=retention.effective.reason,
        floor=floor.period if floor else None,
        floor_clause=_reason(floor),
        ceiling=ceiling.period if ceiling else None,
        ceiling_clause=_reason(ceiling),
    )


def _resolved(retention: ClassRetention) -> ResolvedRetention:
    floor, ceiling = retention.floor, retention.ceiling
    return ResolvedRetention(
        floor=floor.period if floor else None,
        floor_clause=_reason(floor),
        ceiling=ceiling.period if ceiling else None,
        ceiling_clause=_reason(ceiling),
        default=retention.effective.period,
        default_clause=retention.effective.reason,
    )


def _reason(bound: Bound | None) -> str:
    return bound.reason[:512] if bound else ""
