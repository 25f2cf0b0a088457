"""A tenant's keyring as it is stored: the operator's full record of its keys.

It is in the home namespace. A root key (the user's Secret, or one that the operator made) wraps
random versions of the tenant's key-encryption key (KEK), its name key and its token key.

Each wrapping key is derived from the root with the tenant and the role, and the whole document is
under a MAC of the root: a wrapped key cannot be moved to another tenant, role or version, and
neither a version's state nor its key id can be edited by someone who lacks the root.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from memtenant.clock import rfc3339
from memtenant.crypto.agent_keyring import MAX_KEKS, MAX_KEYRING_BYTES
from memtenant.crypto.primitives import (
    COMMITMENT_BYTES,
    WRAPPED_BYTES,
    SecretKey,
    commitment,
    derive,
    equal,
    mac,
)
from memtenant.errors import KeyInvalid
from memtenant.tenancy.document import (
    DocumentInvalid,
    Fields,
    canonical_json,
    read_json,
    to_base64,
)
from memtenant.tenancy.identity import TenantId

__all__ = ["KekState", "KekVersion", "Keyring", "WrappedKey"]

_FORMAT = 1
_MAC_BYTES = 32
_MAX_VERSION = 2**32 - 1


class KekState(StrEnum):
    """Whether a version wraps data keys, or only unwraps them.

    An older version retires: it unwraps until nothing is left under it. One that is newer than the
    active has its turn to come (`Keyring.pending`). Both are stored as Retiring, so that an
    operator of before a rotation in two steps reads the keyring too, and does not wrap with it.
    """

    ACTIVE = "Active"
    RETIRING = "Retiring"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key under the root: ``key_id`` is its commitment, ``wrapped`` 40 bytes of AES-KW."""

    key_id: bytes
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KekVersion:
    """One version of the KEK, wrapped."""

    version: int
    state: KekState
    created: datetime
    key: WrappedKey


@dataclass(frozen=True, slots=True)
class Keyring:
    """The record as it is stored: no key in it can be read without the root.

    ``root_id`` is the commitment to the root; ``minted`` the highest version that ever was, so
    that the number of a destroyed version is not used again; ``keks`` ascend by version. With
    ``per_agent`` (Strict isolation) no version is used itself: each agent has one derived of it,
    and what all agents share has another.
    """

    tenant: TenantId
    root_id: bytes
    minted: int
    keks: tuple[KekVersion, ...]
    name_key: WrappedKey
    token_key: WrappedKey
    per_agent: bool = False
    seal: bytes = field(default=b"", repr=False)

    @property
    def active(self) -> KekVersion:
        """The version that wraps new data keys."""
        return next(kek for kek in self.keks if kek.state is KekState.ACTIVE)

    @property
    def pending(self) -> tuple[KekVersion, ...]:
        """The versions that no agent wraps with yet: every binding has to have them first."""
        return tuple(kek for kek in self.keks if kek.version > self.active.version)

    @property
    def retiring(self) -> tuple[KekVersion, ...]:
        """The versions before the active one, which go when nothing is left under them."""
        return tuple(kek for kek in self.keks if kek.version < self.active.version)

    def opens_with(self, root: SecretKey) -> bool:
        """Whether this root wrapped the keyring; no means that the user's Secret has changed."""
        return equal(self.root_id, commitment(root))

    def to_json(self) -> bytes:
        """Canonical bytes for the tenant's record; at most 64 KiB."""
        return canonical_json(self._body() | {"seal": to_base64(self.seal)})

    def sealed(self, root: SecretKey) -> Keyring:
        """This keyring under the root's MAC."""
        return replace(self, seal=self._mac(root))

    def is_sealed_by(self, root: SecretKey) -> bool:
        """Whether the MAC is the root's over exactly this keyring."""
        return equal(self.seal, self._mac(root))

    @classmethod
    def from_json(cls, data: bytes, tenant: TenantId) -> Keyring:
        """Read what `to_json` wrote for this tenant; `KeyInvalid` names what is wrong.

        Strict about unknown fields: an operator that dropped a newer one's would lose keys.
        """
        try:
            return _keyring(read_json(data, limit=MAX_KEYRING_BYTES), tenant)
        except DocumentInvalid as error:
            raise KeyInvalid(
                f"The keyring of tenant {tenant} cannot be read: {error}. Restore its Secret in "
                "the home namespace from a backup; where a newer memtenant wrote it, update this "
                "one",
                reason="KeyringDamaged",
            ) from None

    def _mac(self, root: SecretKey) -> bytes:
        key = derive(root, "memtenant/1/keyring-seal", str(self.tenant).encode())
        return mac(key, canonical_json(self._body()))

    def _body(self) -> dict[str, object]:
        document: dict[str, object] = {
            "format": _FORMAT,
            "tenantId": str(self.tenant),
            "rootId": to_base64(self.root_id),
            "minted": self.minted,
            "keks": [
                {
                    "version": kek.version,
                    "state": kek.state.value,
                    "created": rfc3339(kek.created),
                    **_body_of(kek.key),
                }
                for kek in self.keks
            ],
            "nameKey": _body_of(self.name_key),
            "tokenKey": _body_of(self.token_key),
        }
        if self.per_agent:
            document["perAgent"] = True
        return document


def _body_of(key: WrappedKey) -> dict[str, object]:
    return {"keyId": to_base64(key.key_id), "wrapped": to_base64(key.wrapped)}


def _keyring(fields: Fields, tenant: TenantId) -> Keyring:
    fields.integer("format", _FORMAT, _FORMAT)
    if fields.text("tenantId") != str(tenant):
        raise fields.wrong("tenantId", str(tenant))
    keyring = Keyring(
        tenant=tenant,
        root_id=fields.octets("rootId", COMMITMENT_BYTES),
        minted=fields.integer("minted", 1, _MAX_VERSION),
        keks=tuple(_kek_version(kek) for kek in fields.each("keks", MAX_KEKS)),
        name_key=_wrapped_key(fields.inner("nameKey")),
        token_key=_wrapped_key(fields.inner("tokenKey")),
        per_agent="perAgent" in fields and fields.flag("perAgent"),
        seal=fields.octets("seal", _MAC_BYTES),
    )
    fields.no_more()
    versions = [kek.version for kek in keyring.keks]
    if versions != sorted(set(versions)) or keyring.minted < max(versions, default=0):
        raise fields.wrong("keks", "in ascending order of version, none above minted")
    if [kek.state for kek in keyring.keks].count(KekState.ACTIVE) != 1:
        raise fields.wrong("keks", "a list with one active version")
    return keyring


def _kek_version(fields: Fields) -> KekVersion:
    return KekVersion(
        version=fields.integer("version", 1, _MAX_VERSION),
        state=fields.choice("state", KekState),
        created=fields.moment("created"),
        key=_wrapped_key(fields),
    )


def _wrapped_key(fields: Fields) -> WrappedKey:
    key = WrappedKey(
        key_id=fields.octets("keyId", COMMITMENT_BYTES),
        wrapped=fields.octets("wrapped", WRAPPED_BYTES),
    )
    fields.no_more()
    return key
