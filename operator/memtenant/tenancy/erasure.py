"""How far the erasure of a person is: the receipt that the operator writes and agents may read.

One JSON document a request, in the tenant's ``o:erasures``. A reader ignores fields that it does
not know. No id of a person is in it: the subject is the alias of its keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from memtenant.clock import rfc3339
from memtenant.errors import RecordMalformed
from memtenant.tenancy.document import DocumentInvalid, Fields, canonical_json, read_json

__all__ = ["MAX_RECEIPTS", "TOMBSTONE_KEPT", "ErasurePhase", "ErasureReceipt"]

MAX_RECEIPTS = 1000
"""Of one tenant; the oldest that are finished go first."""

TOMBSTONE_KEPT = timedelta(days=2)
"""After PURGED a person stays shut out so long: longer than the keys live under which an agent
could put the person's data key back."""

_FORMAT = 1
_MAX_BYTES = 8 * 1024
_MOST_RESIDUALS = 16


class ErasurePhase(StrEnum):
    """In this order, but REFUSED, which is an end.

    INDEXED: what the person's index names is deleted. RESCANNED: a pass over the whole store found
    nothing more, and the data key is deleted. PURGED: the files of every node were written anew, as
    far as ``residuals`` do not say otherwise. CRYPTO_ERASED: every key under which the data key was
    ever wrapped is destroyed, so that older copies of the store are noise.
    """

    REQUESTED = "Requested"
    INDEXED = "Indexed"
    RESCANNED = "Rescanned"
    PURGED = "Purged"
    CRYPTO_ERASED = "CryptoErased"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """One request. ``id`` is in hex.

    conversations, values: how many of the person the index named, all of them gone; unindexed:
    conversations that no index named, found by the pass over the store. remaining: what the last
    pass found; None before it.
    residuals: what still is, and who could read it. consent: proof of the reference that was given,
    in hex. refusal, why: a reason, and the sentence for it. key_version: the keys up to this
    version have to be destroyed; 0 where there was no data key. tag: the subject's, in hex.
    """

    id: str
    subject: str
    phase: ErasurePhase
    agent: str
    requested_at: datetime
    tag: str = ""
    consent: str = ""
    conversations: int = 0
    values: int = 0
    unindexed: int = 0
    remaining: int | None = None
    deleted_at: datetime | None = None
    purged_at: datetime | None = None
    crypto_erased_at: datetime | None = None
    key_version: int = 0
    residuals: tuple[str, ...] = ()
    refusal: str = ""
    why: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to it. Where the person had no data key of their own,
        the end is PURGED."""
        if self.phase is ErasurePhase.PURGED:
            return not self.key_version
        return self.phase in (ErasurePhase.CRYPTO_ERASED, ErasurePhase.REFUSED)

    def to_json(self) -> bytes:
        """Canonical: the same receipt is the same bytes."""
        moments = {
            "requestedAt": self.requested_at,
            "deletedAt": self.deleted_at,
            "purgedAt": self.purged_at,
            "cryptoErasedAt": self.crypto_erased_at,
        }
        document: dict[str, object] = {
            "format": _FORMAT,
            "id": self.id,
            "subject": self.subject,
            "phase": self.phase.value,
            "agent": self.agent,
            "tag": self.tag,
            "consent": self.consent,
            "conversations": self.conversations,
            "values": self.values,
            "unindexed": self.unindexed,
            "keyVersion": self.key_version,
            "residuals": list(self.residuals),
            "refusal": self.refusal,
            "why": self.why,
        }
        document |= {name: rfc3339(at) for name, at in moments.items() if at is not None}
        if self.remaining is not None:
            document["remaining"] = self.remaining
        return canonical_json(document)

    @classmethod
    def from_json(cls, data: bytes) -> ErasureReceipt:
        """Read what `to_json` wrote; `RecordMalformed` for anything else."""
        try:
            return _receipt(read_json(data, limit=_MAX_BYTES))
        except DocumentInvalid as error:
            raise RecordMalformed(
                f"A receipt of an erasure cannot be read: {error}. Where its format is newer, "
                "update memtenant"
            ) from None


def _receipt(fields: Fields) -> ErasureReceipt:
    fields.integer("format", _FORMAT, _FORMAT)

    def moment(name: str) -> datetime | None:
        return fields.moment(name) if name in fields else None

    return ErasureReceipt(
        id=fields.text("id", 64),
        subject=fields.text("subject", 64),
        phase=fields.choice("phase", ErasurePhase),
        agent=fields.text("agent", 64),
        requested_at=fields.moment("requestedAt"),
        tag=fields.text("tag", 16),
        consent=fields.text("consent", 64),
        conversations=fields.integer("conversations"),
        values=fields.integer("values"),
        unindexed=fields.integer("unindexed"),
        remaining=fields.optional_integer("remaining"),
        deleted_at=moment("deletedAt"),
        purged_at=moment("purgedAt"),
        crypto_erased_at=moment("cryptoErasedAt"),
        key_version=fields.integer("keyVersion"),
        residuals=fields.texts("residuals", _MOST_RESIDUALS, 512),
        refusal=fields.text("refusal", 64),
        why=fields.text("why", 1024),
    )
