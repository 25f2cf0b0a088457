"""Evidence, gathered: what is declared, then each store in one pass, then the log tenant by tenant.

The order matters for coverage: records first, then what stands in the queue, then the log. The
sealer takes an event out of the queue only when it is in the log, so the event of every record that
was seen is in one of the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from memtenant.api.tenant import EncryptionMode
from memtenant.errors import MemtenantError, ResourceNotFound
from memtenant.reports.access_view import look_at_store
from memtenant.reports.bookkeeping import whole
from memtenant.reports.erasures import left_of_erased
from memtenant.reports.evidence import (
    Evidence,
    Missing,
    Period,
    RecordEvidence,
    StoreEvidence,
    TenantEvents,
    TenantEvidence,
    TenantFacts,
)
from memtenant.reports.logside import events_of, installation_events, minimum_since
from memtenant.reports.looking import Looking, Progress
from memtenant.reports.records import TenantRecords
from memtenant.reports.samples import open_sample
from memtenant.reports.scope import (
    begun,
    declared_facts,
    find_policy,
    stores_without_tenants,
    unseen_instances,
)
from memtenant.reports.sources import Declarations, Sources, StoreLogin
from memtenant.reports.storepass import StorePass
from memtenant.stores.pace import Pace
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy.identity import TenantId

__all__ = ["collect"]


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
    installation = installation_events(log, period, policy)
    since = minimum_since(log, installation, object_, facts)
    looking = Looking(
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
        took=looking.took,
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


async def _store(
    looking: Looking,
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
        store = StorePass(looking, witness, name)
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
            found.events[tenant] = await events_of(witness, looking, facts, records, store.began)
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


async def _without_erased(
    witness: StoreWitness,
    looking: Looking,
    facts: TenantFacts,
    records: TenantRecords,
    evidence: RecordEvidence,
) -> RecordEvidence:
    if not evidence.erasures:
        return evidence
    least = whole(records.limits.get("least_kek", "")) or 0
    left = await left_of_erased(witness, facts, records.owners - {""}, least, looking.now)
    return replace(evidence, erased_looked=left.looked, left=left.told, left_total=left.total)


async def _opened(looking: Looking, facts: TenantFacts, records: TenantRecords) -> RecordEvidence:
    keyrings = await looking.sources.keyrings(facts.tenant)
    if not keyrings:
        return records.result()
    mode = EncryptionMode(facts.spec.encryption.mode.value)
    opened = open_sample(facts.tenant, records.sample, keyrings, mode, records.texts.find)
    return replace(records.result(), opened=opened)


def _together(found: _Found) -> Iterable[TenantEvidence]:
    for tenant, facts in sorted(found.facts.items()):
        yield TenantEvidence(str(tenant), facts, found.records[tenant], found.events[tenant])
    for name, missing in sorted(found.broken.items()):
        yield TenantEvidence(name, missing, missing, missing)
