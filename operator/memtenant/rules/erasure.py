"""Whether a request to erase a person is honoured, and whether a mark of an erased person is true.

Agents may write anything into the queue and set a mark where there is none. What counts is under
the audit key of a Steward, which the operator derives and no other agent has.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from memtenant.api.tenant import AgentAccess, MemoryTenantSpec
from memtenant.audit import OPERATOR, Deed, Operation, Turn, new_writer
from memtenant.crypto.audit_keys import audit_mac_key, audit_root
from memtenant.crypto.erasure import ErasureRequest, Tombstone, operator_mark_key
from memtenant.crypto.primitives import Random, SecretKey
from memtenant.errors import RecordMalformed
from memtenant.tenancy.erasure import MAX_RECEIPTS, ErasurePhase, ErasureReceipt
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.policy import EncryptionMode, Isolation, SubjectRights

__all__ = [
    "Ground",
    "OperatorEvents",
    "Verdict",
    "is_true_mark",
    "judge_request",
    "operator_mark",
    "outdated",
    "residuals",
]

_MINIMAL = (
    "Isolation Minimal has one key for all: backups of the store from before can be read with the "
    "tenant's keys"
)
_PLAIN = "Encryption is Disabled: backups of the store from before can be read by whoever has them"
_VALUES = (
    "Values of shared contexts are under their contexts' keys: in backups of the store from before "
    "they can be read with the tenant's keys"
)
_BACKUPS = (
    "Backups of the store from before can be read by whoever also has a backup of the tenant's "
    "keys (etcd, Secrets) from before"
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What decides about the requests of one tenant.

    accesses: of the agents that it lists. versions: of each agent's credentials that are valid.
    keeps: why nothing may be erased now, in words, with ``reason``; both empty where nothing does.
    """

    tenant: TenantId
    isolation: Isolation
    rights: SubjectRights
    accesses: Mapping[AgentName, AgentAccess]
    versions: Mapping[AgentName, frozenset[int]]
    installation_root: SecretKey = field(repr=False)
    obstacle: str = ""
    keeps: str = ""


class OperatorEvents:
    """The events of what the operator does for one tenant's erasures."""

    def __init__(self, ground: Ground, now: datetime, random: Random = secrets.token_bytes) -> None:
        self._key = _audit_key(ground, OPERATOR, 0)
        self._now, self._random = now, random
        self._turn = Turn(new_writer(now, random), 1)

    def __call__(self) -> bytes:
        """The next one. It names nobody: the person's audit alias dies with its data key."""
        turn, self._turn = self._turn, Turn(self._turn.writer, self._turn.counter + 1)
        return Deed(Operation.FORGET).event(turn, self._key)

    def renew(self) -> None:
        """The last event may not have arrived: its writer is not used again."""
        self._turn = Turn(new_writer(self._now, self._random), 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The receipt to enter; None for what nobody who may ask has asked, with a ``complaint``."""

    receipt: ErasureReceipt | None
    complaint: str = ""


def judge_request(raw: bytes, ground: Ground, now: datetime) -> Verdict:
    """What becomes of one entry of the queue."""
    try:
        request = ErasureRequest.parse(raw)
    except RecordMalformed:
        return Verdict(None, "An entry that is no request")
    agent, version = request.agent, request.binding_version
    key = _audit_key(ground, agent, version)
    if not request.is_sealed_by(key, ground.tenant):
        return Verdict(None, f"A request in the name of agent {agent} that it did not make")
    if ground.accesses.get(agent) is not AgentAccess.STEWARD:
        return Verdict(None, f"A request of agent {agent}, which is no Steward")
    receipt = ErasureReceipt(
        id=request.id.hex(),
        subject=request.subject,
        phase=ErasurePhase.REQUESTED,
        agent=agent,
        requested_at=now.replace(microsecond=0),
        tag=request.tag.hex(),
        consent=request.consent.hex(),
    )
    refusal, why = _refusal(request, ground)
    if not refusal:
        return Verdict(receipt)
    return Verdict(_refused(receipt, refusal, why))


def _audit_key(ground: Ground, agent: AgentName, version: int) -> SecretKey:
    root = audit_root(ground.installation_root)
    return audit_mac_key(root, str(ground.tenant), agent, version)


def _refusal(request: ErasureRequest, ground: Ground) -> tuple[str, str]:
    if request.binding_version not in ground.versions.get(request.agent, frozenset()):
        return "CredentialRevoked", "The credential that asked is not valid any more: ask again"
    if not ground.rights.erasure:
        return "ErasureNotPermitted", "The policy does not let persons be forgotten"
    if ground.rights.consent_required and not request.consent:
        return "ConsentRequired", "The policy asks for a reference to the person's consent"
    return ground.obstacle, ground.keeps


def _refused(receipt: ErasureReceipt, refusal: str, why: str) -> ErasureReceipt:
    return ErasureReceipt(
        id=receipt.id,
        subject=receipt.subject,
        phase=ErasurePhase.REFUSED,
        agent=receipt.agent,
        requested_at=receipt.requested_at,
        refusal=refusal,
        why=why,
    )


def is_true_mark(raw: bytes, subject: str, ground: Ground) -> bool:
    """Whether a tombstone was set by the operator, or by a Steward of the tenant."""
    try:
        mark = Tombstone.parse(raw)
    except RecordMalformed:
        return False
    if not mark.agent:
        key = operator_mark_key(ground.installation_root, ground.tenant)
        return mark.is_sealed_by(key, ground.tenant, subject)
    key = _audit_key(ground, mark.agent, mark.binding_version)
    steward = ground.accesses.get(mark.agent) is AgentAccess.STEWARD
    return steward and mark.is_sealed_by(key, ground.tenant, subject)


def operator_mark(receipt: ErasureReceipt, ground: Ground, subject: str) -> bytes:
    """The tombstone that the operator sets beside a data key of the person, whose alias is
    ``subject``, for a request that it honours."""
    key = operator_mark_key(ground.installation_root, ground.tenant)
    request = bytes.fromhex(receipt.id)
    return Tombstone.by_operator(request, key, ground.tenant, subject).to_bytes()


def outdated(receipts: Mapping[str, ErasureReceipt], room_for: int) -> list[str]:
    """Which receipts go, so that so many more have room: the oldest of those that are settled."""
    excess = len(receipts) + room_for - MAX_RECEIPTS
    settled = sorted(
        (one for one in receipts.values() if one.settled), key=lambda one: one.requested_at
    )
    return [one.id for one in settled[: max(excess, 0)]]


def residuals(receipt: ErasureReceipt, spec: MemoryTenantSpec) -> Iterator[str]:
    """Who could still read what, in words."""
    if spec.encryption.mode is EncryptionMode.DISABLED:
        yield _PLAIN
    elif spec.isolation.value == Isolation.MINIMAL.value:
        yield _MINIMAL
    else:
        if receipt.key_version:
            yield _BACKUPS
        if receipt.values:
            yield _VALUES
