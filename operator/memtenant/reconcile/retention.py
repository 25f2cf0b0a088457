"""How long a tenant's records are kept, and what of them would go: read and told, not written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from memtenant.errors import MemtenantError
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.declared import tenant_spec
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.store import look_at_store
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared, ObjectKey
from memtenant.rules.expiry import CUTOFF_FIELDS, Expiry, expiry
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import Matters, hold_labels, matters_from
from memtenant.rules.retention import Resolution
from memtenant.stores import CutOffs, Tally
from memtenant.tenancy.identity import TenantId

__all__ = ["Expected", "Retention", "expected", "retention_of"]


@dataclass(frozen=True, slots=True)
class Retention:
    """What is in force for one tenant, and by which matters it is held."""

    tenant: TenantId
    policy: str
    store: str
    resolution: Resolution
    matters: tuple[str, ...]

    def expiry_at(self, moment: datetime) -> Expiry:
        """The cut-offs at that moment, in the operator's steps; under a hold there are none."""
        return expiry(self.tenant, self.resolution, moment, held=bool(self.matters))


@dataclass(frozen=True, slots=True)
class Expected:
    """What would go of one tenant, or why that cannot be told."""

    retention: Retention
    tally: Tally
    problem: str = ""


def retention_of(world: World, declared: Declared, before: Matters | None = None) -> Retention:
    """``before`` are the matters that the tenant's store remembers, where that was asked. Raises
    `InvalidResource` where the tenant or its policy cannot be resolved."""
    tenant = TenantId(declared.key.namespace, declared.key.name)
    spec = tenant_spec(declared)
    policy = read_policy(world, spec.retention_policy_ref.name)
    namespace = world.mirror.namespace(tenant.namespace)
    labels = hold_labels(tenant, declared.labels, namespace.labels if namespace else {})
    return Retention(
        tenant,
        policy.name,
        str(declared.status.get("store") or ""),
        policy.resolve_for(spec),
        tuple(sorted(policy.matters_of(labels, before or {}, world.clock.now()))),
    )


async def expected(
    world: World,
    kept: Iterable[Retention],
    until: datetime,
    progress: Callable[[int, int], None] = lambda _done, _due: None,
) -> list[Expected]:
    """What would go of each until then, counted by the headers of its records on its store."""
    by_store: dict[str, list[Retention]] = {}
    for one in kept:
        by_store.setdefault(one.store, []).append(one)
    found: list[Expected] = []
    for name, those in sorted(by_store.items()):
        declared = world.mirror.get(ObjectKey.store(name)) if name else None
        if declared is None:
            why = f"MemoryStore {name!r} is not declared" if name else "it is not on a store yet"
            found += [Expected(one, Tally(), why) for one in those]
            continue
        try:
            link = await look_at_store(world, declared)
            those = await _as_held(world, link, those)
            tallies = await _count(link, those, until, progress)
        except MemtenantError as error:
            found += [Expected(one, Tally(), str(error)) for one in those]
            continue
        found += [Expected(one, tallies.get(one.tenant, Tally())) for one in those]
    return sorted(found, key=lambda one: str(one.retention.tenant))


async def _as_held(world: World, link: StoreLink, those: Iterable[Retention]) -> list[Retention]:
    """With the holds that stand though no label names them any more."""
    kept = {one.tenant: one for one in those}
    states = await link.admin.read_states(kept.keys())
    for tenant, state in states.items():
        declared = world.mirror.get(ObjectKey.tenant(tenant.namespace, tenant.name))
        if declared is not None:
            before = matters_from(state.access.get("matters", ""))
            kept[tenant] = retention_of(world, declared, before)
    return list(kept.values())


async def _count(
    link: StoreLink,
    kept: Iterable[Retention],
    until: datetime,
    progress: Callable[[int, int], None],
) -> Mapping[TenantId, Tally]:
    cut_offs = {one.tenant: _cut_offs(one.expiry_at(until)) for one in kept}
    total = await link.admin.count_keys()
    return await link.admin.count_expiring(cut_offs, progress=lambda done: progress(done, total))


def _cut_offs(at: Expiry) -> CutOffs:
    content, derived = (
        int(at.fields.get(CUTOFF_FIELDS[one], 0))
        for one in (RecordClass.CONTENT, RecordClass.DERIVED)
    )
    return CutOffs(content, derived)
