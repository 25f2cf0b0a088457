"""How a tenant is audited, as the operator tells the sealer: an entry of ``mt:store:audited``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from memtenant.errors import InvalidResource
from memtenant.tenancy.document import DocumentInvalid, canonical_json, read_json

__all__ = ["Audited"]

_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Audited:
    """``seal_every`` is how late a seal may be, in seconds. ``closing``: the tenant is gone, and
    what is left in its queue is sealed. ``keep_months`` is how long its log is kept,
    ``evidence_months`` what reports say of it; None: for ever."""

    seal_every: int
    closing: bool = False
    keep_months: int | None = None
    evidence_months: int | None = None

    def to_json(self) -> str:
        """Canonical: the same is the same text."""
        months = {"keepMonths": self.keep_months, "evidenceMonths": self.evidence_months}
        kept = {name: many for name, many in months.items() if many is not None}
        return canonical_json(
            {"closing": self.closing, "sealEvery": self.seal_every, **kept}
        ).decode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote; unknown fields are a newer operator's. Raises
        `InvalidResource`."""
        try:
            fields = read_json(data, limit=_MAX_BYTES)
            return cls(
                seal_every=fields.integer("sealEvery", 1, 86_400),
                closing=fields.flag("closing"),
                keep_months=fields.optional_integer("keepMonths", 1, 12_000),
                evidence_months=fields.optional_integer("evidenceMonths", 1, 12_000),
            )
        except DocumentInvalid as error:
            raise InvalidResource(
                f"An entry of mt:store:audited cannot be read: {error}. The operator writes it "
                "anew at its next reconcile of the tenant"
            ) from None
