"""What the audit is told: each difference from what it was told last, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.audit import Deed, Operation
from memtenant.rules.audit import AuditTerms
from memtenant.rules.plan import SetState
from memtenant.rules.told import TOLD, Actors, Told, deeds
from tests.rules.builders import TENANT, settled, situation

NOW = Told(
    uid="u-1",
    namespace="n-1",
    generation=3,
    policy="gdpr",
    mode="ReadWrite",
    reads=False,
    on_failure="Closed",
    agents={"triage": "ReadWrite"},
    versions={"triage": 4},
    keys=(1,),
)
ACTORS = Actors(tenant="ada", policy="counsel")

CHANGES: dict[str, tuple[dict[str, Any], list[tuple[Operation, dict[str, Any]]]]] = {
    "nothing": ({}, []),
    "a generation": (
        {"generation": 4},
        [
            (
                Operation.SPEC_SEEN,
                {"kind": "MemoryTenant", "generation": 4, "policy": "gdpr", "by": "ada"},
            )
        ],
    ),
    "a generation that is refused": (
        {"generation": 4, "refused": True},
        [(Operation.SPEC_SEEN, {"generation": 4, "refused": True})],
    ),
    "a quota that is used up": (
        {"mode": "ReadDelete"},
        [(Operation.ACCESS_CHANGED, {"access": "ReadDelete", "was": "ReadWrite"})],
    ),
    "agents": (
        {"agents": {"billing": "Steward"}, "versions": {"billing": 5}},
        [
            (Operation.ACCESS_CHANGED, {"agent": "billing", "access": "Steward", "was": ""}),
            (Operation.ACCESS_CHANGED, {"agent": "triage", "access": "", "was": "ReadWrite"}),
        ],
    ),
    "a rotation": (
        {"versions": {"triage": 5}},
        [(Operation.CREDENTIALS_ROTATED, {"agent": "triage", "version": 5})],
    ),
    "a key that turns": (
        {"keys": (2, 3)},
        [
            (Operation.KEY_MADE, {"version": 2}),
            (Operation.KEY_MADE, {"version": 3}),
            (Operation.KEY_DESTROYED, {"version": 1}),
        ],
    ),
    "a hold": (
        {"matters": ("case-1",)},
        [(Operation.HOLD_SET, {"matter": "case-1", "policy": "gdpr", "by": "counsel"})],
    ),
    "reads": ({"reads": True}, [(Operation.AUDIT_STARTED, {"reads": True})]),
    "an end": (
        {"ended": "Shred"},
        [(Operation.DEPROVISIONED, {"deletionPolicy": "Shred", "uid": "u-1"})],
    ),
    "a release to another namespace": (
        {"namespace": "n-2", "uid": "u-2"},
        [
            (Operation.OVERRIDE, {"what": "RetainedReleased", "namespaceUid": "n-2"}),
            (Operation.SPEC_SEEN, {"uid": "u-2"}),
        ],
    ),
}


def told(before: Told | None, after: Told | None, *, new: bool = False) -> tuple[Deed, ...]:
    return deeds(TENANT, before, after, new=new, actors=ACTORS)


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_told(
    change: dict[str, Any], expected: list[tuple[Operation, dict[str, Any]]]
) -> None:
    found = told(NOW, replace(NOW, **change))
    assert [deed.operation for deed in found] == [operation for operation, _ in expected]
    for deed, (_, detail) in zip(found, expected, strict=True):
        assert detail.items() <= deed.detail.items()


def test_the_release_of_a_hold_names_who_released_it() -> None:
    (released,) = told(replace(NOW, matters=("case-1",)), NOW)
    assert released.operation is Operation.HOLD_RELEASED
    assert released.detail == {"matter": "case-1", "policy": "gdpr", "by": "counsel"}


def test_a_hold_that_was_broken_is_told_before_the_end() -> None:
    found = told(replace(NOW, matters=("case-1",)), replace(NOW, ended="Delete"))
    assert [one.operation for one in found] == [Operation.HOLD_RELEASED, Operation.DEPROVISIONED]
    assert found[0].detail["by"] == "counsel"


def test_nobody_is_named_where_the_cluster_does_not_tell() -> None:
    for after in (replace(NOW, generation=4), replace(NOW, matters=("m",))):
        (deed,) = deeds(TENANT, NOW, after, new=False, actors=Actors())
        assert "by" not in deed.detail


def test_an_audit_begins_and_ends_with_an_event() -> None:
    assert [one.operation for one in told(None, NOW, new=True)] == [
        Operation.PROVISIONED,
        Operation.AUDIT_STARTED,
    ]
    assert [one.operation for one in told(None, NOW)] == [Operation.AUDIT_STARTED]
    assert [one.operation for one in told(NOW, None)] == [Operation.AUDIT_STOPPED]
    assert told(None, None) == told(replace(NOW, ended="Retain"), None) == ()


def test_a_retained_tenant_that_is_taken_over_is_provisioned_again() -> None:
    found = told(replace(NOW, ended="Retain"), replace(NOW, uid="u-2", generation=1))
    assert [one.operation for one in found] == [Operation.PROVISIONED, Operation.SPEC_SEEN]


@given(
    st.builds(
        Told,
        uid=st.text(max_size=5),
        namespace=st.text(max_size=5),
        generation=st.integers(0, 9),
        policy=st.text(max_size=5),
        mode=st.text(max_size=5),
        reads=st.booleans(),
        on_failure=st.sampled_from(("Closed", "Open")),
        agents=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
        versions=st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3),
        keys=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        matters=st.lists(st.text(max_size=3), max_size=3).map(tuple),
        refused=st.booleans(),
        ended=st.sampled_from(("", "Retain")),
    )
)
def test_what_was_told_is_read_as_it_was_written(one: Told) -> None:
    assert Told.from_text(one.to_text()) == one
    assert told(one, Told.from_text(one.to_text())) == ()


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"uid":1', '{"uid":"u"}', "1"])
def test_a_memory_that_cannot_be_read_is_none(text: str) -> None:
    assert Told.from_text(text) is None


def test_a_settled_tenant_has_nothing_to_tell() -> None:
    audit = AuditTerms(enabled=True, clause="spec.audit.mode")
    _, made = settled(audit=audit, new=True)
    known = Told.from_text(made.access[TOLD])
    again, after = settled(audit=audit, told=known)
    assert (after.deeds, after.access) == ((), made.access)
    assert again.told == known
    assert settled()[1].access.keys() == made.access.keys() - {TOLD}
    assert situation().told is None


def test_a_plan_names_the_deeds_and_not_the_memory_of_them() -> None:
    fields = (("access", TOLD, None, "{}"), ("access", "policy", "a", "b"))
    assert str(SetState(fields, ("SPEC_SEEN",))) == (
        "set access.policy: a → b; tell the audit: SPEC_SEEN"
    )
    assert str(SetState(fields[:1], ("KEY_MADE",))) == "tell the audit: KEY_MADE"
