"""What an event says about whose data it touched and where: nothing that outlives the data key.

All three values are derived from the subject's random data key. Whoever holds it can find the
subject's events and check a record against one; once the key is destroyed, what is left in the
sealed log are random bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from memtenant.crypto.primitives import SecretKey, derive, mac
from memtenant.crypto.record import Place

__all__ = ["NOBODY", "REFERENCE_BYTES", "Reference"]

REFERENCE_BYTES: Final = 16
_NOTHING: Final = bytes(REFERENCE_BYTES)


@dataclass(frozen=True, slots=True)
class Reference:
    """``subject`` is the audit alias, ``place`` the conversation or context, 16 bytes each; all
    zeros where there is none. The key makes commitments."""

    subject: bytes
    place: bytes
    commitment_key: SecretKey | None = field(repr=False)

    @classmethod
    def of(cls, data_key: SecretKey, place: Place | None, tag: bytes = b"") -> Self:
        """``place`` is None for what is about a subject as a whole; ``tag`` tells subjects apart
        that share a data key (Minimal isolation)."""
        subject = derive(data_key, "memtenant/1/audit-alias", tag).secret[:REFERENCE_BYTES]
        if place is None:
            return cls(subject, _NOTHING, None)
        where = derive(data_key, "memtenant/1/audit-place", *place.fields)
        key = derive(data_key, "memtenant/1/audit-commitment", *place.fields)
        return cls(subject, where.secret[:REFERENCE_BYTES], key)

    def commit(self, records: Sequence[bytes]) -> bytes:
        """16 bytes that bind the event to these records, in this order; zeros for none."""
        if not records or self.commitment_key is None:
            return _NOTHING
        digests = b"".join([hashlib.sha256(record).digest() for record in records])
        return mac(self.commitment_key, digests)[:REFERENCE_BYTES]


NOBODY: Final = Reference(_NOTHING, _NOTHING, None)
"""Where no data key is known: nothing was stored about the subject yet, or its key is gone."""
