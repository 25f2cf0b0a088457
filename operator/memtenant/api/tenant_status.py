"""The status of a MemoryTenant: what the operator made and found."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from memtenant.api.fields import (
    AuditFailure,
    MeasuredBytes,
    Model,
    PeriodField,
    Timestamp,
    map_list,
    set_list,
)
from memtenant.api.reporting import LastReport
from memtenant.api.resource import Status

__all__ = [
    "MAX_AGENTS",
    "AccessMode",
    "AccessStatus",
    "AuditInForce",
    "AuditMode",
    "BindingRef",
    "BindingStatus",
    "KeysStatus",
    "MemoryTenantStatus",
    "RetentionInForce",
    "RetentionStatus",
    "Usage",
]

MAX_AGENTS = 64
"""The most agents that a tenant may list, and so the most bindings that a status shows."""


class AccessMode(StrEnum):
    """What the store lets the tenant's agents do at this moment."""

    READ_WRITE = "ReadWrite"
    OVER_QUOTA = "OverQuota"
    HELD = "Held"
    HELD_OVER_QUOTA = "HeldOverQuota"
    OFF = "Off"


class AccessStatus(Model):
    """What the store lets the tenant's agents do at this moment."""

    mode: AccessMode = Field(
        description="ReadWrite; OverQuota: reads and deletions only; Held: reads and additions "
        "only (legal hold or minimum retention); HeldOverQuota: reads only; Off: nothing."
    )
    since: Timestamp = Field(description="When this mode began.")


class RetentionInForce(Model):
    """How long one class of record is kept, and what says so."""

    period: PeriodField = Field(description="How long, as 30d.")
    clause: str = Field(
        description="What set the period: the tenant's choice, the policy's default, or the "
        "clause of a framework.",
        max_length=2048,
    )
    floor: PeriodField | None = Field(
        default=None, description="The longest minimum that applies. Left out: none."
    )
    floor_clause: str = Field(default="", description="What set the floor.", max_length=2048)
    ceiling: PeriodField | None = Field(
        default=None, description="The shortest maximum that applies. Left out: none."
    )
    ceiling_clause: str = Field(default="", description="What set the ceiling.", max_length=2048)


class RetentionStatus(Model):
    """The retention in force, per class of record."""

    content: RetentionInForce | None = Field(
        default=None, description="Messages and shared contexts."
    )
    derived: RetentionInForce | None = Field(
        default=None, description="Summaries and facts made from content."
    )
    audit: RetentionInForce | None = Field(default=None, description="Audit events.")
    evidence: RetentionInForce | None = Field(default=None, description="Reports and receipts.")


class Usage(Model):
    """What the tenant used when it was last measured; live figures are metrics."""

    memory: MeasuredBytes = Field(description="Bytes that the tenant's keys take in the store.")
    memory_limit: MeasuredBytes = Field(description="The quota that memory is measured against.")
    memory_percent: int = Field(description="memory as a percentage of its limit.", ge=0)
    conversations: int = Field(description="Conversations that the tenant holds.", ge=0)
    conversations_limit: int = Field(
        description="The quota that conversations are measured against.", ge=0
    )
    conversations_percent: int = Field(
        description="conversations as a percentage of their limit.", ge=0
    )
    since: Timestamp = Field(
        description="When this was measured. Written again on a change of state or of 5 points."
    )


class BindingRef(Model):
    """The binding Secret of the first agent, where the Service Binding specification looks."""

    name: str = Field(description="Name of the Secret in the tenant's namespace.", max_length=253)


class BindingStatus(Model):
    """One agent's binding Secret and the credential in it."""

    agent: str = Field(description="Name of the agent.", max_length=63)
    name: str = Field(description="Name of the Secret in the tenant's namespace.", max_length=253)
    username: str = Field(description="The store user in the binding.", max_length=253)
    version: int = Field(description="Counts the rotations; part of the Secret.", ge=0)
    rotated_at: Timestamp = Field(description="When this credential was made.")


class KeysStatus(Model):
    """The tenant's key while it turns to a new version."""

    active: int = Field(description="The version that wraps data keys.", ge=1)
    pending: tuple[int, ...] = Field(
        default=(),
        description="Newer versions, which become active when every agent has had time to read "
        "its binding.",
        **set_list(64),
    )
    retiring: tuple[int, ...] = Field(
        default=(),
        description="Earlier versions, which are destroyed when nothing is left under them.",
        **set_list(64),
    )
    data_keys: int | None = Field(
        default=None, description="Data keys that the last pass over the store saw.", ge=0
    )
    remaining: int | None = Field(
        default=None, description="How many of them are not under the active version yet.", ge=0
    )
    unreadable: int | None = Field(
        default=None, description="How many of these open with no version.", ge=1
    )
    since: Timestamp = Field(description="When the version after the oldest one was made.")


class AuditMode(StrEnum):
    """Whether what is done to a tenant's memory leaves events."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class AuditInForce(Model):
    """Whether and how the tenant is audited."""

    mode: AuditMode = Field(description="Whether writes leave events.")
    reads: AuditMode = Field(description="Whether reads leave events too.")
    on_failure: AuditFailure = Field(
        description="What becomes of an agent's call while nobody drains the queue."
    )
    clause: str = Field(default="", description="What asks for the audit.", max_length=2048)


class MemoryTenantStatus(Status):
    """What the operator made and found."""

    tenant_id: str = Field(
        default="",
        description="<namespace>.<name>: the tenant's name in the store and in metrics.",
        max_length=104,
    )
    store: str = Field(
        default="", description="The MemoryStore that holds the tenant's memory.", max_length=40
    )
    key_version: int | None = Field(
        default=None,
        description="The version of the tenant's key encryption key that wraps data keys.",
        ge=0,
    )
    key_made_at: Timestamp | None = Field(
        default=None, description="When that version was made: a report tells the key's age by it."
    )
    keys: KeysStatus | None = Field(
        default=None, description="The key while it turns to a new version; else left out."
    )
    access: AccessStatus | None = Field(
        default=None, description="What the store lets the tenant's agents do at this moment."
    )
    retention: RetentionStatus | None = Field(
        default=None, description="The retention in force, per class of record."
    )
    audit: AuditInForce | None = Field(
        default=None, description="Whether and how the tenant is audited."
    )
    usage: Usage | None = Field(
        default=None, description="What the tenant used when it was last measured."
    )
    binding: BindingRef | None = Field(
        default=None,
        description="The first agent's binding Secret (Service Binding specification).",
    )
    bindings: tuple[BindingStatus, ...] = Field(
        default=(),
        description="Every agent's binding Secret.",
        **map_list("agent", MAX_AGENTS),
    )
    last_report: LastReport | None = Field(
        default=None, description="The newest report about the tenants under the same policy."
    )
