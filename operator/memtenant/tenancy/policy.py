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
from memtenant.tenancy.masking import Detector, MaskingAction, MaskingPolicy

__all__ = [
    "AgentAccess",
    "Durability",
    "EncryptionMode",
    "Isolation",
    "Quota",
    "SubjectRights",
    "TenantPolicy",
]

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


class _Enforcement(StrEnum):
    REQUIRED = "Required"
    OPTIONAL = "Optional"


class Durability(StrEnum):
    """Whether a write is done when the primary has it, or when every replica has it."""

    ASYNC = "Async"
    REPLICATED = "Replicated"


class AgentAccess(StrEnum):
    """What an agent may do with the tenant's memory."""

    READ_ONLY = "ReadOnly"
    READ_WRITE = "ReadWrite"
    STEWARD = "Steward"


@dataclass(frozen=True, slots=True)
class Quota:
    """What the tenant may use; None is no limit. ``memory`` is in bytes."""

    memory: int | None = None
    conversations: int | None = None
    writes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class SubjectRights:
    """What may be done at a person's request: whether they may be forgotten, and only with a
    reference to their consent or request; whether what is kept of them may be exported."""

    erasure: bool = False
    consent_required: bool = False
    portability: bool = False


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What the SDK obeys, and what the server makes it obey where it would not.

    ``agents`` are all that the tenant lists; None where the operator that wrote it was too old to
    tell.
    ``access`` is the agent's own; None where the operator that wrote the binding did not say.
    """

    isolation: Isolation = Isolation.MODERATE
    encryption: EncryptionMode = EncryptionMode.ENABLED
    durability: Durability = Durability.ASYNC
    quota: Quota = field(default_factory=Quota)
    agents: tuple[AgentName, ...] | None = None
    access: AgentAccess | None = None
    rights: SubjectRights = field(default_factory=SubjectRights)
    masking: MaskingPolicy = field(default_factory=MaskingPolicy)

    def to_json(self) -> bytes:
        """Canonical: the same policy is the same bytes, so that an unchanged binding stays."""
        quota = {
            "memory": self.quota.memory,
            "conversations": self.quota.conversations,
            "writesPerSecond": self.quota.writes_per_second,
        }
        document: dict[str, object] = {
            "format": _FORMAT,
            "isolation": self.isolation.value,
            "encryption": self.encryption.value,
            "durability": self.durability.value,
            "quota": {name: limit for name, limit in quota.items() if limit is not None},
            "subjects": {
                "erasure": self.rights.erasure,
                "consentRequired": self.rights.consent_required,
                "portability": self.rights.portability,
            },
        }
        if self.agents is not None:
            document["agents"] = sorted(self.agents)
        if self.access is not None:
            document["access"] = self.access.value
        if self.masking != MaskingPolicy():
            document["masking"] = _masking_document(self.masking)
        return canonical_json(document)

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
        access=fields.choice("access", AgentAccess) if "access" in fields else None,
        rights=_rights(fields.inner("subjects")) if "subjects" in fields else SubjectRights(),
        masking=_masking(fields.inner("masking")) if "masking" in fields else MaskingPolicy(),
    )


def _rights(fields: Fields) -> SubjectRights:
    return SubjectRights(
        erasure=fields.flag("erasure"),
        consent_required=fields.flag("consentRequired"),
        portability=fields.flag("portability"),
    )


def _masking_document(masking: MaskingPolicy) -> dict[str, object]:
    """All detectors are left out, so that an agent that knows more of them uses them all."""
    document: dict[str, object] = {
        "mode": _enforcement(masking.required),
        "action": masking.action.value,
        "tools": _enforcement(masking.tools),
        "refused": [one.value for one in masking.refused],
    }
    if masking.detectors != tuple(Detector):
        document["detectors"] = [one.value for one in masking.detectors]
    return document


def _enforcement(required: bool) -> str:
    return (_Enforcement.REQUIRED if required else _Enforcement.OPTIONAL).value


def _masking(fields: Fields) -> MaskingPolicy:
    """A detector that this version does not know is an error: it could not do what is asked."""
    detectors = fields.choices("detectors", Detector) if "detectors" in fields else tuple(Detector)
    return MaskingPolicy(
        required=fields.choice("mode", _Enforcement) is _Enforcement.REQUIRED,
        action=fields.choice("action", MaskingAction),
        detectors=detectors,
        tools=fields.choice("tools", _Enforcement) is _Enforcement.REQUIRED,
        refused=fields.choices("refused", Detector),
    )
