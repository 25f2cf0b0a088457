"""What the operator did, as events: the same bytes as an agent's, with a JSON object as detail.

The operator acts in nobody's memory, so its events name no subject and no place; what they are
about stands in the detail, in the platform's own words: names, versions, counts, never content.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from memtenant.audit.event import MAX_DETAIL_BYTES, Entry, Event, Outcome
from memtenant.audit.operation import Operation
from memtenant.audit.reference import NOBODY
from memtenant.crypto.primitives import Random, SecretKey
from memtenant.errors import AuditEventMalformed
from memtenant.tenancy.document import DocumentInvalid, canonical_json, read_json

__all__ = ["OPERATOR", "Deed", "SpecSeen", "Telling", "Turn", "Voice", "new_writer", "spec_seen"]

OPERATOR: Final = "operator"
"""Who the operator is in the audit: with version 0, which no agent's binding has."""

_MOST: Final = 0xFFFF
_LAST_COUNTER: Final = 2**32 - 1


class Turn(NamedTuple):
    """A writer and the counter of its next event."""

    writer: bytes
    counter: int


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that was done. ``count`` is how many it was done to, 65,535 for more; the detail
    has the number."""

    operation: Operation
    detail: Mapping[str, object] = field(default_factory=dict)
    count: int = 1

    def event(self, turn: Turn, key: SecretKey, agent: str = OPERATOR) -> bytes:
        """Under the audit key of that agent, with binding version 0."""
        detail = canonical_json(self.detail) if self.detail else b""
        if len(detail) > MAX_DETAIL_BYTES:
            detail = canonical_json({"cut": len(detail)})
        return Event(
            operation=self.operation,
            agent=agent,
            binding_version=0,
            writer=turn.writer,
            counter=turn.counter,
            count=min(self.count, _MOST),
            subject=NOBODY.subject,
            place=NOBODY.place,
            commitment=NOBODY.commit(()),
            detail=detail,
        ).to_bytes(key)


@dataclass(frozen=True, slots=True)
class SpecSeen:
    """Which generation of a declared object the operator acted upon. ``by`` is who declared it,
    where the cluster tells; else empty."""

    kind: str
    name: str
    generation: int
    namespace: str = ""
    by: str = ""

    @property
    def object(self) -> str:
        """``RetentionPolicy/gdpr``, or ``MemoryTenant/support/acme``."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


def spec_seen(event: Event) -> SpecSeen:
    """The detail of a `Operation.SPEC_SEEN`. Raises `AuditEventMalformed`."""
    if event.operation is not Operation.SPEC_SEEN:
        raise AuditEventMalformed("An audit event tells of no generation of a spec")
    try:
        fields = read_json(event.detail, limit=MAX_DETAIL_BYTES)
        return SpecSeen(
            kind=fields.text("kind"),
            name=fields.text("name"),
            generation=fields.integer("generation", 0, 2**53 - 1),
            namespace=fields.text("namespace") if "namespace" in fields else "",
            by=fields.text("by") if "by" in fields else "",
        )
    except DocumentInvalid as error:
        raise AuditEventMalformed(
            f"The detail of an event of the operator cannot be read: {error}"
        ) from None


@dataclass(frozen=True, slots=True)
class Telling:
    """Entries for the queue, and the writer that they used."""

    entries: tuple[bytes, ...]
    after: Turn


class Voice:
    """The operator's writers in one log.

    A writer is used by one write at a time and counts on when that was done; after any other end
    it is not used again. So within a writer no counter is missing, unless an event was taken away.
    """

    def __init__(self, key: SecretKey, random: Random = secrets.token_bytes) -> None:
        self._key = key
        self._random = random
        self._free: list[Turn] = []

    def tell(self, deeds: Sequence[Deed], now: datetime) -> Telling:
        """The deeds' entries, as done at ``now``."""
        turn = self._free.pop() if self._free else Turn(new_writer(now, self._random), 1)
        entries = []
        for deed in deeds:
            event = deed.event(turn, self._key)
            entries.append(Entry(event, Outcome.DONE, int(now.timestamp() * 1000), 0).to_bytes())
            turn = Turn(turn.writer, turn.counter + 1)
        return Telling(tuple(entries), turn)

    def done(self, telling: Telling) -> None:
        """The entries are in the queue."""
        if telling.after.counter < _LAST_COUNTER - _MOST:
            self._free.append(telling.after)


def new_writer(now: datetime, random: Random = secrets.token_bytes) -> bytes:
    """When it was opened, in seconds, and four random bytes."""
    return int(now.timestamp()).to_bytes(4, "big") + random(4)
