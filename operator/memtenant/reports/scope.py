"""Whose memory a report is about: tenants that are declared under the policy, and those that are
not declared any more, whose memory is kept under it.

Of a tenant that is gone, what its store remembers of its last reconcile stands in for what was
declared: which policy was in force, what it chose, and the holds that stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from memtenant.api.fields import Isolation
from memtenant.api.policy import RetentionPolicySpec
from memtenant.api.store_status import MemoryStoreStatus
from memtenant.api.tenant import MemoryTenantSpec, MemoryTenantStatus
from memtenant.errors import InvalidResource, MemtenantError, ResourceNotFound
from memtenant.reports.evidence import Missing, TenantFacts
from memtenant.reports.sources import Declarations
from memtenant.resources.port import Declared
from memtenant.rules.desired import SHARED_PRINCIPAL, accesses_from
from memtenant.rules.policy import (
    PolicyFacts,
    chosen_from,
    hold_labels,
    matters_from,
    policy_facts,
)
from memtenant.tenancy.identity import TenantId

__all__ = [
    "begun",
    "declared_facts",
    "find_policy",
    "gone_facts",
    "stores_without_tenants",
    "unseen_instances",
]


def find_policy(declared: Declarations, name: str) -> tuple[Declared, PolicyFacts]:
    """The policy of that name. `ResourceNotFound`, or `InvalidResource`."""
    found = next((one for one in declared.policies if one.key.name == name), None)
    if found is None:
        known = ", ".join(sorted(one.key.name for one in declared.policies)) or "none"
        raise ResourceNotFound(f"there is no RetentionPolicy {name!r}: there is {known}")
    try:
        spec = RetentionPolicySpec.model_validate(found.spec)
    except ValueError as error:
        raise InvalidResource(f"RetentionPolicy {name!r} cannot be read: {error}") from None
    return found, policy_facts(name, spec)


def declared_facts(
    declared: Declarations, policy: PolicyFacts, now: datetime
) -> Iterator[tuple[str, TenantFacts | Missing]]:
    """Each tenant that names the policy; of what cannot be read, why."""
    for one in declared.tenants:
        ref = one.spec.get("retentionPolicyRef")
        if not isinstance(ref, dict) or ref.get("name") != policy.name:
            continue
        name = f"{one.key.namespace}.{one.key.name}"
        try:
            facts = _facts(declared, policy, one, now)
        except (MemtenantError, ValueError) as error:
            yield name, Missing("declaration", " ".join(str(error).split())[:300])
            continue
        if not facts.store:
            yield name, Missing("store", "the tenant is not on a store yet")
            continue
        yield name, facts


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
        matters=begun(policy, policy.matters_of(labels, {}, now)),
    )


def begun(policy: PolicyFacts, matters: Iterable[str]) -> dict[str, datetime]:
    """The holds of these matters, each with its begin."""
    since = {hold.matter: hold.since for hold in policy.spec.legal_holds}
    return {matter: since[matter] for matter in matters}


def gone_facts(
    declared: Declarations,
    policy: PolicyFacts,
    tenant: TenantId,
    store: str,
    access: Mapping[str, str],
    now: datetime,
) -> TenantFacts | Missing | None:
    """A tenant that is not declared any more, by the hash that its users are rendered from. None
    where another policy was in force, which has it in its own report; a `Missing` where none was
    that is declared still."""
    name = access.get("policy", "")
    if name != policy.name:
        if any(one.key.name == name for one in declared.policies):
            return None
        told = f"RetentionPolicy {name}, which is gone" if name else "no policy that is known"
        return Missing(
            "declaration",
            f"the tenant is not declared any more, has memory on store {store}, and is under "
            f"{told}: nothing says how long it is kept, and it was not looked at",
        )
    isolation = Isolation.MODERATE
    if set(accesses_from(access.get("agents", ""))) == {SHARED_PRINCIPAL}:
        isolation = Isolation.MINIMAL
    spec = MemoryTenantSpec.model_validate(
        {"retentionPolicyRef": {"name": policy.name}, "isolation": isolation.value}
    )
    labels = hold_labels(tenant, {}, declared.namespaces.get(tenant.namespace, {}))
    before = matters_from(access.get("matters", ""))
    return TenantFacts(
        tenant=tenant,
        uid=access.get("incarnation", ""),
        generation=0,
        store=store,
        spec=spec,
        status=MemoryTenantStatus(),
        resolution=policy.resolve_chosen(chosen_from(access.get("retention", "")) or {}),
        matters=begun(policy, policy.matters_of(labels, before, now)),
        gone=True,
    )


def stores_without_tenants(declared: Declarations) -> set[str]:
    """Shared stores that no declared tenant is on, or that have what tenants left behind: only a
    look at them tells whose."""
    used = {str(one.status.get("store") or "") for one in declared.tenants}
    return {
        one.key.name
        for one in declared.stores
        if "dedicated" not in one.spec and (one.key.name not in used or _status(one).orphan_count)
    }


def unseen_instances(declared: Declarations, policy: PolicyFacts) -> Iterator[tuple[str, Missing]]:
    """Tenants with isolation Strict that are not declared any more: their instances are stopped,
    and their volumes kept."""
    policies = {one.key.name for one in declared.policies}
    for store in declared.stores:
        if "dedicated" not in store.spec:
            continue
        status = _status(store)
        for one in status.orphans:
            if one.retention_policy == policy.name or one.retention_policy not in policies:
                yield (
                    one.tenant_id,
                    Missing(
                        "instance",
                        "the tenant is not declared any more, and its instance is stopped: the "
                        "memory on its volume was not looked at",
                    ),
                )
        more = status.orphan_count - len(status.orphans)
        if more > 0:
            yield (
                f"more of store {store.key.name}",
                Missing(
                    "instances",
                    f"{more} more tenants are not declared any more, and their instances are "
                    "stopped: nothing of them was looked at",
                ),
            )


def _status(store: Declared) -> MemoryStoreStatus:
    try:
        return MemoryStoreStatus.model_validate(store.status)
    except ValueError:
        return MemoryStoreStatus()
