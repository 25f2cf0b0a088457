"""Evidence, gathered: what is declared, then each store in one pass, then the log tenant by tenant.

The order matters for coverage: records first, then what stands in the queue, then the log. The
sealer takes an event out of the queue only when it is in the log, so the event of every record that
was seen is in one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from memtenant.api.fields import Isolation
from memtenant.api.policy import RetentionPolicySpec
from memtenant.api.tenant import EncryptionMode, MemoryTenantSpec, MemoryTenantStatus
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import InvalidResource, MemtenantError, ResourceNotFound
from memtenant.reports.access_view import look_at_store
from memtenant.reports.erasures import erased_persons, erased_tags, left_of_erased
from memtenant.reports.evidence import (
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
from memtenant.reports.ledger import EventLedger
from memtenant.reports.records import Expectation, TenantRecords, whole
from memtenant.reports.samples import open_sample
from memtenant.reports.sources import Declarations, Log, Sources, StoreLogin
from memtenant.resources.port import Declared
from memtenant.rules.expiry import CUTOFF_FIELDS, expiry, step
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import PolicyFacts, hold_labels, policy_facts
from memtenant.stores.pace import Pace
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["Progress", "collect"]

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
    pace: Pace | None = None,
    progress: Progress = lambda _done, _due: None,
) -> Evidence:
    """All evidence about one policy and what is under it. ``trusted`` is the checkpoint (a note)
    that an earlier report had. Raises `ResourceNotFound` where the policy is not declared, and
    `InvalidResource` where it cannot be resolved: then there is nothing to judge by."""
    declared = await sources.declarations()
    if isinstance(declared, Missing):
        raise ResourceNotFound(f"What is declared cannot be read: {declared.why}")
    object_, facts = _policy(declared, policy)
    found = _Found()
    _tenants(declared, facts, now, found)
    logins = {one.name: one for one in await sources.stores()}
    log = sources.log()
    wanted = {str(one) for one in found.facts}
    verified = (
        log if isinstance(log, Missing) else log.verify({INSTALLATION_LOG, *wanted}, trusted, now)
    )
    everybody = frozenset(TenantId(one.key.namespace, one.key.name) for one in declared.tenants)
    for name in sorted({one.server for one in found.facts.values()}):
        on_it = {one: two for one, two in found.facts.items() if two.server == name}
        await _store(
            _Looking(sources, facts, log, everybody, period, now, pace, progress),
            logins.get(name),
            name,
            on_it,
            found,
        )
    return Evidence(
        now=now,
        period=period,
        policy=facts,
        uid=object_.uid,
        generation=object_.generation,
        generations={
            (one.key.name, one.uid): one.generation
            for one in declared.stores
            if one.key.name in {two.store for two in found.facts.values()}
        },
        tenants=tuple(_together(found)),
        stores=found.stores,
        log=verified,
        installation=_installation(log, period, policy),
        readers=await sources.log_key_readers(),
        seal_every=round(facts.spec.audit.seal_every.days * 86_400),
    )


def _policy(declared: Declarations, name: str) -> tuple[Declared, PolicyFacts]:
    found = next((one for one in declared.policies if one.key.name == name), None)
    if found is None:
        known = ", ".join(sorted(one.key.name for one in declared.policies)) or "none"
        raise ResourceNotFound(f"there is no RetentionPolicy {name!r}: there is {known}")
    try:
        spec = RetentionPolicySpec.model_validate(found.spec)
    except ValueError as error:
        raise InvalidResource(f"RetentionPolicy {name!r} cannot be read: {error}") from None
    return found, policy_facts(name, spec)


def _tenants(declared: Declarations, policy: PolicyFacts, now: datetime, found: _Found) -> None:
    """Those under the policy; of what cannot be read, why."""
    for one in declared.tenants:
        ref = one.spec.get("retentionPolicyRef")
        if not isinstance(ref, dict) or ref.get("name") != policy.name:
            continue
        name = f"{one.key.namespace}.{one.key.name}"
        try:
            facts = _facts(declared, policy, one, now)
        except (MemtenantError, ValueError) as error:
            found.broken[name] = Missing("declaration", " ".join(str(error).split())[:300])
            continue
        if not facts.store:
            found.broken[name] = Missing("store", "the tenant is not on a store yet")
            continue
        found.facts[facts.tenant] = facts


def _facts(
    declared: Declarations, policy: PolicyFacts, one: Declared, now: datetime
) -> TenantFacts:
    tenant = TenantId(one.key.namespace, one.key.name)
    spec = MemoryTenantSpec.model_validate(one.spec)
    labels = hold_labels(tenant, one.labels, declared.namespaces.get(tenant.namespace, {}))
    return TenantFacts(
        tenant=tenant,
        uid=one.uid,
        generation=one.generation,
        store=str(one.status.get("store") or ""),
        spec=spec,
        status=MemoryTenantStatus.model_validate(one.status),
        resolution=policy.resolve_for(spec),
        matters=_begun(policy, policy.matters_of(labels, {}, now)),
    )


@dataclass(frozen=True, slots=True)
class _Looking:
    sources: Sources
    policy: PolicyFacts
    log: Log | Missing
    everybody: frozenset[TenantId]
    period: Period
    now: datetime
    pace: Pace | None
    progress: Progress


async def _store(
    looking: _Looking,
    login: StoreLogin | None,
    name: str,
    tenants: Mapping[TenantId, TenantFacts],
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
        found.stores[name] = looked = await look_at_store(
            witness, login, tenants, looking.everybody, looking.now
        )
        counted, leftovers = await _read(witness, looking, tenants)
        found.stores[name] = replace(looked, leftovers=leftovers)
        for done, (tenant, records) in enumerate(counted.items()):
            evidence = await _opened(looking, tenants[tenant], records)
            evidence = await _without_erased(witness, looking, tenants[tenant], records, evidence)
            # A hold goes on although the tenant's labels were changed, while the policy has it.
            standing = _begun(looking.policy, looking.policy.still_holds(evidence.matters))
            matters = {**standing, **tenants[tenant].matters}
            found.facts[tenant] = replace(tenants[tenant], matters=matters)
            found.records[tenant] = evidence
            found.events[tenant] = await _events(witness, looking, found.facts[tenant], records)
            records.runs.clear()
            looking.progress(done + 1, len(counted))
    except MemtenantError as error:
        _lose(found, name, tenants, Missing(f"store {name}", str(error)))
    finally:
        await witness.close()


def _begun(policy: PolicyFacts, matters: Iterable[str]) -> dict[str, datetime]:
    begun = {hold.matter: hold.since for hold in policy.spec.legal_holds}
    return {matter: begun[matter] for matter in matters}


def _lose(
    found: _Found, name: str, tenants: Mapping[TenantId, TenantFacts], missing: Missing
) -> None:
    """What was not found out yet is missing; nothing of it is left out."""
    found.stores.setdefault(name, missing)
    for tenant in tenants:
        found.records.setdefault(tenant, missing)
        found.events.setdefault(tenant, missing)


async def _read(
    witness: StoreWitness, looking: _Looking, tenants: Mapping[TenantId, TenantFacts]
) -> tuple[dict[TenantId, TenantRecords], tuple[str, ...]]:
    """What each tenant has, and of whom there are records that nobody declares."""
    counted = {
        tenant: TenantRecords(
            tenant,
            Expectation(
                _cut_offs(facts, looking.now),
                sample=bool(await looking.sources.keyrings(tenant)),
                erased=await _tags(witness, facts),
                keeps_dates=bool(facts.matters) or facts.resolution.content.floor is not None,
            ),
            looking.now,
        )
        for tenant, facts in tenants.items()
    }
    leftovers: set[str] = set()

    def wanted(tenant: TenantId, part: bytes) -> bool:
        if tenant not in looking.everybody and part.startswith(b"r:"):
            leftovers.add(str(tenant))
        return tenant in counted

    due = await witness.count_keys()
    async for page in witness.contents(wanted, lambda done: looking.progress(done, max(done, due))):
        counted[page.tenant].add(page)
    return counted, tuple(sorted(leftovers))


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
    opened = open_sample(facts.tenant, records.sample, keyrings, mode, records.find)
    records.count_opened(opened.opened)
    return replace(records.result(), opened=opened)


async def _events(
    witness: StoreWitness, looking: _Looking, facts: TenantFacts, records: TenantRecords
) -> TenantEvents | Missing:
    if isinstance(looking.log, Missing):
        return looking.log

    def cut_off(at: datetime) -> int:
        cuts = expiry(facts.tenant, facts.resolution, at, held=False).fields
        return int(cuts.get(CUTOFF_FIELDS[RecordClass.CONTENT], "0"))

    told = whole(records.limits.get(CUTOFF_FIELDS[RecordClass.CONTENT], "")) or 0
    ledger = EventLedger(
        period=looking.period,
        runs=bytes(records.runs),
        # The store may say less than the policy, and never more.
        expired_before=min(told, cut_off(looking.now)),
        cut_off=lambda at: cut_off(moment(at)),
        held_since=min(facts.matters.values(), default=None),
        asked_before=round((looking.now - _TRACE).timestamp() * 1000),
    )
    queue = [
        entry async for page in witness.queued(keys.audit_queue(facts.tenant)) for entry in page
    ]
    try:
        for leaf in looking.log.leaves(str(facts.tenant)):
            ledger.add(leaf)
    except MemtenantError as error:
        return Missing(f"log of {facts.tenant}", str(error))
    for entry in queue:
        ledger.waiting(entry)
    return ledger.result()


def _installation(log: Log | Missing, period: Period, policy: str) -> TenantEvents | Missing:
    if isinstance(log, Missing):
        return log
    ledger = EventLedger(period, policy=policy)
    try:
        for leaf in log.leaves(INSTALLATION_LOG):
            ledger.add(leaf)
    except MemtenantError as error:
        return Missing("log of the installation", str(error))
    return ledger.result()


def _together(found: _Found) -> Iterable[TenantEvidence]:
    for tenant, facts in sorted(found.facts.items()):
        yield TenantEvidence(str(tenant), facts, found.records[tenant], found.events[tenant])
    for name, missing in sorted(found.broken.items()):
        yield TenantEvidence(name, missing, missing, missing)
