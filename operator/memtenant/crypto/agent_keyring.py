"""``keyring.json`` of a binding: the keys that one agent works with, in plaintext.

Format 1 only grows: a reader ignores fields that it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.crypto.primitives import KEY_BYTES, SecretKey
from memtenant.errors import InvalidResource, KeyInvalid, KeyUnavailable
from memtenant.tenancy.document import (
    DocumentInvalid,
    Fields,
    canonical_json,
    read_json,
    to_base64,
)
from memtenant.tenancy.identity import AgentName, TenantId, agent_name

__all__ = ["MAX_KEKS", "MAX_KEYRING_BYTES", "AgentKeyring", "Kek"]

MAX_KEKS = 64
"""Most live versions of a tenant's KEK: more than two months of daily shred epochs."""

MAX_KEYRING_BYTES = 64 * 1024
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kek:
    """One version of a tenant's key-encryption key; it wraps the subjects' data keys."""

    version: int
    key: SecretKey


@dataclass(frozen=True, slots=True)
class AgentKeyring:
    """What an agent may open its tenant's memory with.

    ``active`` is the version that wraps new data keys; the others only unwrap. ``name_key`` makes
    the aliases in Redis keys, ``token_key`` masking tokens, ``audit_key`` authenticates this
    agent's audit events.
    """

    tenant: TenantId
    agent: AgentName
    active: int
    keks: tuple[Kek, ...]
    name_key: SecretKey
    token_key: SecretKey
    audit_key: SecretKey

    def kek(self, version: int) -> SecretKey:
        """The KEK of a version; `KeyUnavailable` where this binding does not have it."""
        for kek in self.keks:
            if kek.version == version:
                return kek.key
        raise KeyUnavailable(
            f"The binding of agent {self.agent} of tenant {self.tenant} has no version {version} "
            "of the tenant's key: read the binding again. If the version is older than all in it, "
            "it was destroyed, and what it protected is erased"
        )

    @property
    def active_kek(self) -> Kek:
        """The version that wraps new data keys."""
        return Kek(self.active, self.kek(self.active))

    def to_json(self) -> bytes:
        """Canonical: the same keys are the same bytes. Plaintext keys: for a Secret only."""
        return canonical_json(
            {
                "format": _FORMAT,
                "tenantId": str(self.tenant),
                "agent": self.agent,
                "active": self.active,
                "keks": [
                    {"version": kek.version, "key": to_base64(kek.key.secret)} for kek in self.keks
                ],
                "nameKey": to_base64(self.name_key.secret),
                "tokenKey": to_base64(self.token_key.secret),
                "auditKey": to_base64(self.audit_key.secret),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> AgentKeyring:
        """Read what `to_json` wrote; `KeyInvalid` names the field, never shows a byte of it."""
        try:
            return _agent_keyring(read_json(data, limit=MAX_KEYRING_BYTES))
        except DocumentInvalid as error:
            raise KeyInvalid(
                f"keyring.json of the binding cannot be read: {error}. Mount the Secret that the "
                "operator wrote, unchanged; where its format is newer, update memtenant"
            ) from None


def _agent_keyring(fields: Fields) -> AgentKeyring:
    fields.integer("format", _FORMAT, _FORMAT)
    try:
        tenant = TenantId.parse(fields.text("tenantId"))
        agent = agent_name(fields.text("agent"))
    except InvalidResource as error:
        name = "agent" if error.field == "agent" else "tenantId"
        raise fields.wrong(name, "the name of one") from None
    keyring = AgentKeyring(
        tenant=tenant,
        agent=agent,
        active=fields.integer("active", 1, 2**32 - 1),
        keks=tuple(
            Kek(kek.integer("version", 1, 2**32 - 1), SecretKey(kek.octets("key", KEY_BYTES)))
            for kek in fields.each("keks", MAX_KEKS)
        ),
        name_key=SecretKey(fields.octets("nameKey", KEY_BYTES)),
        token_key=SecretKey(fields.octets("tokenKey", KEY_BYTES)),
        audit_key=SecretKey(fields.octets("auditKey", KEY_BYTES)),
    )
    versions = [kek.version for kek in keyring.keks]
    if versions != sorted(set(versions)):
        raise fields.wrong("keks", "in ascending order of version")
    if keyring.active not in versions:
        raise fields.wrong("active", "a version in keks")
    return keyring
