"""Evidence, gathered: what is declared, then each store in one pass, then the log tenant by tenant.

The order matters for coverage: records first, then what stands in the queue, then the log. The
sealer takes an event out of the queue only when it is in the log, so the event of every record that
was seen is in one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Final

from memtenant.api.fields import Isolation
from memtenant.api.tenant import EncryptionMode
from memtenant.clock import rfc3339
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import MemtenantError, ResourceNotFound, StoreUnavailable
from memtenant.reports.absent import Fate, Part
from memtenant.reports.access_view import look_at_store
from memtenant.reports.bookkeeping import whole
from memtenant.reports.erasures import erased_persons, erased_tags, left_of_erased
from memtenant.reports.evidence import (
    CLOCKS_APART,
    Evidence,
    Missing,
    Period,
    RecordEvidence,
    StoreEvidence,
    TenantEvents,
    TenantEvidence,
    TenantFacts,
    moment,
)
from memtenant.reports.floor import Floor
from memtenant.reports.lapses import lapses_of
from memtenant.reports.ledger import EventLedger
from memtenant.reports.parts import read_in_parts
from memtenant.reports.records import Expectation, TenantRecords
from memtenant.reports.revisions import Revisions, stands_since
from memtenant.reports.samples import open_sample, sample_size
from memtenant.reports.scope import (
    begun,
    declared_facts,
    find_policy,
    gone_facts,
    stores_without_tenants,
    unseen_instances,
)
from memtenant.reports.sources import Declarations, Log, Sources, StoreLogin
from memtenant.resources.port import Declared
from memtenant.rules.expiry import CUTOFF_FIELDS, expiry, step
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import PolicyFacts
from memtenant.rules.retention import cut_offs
from memtenant.stores.pace import Pace
from memtenant.stores.survey import Held
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["Progress", "collect"]

_PERSONAL: Final = (b"r:", b"k:", b"i:")
"""Keys with what is about persons begin so."""

_TRACE: Final = timedelta(minutes=1)
"""A request to forget somebody is in a queue or has a receipt by then, counted from its event."""

Progress = Callable[[int, int], None]
"""Told how much is done, and how much is known to be due: keys, then tenants."""


@dataclass(slots=True)
class _Found:
    """What is known of the tenants so far."""

    facts: dict[TenantId, TenantFacts] = field(default_factory=dict)
    broken: dict[str, Missing] = field(default_factory=dict)
    records: dict[TenantId, RecordEvidence | Missing] = field(default_factory=dict)
    events: dict[TenantId, TenantEvents | Missing] = field(default_factory=dict)
    stores: dict[str, StoreEvidence | Missing] = field(default_factory=dict)


async def collect(
    sources: Sources,
    policy: str,
    period: Period,
    *,
    now: datetime,
    trusted: str = "",
    nodes_before: Mapping[str, Collection[str]] = MappingProxyType({}),
    pace: Pace | None = None,
    progress: Progress = lambda _done, _due: None,
) -> Evidence:
    """All evidence about one policy and what is under it. ``trusted`` is the checkpoint (a note)
    that an earlier report had, ``nodes_before`` the nodes of stores as it saw them.

    Raises `ResourceNotFound` where the policy is not declared, and `InvalidResource` where it
    cannot be resolved: then there is nothing to judge by."""
    declared = await sources.declarations()
    if isinstance(declared, Missing):
        raise ResourceNotFound(f"What is declared cannot be read: {declared.why}")
    object_, facts = find_policy(declared, policy)
    found = _Found()
    for name, one in declared_facts(declared, facts, now):
        if isinstance(one, Missing):
            found.broken[name] = one
        else:
            found.facts[one.tenant] = one
    found.broken |= dict(unseen_instances(declared, facts))
    logins = {one.name: one for one in await sources.stores()}
    log = sources.log()
    installation = _installation(log, period, policy)
    since = _minimum_since(log, installation, object_, facts)
    looking = _Looking(
        *(sources, declared, facts, log, installation, period, now, since, pace, progress)
    )
    servers = {one.server for one in found.facts.values()} | stores_without_tenants(declared)
    for name in sorted(servers):
        on_it = {one: two for one, two in found.facts.items() if two.server == name}
        known = _known_nodes(declared, name, nodes_before)
        await _store(looking, logins.get(name), name, on_it, known, found)
    # Those of tenants that are gone are in every report: no policy has them.
    others = {str(one) for one in looking.everybody - found.facts.keys()}
    verified = log if isinstance(log, Missing) else log.verify(others, trusted, now)
    return Evidence(
        now=now,
        period=period,
        policy=facts,
        uid=object_.uid,
        generation=object_.generation,
        generations={
            (one.key.name, one.uid): one.generation
            for one in declared.stores
            if one.key.name in {two.store for two in found.facts.values() if not two.gone}
        },
        tenants=tuple(_together(found)),
        stores=found.stores,
        log=verified,
        installation=installation,
        readers=await sources.log_key_readers(),
        seal_every=round(facts.spec.audit.seal_every.days * 86_400),
    )


def _known_nodes(
    declared: Declarations, store: str, before: Mapping[str, Collection[str]]
) -> tuple[frozenset[str], ...]:
    """Nodes that the store had: by the report before, and as the operator saw it last."""
    shown = next((one.status for one in declared.stores if one.key.name == store), {})
    listed = shown.get("nodes", ())
    return (
        frozenset(before.get(store, ())),
        frozenset(
            str(one["address"]) for one in listed if isinstance(one, dict) and "address" in one
        ),
    )


@dataclass(frozen=True, slots=True)
class _Looking:
    sources: Sources
    declared: Declarations
    policy: PolicyFacts
    log: Log | Missing
    installation: TenantEvents | Missing
    period: Period
    now: datetime
    minimum_since: datetime | None
    pace: Pace | None
    progress: Progress
    began: float = field(default_factory=monotonic)

    def compare_clocks(self, store: str, time: datetime) -> None:
        """By a clock that is behind, what is over its period looks as if it were not."""
        here = self.now + timedelta(seconds=monotonic() - self.began)
        if time > here + CLOCKS_APART:
            raise StoreUnavailable(
                f"the clock of store {store} is at {rfc3339(time)} and this one at "
                f"{rfc3339(here)}: nothing can be said of ages. Set the one that is wrong"
            )

    @property
    def everybody(self) -> frozenset[TenantId]:
        """Who is declared, under whichever policy."""
        return frozenset(TenantId(one.key.namespace, one.key.name) for one in self.declared.tenants)


async def _store(
    looking: _Looking,
    login: StoreLogin | None,
    name: str,
    tenants: Mapping[TenantId, TenantFacts],
    known: tuple[frozenset[str], ...],
    found: _Found,
) -> None:
    if login is None:
        _lose(
            found, name, tenants, Missing("store", f"no login of the reporter is known of {name}")
        )
        return
    if isinstance(login.settings, Missing):
        _lose(found, name, tenants, login.settings)
        return
    witness = StoreWitness(login.settings, pace=looking.pace)
    try:
        found.stores[name] = await look_at_store(
            witness, login, tenants, looking.everybody, looking.now, known
        )
        store = _Pass(looking, witness, name)
        await store.read(tenants)
        found.broken |= store.strays
        if not store.counted:
            del found.stores[name]  # it was looked at for what others left there: it is not ours
        for done, (tenant, records) in enumerate(store.counted.items()):
            facts = store.facts[tenant]
            evidence = await _opened(looking, facts, records)
            evidence = await _without_erased(witness, looking, facts, records, evidence)
            # A hold goes on although the tenant's labels were changed, while the policy has it.
            standing = begun(looking.policy, looking.policy.still_holds(evidence.matters))
            found.facts[tenant] = facts = replace(facts, matters={**standing, **facts.matters})
            found.records[tenant] = evidence
            found.events[tenant] = await _events(witness, looking, facts, records)
            records.runs.clear()
            looking.progress(done + 1, len(store.counted))
    except MemtenantError as error:
        _lose(found, name, tenants, Missing(f"store {name}", str(error)))
    finally:
        await witness.close()


def _lose(
    found: _Found, name: str, tenants: Mapping[TenantId, TenantFacts], missing: Missing
) -> None:
    """What was not found out yet is missing; nothing of it is left out."""
    found.stores.setdefault(name, missing)
    for tenant in tenants:
        found.records.setdefault(tenant, missing)
        found.events.setdefault(tenant, missing)


class _Pass:
    """One pass over a store: what each tenant has, and who has memory there and is not declared any
    more. ``strays``: those of them that no declared policy is known of."""

    def __init__(self, looking: _Looking, witness: StoreWitness, store: str) -> None:
        self.facts: dict[TenantId, TenantFacts] = {}
        self.counted: dict[TenantId, TenantRecords] = {}
        self.strays: dict[str, Missing] = {}
        self._looking = looking
        self._witness = witness
        self._store = store
        self._everybody = looking.everybody
        self._elsewhere: dict[TenantId, Missing | None] = {}
        self._sample = sample_size(0)

    async def read(self, tenants: Mapping[TenantId, TenantFacts]) -> None:
        """All keys of the store."""
        self._sample = sample_size(len(tenants))
        for facts in tenants.values():
            await self._take(facts)
        looking = self._looking
        before = await self._witness.standing()
        looking.compare_clocks(self._store, before.time)
        due = await self._witness.count_keys()
        pages = self._witness.contents(
            self._wants, lambda done: looking.progress(done, max(done, due))
        )
        async for page in pages:
            if page.tenant not in self.counted and not await self._is_ours(page):
                continue
            self.counted[page.tenant].add(page)
        if (await self._witness.standing()).servers != before.servers:
            raise StoreUnavailable(
                f"store {self._store} was led by another server, or began anew, while it was read: "
                "what was seen is not all of it. Run the report again"
            )
        for tenant in [one for one, facts in self.facts.items() if facts.gone]:
            if self.counted[tenant].is_empty:
                del self.counted[tenant], self.facts[tenant]

    async def _take(self, facts: TenantFacts) -> None:
        looking = self._looking
        expected = Expectation(
            _cut_offs(facts, looking.now),
            sample=self._sample if await looking.sources.keyrings(facts.tenant) else 0,
            erased=await _tags(self._witness, facts),
            keeps_dates=bool(facts.matters) or facts.resolution.content.floor is not None,
            passes=await self._witness.passes(facts.tenant),
        )
        self.facts[facts.tenant] = facts
        self.counted[facts.tenant] = TenantRecords(facts.tenant, expected, looking.now)

    def _wants(self, tenant: TenantId, part: bytes) -> bool:
        if tenant in self.counted:
            return True
        if tenant in self._everybody:
            return False
        if tenant not in self._elsewhere:
            return True
        self._note_stray(tenant, part)
        return False

    async def _is_ours(self, page: Held) -> bool:
        """Whether one that is not declared any more is kept under the policy."""
        tenant = page.tenant
        if tenant not in self._elsewhere:
            looking = self._looking
            access = await self._witness.hash(keys.access(tenant))
            found = gone_facts(
                *(looking.declared, looking.policy, tenant, self._store, access, looking.now)
            )
            if isinstance(found, TenantFacts):
                await self._take(found)
                return True
            self._elsewhere[tenant] = found
        self._note_stray(tenant, page.part)
        return False

    def _note_stray(self, tenant: TenantId, part: bytes) -> None:
        stray = self._elsewhere[tenant]
        if stray is not None and part[:2] in _PERSONAL:
            self.strays[str(tenant)] = stray


async def _tags(witness: StoreWitness, facts: TenantFacts) -> Mapping[bytes, int]:
    """Those of persons who were erased by now: where each has a data key, records bear none."""
    if facts.spec.isolation is not Isolation.MINIMAL:
        return {}
    return erased_tags(await erased_persons(witness, facts.tenant))


async def _without_erased(
    witness: StoreWitness,
    looking: _Looking,
    facts: TenantFacts,
    records: TenantRecords,
    evidence: RecordEvidence,
) -> RecordEvidence:
    if not evidence.erasures:
        return evidence
    least = whole(records.limits.get("least_kek", "")) or 0
    left = await left_of_erased(witness, facts, records.owners - {""}, least, looking.now)
    return replace(evidence, erased_looked=left.looked, left=left.told, left_total=left.total)


def _cut_offs(facts: TenantFacts, now: datetime) -> dict[str, int]:
    """When a record of each class should be gone. The operator moves the cut-offs in steps of at
    most a day, and removes what is behind them in the step that follows."""
    before = now - timedelta(seconds=step(facts.resolution))
    at = expiry(facts.tenant, facts.resolution, before, held=bool(facts.matters))
    return {
        record_class.value: int(at.fields[name])
        for record_class, name in CUTOFF_FIELDS.items()
        if name in at.fields
    }


async def _opened(looking: _Looking, facts: TenantFacts, records: TenantRecords) -> RecordEvidence:
    keyrings = await looking.sources.keyrings(facts.tenant)
    if not keyrings:
        return records.result()
    mode = EncryptionMode(facts.spec.encryption.mode.value)
    opened = open_sample(facts.tenant, records.sample, keyrings, mode, records.texts.find)
    return replace(records.result(), opened=opened)


async def _events(
    witness: StoreWitness, looking: _Looking, facts: TenantFacts, records: TenantRecords
) -> TenantEvents | Missing:
    if isinstance(looking.log, Missing):
        return looking.log
    told = whole(records.limits.get(CUTOFF_FIELDS[RecordClass.CONTENT], "")) or 0
    now = _milliseconds(looking.now)
    revisions = _revisions(looking.installation)

    def ledger(part: Part) -> EventLedger:
        lapses = lapses_of(facts, looking.policy.name, revisions)
        return EventLedger(
            period=looking.period,
            runs=bytes(records.runs),
            # The store may say less than the policy, and never more.
            expired_before=min(told, lapses.today(now)),
            lapses=lapses,
            held_since=min(facts.matters.values(), default=None),
            asked_before=_milliseconds(looking.now - _TRACE),
            floor=_floor(looking, facts),
            part=part,
        )

    pages = [page async for page in witness.queued(keys.audit_queue(facts.tenant))]
    queue = list(dict.fromkeys(entry for page in reversed(pages) for entry in page))
    try:
        return read_in_parts(ledger, partial(looking.log.leaves, str(facts.tenant)), queue, now)
    except MemtenantError as error:
        return Missing(f"log of {facts.tenant}", str(error))


def _floor(looking: _Looking, facts: TenantFacts) -> Floor | None:
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


def _minimum_since(
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


def _revisions(installation: TenantEvents | Missing) -> Revisions:
    return {} if isinstance(installation, Missing) else installation.revisions


def _milliseconds(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def _installation(log: Log | Missing, period: Period, policy: str) -> TenantEvents | Missing:
    if isinstance(log, Missing):
        return log
    ledger = EventLedger(period, policy=policy)
    try:
        for leaf in log.leaves(INSTALLATION_LOG):
            ledger.add(leaf)
    except MemtenantError as error:
        return Missing("log of the installation", str(error))
    return ledger.result(Fate())


def _together(found: _Found) -> Iterable[TenantEvidence]:
    for tenant, facts in sorted(found.facts.items()):
        yield TenantEvidence(str(tenant), facts, found.records[tenant], found.events[tenant])
    for name, missing in sorted(found.broken.items()):
        yield TenantEvidence(name, missing, missing, missing)
