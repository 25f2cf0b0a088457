"""RetentionPolicy: how long tenants' records are kept, and what else a regulation asks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from memtenant.api.fields import (
    AuditFailure,
    DeletionPolicy,
    EnforcementMode,
    Model,
    Moment,
    PeriodField,
    RightMode,
    cel_seconds,
    map_list,
    seconds,
    set_list,
)
from memtenant.api.reporting import LastReport, Reporting
from memtenant.api.resource import NAMED_AS_A_LABEL, Column, Names, Resource, Status
from memtenant.api.rule import Rule, ruled
from memtenant.api.selector import AllowedNamespaces, LabelSelector
from memtenant.tenancy.masking import Detector, MaskingAction
from memtenant.tenancy.period import Period

__all__ = [
    "AuditRequirement",
    "ClassBounds",
    "EncryptionRequirement",
    "ErasureRequirement",
    "FrameworkVersion",
    "HeldMatter",
    "LegalHold",
    "MaskingRequirement",
    "PortabilityRequirement",
    "ResolvedRetention",
    "ResolvedRetentionByClass",
    "RetentionBounds",
    "RetentionPolicy",
    "RetentionPolicySpec",
    "RetentionPolicyStatus",
    "ToolMaskingRequirement",
]

Framework = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=32)]
Matter = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_./ ]*[A-Za-z0-9])?$", max_length=64)
]


def _ordered(shorter: str, longer: str, message: str) -> Rule:
    return Rule(
        cel=f"!has(self.{shorter}) || !has(self.{longer}) || "
        f"{cel_seconds(f'self.{shorter}')} <= {cel_seconds(f'self.{longer}')}",
        message=message,
        check=lambda it, _: (
            not {shorter, longer} <= it.keys() or seconds(it[shorter]) <= seconds(it[longer])
        ),
        field=f".{shorter}",
    )


class ClassBounds(Model):
    """How long one class of record must, may and by default is kept."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            _ordered("min", "max", "min is longer than max: shorten min, or lengthen max"),
            _ordered("min", "default", "default is shorter than min: lengthen default"),
            _ordered("default", "max", "default is longer than max: shorten default"),
        )
    )

    min: PeriodField | None = Field(
        default=None,
        description="Nothing is removed before, by nobody. Left out: what the frameworks say.",
    )
    max: PeriodField | None = Field(
        default=None,
        description="The longest that a tenant may choose. Left out: what the frameworks say.",
    )
    default: PeriodField | None = Field(
        default=None,
        description="For tenants that choose nothing. Left out: the longest default of the "
        "frameworks, or 30d for content where there is none.",
    )


class RetentionBounds(Model):
    """Bounds per class of record; the frameworks' own bounds apply on top, the strictest wins."""

    content: ClassBounds | None = Field(
        default=None, description="Messages and shared contexts. A min holds agents' deletions."
    )
    derived: ClassBounds | None = Field(
        default=None, description="Summaries and facts made from content; never outlive it."
    )
    audit: ClassBounds | None = Field(default=None, description="Audit events.")
    evidence: ClassBounds | None = Field(default=None, description="Reports and receipts.")


class LegalHold(Model):
    """A matter for which nothing of the selected tenants may be deleted."""

    matter: Matter = Field(
        min_length=1,
        description="The case, as counsel names it: SEC-2026-014. Letters, digits, and inner "
        "- _ . / and spaces.",
    )
    tenant_selector: LabelSelector = Field(
        description="The tenants under this policy that are held, by their labels. An empty "
        "selector holds all of them."
    )
    since: Moment = Field(description="From when the hold stands, as 2026-01-31T09:30:00Z.")


class EncryptionRequirement(Model):
    """Whether tenants must encrypt."""

    mode: EnforcementMode = Field(
        default=EnforcementMode.OPTIONAL,
        description="Required: tenants with encryption Disabled are refused. Optional: they "
        "choose, unless a framework asks for encryption.",
    )


class ErasureRequirement(Model):
    """Whether one person's memory can be erased by itself."""

    mode: RightMode = Field(
        default=RightMode.OPTIONAL,
        description="Required: tenants must have a key per person, so isolation Minimal is "
        "refused. Optional: a Steward may forget a person, and tenants choose their isolation "
        "unless a framework asks for erasure. Forbidden: forget is refused; with a framework that "
        "asks for erasure, the policy is.",
    )
    consent_required: bool = Field(
        default=False,
        description="Whether forget needs a reference to the person's consent or request. A "
        "framework that asks for consent (GDPR) requires it too.",
    )


class PortabilityRequirement(Model):
    """Whether what is kept of one person can be exported."""

    mode: RightMode = Field(
        default=RightMode.OPTIONAL,
        description="Required and Optional: a Steward may export what is kept of a person. "
        "Forbidden: export is refused; with a framework that asks for portability, the policy is.",
    )


class ToolMaskingRequirement(Model):
    """Whether what tools are given and answer is masked too."""

    mode: EnforcementMode = Field(
        default=EnforcementMode.OPTIONAL,
        description="Required: the texts in arguments and results of tools are masked as messages "
        "are. Optional: an agent may switch that on.",
    )


class MaskingRequirement(Model):
    """Whether personal data, cards and credentials are replaced before anything is stored."""

    mode: EnforcementMode = Field(
        default=EnforcementMode.OPTIONAL,
        description="Required: agents mask whatever their code says, values of shared contexts "
        "included. Optional: an agent may switch masking on, unless a framework (PCI_DSS) "
        "asks for it.",
    )
    action: MaskingAction = Field(
        default=MaskingAction.MASK,
        description="What becomes of a value that is found. Mask: its kind stands in its place "
        "(of a card, at most the first six and the last four digits are shown). Tokenise: a "
        "one-way token, the same for the same value of the same user. Drop: nothing. Reject: the "
        "message is refused.",
    )
    detectors: tuple[Detector, ...] | None = Field(
        default=None,
        description="What is looked for, beside what a framework names. Left out: everything.",
        min_length=1,
        **set_list(32),
    )
    tools: ToolMaskingRequirement = Field(
        default_factory=ToolMaskingRequirement,
        description="Whether what tools are given and answer is masked too.",
    )


class AuditRequirement(Model):
    """Whether what is done to tenants' memory leaves events in a sealed log."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                cel=f"{cel_seconds('self.sealEvery')} >= 5 && "
                f"{cel_seconds('self.sealEvery')} <= 3600",
                message="sealEvery must be from 5s to 1h: write a period, as 60s or 5m",
                check=lambda it, _: 5 <= seconds(it["sealEvery"]) <= 3600,
                field=".sealEvery",
            )
        )
    )

    mode: EnforcementMode = Field(
        default=EnforcementMode.OPTIONAL,
        description="Required: every tenant is audited, and one that disables it is refused. "
        "Optional: tenants choose (audit.mode), unless a framework asks for access logging, access "
        "monitoring or an immutable audit (HIPAA, PCI_DSS, SOX).",
    )
    reads: EnforcementMode = Field(
        default=EnforcementMode.OPTIONAL,
        description="Required: reads of audited tenants leave events too. Optional: only writes "
        "do, unless a framework asks for access logging or monitoring (HIPAA, PCI_DSS).",
    )
    on_failure: AuditFailure = Field(
        default=AuditFailure.CLOSED,
        description="What becomes of an agent's call while nobody drains the tenant's queue. "
        "Closed: it is refused. Open: it is done, and its event is lost and counted.",
    )
    seal_every: PeriodField = Field(
        default=Period(60, "s"),
        description="How late an event may be sealed, from 5s to 1h. The shortest of all policies "
        "on a store counts.",
    )


class RetentionPolicySpec(Model):
    """What tenants under this policy must keep to."""

    allowed_namespaces: AllowedNamespaces = Field(
        default_factory=AllowedNamespaces,
        description="Which namespaces' tenants may be under this policy.",
    )
    frameworks: tuple[Framework, ...] = Field(
        default=(),
        description="Regulations whose bounds and duties apply: GDPR, HIPAA, SOX, PCI_DSS. Each "
        "is a dated data file of the operator; an unknown one stalls the policy.",
        **set_list(16),
    )
    retention: RetentionBounds = Field(
        default_factory=RetentionBounds, description="Bounds per class of record."
    )
    legal_basis: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="Why records are kept longer than a framework's default, or why a minimum "
        "outweighs a maximum, in the words of whoever answers for it.",
    )
    legal_holds: tuple[LegalHold, ...] = Field(
        default=(),
        description="Matters for which nothing may be deleted, by agents, expiry or the deletion "
        "of a tenant. Remove the entry to release the hold.",
        **map_list("matter", 64),
    )
    encryption: EncryptionRequirement = Field(
        default_factory=EncryptionRequirement, description="Whether tenants must encrypt."
    )
    erasure: ErasureRequirement = Field(
        default_factory=ErasureRequirement,
        description="Whether one person's memory can be erased by itself.",
    )
    portability: PortabilityRequirement = Field(
        default_factory=PortabilityRequirement,
        description="Whether what is kept of one person can be exported.",
    )
    masking: MaskingRequirement = Field(
        default_factory=MaskingRequirement,
        description="Whether personal data, cards and credentials are replaced before anything "
        "is stored.",
    )
    audit: AuditRequirement = Field(
        default_factory=AuditRequirement,
        description="Whether what is done to tenants' memory leaves events in a sealed log.",
    )
    report: Reporting | None = Field(
        default=None,
        description="When reports about the tenants under this policy are made. Left out: by hand "
        "only.",
    )
    allowed_deletion_policies: tuple[DeletionPolicy, ...] | None = Field(
        default=None,
        description="The deletionPolicy values that tenants may have. Left out: any.",
        min_length=1,
        **set_list(3),
    )


class ResolvedRetention(Model):
    """What policy and frameworks together say about one class of record."""

    floor: PeriodField | None = Field(
        default=None, description="The longest minimum. Left out: none."
    )
    floor_clause: str = Field(default="", description="What set the floor.", max_length=2048)
    ceiling: PeriodField | None = Field(
        default=None, description="The shortest maximum. Left out: none."
    )
    ceiling_clause: str = Field(default="", description="What set the ceiling.", max_length=2048)
    default: PeriodField | None = Field(
        default=None, description="For tenants that choose nothing."
    )
    default_clause: str = Field(default="", description="What set the default.", max_length=2048)


class ResolvedRetentionByClass(Model):
    """The resolved bounds, per class of record."""

    content: ResolvedRetention | None = Field(
        default=None, description="Messages and shared contexts."
    )
    derived: ResolvedRetention | None = Field(
        default=None, description="Summaries and facts made from content."
    )
    audit: ResolvedRetention | None = Field(default=None, description="Audit events.")
    evidence: ResolvedRetention | None = Field(default=None, description="Reports and receipts.")


class FrameworkVersion(Model):
    """Which edition of a framework's data is in force."""

    name: str = Field(description="The framework, as GDPR.", max_length=32)
    version: str = Field(description="The date of its data.", max_length=32)


class HeldMatter(Model):
    """A legal hold that stands."""

    matter: str = Field(description="The case.", max_length=64)
    tenants: int = Field(description="How many tenants it holds.", ge=0)


class RetentionPolicyStatus(Status):
    """What the policy comes to."""

    tenants: int = Field(default=0, description="Tenants under this policy.", ge=0)
    frameworks: tuple[FrameworkVersion, ...] = Field(
        default=(),
        description="The frameworks' data in force.",
        **map_list("name", 16),
    )
    retention: ResolvedRetentionByClass | None = Field(
        default=None,
        description="Floor, ceiling and default per class of record, and the clause behind each.",
    )
    held_matters: tuple[HeldMatter, ...] = Field(
        default=(), description="The legal holds that stand.", **map_list("matter", 64)
    )
    last_report: LastReport | None = Field(
        default=None, description="The newest report about the tenants under this policy."
    )


class RetentionPolicy(Resource):
    """How long tenants' records are kept, what is held, and what a regulation asks of tenants."""

    model_config = ConfigDict(json_schema_extra=ruled(NAMED_AS_A_LABEL))

    NAMES: ClassVar[Names] = Names(
        plural="retentionpolicies", singular="retentionpolicy", short=("rp",), namespaced=False
    )
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(name="Frameworks", path=".spec.frameworks", description="Regulations that apply"),
        Column(
            name="Content",
            path=".status.retention.content.default",
            description="How long content is kept by default",
        ),
        Column(
            name="Floor",
            path=".status.retention.content.floor",
            description="The least that content is kept",
            wide=True,
        ),
        Column(
            name="Ceiling",
            path=".status.retention.content.ceiling",
            description="The most that content is kept",
            wide=True,
        ),
        Column(
            name="Tenants",
            path=".status.tenants",
            type="integer",
            description="Tenants under this policy",
        ),
        Column(
            name="Holds",
            path=".status.heldMatters[*].matter",
            description="Legal holds that stand",
        ),
        Column(
            name="Report",
            path=".status.lastReport.time",
            type="date",
            description="Age of the newest report",
        ),
        Column(
            name="Ready",
            path='.status.conditions[?(@.type=="Ready")].status',
            description="Whether the policy can be applied",
        ),
        Column(
            name="Reason",
            path='.status.conditions[?(@.type=="Ready")].reason',
            description="Why Ready is what it is",
        ),
        Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Age"),
    )

    kind: Literal["RetentionPolicy"] = "RetentionPolicy"
    spec: RetentionPolicySpec = Field(
        default_factory=RetentionPolicySpec,
        description="What tenants under this policy must keep to.",
    )
    status: RetentionPolicyStatus = Field(
        default_factory=RetentionPolicyStatus, description="What the policy comes to."
    )
