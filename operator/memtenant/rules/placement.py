"""On which store a tenant's memory lies, and whether store and policy allow what it asks for.

A team may only tighten what the platform said. Every refusal names the field to change and the
limit that it met. A store once placed stays: data is not moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from memtenant.api.fields import DeletionPolicy, EnforcementMode, Isolation, RightMode
from memtenant.api.policy import RetentionPolicySpec
from memtenant.api.quantity import Quantity, quantity_of_bytes
from memtenant.api.store import MemoryStoreSpec
from memtenant.api.tenant import AuditMode, EncryptionMode, MemoryTenantSpec
from memtenant.rules.committed import Committed
from memtenant.tenancy.identity import TenantId

__all__ = [
    "Applicant",
    "Placement",
    "PolicyView",
    "Refusal",
    "StoreView",
    "place",
    "policy_refusals",
    "refusals",
    "requires_audit",
]

_AUDITING = ("access_logging", "access_monitoring", "immutable_audit")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a tenant cannot be as declared. ``retryable``: time or somebody else may mend it."""

    reason: str
    field: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Applicant:
    """The tenant that asks. ``labels`` are its namespace's."""

    tenant: TenantId
    spec: MemoryTenantSpec
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A RetentionPolicy and the features that its frameworks switch on (feature → clause)."""

    name: str
    spec: RetentionPolicySpec
    features: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreView:
    """A MemoryStore and the quotas of the tenants that lie on it, in bytes."""

    name: str
    spec: MemoryStoreSpec
    committed: Committed


@dataclass(frozen=True, slots=True)
class Placement:
    """The store, or why there is none."""

    store: StoreView | None
    refusal: Refusal | None = None


def place(
    applicant: Applicant, policy: PolicyView, stores: Sequence[StoreView], placed: str
) -> Placement:
    """Choose among the stores, or keep ``placed`` (empty: not placed yet).

    With ``storeRef`` that store or a refusal; without one, of the stores that admit the tenant
    defaults first, then by name, whether it is ready now or not: a store that restarts does not
    send tenants elsewhere for good.
    """
    by_name = {store.name: store for store in stores}
    asked = applicant.spec.store_ref.name if applicant.spec.store_ref else ""
    if placed and asked not in ("", placed):
        return Placement(by_name.get(placed), _elsewhere(asked, placed))
    if wanted := placed or asked:
        return _named(applicant, policy, by_name.get(wanted), wanted, bool(placed))
    if refusal := next(policy_refusals(applicant, policy), None):
        return Placement(None, refusal)
    admitting = [store for store in stores if not next(refusals(applicant, policy, store), None)]
    if not admitting:
        return Placement(None, _none_fits(applicant, policy, stores))
    best = min(admitting, key=lambda store: (not store.spec.default, store.name))
    return Placement(best)


def _elsewhere(asked: str, placed: str) -> Refusal:
    return Refusal(
        "PlacedElsewhere",
        "spec.storeRef.name",
        f"The tenant's memory lies on MemoryStore {placed!r} and is not moved to {asked!r}: name "
        f"{placed!r}, or make a new tenant",
    )


def _named(
    applicant: Applicant, policy: PolicyView, store: StoreView | None, name: str, placed: bool
) -> Placement:
    if store is None:
        what = "holds this tenant's memory but does not exist" if placed else "does not exist"
        return Placement(
            None,
            Refusal(
                "StoreNotFound",
                "spec.storeRef.name",
                f"MemoryStore {name!r} {what}: create it, or name one that exists",
                retryable=True,
            ),
        )
    return Placement(store, next(refusals(applicant, policy, store), None))


def _none_fits(applicant: Applicant, policy: PolicyView, stores: Sequence[StoreView]) -> Refusal:
    if not stores:
        return Refusal(
            "NoStore",
            "spec.storeRef",
            "There is no MemoryStore yet: a platform admin creates one",
            retryable=True,
        )
    found = [
        refusal
        for store in sorted(stores, key=lambda store: store.name)
        if (refusal := next(refusals(applicant, policy, store), None))
    ]
    fields = {refusal.field for refusal in found}
    reasons = "; ".join(f"{one.field}: {one.message}" for one in found[:3])
    return Refusal(
        "NoStoreFits",
        fields.pop() if len(fields) == 1 else "spec.storeRef",
        f"None of {len(stores)} MemoryStores takes this tenant. {reasons}",
        retryable=any(one.retryable for one in found),
    )


def refusals(applicant: Applicant, policy: PolicyView, store: StoreView) -> Iterator[Refusal]:
    """Everything that keeps the tenant from being as declared on this store, gravest first."""
    yield from policy_refusals(applicant, policy)
    yield from _store_refusals(applicant, policy.name, store)


def policy_refusals(applicant: Applicant, policy: PolicyView) -> Iterator[Refusal]:
    """What the retention policy says against the tenant, whatever the store."""
    spec = applicant.spec
    if not policy.spec.allowed_namespaces.admit(applicant.labels):
        yield Refusal(
            "NamespaceNotAllowed",
            "spec.retentionPolicyRef.name",
            f"RetentionPolicy {policy.name!r} does not allow namespace "
            f"{applicant.tenant.namespace!r} (allowedNamespaces): name another policy, or have "
            "the namespace labelled",
        )
    allowed = policy.spec.allowed_deletion_policies
    if allowed is not None and spec.deletion_policy not in allowed:
        yield _deletion_refusal(spec.deletion_policy, allowed, f"RetentionPolicy {policy.name!r}")
    insists = policy.spec.encryption.mode is EnforcementMode.REQUIRED
    required = _required_by(policy, "encryption", insists)
    if required and spec.encryption.mode is EncryptionMode.DISABLED:
        yield Refusal(
            "EncryptionRequired",
            "spec.encryption.mode",
            f"{required} requires encryption: set spec.encryption.mode to Enabled",
        )
    audited = requires_audit(policy)
    if audited and spec.audit.mode is AuditMode.DISABLED:
        yield Refusal(
            "AuditRequired",
            "spec.audit.mode",
            f"{audited} requires the audit: set spec.audit.mode to Enabled, or leave it out",
        )
    if spec.isolation is Isolation.MINIMAL:
        for too_weak, what in (
            (
                _required_by(policy, "erasure", policy.spec.erasure.mode is RightMode.REQUIRED),
                "a key per person",
            ),
            (_required_by(policy, "isolation", False), "a user per agent"),
        ):
            if too_weak:
                yield Refusal(
                    "IsolationTooWeak",
                    "spec.isolation",
                    f"{too_weak} asks for {what}, which isolation Minimal does not have: use "
                    "isolation Moderate (in a new tenant, as isolation cannot change)",
                )


def requires_audit(policy: PolicyView) -> str:
    """What requires that tenants under the policy be audited, in words; empty where nothing does:
    the policy itself, or the first of its frameworks' features that rest on an audit."""
    insists = policy.spec.audit.mode is EnforcementMode.REQUIRED
    asking = (_required_by(policy, feature, insists) for feature in _AUDITING)
    return next((words for words in asking if words), "")


def _required_by(policy: PolicyView, feature: str, insists: bool) -> str:
    if insists:
        return f"RetentionPolicy {policy.name!r}"
    clause = policy.features.get(feature)
    return f"RetentionPolicy {policy.name!r} ({clause})" if clause else ""


def _store_refusals(applicant: Applicant, policy: str, store: StoreView) -> Iterator[Refusal]:
    spec, rules, name = applicant.spec, store.spec.tenant_policy, f"MemoryStore {store.name!r}"
    if not store.spec.allowed_namespaces.admit(applicant.labels):
        yield Refusal(
            "NamespaceNotAllowed",
            "spec.storeRef.name",
            f"{name} does not allow namespace {applicant.tenant.namespace!r} (allowedNamespaces): "
            "name another store, or have the namespace labelled",
        )
    if spec.residency and spec.residency not in store.spec.residencies:
        listed = ", ".join(store.spec.residencies) or "none"
        yield Refusal(
            "ResidencyNotOffered",
            "spec.residency",
            f"{name} does not keep data in {spec.residency!r} (residencies: {listed})",
        )
    if rules.allowed_retention_policies and policy not in rules.allowed_retention_policies:
        yield Refusal(
            "RetentionPolicyNotAllowed",
            "spec.retentionPolicyRef.name",
            f"{name} allows the RetentionPolicies {', '.join(rules.allowed_retention_policies)}, "
            f"not {policy!r}",
        )
    yield from _isolation_refusals(spec.isolation, store, name)
    allowed = rules.allowed_deletion_policies
    if allowed is not None and spec.deletion_policy not in allowed:
        yield _deletion_refusal(spec.deletion_policy, allowed, name)
    yield from _memory_refusals(applicant, store, name)


def _isolation_refusals(asked: Isolation, store: StoreView, name: str) -> Iterator[Refusal]:
    dedicated, least = store.spec.dedicated is not None, store.spec.tenant_policy.min_isolation
    if dedicated is not (asked is Isolation.STRICT):
        yield Refusal(
            "IsolationNotOffered",
            "spec.isolation",
            f"{name} makes an instance for each tenant with isolation Strict, and takes no others: "
            "use isolation Strict (in a new tenant, as isolation cannot change), or name a shared "
            "store"
            if dedicated
            else f"{name} is one server for all its tenants, and isolation Strict is an instance "
            "of one's own: name a store with spec.dedicated",
        )
    elif least is not None and _STRENGTH[asked] < _STRENGTH[least]:
        yield Refusal(
            "IsolationTooWeak",
            "spec.isolation",
            f"{name} asks for isolation {least} at least (tenantPolicy.minIsolation)",
        )


_STRENGTH = {Isolation.MINIMAL: 0, Isolation.MODERATE: 1, Isolation.STRICT: 2}


def _memory_refusals(applicant: Applicant, store: StoreView, name: str) -> Iterator[Refusal]:
    asked = applicant.spec.quota.memory
    rules = store.spec.tenant_policy
    if rules.max_memory_per_tenant is not None and asked > rules.max_memory_per_tenant:
        yield Refusal(
            "QuotaTooLarge",
            "spec.quota.memory",
            f"{asked} is more than {name} gives one tenant "
            f"(tenantPolicy.maxMemoryPerTenant: {rules.max_memory_per_tenant})",
        )
    if asked.bytes <= store.committed.get(applicant.tenant, 0):
        return  # it has that much already: a bound that was lowered since refuses newcomers
    if rules.max_memory_per_namespace is not None:
        yield from _sum_refusal(
            asked,
            store.committed.to_others(applicant.tenant, applicant.tenant.namespace),
            rules.max_memory_per_namespace,
            "NamespaceQuotaExceeded",
            f"the other tenants of namespace {applicant.tenant.namespace!r} on {name}",
            "tenantPolicy.maxMemoryPerNamespace",
        )
    if store.spec.capacity.memory is not None:
        yield from _sum_refusal(
            asked,
            store.committed.to_others(applicant.tenant),
            store.spec.capacity.memory,
            "CapacityExceeded",
            f"the other tenants of {name}",
            "capacity.memory",
        )


def _sum_refusal(
    asked: Quantity, others: int, most: Quantity, reason: str, whose: str, limit: str
) -> Iterator[Refusal]:
    if asked.bytes + others <= most.bytes:
        return
    yield Refusal(
        reason,
        "spec.quota.memory",
        f"{asked} and the {quantity_of_bytes(others)} of {whose} are more than {limit}: {most}",
        retryable=True,
    )


def _deletion_refusal(
    asked: DeletionPolicy, allowed: Sequence[DeletionPolicy], whose: str
) -> Refusal:
    return Refusal(
        "DeletionPolicyNotAllowed",
        "spec.deletionPolicy",
        f"{whose} allows deletionPolicy {', '.join(allowed)}, not {asked}",
    )
