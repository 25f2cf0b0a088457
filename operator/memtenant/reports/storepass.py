"""All keys of a store, once: what each tenant has, and who has memory there undeclared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from memtenant.api.fields import Isolation
from memtenant.errors import StoreUnavailable
from memtenant.reports.erasures import erased_persons, erased_tags
from memtenant.reports.evidence import Missing, TenantFacts
from memtenant.reports.looking import Looking
from memtenant.reports.records import Expectation, TenantRecords
from memtenant.reports.samples import sample_size
from memtenant.reports.scope import gone_facts
from memtenant.rules.expiry import CUTOFF_FIELDS, expiry, step
from memtenant.stores.survey import Held
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["StorePass"]

_PERSONAL: Final = (b"r:", b"k:", b"i:")
"""Keys with what is about persons begin so."""


class StorePass:
    """One pass over a store: what each tenant has, and who has memory there and is not declared any
    more. ``strays``: those of them that no declared policy is known of. ``began``: when, by the
    clocks of its servers."""

    def __init__(self, looking: Looking, witness: StoreWitness, store: str) -> None:
        self.facts: dict[TenantId, TenantFacts] = {}
        self.counted: dict[TenantId, TenantRecords] = {}
        self.strays: dict[str, Missing] = {}
        self.began = looking.now
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
        self.began = before.earliest
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
