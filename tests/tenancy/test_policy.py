from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.errors import BindingInvalid
from memtenant.tenancy.masking import Detector, MaskingAction, MaskingPolicy
from memtenant.tenancy.policy import (
    AgentAccess,
    Durability,
    EncryptionMode,
    Isolation,
    Quota,
    SubjectRights,
    TenantPolicy,
)

limits = st.none() | st.integers(0, 2**53 - 1)
policies = st.builds(
    TenantPolicy,
    st.sampled_from(Isolation),
    st.sampled_from(EncryptionMode),
    st.sampled_from(Durability),
    st.builds(Quota, limits, limits, limits),
    st.none() | st.lists(st.text("ab-1", max_size=40), max_size=5).map(sorted).map(tuple),
    st.none() | st.sampled_from(AgentAccess),
    st.builds(SubjectRights, st.booleans(), st.booleans(), st.booleans()),
    st.builds(
        MaskingPolicy,
        st.booleans(),
        st.sampled_from(MaskingAction),
        st.sets(st.sampled_from(Detector), min_size=1).map(sorted).map(tuple)
        | st.just(tuple(Detector)),
        st.booleans(),
        st.sets(st.sampled_from(Detector)).map(sorted).map(tuple),
    ),
)
PLAIN = TenantPolicy(quota=Quota(memory=536870912, conversations=10000, writes_per_second=500))


def test_the_document_is_canonical() -> None:
    assert PLAIN.to_json() == (
        b'{"durability":"Async","encryption":"Enabled","format":1,"isolation":"Moderate",'
        b'"quota":{"conversations":10000,"memory":536870912,"writesPerSecond":500},'
        b'"subjects":{"consentRequired":false,"erasure":false,"portability":false}}'
    )


def test_the_agents_are_listed_in_order() -> None:
    listed = TenantPolicy(agents=("triage", "answers"))
    assert b'{"agents":["answers","triage"],' in listed.to_json()
    assert TenantPolicy(agents=()).to_json() != TenantPolicy().to_json()


@given(policies)
def test_a_policy_reads_back(policy: TenantPolicy) -> None:
    assert TenantPolicy.from_json(policy.to_json()) == policy


def test_a_binding_of_an_older_operator_says_nothing_of_access_and_rights() -> None:
    document = json.loads(PLAIN.to_json())
    del document["subjects"]
    read = TenantPolicy.from_json(json.dumps(document).encode())
    assert (read.access, read.rights) == (None, SubjectRights())


def test_masking_is_left_out_where_nothing_is_said_and_names_detectors_only_if_not_all() -> None:
    assert b"masking" not in TenantPolicy().to_json()
    document = json.loads(TenantPolicy(masking=MaskingPolicy(required=True)).to_json())
    assert document["masking"] == {
        "mode": "Required",
        "action": "Mask",
        "tools": "Optional",
        "refused": [],
    }


def test_a_detector_of_a_newer_operator_is_an_error_because_it_cannot_be_obeyed() -> None:
    document = json.loads(TenantPolicy(masking=MaskingPolicy(required=True)).to_json())
    document["masking"]["detectors"] = ["Email", "Voice"]
    with pytest.raises(BindingInvalid, match=r"masking\.detectors is not a list of"):
        TenantPolicy.from_json(json.dumps(document).encode())


def test_a_field_of_a_newer_operator_is_ignored() -> None:
    document = json.loads(PLAIN.to_json()) | {"recall": {"mode": "Enabled"}}
    assert TenantPolicy.from_json(json.dumps(document).encode()) == PLAIN


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format"),
        ({"isolation": "Loose"}, "isolation is not one of Strict, Moderate, Minimal"),
        ({"encryption": None}, "encryption"),
        ({"durability": 1}, "durability"),
        ({"quota": []}, "quota is not an object"),
        ({"access": "Root"}, "access is not one of ReadOnly, ReadWrite, Steward"),
        ({"subjects": {"erasure": 1}}, "subjects.erasure is not true or false"),
        ({"quota": {"memory": -1}}, "quota.memory"),
        ({"quota": {"memory": True}}, "quota.memory"),
        ({"quota": {"conversations": 1.0}}, "quota.conversations"),
        ({"agents": "triage"}, "agents is not a list"),
        ({"agents": ["a" * 41]}, "agents is not a list"),
        ({"agents": [1]}, "agents is not a list"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(change: dict[str, object], named: str) -> None:
    document = json.loads(PLAIN.to_json()) | change
    with pytest.raises(BindingInvalid, match=named):
        TenantPolicy.from_json(json.dumps(document).encode())


@pytest.mark.parametrize("field", ["format", "isolation", "encryption", "durability", "quota"])
def test_a_missing_field_is_named(field: str) -> None:
    document = json.loads(PLAIN.to_json())
    del document[field]
    with pytest.raises(BindingInvalid, match=f"{field} is missing"):
        TenantPolicy.from_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[" * 8000, "not JSON"),
        (b'{"format":1,"format":1}', "the same field twice"),
        (b'{"format":NaN}', "NaN, which is not JSON"),
        (b" " * 20_000, "larger than 16384 bytes"),
    ],
)
def test_what_is_no_document_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BindingInvalid, match=why):
        TenantPolicy.from_json(data)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_crash(data: bytes) -> None:
    with pytest.raises(BindingInvalid):
        TenantPolicy.from_json(data)
