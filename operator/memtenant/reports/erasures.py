"""Erasures as a store tells them: what was asked, how far it came, and what is left of a person.

That nothing is left rests on more than the receipts' own word. A person's key in the store has to
be a tombstone without a data key, nothing may index the person, and where one data key serves all
(isolation Minimal) no record from before may bear the person's tag. Whether records live that a
person's own events tell, the sealed log says: `memtenant.reports.ledger`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from memtenant.api.fields import Isolation
from memtenant.crypto.datakey import kek_version
from memtenant.crypto.erasure import ErasureRequest, Tombstone
from memtenant.errors import MemtenantError, RecordMalformed
from memtenant.reports.evidence import Erasure, TenantFacts, moment
from memtenant.stores.witness import StoreWitness, SubjectView
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import TOMBSTONE_KEPT, ErasurePhase, ErasureReceipt
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.keys import own_alias

__all__ = ["ErasureTally", "Remnants", "erased_persons", "erased_tags", "left_of_erased"]

_MOST: Final = 50
_EDGE: Final = timedelta(minutes=1)
_DONE: Final = (ErasurePhase.RESCANNED, ErasurePhase.PURGED, ErasurePhase.CRYPTO_ERASED)


@dataclass(slots=True)
class ErasureTally:
    """Requests and receipts of one tenant, counted."""

    now: datetime
    total: int = 0
    remaining: int = 0
    slowest: list[Erasure] = field(default_factory=list)
    _persons: Counter[tuple[str, str]] = field(default_factory=Counter)
    _open: set[tuple[str, str]] = field(default_factory=set)

    @property
    def known(self) -> int:
        """Of how many persons something is there; who was erased again counts again."""
        return sum(max(many, 1) for many in self._persons.values())

    @property
    def open(self) -> int:
        """Of how many persons records may have been there when the run began: an erasure was on,
        or was refused."""
        return len(self._open)

    def receipt(self, document: bytes) -> None:
        """One that the operator wrote."""
        try:
            receipt = ErasureReceipt.from_json(document)
        except MemtenantError:
            self._slow(Erasure("", "cannot be read", moment(0), None))
            return
        person = (receipt.subject, receipt.tag)
        refused = receipt.phase is ErasurePhase.REFUSED
        self._persons[person] += not refused
        if refused or receipt.purged_at is None or receipt.purged_at >= self.now:
            self._open.add(person)
        if refused:
            return
        self.total += 1
        self.remaining += receipt.remaining or 0
        ended = receipt.purged_at if receipt.settled else None
        self._slow(Erasure(receipt.id, receipt.phase.value, receipt.requested_at, ended))

    def request(self, entry: bytes) -> None:
        """One that the operator has not looked at yet."""
        try:
            request = ErasureRequest.parse(entry)
        except RecordMalformed:
            self._slow(Erasure("", "cannot be read", moment(0), None))
            return
        person = (request.subject, request.tag.hex())
        self.total += 1
        self._persons[person] += 1
        self._open.add(person)
        self._slow(Erasure(request.id.hex(), "waiting", moment(request.time), None))

    def _slow(self, erasure: Erasure) -> None:
        self.slowest.append(erasure)
        if len(self.slowest) > _MOST:
            self.slowest.sort(key=lambda one: one.lasted(self.now), reverse=True)
            del self.slowest[_MOST:]


async def erased_persons(witness: StoreWitness, tenant: TenantId) -> tuple[ErasureReceipt, ...]:
    """The receipts that say that nothing is left. Those that cannot be read are told elsewhere."""
    found = []
    for document in (await witness.hash(keys.erasure_receipts(tenant))).values():
        try:
            receipt = ErasureReceipt.from_json(document.encode())
        except MemtenantError:
            continue
        if receipt.phase in _DONE:
            found.append(receipt)
    return tuple(found)


def erased_tags(receipts: Collection[ErasureReceipt]) -> dict[bytes, int]:
    """By the tag of an erased person (isolation Minimal): up to when, in milliseconds, no record
    may bear it. Later ones are of a person who came back."""
    tags: dict[bytes, int] = {}
    for one in receipts:
        if one.tag and one.deleted_at is not None:
            tag = bytes.fromhex(one.tag)
            tags[tag] = max(tags.get(tag, 0), round(one.deleted_at.timestamp() * 1000))
    return tags


@dataclass(frozen=True, slots=True)
class Remnants:
    """looked: persons whose keys were looked at. told: what was left, and where, in words."""

    looked: int = 0
    told: tuple[str, ...] = ()
    total: int = 0


async def left_of_erased(
    witness: StoreWitness,
    facts: TenantFacts,
    owners: Collection[AgentName],
    least: int,
    now: datetime,
) -> Remnants:
    """What the store has of persons who were erased, beside their records: a data key that opens
    with a key that lives (``least`` on), an index; or that the tombstone is gone.

    Asked after the pass, receipts first: each says so only with what it says done. Once its
    tombstone has gone by itself, the person may be back as somebody new.
    """
    receipts = [
        one
        for one in await erased_persons(witness, facts.tenant)
        if one.purged_at is None or now < one.purged_at + TOMBSTONE_KEPT - _EDGE
    ]
    told: list[str] = []
    for receipt in receipts:
        names = _names(receipt, facts, owners)
        views = await witness.subjects(facts.tenant, names)
        told += _judged(receipt, facts, dict(zip(names, views, strict=True)), least)
    return Remnants(len(receipts), tuple(told[:_MOST]), len(told))


def _names(
    receipt: ErasureReceipt, facts: TenantFacts, owners: Collection[AgentName]
) -> Sequence[str]:
    if facts.spec.isolation is not Isolation.STRICT:
        return [receipt.subject]
    declared = {one.name for one in facts.spec.agents_or_default()}
    return [own_alias(one, receipt.subject) for one in sorted(declared | set(owners))]


def _judged(
    receipt: ErasureReceipt, facts: TenantFacts, views: Mapping[str, SubjectView], least: int
) -> Iterator[str]:
    marked = {name for name, view in views.items() if _is_of(view.mark, receipt)}
    if not marked:
        where = keys.dek(facts.tenant, next(iter(views)))
        yield f"the tombstone of erasure {receipt.id[:8]} is gone ({where})"
    for name, view in views.items():
        if view.data_key is not None and _opens(view.data_key, least):
            where = keys.dek(facts.tenant, name)
            yield f"the data key of a person who was erased is there ({where})"
        if view.indexed:
            where = keys.subject_index(facts.tenant, name)
            yield f"an index of a person who was erased names {view.indexed} places ({where})"


def _opens(data_key: bytes, least: int) -> bool:
    """Whether a key version that lives may open it. What is no data key opens nothing."""
    try:
        return kek_version(data_key) >= least
    except RecordMalformed:
        return False


def _is_of(mark: bytes | None, receipt: ErasureReceipt) -> bool:
    try:
        return mark is not None and Tombstone.parse(mark).id.hex() == receipt.id
    except RecordMalformed:
        return False
