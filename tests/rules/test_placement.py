from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.rules.placement import (
    Applicant,
    PolicyView,
    Refusal,
    StoreView,
    place,
    policy_refusals,
    refusals,
)
from memtenant.tenancy.identity import TenantId
from tests.rules.builders import NEIGHBOUR, TENANT, applicant, policy_view, store_view

MIB = 1 << 20
ELSEWHERE = TenantId("sales", "crm")
GOLD = {"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}}


def refused(
    asking: Applicant | None = None,
    policy: PolicyView | None = None,
    store: StoreView | None = None,
) -> list[Refusal]:
    return list(refusals(asking or applicant(), policy or policy_view(), store or store_view()))


def only(found: Sequence[Refusal]) -> Refusal:
    (one,) = found
    return one


def test_an_ordinary_tenant_is_refused_nothing() -> None:
    assert refused() == []


STRICT = {"isolation": "Strict"}
DEDICATED = {"standalone": None, "adminSecretRef": None, "dedicated": {"image": "valkey/valkey:8"}}


@pytest.mark.parametrize(
    ("tenant", "store", "reason"),
    [
        (STRICT, {}, "IsolationNotOffered"),
        ({}, DEDICATED, "IsolationNotOffered"),
        (STRICT, DEDICATED, None),
        (STRICT, DEDICATED | {"tenantPolicy": {"minIsolation": "Strict"}}, None),
        ({}, {"tenantPolicy": {"minIsolation": "Strict"}}, "IsolationTooWeak"),
    ],
)
def test_strict_tenants_and_dedicated_stores_are_for_each_other(
    tenant: dict[str, Any], store: dict[str, Any], reason: str | None
) -> None:
    found = refused(applicant(**tenant), store=store_view(**store))
    assert [one.reason for one in found] == ([] if reason is None else [reason])


# -- each refusal, with the field to change and the limit that it met ------------------------------

POLICY_REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    "namespace": (
        {},
        {"allowedNamespaces": GOLD},
        "NamespaceNotAllowed",
        "spec.retentionPolicyRef.name",
        "RetentionPolicy 'standard' does not allow namespace 'support' (allowedNamespaces)",
    ),
    "deletion": (
        {"deletionPolicy": "Shred"},
        {"allowedDeletionPolicies": ["Retain", "Delete"]},
        "DeletionPolicyNotAllowed",
        "spec.deletionPolicy",
        "RetentionPolicy 'standard' allows deletionPolicy Retain, Delete, not Shred",
    ),
    "encryption by the policy": (
        {"encryption": {"mode": "Disabled"}},
        {"encryption": {"mode": "Required"}},
        "EncryptionRequired",
        "spec.encryption.mode",
        "RetentionPolicy 'standard' requires encryption",
    ),
    "audit by the policy": (
        {"audit": {"mode": "Disabled"}},
        {"audit": {"mode": "Required"}},
        "AuditRequired",
        "spec.audit.mode",
        "RetentionPolicy 'standard' requires the audit",
    ),
    "audit by SOX": (
        {"audit": {"mode": "Disabled"}},
        {"frameworks": ["SOX"]},
        "AuditRequired",
        "spec.audit.mode",
        "(SOX Section 802 (18 USC 1519), no alteration of records) requires the audit",
    ),
    "encryption by HIPAA": (
        {"encryption": {"mode": "Disabled"}},
        {"frameworks": ["HIPAA"]},
        "EncryptionRequired",
        "spec.encryption.mode",
        "HIPAA 45 CFR 164.312(a)(2)(iv)",
    ),
    "encryption by PCI_DSS": (
        {"encryption": {"mode": "Disabled"}},
        {"frameworks": ["PCI_DSS"]},
        "EncryptionRequired",
        "spec.encryption.mode",
        "PCI_DSS 3.5.1",
    ),
    "isolation by the policy's erasure": (
        {"isolation": "Minimal"},
        {"erasure": {"mode": "Required"}},
        "IsolationTooWeak",
        "spec.isolation",
        "RetentionPolicy 'standard' asks for a key per person",
    ),
    "isolation by GDPR": (
        {"isolation": "Minimal"},
        {"frameworks": ["GDPR"]},
        "IsolationTooWeak",
        "spec.isolation",
        "(GDPR Art. 17, right to erasure) asks for a key per person",
    ),
    "isolation by HIPAA": (
        {"isolation": "Minimal"},
        {"frameworks": ["HIPAA"]},
        "IsolationTooWeak",
        "spec.isolation",
        "(HIPAA 45 CFR 164.312(a)(2)(i), unique user identification) asks for a user per agent",
    ),
    "isolation by PCI_DSS": (
        {"isolation": "Minimal"},
        {"frameworks": ["PCI_DSS"]},
        "IsolationTooWeak",
        "spec.isolation",
        "asks for a user per agent",
    ),
}

STORE_REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    "namespace": (
        {},
        {"allowedNamespaces": GOLD},
        "NamespaceNotAllowed",
        "spec.storeRef.name",
        "MemoryStore 'shared' does not allow namespace 'support' (allowedNamespaces)",
    ),
    "residency": (
        {"residency": "eu-west"},
        {"residencies": ["us-east", "us-west"]},
        "ResidencyNotOffered",
        "spec.residency",
        "does not keep data in 'eu-west' (residencies: us-east, us-west)",
    ),
    "residency of a store that tells none": (
        {"residency": "eu-west"},
        {},
        "ResidencyNotOffered",
        "spec.residency",
        "(residencies: none)",
    ),
    "retention policy": (
        {},
        {"tenantPolicy": {"allowedRetentionPolicies": ["gold", "silver"]}},
        "RetentionPolicyNotAllowed",
        "spec.retentionPolicyRef.name",
        "allows the RetentionPolicies gold, silver, not 'standard'",
    ),
    "isolation": (
        {"isolation": "Minimal"},
        {"tenantPolicy": {"minIsolation": "Moderate"}},
        "IsolationTooWeak",
        "spec.isolation",
        "tenantPolicy.minIsolation",
    ),
    "deletion": (
        {"deletionPolicy": "Delete"},
        {"tenantPolicy": {"allowedDeletionPolicies": ["Retain"]}},
        "DeletionPolicyNotAllowed",
        "spec.deletionPolicy",
        "MemoryStore 'shared' allows deletionPolicy Retain, not Delete",
    ),
    "one tenant's memory": (
        {"quota": {"memory": "513Mi"}},
        {"tenantPolicy": {"maxMemoryPerTenant": "512Mi"}},
        "QuotaTooLarge",
        "spec.quota.memory",
        "MemoryStore 'shared' gives one tenant (tenantPolicy.maxMemoryPerTenant: 512Mi)",
    ),
    "a namespace's memory": (
        {"quota": {"memory": "2Gi"}},
        {"tenantPolicy": {"maxMemoryPerNamespace": "1Gi"}},
        "NamespaceQuotaExceeded",
        "spec.quota.memory",
        "tenantPolicy.maxMemoryPerNamespace: 1Gi",
    ),
    "capacity": (
        {"quota": {"memory": "2Gi"}},
        {"capacity": {"memory": "1Gi"}},
        "CapacityExceeded",
        "spec.quota.memory",
        "capacity.memory: 1Gi",
    ),
}


@pytest.mark.parametrize(
    ("asked", "policy", "reason", "field", "words"), POLICY_REFUSALS.values(), ids=POLICY_REFUSALS
)
def test_what_the_policy_does_not_allow(
    asked: dict[str, Any], policy: dict[str, Any], reason: str, field: str, words: str
) -> None:
    found = only(list(policy_refusals(applicant(**asked), policy_view(**policy))))
    assert (found.reason, found.field) == (reason, field)
    assert words in found.message
    assert not found.retryable


@pytest.mark.parametrize(
    ("asked", "store", "reason", "field", "words"), STORE_REFUSALS.values(), ids=STORE_REFUSALS
)
def test_what_the_store_does_not_allow(
    asked: dict[str, Any], store: dict[str, Any], reason: str, field: str, words: str
) -> None:
    found = only(refused(applicant(**asked), store=store_view(**store)))
    assert (found.reason, found.field) == (reason, field)
    assert words in found.message


def test_sox_leaves_isolation_and_encryption_to_the_tenant() -> None:
    weak = applicant(isolation="Minimal", encryption={"mode": "Disabled"})
    assert refused(weak, policy_view(frameworks=["SOX"])) == []


def test_a_labelled_namespace_is_admitted() -> None:
    gold = applicant(labels={"tier": "gold"})
    policy = policy_view(allowedNamespaces=GOLD)
    assert refused(gold, policy, store_view(allowedNamespaces=GOLD)) == []


def test_every_refusal_is_told_not_only_the_first() -> None:
    asking = applicant(residency="eu-west", quota={"memory": "2Gi"})
    found = refused(
        asking, policy_view(allowedNamespaces=GOLD), store_view(capacity={"memory": "1Gi"})
    )
    assert [one.reason for one in found] == [
        "NamespaceNotAllowed",
        "ResidencyNotOffered",
        "CapacityExceeded",
    ]


# -- sums ------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.builds(TenantId, st.sampled_from(["support", "sales"]), st.sampled_from("abcdef")),
        st.integers(0, 64).map(lambda mib: mib * MIB),
    ),
    st.integers(1, 64),
    st.integers(1, 256),
    st.integers(1, 256),
)
def test_capacity_and_a_namespaces_share_are_exact_sums_over_the_others(
    committed: dict[TenantId, int], asked: int, capacity: int, share: int
) -> None:
    store = store_view(
        committed=committed | {TENANT: MIB // 2},  # its own earlier quota does not count
        capacity={"memory": f"{capacity}Mi"},
        tenantPolicy={"maxMemoryPerNamespace": f"{share}Mi"},
    )
    reasons = {
        one.reason for one in refused(applicant(quota={"memory": f"{asked}Mi"}), store=store)
    }
    everyone = asked * MIB + sum(committed.values())
    namespace = asked * MIB + sum(b for t, b in committed.items() if t.namespace == "support")
    assert ("CapacityExceeded" in reasons) == (everyone > capacity * MIB)
    assert ("NamespaceQuotaExceeded" in reasons) == (namespace > share * MIB)


def test_a_bound_that_was_lowered_refuses_newcomers_not_what_is_there() -> None:
    store = store_view(
        committed={TENANT: 8 * MIB, NEIGHBOUR: 8 * MIB},
        capacity={"memory": "10Mi"},
        tenantPolicy={"maxMemoryPerNamespace": "4Mi"},
    )
    assert refused(applicant(quota={"memory": "8Mi"}), store=store) == []
    assert refused(applicant(quota={"memory": "9Mi"}), store=store) != []


def test_the_last_byte_may_be_taken_and_not_one_more() -> None:
    store = store_view(committed={NEIGHBOUR: 1024 * MIB - 2 * MIB}, capacity={"memory": "1Gi"})
    assert refused(applicant(quota={"memory": "2Mi"}), store=store) == []
    found = only(refused(applicant(quota={"memory": str(2 * MIB + 1)}), store=store))
    assert found.message == (
        "2097153 and the 1022Mi of the other tenants of MemoryStore 'shared' are more than "
        "capacity.memory: 1Gi"
    )
    assert found.retryable


def test_another_namespaces_tenants_do_not_count_for_a_namespaces_share() -> None:
    store = store_view(
        committed={ELSEWHERE: 1 << 40}, tenantPolicy={"maxMemoryPerNamespace": "1Gi"}
    )
    assert refused(store=store) == []


# -- where -----------------------------------------------------------------------------------------


def place_on(
    *stores: StoreView,
    placed: str = "",
    policy: PolicyView | None = None,
    **asked: Any,
) -> tuple[str, Refusal | None]:
    placement = place(applicant(**asked), policy or policy_view(), stores, placed)
    return placement.store.name if placement.store else "", placement.refusal


def test_the_named_store_is_taken_even_if_another_is_the_default() -> None:
    stores = store_view("a", default=True), store_view("b")
    assert place_on(*stores, storeRef={"name": "b"}) == ("b", None)


def test_the_named_store_is_not_exchanged_for_one_that_would_fit() -> None:
    stores = store_view("a"), store_view("b", residencies=["us-east"])
    name, refusal = place_on(*stores, storeRef={"name": "a"}, residency="us-east")
    assert name == "a"
    assert refusal is not None
    assert refusal.reason == "ResidencyNotOffered"


def test_a_named_store_that_does_not_exist_may_still_come() -> None:
    name, refusal = place_on(store_view("a"), storeRef={"name": "b"})
    assert name == ""
    assert refusal is not None
    assert (refusal.reason, refusal.field) == ("StoreNotFound", "spec.storeRef.name")
    assert refusal.retryable
    assert "'b' does not exist" in refusal.message


@pytest.mark.parametrize(
    ("stores", "chosen"),
    [
        ([store_view("b"), store_view("a")], "a"),
        ([store_view("a"), store_view("b", default=True)], "b"),
        ([store_view("b", default=True), store_view("a", default=True)], "a"),
        ([store_view("a", default=True, allowedNamespaces=GOLD), store_view("b")], "b"),
        ([store_view("a", default=True, capacity={"memory": "1Mi"}), store_view("b")], "b"),
    ],
)
def test_of_the_stores_that_admit_the_tenant_the_default_then_the_first(
    stores: list[StoreView], chosen: str
) -> None:
    assert place_on(*stores) == (chosen, None)


stores = st.lists(
    st.builds(
        store_view,
        st.sampled_from("abcdef"),
        default=st.booleans(),
        residencies=st.sampled_from([[], ["eu-west"]]),
        capacity=st.sampled_from([{}, {"memory": "1Mi"}]),
    ),
    max_size=5,
    unique_by=lambda store: store.name,
)


@given(stores, st.data(), st.sampled_from([{}, {"residency": "eu-west"}]))
def test_placement_does_not_depend_on_the_order_of_the_stores(
    some: list[StoreView], data: st.DataObject, asked: dict[str, Any]
) -> None:
    shuffled = data.draw(st.permutations(some))
    assert place_on(*some, **asked) == place_on(*shuffled, **asked)


@given(stores, st.sampled_from([{}, {"residency": "eu-west"}]))
def test_a_tenant_is_placed_exactly_where_it_is_refused_nothing(
    some: list[StoreView], asked: dict[str, Any]
) -> None:
    name, refusal = place_on(*some, **asked)
    admitting = {one.name for one in some if not refused(applicant(**asked), store=one)}
    assert bool(admitting) == (refusal is None)
    assert name in (admitting or {""})


def test_without_any_store_the_tenant_waits_for_a_platform_admin() -> None:
    name, refusal = place_on()
    assert name == ""
    assert refusal is not None
    assert (refusal.reason, refusal.retryable) == ("NoStore", True)


def test_where_all_stores_refuse_for_the_same_field_that_field_is_named() -> None:
    full = {"memory": "1Mi"}
    name, refusal = place_on(store_view("b", capacity=full), store_view("a", capacity=full))
    assert name == ""
    assert refusal is not None
    assert (refusal.reason, refusal.field) == ("NoStoreFits", "spec.quota.memory")
    assert "MemoryStore 'a'" in refusal.message
    assert "MemoryStore 'b'" in refusal.message
    assert refusal.retryable, "another tenant may go and make room"


def test_where_stores_refuse_for_different_fields_each_is_told() -> None:
    some = store_view("a", capacity={"memory": "1Mi"}), store_view("b", allowedNamespaces=GOLD)
    _, refusal = place_on(*some)
    assert refusal is not None
    assert refusal.field == "spec.storeRef"
    assert "spec.quota.memory: " in refusal.message
    assert "spec.storeRef.name: " in refusal.message


def test_what_no_store_could_mend_is_said_of_the_field_not_of_the_stores() -> None:
    _, refusal = place_on(
        store_view("a"),
        store_view("b"),
        policy=policy_view(encryption={"mode": "Required"}),
        encryption={"mode": "Disabled"},
    )
    assert refusal is not None
    assert (refusal.reason, refusal.field) == ("EncryptionRequired", "spec.encryption.mode")


# -- once placed -----------------------------------------------------------------------------------


@given(stores)
def test_a_placed_tenant_stays_whatever_stores_there_are(some: list[StoreView]) -> None:
    others = [one for one in some if one.name != "a"]
    assert place_on(*others, store_view("a"), placed="a") == ("a", None)


def test_a_placed_tenant_that_its_store_no_longer_allows_stays_and_is_told() -> None:
    stores = store_view("a", allowedNamespaces=GOLD), store_view("b", default=True)
    name, refusal = place_on(*stores, placed="a")
    assert name == "a"
    assert refusal is not None
    assert refusal.reason == "NamespaceNotAllowed"


def test_a_placed_tenant_whose_store_is_gone_waits_for_it() -> None:
    name, refusal = place_on(store_view("b"), placed="a")
    assert name == ""
    assert refusal is not None
    assert refusal.reason == "StoreNotFound"
    assert "holds this tenant's memory but does not exist" in refusal.message
    assert refusal.retryable


def test_a_placed_tenant_that_names_another_store_is_told_that_data_is_not_moved() -> None:
    """As a tenant does that adopts retained memory: the API server knows nothing of it."""
    stores = store_view("a"), store_view("b")
    name, refusal = place_on(*stores, placed="a", storeRef={"name": "b"})
    assert name == "a"
    assert refusal is not None
    assert (refusal.reason, refusal.field) == ("PlacedElsewhere", "spec.storeRef.name")
    assert "lies on MemoryStore 'a' and is not moved to 'b'" in refusal.message
