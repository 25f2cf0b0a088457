from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.errors import InvalidResource
from memtenant.tenancy import keys
from memtenant.tenancy.identity import (
    MAX_NAME,
    TenantId,
    agent_name,
    agent_user,
    binding_name,
    child_name,
    other_slot,
)

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
tenants = st.builds(TenantId, labels, labels)

ACME = TenantId("support", "acme")


def test_a_tenant_id_is_namespace_dot_name() -> None:
    assert str(ACME) == "support.acme"
    assert TenantId.parse("support.acme") == ACME


@pytest.mark.parametrize(
    "text",
    ["acme", "", ".acme", "support.", "a.b.c", "Support.acme", "support.acme\n", "s*.acme", "-a.b"],
)
def test_other_texts_are_no_tenant_id(text: str) -> None:
    with pytest.raises(InvalidResource):
        TenantId.parse(text)


def test_a_name_has_at_most_40_characters() -> None:
    TenantId("n" * 63, "a" * MAX_NAME)
    with pytest.raises(InvalidResource, match="at most 40") as caught:
        TenantId("ns", "a" * (MAX_NAME + 1))
    assert caught.value.field == "name"
    with pytest.raises(InvalidResource) as caught:
        TenantId("n" * 64, "a")
    assert caught.value.field == "namespace"


@given(tenants)
def test_a_tenant_id_reads_back(tenant: TenantId) -> None:
    assert TenantId.parse(str(tenant)) == tenant


@given(st.tuples(tenants, labels), st.tuples(tenants, labels))
def test_no_two_agents_share_a_username(
    one: tuple[TenantId, str], other: tuple[TenantId, str]
) -> None:
    same = one == other
    assert (agent_user(*one, "a") == agent_user(*other, "a")) is same
    assert agent_user(*one, "a") != agent_user(*one, "b")


def test_an_agent_is_named_as_a_tenant_is() -> None:
    assert agent_name("triage") == "triage"
    for text in ("", "Triage", "a.b", "a" * (MAX_NAME + 1)):
        with pytest.raises(InvalidResource) as caught:
            agent_name(text)
        assert caught.value.field == "agent"


def test_slots_alternate() -> None:
    assert [other_slot("a"), other_slot("b")] == ["b", "a"]


def test_a_child_is_named_after_its_parent() -> None:
    assert child_name("acme", "triage") == "acme-triage"
    assert binding_name(ACME, "triage") == "acme-triage"


def test_a_long_child_name_is_cut_and_stays_distinct() -> None:
    one = child_name("a" * 40, "b" * 40)
    other = child_name("a" * 40, "b" * 39 + "c")
    assert len(one) == len(other) == 63
    assert one != other
    assert len(child_name("a" * 40, "report", longest=40)) <= 40


@given(labels, labels, st.integers(20, 63))
def test_a_child_name_stays_a_dns_label(parent: str, suffix: str, longest: int) -> None:
    name = child_name(parent, suffix, longest)
    assert len(name) <= longest
    assert name == name.strip("-").lower()


def test_every_key_of_a_tenant_carries_its_hash_tag() -> None:
    names = [
        keys.records(ACME),
        keys.dek(ACME, "x"),
        keys.subject_index(ACME, "x"),
        keys.conversations(ACME),
        keys.usage(ACME),
        keys.audit_queue(ACME),
        keys.limits(ACME),
        keys.access(ACME),
    ]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.startswith("mt:{support.acme}:")
        assert keys.tenant_of(name.encode()) == ACME


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"session:1",
        b"mt:support.acme:q",
        b"mt:{support}:q",
        b"mt:{Support.acme}:q",
        b"x:mt:{support.acme}:q",
        keys.STORE_OWNER.encode(),
        keys.STORE_EPOCH.encode(),
    ],
)
def test_a_key_that_memtenant_did_not_name_belongs_to_nobody(key: bytes) -> None:
    assert keys.tenant_of(key) is None


@given(st.from_regex(rb"mt:\{[-.a-z0-9]{0,12}\}:q", fullmatch=True))
def test_whatever_a_key_is_called_its_owner_can_be_asked(key: bytes) -> None:
    # Another application may use any name on a shared server.
    tenant = keys.tenant_of(key)
    assert tenant is None or keys.audit_queue(tenant).encode() == key
