"""Lengths of time and names mean offline, in CEL and in `tenancy` the same."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.fields import NAME_PATTERN, seconds
from memtenant.api.resource import is_name
from memtenant.api.validate import validate
from memtenant.errors import InvalidResource
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.period import PERIOD_PATTERN, Period

_periods = st.from_regex(PERIOD_PATTERN.removesuffix("$") + r"\Z")


@given(_periods, _periods)
def test_the_crds_order_periods_as_the_rules_do(one: str, other: str) -> None:
    try:
        lengths = Period.parse(one), Period.parse(other)
    except InvalidResource:
        return
    if seconds(one) != seconds(other):
        assert (seconds(one) < seconds(other)) == (lengths[0] < lengths[1])
    else:
        assert lengths[0].days == pytest.approx(lengths[1].days, rel=1e-12)


@given(_periods)
def test_a_period_that_the_crds_take_can_be_read(text: str) -> None:
    tenant = {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": "MemoryTenant",
        "metadata": {"name": "acme"},
        "spec": {"retentionPolicyRef": {"name": "gdpr"}, "retention": {"audit": text}},
    }

    if not validate(tenant):
        assert str(Period.parse(text)) == text


@given(st.text(st.sampled_from("ab1-.A\n"), max_size=5) | st.just("a" * 41))
def test_a_name_that_the_crds_take_makes_a_tenant_id(text: str) -> None:
    if is_name(text):
        assert str(TenantId("support", text)) == f"support.{text}"
        assert re.search(NAME_PATTERN, text)
    else:
        with pytest.raises(InvalidResource):
            TenantId("support", text)
