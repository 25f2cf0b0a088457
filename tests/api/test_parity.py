"""`validate` and a real API server give the same verdict on the same input."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from memtenant.api import KINDS, parse
from memtenant.api.schema import structural_schema
from memtenant.api.validate import defaulted, validate
from tests.api import generated
from tests.api.server import Judge

pytestmark = pytest.mark.cluster

# The server is shared and takes milliseconds: neither deadline nor shrinking by the clock.
_AGAINST_THE_SERVER = settings(
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)

_kinds = pytest.mark.parametrize("kind", sorted(KINDS))


@_kinds
@pytest.mark.parametrize("broken", [0, 3, 12], ids=lambda it: f"{it}% broken")
@settings(_AGAINST_THE_SERVER, max_examples=150)
@given(data=st.data())
def test_verdicts_on_a_new_object_agree(
    kind: str, broken: int, data: st.DataObject, judge: Judge
) -> None:
    raw = data.draw(generated.objects(kind, broken))

    verdict = judge.create(raw)

    found = validate(raw)
    assert verdict.accepted == (not found), (verdict.message, found)
    if verdict.accepted:
        assert verdict.stored["spec"] == defaulted(raw)["spec"]
        parse(verdict.stored)


_AT_EVERY_PLACE: tuple[Any, ...] = (
    *(None, True, "", "a", "a\n", "A", "ä", "a b", "a/b", "x" * 5000, "30d", "0d", "9999999y"),
    *("512Mi", "1048575", "1e6", "1Gi ", "-1Gi", "2026-02-30T00:00:00Z", "Minimal", "Shred"),
    *(0, 1, -1, 2**63 - 1, 2**63, 10**30, 0.5, 1.0, 1048576.0, 1e30),
    *([], {}, [None], {"a": None}, [{}], {"name": "a"}, ["a", "a"], [1, 1], {"from": "All"}),
)


@_kinds
def test_verdicts_agree_on_every_field_with_every_kind_of_value(kind: str, judge: Judge) -> None:
    flavours = _FLAVOURS if kind == "MemoryStore" else ("",)
    disagreements = []
    for flavour in flavours:
        whole = _whole(kind, flavour)
        assert judge.create(whole).accepted, judge.create(whole).message
        disagreements += [
            (path, part, verdict, found)
            for path, part, raw in _each_part_replaced(whole)
            # What all flavours have is asked about once.
            if flavour in ("", "standalone") or flavour in path
            if (verdict := judge.create(raw)).accepted == bool(found := validate(raw))
        ]

    assert disagreements == []


@_kinds
@settings(_AGAINST_THE_SERVER, max_examples=60)
@given(data=st.data())
def test_verdicts_on_an_update_agree(kind: str, data: st.DataObject, judge: Judge) -> None:
    first = data.draw(generated.objects(kind, 0))
    first["metadata"] = {"name": f"updated-{kind.lower()}"}
    assume(not validate(first))
    created = judge.create(first, dry_run=False)
    assert created.accepted, created.message
    try:
        old = _perhaps_placed(created.stored, data, judge)
        for _ in range(6):
            new = {**old, "spec": data.draw(_changed(kind, old["spec"]))}
            verdict = judge.replace(new)
            found = validate(new, old)
            assert verdict.accepted == (not found), (verdict.message, found, new["spec"])
    finally:
        judge.delete(kind, first["metadata"]["name"])


_SINCE = "2026-01-31T09:30:00.123456789+01:00"
_LONG_PREFIX = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": None},
        {"name": 5},
        {"namespace": "judged"},
        {"generateName": "A"},
        {"generateName": "a-"},
        {"generateName": "a--"},
        {"uid": "x"},
        {"resourceVersion": "5"},
        {"generation": 5},
        {"generation": "x"},
        {"generation": 5.0},
        {"creationTimestamp": None},
        {"creationTimestamp": 5},
        {"creationTimestamp": "x"},
        {"creationTimestamp": "2026-01-31T09:30:00Z"},
        {"creationTimestamp": "2026-02-30T09:30:00Z"},
        {"deletionTimestamp": "2026-01-31T09:30:00Z"},
        {"deletionGracePeriodSeconds": 5},
        {"managedFields": []},
        {"managedFields": "x"},
        {"labels": None},
        {"labels": {"a": None}},
        {"labels": {"a": 5}},
        {"labels": {f"{_LONG_PREFIX}/x": ""}},
        {"labels": {f"{_LONG_PREFIX}d/x": ""}},
        {"labels": {"/x": ""}},
        {"labels": {"a/": ""}},
        {"annotations": {"A/b": "anything at all"}},
        {"annotations": {"a": "x" * 262_143}},
        {"annotations": {"a": "x" * 262_144}},
        {"finalizers": None},
        {"finalizers": ["a", "a"]},
        {"finalizers": ["a" * 64]},
        {"finalizers": [None]},
        {"ownerReferences": "x"},
        {"ownerReferences": [{}]},
        {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}]},
        {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": ""}]},
        {"surprise": 1},
    ],
    ids=lambda it: str(it)[:50],
)
@_kinds
def test_verdicts_on_metadata_agree(kind: str, metadata: dict[str, Any], judge: Judge) -> None:
    raw = {**_whole(kind), "metadata": {"name": "judged", **metadata}}

    verdict = judge.create(raw)

    assert verdict.accepted == (not validate(raw)), (verdict.message, validate(raw))
    if verdict.accepted:
        parse(verdict.stored)
        parse(defaulted(raw))


def test_the_largest_policy_that_fits_its_bounds_is_within_the_budget_of_cel(judge: Judge) -> None:
    key = f"{_LONG_PREFIX}/{'e' * 61}"
    selector = {
        "matchLabels": {f"{key}{index:02}": "v" * 63 for index in range(16)},
        "matchExpressions": [
            {"key": f"{key}{index:02}", "operator": "In", "values": ["v" * 63] * 32}
            for index in range(16)
        ],
    }
    holds = [
        {"matter": f"{'m' * 62}{index:02}", "tenantSelector": selector, "since": _SINCE}
        for index in range(64)
    ]
    raw = _whole("RetentionPolicy")
    raw["spec"] |= {"legalHolds": holds, "frameworks": [f"{'F' * 30}{i:02}" for i in range(16)]}

    verdict = judge.create(raw)

    assert verdict.accepted, verdict.message
    assert validate(raw) == ()


def test_an_update_that_only_removes_a_finalizer_is_never_refused(judge: Judge) -> None:
    tenant = _whole("MemoryTenant")
    tenant["metadata"] = {"name": "finalized", "finalizers": ["memtenant.dev/tenant"]}
    stored = judge.create(tenant, dry_run=False).stored
    # Placed elsewhere than it now asks for: the race of a placement with a change of mind.
    old = judge.set_status("MemoryTenant", "finalized", {"store": "other"})
    assert old["spec"]["storeRef"]["name"] != "other"

    released = {**old, "metadata": {**old["metadata"], "finalizers": []}}

    assert judge.replace(released, dry_run=False).accepted
    assert validate(released, old) == ()
    judge.delete("MemoryTenant", stored["metadata"]["name"])


_FLAVOURS = ("standalone", "sentinel", "cluster", "dedicated")


def _whole(kind: str, flavour: str = "standalone") -> dict[str, Any]:
    """An object with every field that can be in it; of what excludes each other, one."""
    spec = generated.full(structural_schema(kind)["properties"]["spec"])
    if kind == "MemoryStore":
        others = {*_FLAVOURS} - {flavour}
        if flavour == "dedicated":
            others |= {"adminSecretRef", "tls"}
        spec = {name: value for name, value in spec.items() if name not in others}
    return {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": "whole",
            "labels": {"a": "b"},
            "annotations": {"a": "b"},
            "finalizers": ["example.com/a"],
        },
        "spec": spec,
    }


def _each_part_replaced(whole: dict[str, Any]) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    for path in generated.each_part(whole):
        if path != ("kind",):
            for part in _AT_EVERY_PLACE:
                yield path, part, generated.with_part(whole, path, part)


def _perhaps_placed(stored: dict[str, Any], data: st.DataObject, judge: Judge) -> dict[str, Any]:
    """The object, if it is a tenant perhaps with the store that the operator chose for it."""
    store = data.draw(st.sampled_from([None, "acme", "other"]))
    if stored["kind"] != "MemoryTenant" or store is None:
        return stored
    return judge.set_status("MemoryTenant", stored["metadata"]["name"], {"store": store})


@st.composite
def _changed(draw: st.DrawFn, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A spec with some of its fields changed, added, removed or broken."""
    fields = sorted(structural_schema(kind)["properties"]["spec"]["properties"])
    new = dict(spec)
    for field in draw(st.lists(st.sampled_from(fields), max_size=3, unique=True)):
        if field in new and draw(st.booleans()):
            del new[field]
        elif re.search("(Ref|residency)$", field) and draw(st.booleans()):
            name = draw(st.sampled_from(["acme", "other", "third"]))
            new[field] = name if field == "residency" else {"name": name, "key": "password"}
            if field in ("storeRef", "retentionPolicyRef"):
                del new[field]["key"]
        else:
            new[field] = draw(generated.field(kind, field, 3))
    return new
