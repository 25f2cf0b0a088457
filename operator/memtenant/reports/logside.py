"""What the sealed log says: of a tenant, held against its records, and of the installation.

The queue is read before the log: see `memtenant.reports.collect`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import MemtenantError
from memtenant.reports.absent import Fate, Part
from memtenant.reports.bookkeeping import whole
from memtenant.reports.evidence import (
    Missing,
    Period,
    TenantEvents,
    TenantFacts,
    moment,
)
from memtenant.reports.floor import Floor
from memtenant.reports.lapses import lapses_of
from memtenant.reports.ledger import EventLedger
from memtenant.reports.looking import Looking
from memtenant.reports.parts import read_in_parts
from memtenant.reports.records import TenantRecords
from memtenant.reports.revisions import Revisions, stands_since
from memtenant.reports.sources import Log
from memtenant.resources.port import Declared
from memtenant.rules.expiry import CUTOFF_FIELDS
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import PolicyFacts
from memtenant.rules.retention import cut_offs
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys

__all__ = ["events_of", "installation_events", "minimum_since"]

_TRACE: Final = timedelta(minutes=1)
"""A request to forget somebody is in a queue or has a receipt by then, counted from its event."""


async def events_of(
    witness: StoreWitness,
    looking: Looking,
    facts: TenantFacts,
    records: TenantRecords,
    began: datetime,
) -> TenantEvents | Missing:
    """What the log and the queue say of a tenant, held against its records, which were read from
    ``began`` on."""
    if isinstance(looking.log, Missing):
        return looking.log
    now = _milliseconds(looking.now)
    revisions = _revisions(looking.installation)

    def ledger(part: Part) -> EventLedger:
        lapses = lapses_of(facts, looking.policy.name, revisions)
        return EventLedger(
            period=looking.period,
            runs=bytes(records.runs),
            # The store may say less than the policy, and never more.
            expired_before=min(told, lapses.today(_milliseconds(looking.now + looking.took))),
            lapses=lapses,
            held_since=min(facts.matters.values(), default=None),
            asked_before=_milliseconds(looking.now - _TRACE),
            read_from=began,
            floor=_floor(looking, facts),
            part=part,
        )

    pages = [page async for page in witness.queued(keys.audit_queue(facts.tenant))]
    queue = list(dict.fromkeys(entry for page in reversed(pages) for entry in page))
    # It may have moved while the records were read.
    later = await witness.hash(keys.limits(facts.tenant))
    told = max(_cut_off(records.limits), _cut_off(later))
    try:
        return read_in_parts(ledger, partial(looking.log.leaves, str(facts.tenant)), queue, now)
    except MemtenantError as error:
        return Missing(f"log of {facts.tenant}", str(error))


def installation_events(log: Log | Missing, period: Period, policy: str) -> TenantEvents | Missing:
    """What the log of the installation says."""
    if isinstance(log, Missing):
        return log
    ledger = EventLedger(period, policy=policy)
    try:
        for leaf in log.leaves(INSTALLATION_LOG):
            ledger.add(leaf)
    except MemtenantError as error:
        return Missing("log of the installation", str(error))
    return ledger.result(Fate())


def minimum_since(
    log: Log | Missing,
    installation: TenantEvents | Missing,
    policy: Declared,
    facts: PolicyFacts,
) -> datetime | None:
    """Since when content is under a minimum that is no shorter than now; where that was pruned, the
    begin of what is kept."""
    if isinstance(log, Missing) or isinstance(installation, Missing):
        return None
    minimum = facts.content_minimum

    def as_long(before: PolicyFacts) -> bool:
        known = before.content_minimum
        return minimum is not None and known is not None and known >= minimum

    revisions = installation.revisions.get(policy.key.name, ())
    name = f"{policy.key.kind.value}/{policy.key.name}", policy.uid
    if name in installation.specs:
        return stands_since(revisions, policy.uid, policy.generation, as_long)
    first = next(iter(log.leaves(INSTALLATION_LOG)), None)
    return first.sealed_at if first is not None and first.place.index else None


def _floor(looking: Looking, facts: TenantFacts) -> Floor | None:
    """The minimum that the tenant's content is under, if it is."""
    if facts.resolution.content.floor is None:
        return None

    def keep_from(at: int) -> int:
        cut = cut_offs(facts.resolution, moment(at))[RecordClass.CONTENT]
        return _milliseconds(cut.keep_from or moment(at))

    since = looking.minimum_since
    return Floor(
        keep_from, None if since is None else _milliseconds(since), _milliseconds(looking.now)
    )


def _revisions(installation: TenantEvents | Missing) -> Revisions:
    return {} if isinstance(installation, Missing) else installation.revisions


def _cut_off(limits: Mapping[str, str]) -> int:
    """That of content, as the store says it; 0 where there is none."""
    return whole(limits.get(CUTOFF_FIELDS[RecordClass.CONTENT], "")) or 0


def _milliseconds(when: datetime) -> int:
    return round(when.timestamp() * 1000)
