"""``policy.json``: what an agent must know of its tenant's declaration, in its binding.

Format 1 only grows: a reader ignores fields that it does not know, because a field that an older
SDK could not ignore comes with format 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from memtenant.errors import BindingInvalid
from memtenant.tenancy.document import DocumentInvalid, Fields, canonical_json, read_json
from memtenant.tenancy.identity import MAX_NAME, AgentName

__all__ = ["Durability", "EncryptionMode", "Isolation", "Quota", "TenantPolicy"]

MAX_POLICY_BYTES = 16 * 1024
_FORMAT = 1
_MOST_AGENTS = 256


class Isolation(StrEnum):
    """How far a tenant is kept apart (DESIGN, Isolation)."""

    STRICT = "Strict"
    MODERATE = "Moderate"
    MINIMAL = "Minimal"


class EncryptionMode(StrEnum):
    """Whether records are encrypted, or plaintext under a keyed MAC."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Durability(StrEnum):
    """Whether a write is done when the primary has it, or when every replica has it."""

    ASYNC = "Async"
    REPLICATED = "Replicated"


@dataclass(frozen=True, slots=True)
class Quota:
    """What the tenant may use; None is no limit. ``memory`` is in bytes."""

    memory: int | None = None
    conversations: int | None = None
    writes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What the SDK obeys, and what the server makes it obey where it would not.

    ``agents`` are all that the tenant lists; None where the operator that wrote it was too old to
    tell.
    """

    isolation: Isolation = Isolation.MODERATE
    encryption: EncryptionMode = EncryptionMode.ENABLED
    durability: Durability = Durability.ASYNC
    quota: Quota = field(default_factory=Quota)
    agents: tuple[AgentName, ...] | None = None

    def to_json(self) -> bytes:
        """Canonical: the same policy is the same bytes, so that an unchanged binding stays."""
        quota = {
            "memory": self.quota.memory,
            "conversations": self.quota.conversations,
            "writesPerSecond": self.quota.writes_per_second,
        }
        known = {} if self.agents is None else {"agents": sorted(self.agents)}
        return canonical_json(
            {
                "format": _FORMAT,
                "isolation": self.isolation.value,
                "encryption": self.encryption.value,
                "durability": self.durability.value,
                "quota": {name: limit for name, limit in quota.items() if limit is not None},
                **known,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> TenantPolicy:
        """Read what `to_json` wrote; `BindingInvalid` names the field that cannot be used."""
        try:
            return _policy(read_json(data, limit=MAX_POLICY_BYTES))
        except DocumentInvalid as error:
            raise BindingInvalid(
                f"policy.json of the binding cannot be read: {error}. Mount the Secret that the "
                "operator wrote, unchanged; where its format is newer, update memtenant"
            ) from None


def _policy(fields: Fields) -> TenantPolicy:
    fields.integer("format", _FORMAT, _FORMAT)
    quota = fields.inner("quota")
    return TenantPolicy(
        isolation=fields.choice("isolation", Isolation),
        encryption=fields.choice("encryption", EncryptionMode),
        durability=fields.choice("durability", Durability),
        quota=Quota(
            memory=quota.optional_integer("memory"),
            conversations=quota.optional_integer("conversations"),
            writes_per_second=quota.optional_integer("writesPerSecond"),
        ),
        agents=fields.texts("agents", _MOST_AGENTS, MAX_NAME) if "agents" in fields else None,
    )
