"""MemoryTenant: one team's memory, as its own namespace declares it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from memtenant.api.fields import (
    DeletionPolicy,
    Isolation,
    Model,
    Name,
    NameRef,
    PeriodField,
    QuantityField,
    Residency,
    SecretKeyRef,
    cel_seconds,
    map_list,
    seconds,
)
from memtenant.api.quantity import Quantity
from memtenant.api.resource import NAMED_AS_A_LABEL, Column, Names, Resource
from memtenant.api.rule import Rule, ruled
from memtenant.api.tenant_status import (
    MAX_AGENTS,
    AccessMode,
    AccessStatus,
    AuditInForce,
    AuditMode,
    BindingRef,
    BindingStatus,
    KeysStatus,
    MemoryTenantStatus,
    RetentionInForce,
    RetentionStatus,
    Usage,
)
from memtenant.tenancy.identity import DEFAULT_AGENT, TenantId
from memtenant.tenancy.period import Period
from memtenant.tenancy.policy import AgentAccess, Durability, EncryptionMode

__all__ = [
    "AccessMode",
    "AccessStatus",
    "Agent",
    "AgentAccess",
    "Audit",
    "AuditInForce",
    "AuditMode",
    "BindingRef",
    "BindingStatus",
    "Credentials",
    "Durability",
    "Encryption",
    "EncryptionMode",
    "KeysStatus",
    "MemoryTenant",
    "MemoryTenantSpec",
    "MemoryTenantStatus",
    "Quota",
    "RetentionChoice",
    "RetentionInForce",
    "RetentionStatus",
    "Usage",
]


class Quota(Model):
    """How much the tenant may hold and how fast it may write."""

    memory: QuantityField = Field(
        default=Quantity.parse("256Mi"),
        description="Bytes that the tenant's keys may take in the store, overhead included, as "
        "512Mi or 2Gi. At 100 % its agents can read and delete but not write; writing returns "
        "below 95 %.",
    )
    conversations: int = Field(
        default=10_000,
        description="How many conversations the tenant may hold. Enforced as memory is.",
        ge=1,
        le=100_000_000,
    )
    writes_per_second: int = Field(
        default=500,
        description="How many writes a second the tenant's agents may make together. Kept by the "
        "SDK, not by the store: an agent that goes round the SDK is not slowed.",
        ge=1,
        le=1_000_000,
    )


_DERIVED_IS_NO_LONGER_THAN_CONTENT = Rule(
    cel="!has(self.content) || !has(self.derived) || "
    f"{cel_seconds('self.derived')} <= {cel_seconds('self.content')}",
    message="derived is longer than content: a summary may not outlive what it was made from",
    check=lambda it, _: (
        not {"content", "derived"} <= it.keys() or seconds(it["derived"]) <= seconds(it["content"])
    ),
    field=".derived",
)


class RetentionChoice(Model):
    """How long each class of record is kept. Each choice lies within the policy's bounds."""

    model_config = ConfigDict(json_schema_extra=ruled(_DERIVED_IS_NO_LONGER_THAN_CONTENT))

    content: PeriodField | None = Field(
        default=None,
        description="Messages and shared contexts, as 30d. Left out: the policy's default.",
    )
    derived: PeriodField | None = Field(
        default=None,
        description="Summaries and facts made from content; never longer than content. Left out: "
        "the policy's default.",
    )
    audit: PeriodField | None = Field(
        default=None, description="Audit events, as 7y. Left out: the policy's default."
    )
    evidence: PeriodField | None = Field(
        default=None,
        description="Reports and receipts, as 7y. Left out: the policy's default.",
    )


class Encryption(Model):
    """Whether and under whose root key the tenant's records are encrypted."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                cel="self.mode == 'Enabled' || !has(self.keySecretRef)",
                message="a key without encryption protects nothing: remove keySecretRef, or set "
                "mode: Enabled",
                check=lambda it, _: it["mode"] == "Enabled" or "keySecretRef" not in it,
                field=".keySecretRef",
            )
        )
    )

    mode: EncryptionMode = Field(
        default=EncryptionMode.ENABLED,
        description="Enabled: AES-256-GCM for every record. Disabled: records are authenticated "
        "but readable to whoever reads the store. Enabled cannot be changed back.",
    )
    key_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="The tenant's own root key: a Secret in the tenant's namespace whose key holds "
        "32 bytes, raw, hex or base64. Left out: the operator makes one. A changed Secret rewraps "
        "the keys under the new root; a vanished one is never replaced.",
    )


class Audit(Model):
    """Whether what is done to the tenant's memory leaves events."""

    mode: AuditMode | None = Field(
        default=None,
        description="Enabled: every write leaves an event in a sealed log. Disabled: none does; "
        "refused where the policy or a framework requires the audit. Left out: as the policy says.",
    )


class Agent(Model):
    """One agent of the tenant: it gets a binding Secret <tenant>-<agent> of its own."""

    name: Name = Field(description="Name of the agent: a DNS label of at most 40 characters.")
    access: AgentAccess = Field(
        default=AgentAccess.READ_WRITE,
        description="ReadOnly: reads. ReadWrite: reads and writes. Steward: may also forget and "
        "export.",
    )


class Credentials(Model):
    """How the agents' passwords rotate."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                cel="!has(self.rotateEvery) || "
                f"{cel_seconds('self.rotateEvery')} > {cel_seconds('self.minOverlap')}",
                message="rotateEvery must be longer than minOverlap: an old password is revoked "
                "before the next rotation",
                check=lambda it, _: (
                    "rotateEvery" not in it
                    or seconds(it["rotateEvery"]) > seconds(it["minOverlap"])
                ),
                field=".rotateEvery",
            )
        )
    )

    rotate_every: PeriodField | None = Field(
        default=None,
        description="Rotate the agents' credentials at this interval, as 30d. Left out: only on "
        "request, by the annotation memtenant.dev/rotate.",
    )
    min_overlap: PeriodField = Field(
        default=Period(10, "m"),
        description="How long the credential before stays valid beside the new one, at least "
        "(and never under 3 minutes: a mounted Secret takes that long to change).",
    )


def _placed_store_stays(new: dict[str, dict[str, object]], old: dict[str, object]) -> bool:
    def asked(of: dict[str, object]) -> object:
        spec = of["spec"]
        ref = spec.get("storeRef") if isinstance(spec, dict) else None
        return ref["name"] if ref else None

    status = old.get("status")
    placed = status.get("store") if isinstance(status, dict) else None
    return not placed or asked(dict(new)) in (None, placed, asked(old))


_PLACED_STORE_STAYS = Rule(
    cel="!has(oldSelf.status) || !has(oldSelf.status.store) || oldSelf.status.store == '' || "
    "!has(self.spec.storeRef) || self.spec.storeRef.name == oldSelf.status.store || "
    "(has(oldSelf.spec.storeRef) && oldSelf.spec.storeRef.name == self.spec.storeRef.name)",
    message="the tenant's memory lies in the store that status.store names and is not moved: put "
    "that name back, or make a new tenant on the other store",
    check=_placed_store_stays,
    field=".spec.storeRef",
)

_ISOLATION_STAYS = Rule(
    cel="self.isolation == oldSelf.isolation",
    message="isolation cannot change: data and keys are laid out by it. Put the old value back, "
    "or make a new tenant",
    check=lambda it, old: bool(it["isolation"] == old["isolation"]),
    field=".isolation",
)

_RESIDENCY_STAYS = Rule(
    cel="has(self.residency) == has(oldSelf.residency) && "
    "(!has(self.residency) || self.residency == oldSelf.residency)",
    message="residency cannot be changed, added or removed: the data already lies somewhere. Put "
    "the old value back, or make a new tenant",
    check=lambda it, old: bool(it.get("residency") == old.get("residency")),
    field=".residency",
)

_ENCRYPTION_STAYS = Rule(
    cel="oldSelf.encryption.mode != 'Enabled' || self.encryption.mode == 'Enabled'",
    message="encryption cannot be disabled once it was Enabled: set encryption.mode: Enabled, or "
    "make a new tenant",
    check=lambda it, old: (
        old["encryption"]["mode"] != "Enabled" or it["encryption"]["mode"] == "Enabled"
    ),
    field=".encryption",
)

_MINIMAL_HAS_ONE_ACCESS = Rule(
    cel="self.isolation != 'Minimal' || !has(self.agents) || "
    "self.agents.all(one, one.access == self.agents[0].access)",
    message="under isolation Minimal all agents share one user of the store: give them the same "
    "access, or use isolation Moderate",
    check=lambda it, _: (
        it["isolation"] != "Minimal"
        or len({agent["access"] for agent in it.get("agents", ())}) <= 1
    ),
    field=".agents",
)


class MemoryTenantSpec(Model):
    """What the team asks for, within what the store and the policy allow."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            _ISOLATION_STAYS, _RESIDENCY_STAYS, _ENCRYPTION_STAYS, _MINIMAL_HAS_ONE_ACCESS
        )
    )

    isolation: Isolation = Field(
        default=Isolation.MODERATE,
        description="How far the tenant is kept apart. Strict: an instance of its own (a store "
        "with spec.dedicated), and each agent with conversations and keys of its own beside what "
        "they share in contexts. Moderate: on a shared store, one store user per agent, one key "
        "per person. Minimal: one store user and one key for the whole tenant. Cannot change.",
    )
    retention_policy_ref: NameRef = Field(
        description="The RetentionPolicy that the tenant is under. It must allow the tenant's "
        "namespace."
    )
    store_ref: NameRef | None = Field(
        default=None,
        description="The MemoryStore to use. Left out: one that allows this tenant and its "
        "residency, the default store first. Once placed, a tenant stays (status.store).",
    )
    residency: Residency | None = Field(
        default=None,
        description="Where the data must lie, as eu-west: one of the store's residencies. Left "
        "out: anywhere. Cannot change.",
    )
    quota: Quota = Field(
        default_factory=Quota,
        description="How much the tenant may hold and how fast it may write.",
    )
    retention: RetentionChoice = Field(
        default_factory=RetentionChoice,
        description="How long each class of record is kept, within the policy's bounds.",
    )
    encryption: Encryption = Field(
        default_factory=Encryption,
        description="Whether and under whose root key the tenant's records are encrypted.",
    )
    audit: Audit = Field(
        default_factory=Audit,
        description="Whether what is done to the tenant's memory leaves events in a sealed log.",
    )
    durability: Durability = Field(
        default=Durability.ASYNC,
        description="Async: a write is done when the primary has it. Replicated: when all "
        "replicas have it (slower; survives the loss of the primary).",
    )
    agents: tuple[Agent, ...] = Field(
        default=(),
        description="The tenant's agents; each gets a binding Secret. Empty: one agent named "
        "default with access ReadWrite.",
        **map_list("name", MAX_AGENTS),
    )
    credentials: Credentials = Field(
        default_factory=Credentials, description="How the agents' passwords rotate."
    )
    deletion_policy: DeletionPolicy = Field(
        default=DeletionPolicy.RETAIN,
        description="What becomes of the data when this object is deleted. Retain: access ends, "
        "data and keys stay for a tenant of the same name in the same namespace. Delete: the data "
        "goes. Shred: data and keys go, so a backup of the store alone can no longer be read.",
    )

    def agents_or_default(self) -> tuple[Agent, ...]:
        """The declared agents, or the one that a tenant without any has."""
        return self.agents or (Agent(name=DEFAULT_AGENT, access=AgentAccess.READ_WRITE),)


class MemoryTenant(Resource):
    """A team's memory: a Redis namespace that only its agents can touch.

    With quotas, key material, retention under a policy, and a binding Secret for each agent.
    """

    model_config = ConfigDict(json_schema_extra=ruled(NAMED_AS_A_LABEL, _PLACED_STORE_STAYS))

    NAMES: ClassVar[Names] = Names(
        plural="memorytenants",
        singular="memorytenant",
        short=("mtenant", "mtenants"),
        namespaced=True,
    )
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(name="Store", path=".status.store", description="Where the memory lies"),
        Column(
            name="Isolation",
            path=".spec.isolation",
            description="How far the tenant is kept apart",
        ),
        Column(
            name="Access", path=".status.access.mode", description="What agents may do right now"
        ),
        Column(
            name="Memory%",
            path=".status.usage.memoryPercent",
            type="integer",
            description="Memory used, as a percentage of its quota",
        ),
        Column(
            name="Ready",
            path='.status.conditions[?(@.type=="Ready")].status',
            description="Whether agents can work",
        ),
        Column(
            name="Reason",
            path='.status.conditions[?(@.type=="Ready")].reason',
            description="Why Ready is what it is",
        ),
        Column(
            name="Policy",
            path=".spec.retentionPolicyRef.name",
            description="The RetentionPolicy in force",
            wide=True,
        ),
        Column(
            name="Memory",
            path=".status.usage.memory",
            description="Memory used",
            wide=True,
        ),
        Column(
            name="Conversations",
            path=".status.usage.conversations",
            type="integer",
            description="Conversations held",
            wide=True,
        ),
        Column(
            name="Audit",
            path=".status.audit.mode",
            description="Whether what is done leaves events",
            wide=True,
        ),
        Column(
            name="Binding",
            path=".status.binding.name",
            description="The first agent's binding Secret",
            wide=True,
        ),
        Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Age"),
    )

    kind: Literal["MemoryTenant"] = "MemoryTenant"
    spec: MemoryTenantSpec = Field(
        description="What the team asks for, within what the store and the policy allow."
    )
    status: MemoryTenantStatus = Field(
        default_factory=MemoryTenantStatus, description="What the operator made and found."
    )

    @property
    def tenant_id(self) -> TenantId:
        """Who the tenant is. Raises `InvalidResource` where a name is not a DNS label."""
        return TenantId(self.metadata.namespace, self.metadata.name)
