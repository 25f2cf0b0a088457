"""What asks for the erasure of a person, and what marks a person as erased: bytes under a MAC.

Agents may append to the queue of requests and set a mark where there is none, true or not. So both
are authenticated under the Steward's own audit key, and the operator, which alone deletes a data
key, honours nothing else. docs/record-format.md has the bytes.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Final

from memtenant.crypto.names import ALIAS_CHARACTERS
from memtenant.crypto.primitives import Random, SecretKey, derive, equal, length_prefixed, mac
from memtenant.errors import InvalidResource, RecordMalformed
from memtenant.tenancy.identity import AgentName, TenantId, agent_name

__all__ = [
    "REQUEST_ID_BYTES",
    "ErasureRequest",
    "Tombstone",
    "consent_proof",
    "new_request_id",
    "operator_mark_key",
]

REQUEST_ID_BYTES: Final = 16
_MAC_BYTES = 16
_TAG_BYTES = 8
_CONSENT_BYTES = 16
_REQUEST = 0x10
_WITH_CONSENT = 0x01
_STEWARDS, _OPERATORS = 0x01, 0x02
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """Forget one person: by the alias of its keys, and the tag of its records under Minimal.

    ``time`` is in milliseconds since 1970, by the Steward's clock. ``consent`` proves the reference
    that was given (`consent_proof`); empty where none was needed. ``binding_version`` tells which
    audit key the MAC is under.
    """

    id: bytes
    time: int
    subject: str
    tag: bytes
    agent: AgentName
    binding_version: int
    consent: bytes = b""
    seal: bytes = field(default=b"", repr=False)

    def sealed(self, audit_key: SecretKey, tenant: TenantId) -> ErasureRequest:
        """This request under the MAC of its agent."""
        return replace(self, seal=self._mac(audit_key, tenant))

    def is_sealed_by(self, audit_key: SecretKey, tenant: TenantId) -> bool:
        """Whether the agent with this key made exactly this request, for this tenant."""
        return equal(self.seal, self._mac(audit_key, tenant))

    def to_bytes(self) -> bytes:
        """What stands in the queue."""
        return self._body() + self.seal

    @classmethod
    def parse(cls, data: bytes) -> ErasureRequest:
        """`RecordMalformed` for bytes that are no request: agents may write anything there."""
        reader = _Reader(data, "an erasure request")
        kind = reader.number(1)
        if kind & ~_WITH_CONSENT != _REQUEST:
            raise reader.malformed()
        request = cls(
            id=reader.take(REQUEST_ID_BYTES),
            time=reader.number(6),
            subject=reader.alias(),
            tag=reader.take(_TAG_BYTES),
            consent=reader.take(_CONSENT_BYTES) if kind & _WITH_CONSENT else b"",
            binding_version=reader.number(4),
            agent=reader.agent(),
            seal=reader.take(_MAC_BYTES),
        )
        reader.end()
        return request

    def _body(self) -> bytes:
        agent = self.agent.encode()
        return b"".join(
            (
                bytes((_REQUEST | (_WITH_CONSENT if self.consent else 0),)),
                self.id,
                self.time.to_bytes(6, "big"),
                self.subject.encode("ascii"),
                self.tag,
                self.consent,
                self.binding_version.to_bytes(4, "big"),
                bytes((len(agent),)),
                agent,
            )
        )

    def _mac(self, audit_key: SecretKey, tenant: TenantId) -> bytes:
        label = length_prefixed(b"memtenant/1/erasure", str(tenant).encode())
        return mac(audit_key, label + self._body())[:_MAC_BYTES]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The field ``erased`` beside a person's data key. Set by the Steward who asked, and replaced
    by the operator's own (``agent`` empty), which outlives the Steward's credentials."""

    id: bytes
    agent: AgentName
    binding_version: int
    seal: bytes = field(default=b"", repr=False)

    def sealed(self, key: SecretKey, tenant: TenantId, subject: str) -> Tombstone:
        """This tombstone under the MAC of whoever sets it, for one person of one tenant."""
        return replace(self, seal=self._mac(key, tenant, subject))

    def is_sealed_by(self, key: SecretKey, tenant: TenantId, subject: str) -> bool:
        """Whether the holder of the key set it for this person."""
        return equal(self.seal, self._mac(key, tenant, subject))

    def to_bytes(self) -> bytes:
        """What stands in the field."""
        return self._body() + self.seal

    @classmethod
    def by_operator(cls, id_: bytes, key: SecretKey, tenant: TenantId, subject: str) -> Tombstone:
        """The operator's own; ``key`` is `operator_mark_key`."""
        return cls(id_, "", 0).sealed(key, tenant, subject)

    @classmethod
    def parse(cls, data: bytes) -> Tombstone:
        """`RecordMalformed` for bytes that are none: agents may write anything there."""
        reader = _Reader(data, "a tombstone")
        kind = reader.number(1)
        if kind not in (_STEWARDS, _OPERATORS):
            raise reader.malformed()
        id_ = reader.take(REQUEST_ID_BYTES)
        version, agent = 0, ""
        if kind == _STEWARDS:
            version, agent = reader.number(4), reader.agent()
        found = cls(id_, agent, version, reader.take(_MAC_BYTES))
        reader.end()
        return found

    def _body(self) -> bytes:
        if not self.agent:
            return bytes((_OPERATORS,)) + self.id
        agent = self.agent.encode()
        version = self.binding_version.to_bytes(4, "big")
        return bytes((_STEWARDS,)) + self.id + version + bytes((len(agent),)) + agent

    def _mac(self, key: SecretKey, tenant: TenantId, subject: str) -> bytes:
        place = length_prefixed(b"memtenant/1/tombstone", str(tenant).encode(), subject.encode())
        return mac(key, place + self._body())[:_MAC_BYTES]


def consent_proof(audit_key: SecretKey, request: bytes, reference: str) -> bytes:
    """16 bytes that show which reference to a consent a request was made with, to whoever knows the
    reference; the reference itself may hold personal data and is kept nowhere."""
    label = length_prefixed(b"memtenant/1/consent", request)
    return mac(audit_key, label + reference.encode("utf-8", "surrogatepass"))[:_CONSENT_BYTES]


def operator_mark_key(installation_root: SecretKey, tenant: TenantId) -> SecretKey:
    """The key of the operator's own tombstones; no binding holds it."""
    return derive(installation_root, "memtenant/1/tombstone", str(tenant).encode())


def new_request_id(random: Random = secrets.token_bytes) -> bytes:
    """A fresh id: the same in every try of one request."""
    return random(REQUEST_ID_BYTES)


class _Reader:
    def __init__(self, data: bytes, what: str) -> None:
        self._data = data if len(data) <= _LONGEST else b""
        self._what = what
        self._at = 0

    def malformed(self) -> RecordMalformed:
        return RecordMalformed(
            f"What stands in the place of {self._what} is none that this memtenant knows: an agent "
            "wrote it around the SDK, or a newer one did"
        )

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise self.malformed()
        self._at += count
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def alias(self) -> str:
        found = self.take(ALIAS_CHARACTERS)
        if not all(one in _ALIAS for one in found):
            raise self.malformed()
        return found.decode("ascii")

    def agent(self) -> AgentName:
        name = self.take(self.number(1))
        try:
            return agent_name(name.decode("ascii"))
        except (InvalidResource, ValueError):
            raise self.malformed() from None

    def end(self) -> None:
        if self._at != len(self._data):
            raise self.malformed()


_ALIAS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
