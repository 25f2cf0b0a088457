"""From raw objects to models: tolerant of what is newer, exact about what is wrong."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtenant.api import KINDS, MemoryStore, MemoryTenant, Quantity, RetentionPolicy, parse
from memtenant.api.selector import LabelSelector
from memtenant.api.validate import defaulted, require_valid, validate
from memtenant.errors import InvalidResource
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.period import Period
from tests.api import generated


def _tenant(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": "MemoryTenant",
        "metadata": {"name": "acme", "namespace": "support"},
        "spec": {"retentionPolicyRef": {"name": "gdpr"}, **spec},
    }


def _parsed(**spec: Any) -> MemoryTenant:
    tenant = parse(_tenant(**spec))
    assert isinstance(tenant, MemoryTenant)
    return tenant


def test_fields_become_what_they_mean() -> None:
    tenant = _parsed(quota={"memory": "1Gi"}, retention={"content": "12mo"})

    assert tenant.tenant_id == TenantId("support", "acme")
    assert tenant.spec.quota.memory == Quantity.parse("1024Mi")
    assert tenant.spec.retention.content == Period(12, "mo")
    assert tenant.spec.credentials.min_overlap == Period(10, "m")
    assert [agent.name for agent in tenant.spec.agents_or_default()] == ["default"]


def test_each_kind_has_its_model() -> None:
    store = {
        "standalone": {"endpoint": "valkey:6379"},
        "adminSecretRef": {"name": "valkey", "key": "password"},
    }
    head = {"apiVersion": "memtenant.dev/v1alpha1", "metadata": {"name": "x"}}

    assert isinstance(parse({**head, "kind": "MemoryStore", "spec": store}), MemoryStore)
    assert isinstance(parse({**head, "kind": "RetentionPolicy"}), RetentionPolicy)


def test_what_a_newer_version_added_is_ignored() -> None:
    raw = _tenant(sharding={"mode": "Enabled"})
    raw["status"] = {"store": "shared", "surprise": 1}

    tenant = parse(raw)

    assert isinstance(tenant, MemoryTenant)
    assert tenant.status.store == "shared"


def test_what_a_person_mistyped_is_refused_by_name() -> None:
    (violation,) = validate(_tenant(quotas={"memory": "1Gi"}))

    assert violation.field == "spec.quotas"
    assert violation.message == "unknown field: write quota, if that is meant"


@pytest.mark.parametrize(
    ("spec", "field", "sentence"),
    [
        ({"retention": {"content": "30 days"}}, "spec.retention.content", "write a whole number"),
        ({"quota": {"memory": "lots"}}, "spec.quota.memory", "512Mi"),
        ({"quota": {"memory": True}}, "spec.quota.memory", "cannot be bool"),
        ({"isolation": "Paranoid"}, "spec.isolation", "'Strict', 'Moderate' or 'Minimal'"),
        ({"agents": [{"access": "Steward"}]}, "spec.agents.0.name", "required"),
    ],
)
def test_the_field_that_cannot_be_read_is_named(
    spec: dict[str, Any], field: str, sentence: str
) -> None:
    with pytest.raises(InvalidResource, match="MemoryTenant 'acme'") as caught:
        parse(_tenant(**spec))

    assert caught.value.field == field
    assert sentence in str(caught.value)


def test_an_object_that_is_not_ours_is_refused() -> None:
    with pytest.raises(InvalidResource, match=r"apiVersion: memtenant\.dev/v1alpha1"):
        parse({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})


def test_require_valid_names_the_first_and_counts_the_rest() -> None:
    with pytest.raises(InvalidResource, match=r"and 1 more") as caught:
        require_valid(_tenant(quota={"memory": "1Ki"}, retention={"content": "9999999y"}))

    assert caught.value.field == "spec.quota.memory"


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_no_object_makes_parse_or_validate_fail_otherwise(kind: str, data: st.DataObject) -> None:
    raw = data.draw(generated.objects(kind, 30))

    if validate(raw):
        with suppress(InvalidResource):
            parse(raw)
    else:
        parse(defaulted(raw))


def test_a_bottomless_value_is_refused_like_any_other() -> None:
    bottomless: list[Any] = []
    for _ in range(100_000):
        bottomless = [bottomless]

    assert [violation.field for violation in validate(_tenant(residency=bottomless))] == [
        "spec.residency"
    ]


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"team": "blue"}}, True),
        ({"matchLabels": {"team": "red"}}, False),
        ({"matchLabels": {"team": "blue", "tier": "x"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["blue"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["blue"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selectors_select_as_in_kubernetes(selector: dict[str, Any], selected: bool) -> None:
    assert LabelSelector.model_validate(selector).matches({"team": "blue"}) == selected
