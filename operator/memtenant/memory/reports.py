"""What a tenant, its agents and a binding are told as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from memtenant.errors import MessageTooLarge, UsageError
from memtenant.functions.replies import TenantUsage
from memtenant.memory.drafts import moment
from memtenant.memory.source import BindingSource
from memtenant.tenancy.masking import MaskingPolicy
from memtenant.tenancy.policy import (
    AgentAccess,
    Durability,
    EncryptionMode,
    Isolation,
    Quota,
    SubjectRights,
)

__all__ = [
    "AgentState",
    "AgentStatus",
    "Info",
    "Usage",
    "agent_statuses",
    "checked_description",
    "info_of",
    "usage_of",
]

ACTIVE_FOR_MS: Final = 5 * 60 * 1000
MAX_DESCRIPTION: Final = 1000


class AgentState(StrEnum):
    """ACTIVE: wrote in the last 5 minutes. UNKNOWN: never wrote."""

    ACTIVE = "Active"
    IDLE = "Idle"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What an agent did; ``writes`` counts messages and changes. ``summary`` is what it says of
    itself (`Tenant.describe`), empty for nothing."""

    agent: str
    state: AgentState
    writes: int
    last_update: datetime | None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """The tenant's counters. Shares are of the quota, from 0.0; None without a limit.
    ``active_conversations`` is None where it was not asked for."""

    bytes: int
    conversations: int
    messages: int
    last_activity: datetime | None
    quota: Quota
    memory_share: float | None
    conversations_share: float | None
    held: bool
    active_conversations: int | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """What the binding says. ``access`` is the agent's, None where an older operator did not tell;
    ``rights`` is what a Steward may do at a user's request. ``never_updates`` is why its mount will
    not follow a rotation; empty where it will."""

    tenant: str
    agent: str
    isolation: Isolation
    encryption: EncryptionMode
    durability: Durability
    quota: Quota
    masking: MaskingPolicy
    binding_version: int
    binding_folder: Path
    never_updates: str
    access: AgentAccess | None
    rights: SubjectRights


def agent_statuses(
    usage: TenantUsage, agents: Sequence[str] | None, told: Mapping[str, object]
) -> list[AgentStatus]:
    """Of the agents named, else of all that ever wrote; ``told`` is what they say of themselves."""
    found = []
    for name in sorted(usage.agents) if agents is None else agents:
        one, summary = usage.agents.get(name), told.get(name, "")
        text = summary if isinstance(summary, str) else ""
        if one is None or not one.last_update:
            found.append(AgentStatus(name, AgentState.UNKNOWN, 0, None, text))
            continue
        active = usage.time - one.last_update <= ACTIVE_FOR_MS
        state = AgentState.ACTIVE if active else AgentState.IDLE
        found.append(AgentStatus(name, state, one.writes, moment(one.last_update), text))
    return found


def checked_description(text: str) -> str:
    """The text, if an agent may say so much. Raises `MessageTooLarge` or `UsageError`."""
    if not isinstance(text, str):
        raise UsageError("An agent describes itself by a text; an empty one takes it away")
    if len(text) > MAX_DESCRIPTION:
        raise MessageTooLarge(
            f"A description of {len(text)} characters is more than the {MAX_DESCRIPTION} that an "
            "agent may have: say in short what it is at",
            size=len(text),
            allowed=MAX_DESCRIPTION,
        )
    return text


def usage_of(usage: TenantUsage, active: int | None = None) -> Usage:
    """The counters beside the limits."""
    last = max((one.last_update for one in usage.agents.values()), default=0)
    return Usage(
        bytes=usage.bytes,
        conversations=usage.conversations,
        messages=usage.messages,
        last_activity=moment(last) if last else None,
        quota=Quota(usage.memory_limit, usage.conversations_limit, usage.writes_per_second),
        memory_share=_share(usage.bytes, usage.memory_limit),
        conversations_share=_share(usage.conversations, usage.conversations_limit),
        held=usage.held,
        active_conversations=active,
    )


def info_of(source: BindingSource) -> Info:
    """What the binding says now."""
    binding = source.current(look=True).binding
    return Info(
        tenant=str(binding.tenant),
        agent=binding.agent,
        isolation=binding.policy.isolation,
        encryption=binding.policy.encryption,
        durability=binding.policy.durability,
        quota=binding.policy.quota,
        masking=binding.policy.masking,
        binding_version=binding.version,
        binding_folder=source.folder,
        never_updates=source.frozen,
        access=binding.policy.access,
        rights=binding.policy.rights,
    )


def _share(used: int, limit: int | None) -> float | None:
    if limit is None:
        return None
    return used / limit if limit else 1.0
