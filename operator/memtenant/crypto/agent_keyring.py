"""``keyring.json`` of a binding: the keys that one agent works with, in plaintext.

Format 1 only grows: a reader ignores fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from memtenant.crypto.primitives import KEY_BYTES, WRAPPED_BYTES, SecretKey, derive
from memtenant.errors import InvalidResource, KeyInvalid, KeyUnavailable
from memtenant.tenancy.document import (
    DocumentInvalid,
    Fields,
    canonical_json,
    read_json,
    to_base64,
)
from memtenant.tenancy.identity import AgentName, TenantId, agent_name
from memtenant.tenancy.keys import owner_of

__all__ = [
    "MAX_KEKS",
    "MAX_KEYRING_BYTES",
    "AgentKeyring",
    "Kek",
    "WrappedParent",
    "owners_kek",
]

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
class WrappedParent:
    """The KEK that an agent's was derived from, wrapped for the operator alone: where the root of
    the tenant's keyring is taken away, the keys can still be taken over from the bindings."""

    version: int
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AgentKeyring:
    """What an agent may open its tenant's memory with.

    ``active`` is the version that wraps new data keys; the others only unwrap. ``name_key`` makes
    the aliases in Redis keys, ``token_key`` masking tokens, ``audit_key`` authenticates this
    agent's audit events. Under Strict isolation ``keks`` are this agent's own, ``shared`` those of
    what all agents share, and ``parents`` what both were derived from; else these two are empty.
    """

    tenant: TenantId
    agent: AgentName
    active: int
    keks: tuple[Kek, ...]
    name_key: SecretKey
    token_key: SecretKey
    audit_key: SecretKey
    shared: tuple[Kek, ...] = ()
    parents: tuple[WrappedParent, ...] = ()

    def kek(self, version: int, alias: str = "") -> SecretKey:
        """The KEK of a version, for the data key with this alias; `KeyUnavailable` where this
        binding does not have it."""
        for kek in self._keks_of(alias):
            if kek.version == version:
                return kek.key
        raise KeyUnavailable(
            f"The binding of agent {self.agent} of tenant {self.tenant} has no version {version} "
            "of the tenant's key: read the binding again. If the version is older than all in it, "
            "it was destroyed, and what it protected is erased"
        )

    def active_kek(self, alias: str = "") -> Kek:
        """The version that wraps a new data key with this alias."""
        return Kek(self.active, self.kek(self.active, alias))

    def _keks_of(self, alias: str) -> tuple[Kek, ...]:
        return self.shared if self.shared and alias and not owner_of(alias) else self.keks

    def to_json(self) -> bytes:
        """Canonical: the same keys are the same bytes. Plaintext keys: for a Secret only."""
        document: dict[str, object] = {
            "format": _FORMAT,
            "tenantId": str(self.tenant),
            "agent": self.agent,
            "active": self.active,
            "keks": _documents(self.keks),
            "nameKey": to_base64(self.name_key.secret),
            "tokenKey": to_base64(self.token_key.secret),
            "auditKey": to_base64(self.audit_key.secret),
        }
        if self.shared:
            document["shared"] = _documents(self.shared)
        if self.parents:
            document["parents"] = [
                {"version": one.version, "wrapped": to_base64(one.wrapped)} for one in self.parents
            ]
        return canonical_json(document)

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
        keks=_keks(fields, "keks"),
        shared=_keks(fields, "shared") if "shared" in fields else (),
        parents=_parents(fields) if "parents" in fields else (),
        name_key=SecretKey(fields.octets("nameKey", KEY_BYTES)),
        token_key=SecretKey(fields.octets("tokenKey", KEY_BYTES)),
        audit_key=SecretKey(fields.octets("auditKey", KEY_BYTES)),
    )
    versions = [kek.version for kek in keyring.keks]
    if versions != sorted(set(versions)):
        raise fields.wrong("keks", "in ascending order of version")
    if keyring.active not in versions:
        raise fields.wrong("active", "a version in keks")
    if keyring.shared and [kek.version for kek in keyring.shared] != versions:
        raise fields.wrong("shared", "the versions in keks")
    return keyring


def _documents(keks: Iterable[Kek]) -> list[dict[str, object]]:
    return [{"version": kek.version, "key": to_base64(kek.key.secret)} for kek in keks]


def _keks(fields: Fields, name: str) -> tuple[Kek, ...]:
    return tuple(
        Kek(kek.integer("version", 1, 2**32 - 1), SecretKey(kek.octets("key", KEY_BYTES)))
        for kek in fields.each(name, MAX_KEKS)
    )


def _parents(fields: Fields) -> tuple[WrappedParent, ...]:
    return tuple(
        WrappedParent(
            parent.integer("version", 1, 2**32 - 1), parent.octets("wrapped", WRAPPED_BYTES)
        )
        for parent in fields.each("parents", MAX_KEKS)
    )


def owners_kek(parent: Kek, tenant: TenantId, owner: AgentName) -> Kek:
    """An agent's own version of the KEK under Strict isolation, or, without an owner, the one of
    what all agents share. Derived one way: an agent learns neither the parent nor another's."""
    derived = derive(parent.key, "memtenant/1/agent-kek", str(tenant).encode(), owner.encode())
    return Kek(parent.version, derived)
