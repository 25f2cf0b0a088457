"""Each rule of the CRDs: a real API server refuses with the sentence that says what to do."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from memtenant.api import KINDS
from memtenant.api.rule import VALIDATIONS, Rule
from memtenant.api.schema import structural_schema
from memtenant.api.validate import validate
from tests.api.server import Judge

pytestmark = pytest.mark.cluster

Spec = dict[str, Any]

_NEEDED: Mapping[str, Spec] = {
    "MemoryTenant": {"retentionPolicyRef": {"name": "gdpr"}},
    "MemoryStore": {
        "standalone": {"endpoint": "valkey.example:6379"},
        "adminSecretRef": {"name": "valkey", "key": "password"},
    },
    "RetentionPolicy": {},
    "ComplianceReport": {
        "policyRef": {"name": "gdpr"},
        "period": {"since": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"},
    },
}


def _object(kind: str, name: str = "ruled", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {**_NEEDED[kind], **spec},
    }


def _hold(**changes: Any) -> Spec:
    hold = {"matter": "M-1", "tenantSelector": {}, "since": "2026-01-31T09:30:00Z"}
    return {"legalHolds": [{**hold, **changes}]}


_REFUSED_AT_CREATION: list[tuple[dict[str, Any], str, str]] = [
    (_object("MemoryTenant", "a" * 41), "metadata", "DNS label of at most 40 characters"),
    (_object("MemoryTenant", "acme.eu"), "metadata", "inner hyphens, no dots"),
    (_object("MemoryStore", "a" * 41), "metadata", "DNS label of at most 40 characters"),
    (_object("RetentionPolicy", "a" * 41), "metadata", "DNS label of at most 40 characters"),
    (_object("ComplianceReport", "a" * 64), "metadata", "at most 63 characters"),
    (
        _object("RetentionPolicy", report={"schedule": "0 24 * * *"}),
        "spec.report.schedule",
        "is no schedule",
    ),
    (
        _object("MemoryTenant", quota={"memory": "1Ki"}),
        "spec.quota.memory",
        "must be from 1Mi to 1Pi",
    ),
    (
        _object("MemoryTenant", quota={"memory": "1e99"}),
        "spec.quota.memory",
        "must be from 1Mi to 1Pi",
    ),
    (
        _object("MemoryTenant", quota={"memory": 0}),
        "spec.quota.memory",
        "must be from 1Mi to 1Pi",
    ),
    (
        _object("MemoryTenant", retention={"audit": "1003y"}),
        "spec.retention.audit",
        "longer than 1000 years: write a shorter period",
    ),
    (
        _object("MemoryTenant", retention={"content": "30d", "derived": "1mo"}),
        "spec.retention.derived",
        "a summary may not outlive what it was made from",
    ),
    (
        _object(
            "MemoryTenant",
            encryption={"mode": "Disabled", "keySecretRef": {"name": "k", "key": "root"}},
        ),
        "spec.encryption.keySecretRef",
        "remove keySecretRef, or set mode: Enabled",
    ),
    (
        _object("MemoryTenant", credentials={"rotateEvery": "10m"}),
        "spec.credentials.rotateEvery",
        "rotateEvery must be longer than minOverlap",
    ),
    (
        _object(
            "MemoryTenant",
            isolation="Minimal",
            agents=[{"name": "reader", "access": "ReadOnly"}, {"name": "writer"}],
        ),
        "spec.agents",
        "give them the same access, or use isolation Moderate",
    ),
    (
        _object("RetentionPolicy", audit={"sealEvery": "4s"}),
        "spec.audit.sealEvery",
        "sealEvery must be from 5s to 1h",
    ),
    (
        _object("MemoryStore", standalone=None),
        "spec",
        "say what the store is: set exactly one of standalone, sentinel, cluster",
    ),
    (
        _object(
            "MemoryStore",
            sentinel={
                "endpoints": ["sentinel.example:26379"],
                "masterName": "main",
                "authSecretRef": {"name": "s", "key": "k"},
            },
        ),
        "spec",
        "say what the store is: set exactly one of standalone, sentinel, cluster",
    ),
    (
        _object("MemoryStore", dedicated={"image": "valkey/valkey:8.1"}),
        "spec",
        "say what the store is: set exactly one of standalone",
    ),
    (
        _object("MemoryStore", standalone=None, dedicated={"image": "valkey/valkey:8.1"}),
        "spec.adminSecretRef",
        "whose instances get credentials of their own",
    ),
    (
        _object("MemoryStore", adminSecretRef=None),
        "spec.adminSecretRef",
        "set it, unless the store is dedicated",
    ),
    (
        _object(
            "MemoryStore",
            standalone=None,
            adminSecretRef=None,
            dedicated={"image": "valkey/valkey:8.1"},
            tls={},
        ),
        "spec.tls",
        "remove it from a dedicated store",
    ),
    (
        _object(
            "MemoryStore",
            standalone=None,
            adminSecretRef=None,
            dedicated={
                "image": "valkey/valkey:8.1",
                "scheduling": {"nodeSelector": {"not a key": "x"}},
            },
        ),
        "spec.dedicated.scheduling.nodeSelector",
        "each key must be a label key",
    ),
    (
        _object("MemoryStore", allowedNamespaces={"from": "Selector"}),
        "spec.allowedNamespaces.selector",
        "from: Selector needs a selector",
    ),
    (
        _object("RetentionPolicy", allowedNamespaces={"selector": {"matchLabels": {"a": "b"}}}),
        "spec.allowedNamespaces.selector",
        "with from: All leave selector out",
    ),
    (
        _object("RetentionPolicy", **_hold(tenantSelector={"matchLabels": {"not a key": "b"}})),
        "spec.legalHolds[0].tenantSelector.matchLabels",
        "each key must be a label key",
    ),
    (
        _object(
            "RetentionPolicy",
            **_hold(tenantSelector={"matchExpressions": [{"key": "team", "operator": "In"}]}),
        ),
        "spec.legalHolds[0].tenantSelector.matchExpressions[0].values",
        "operator In or NotIn needs at least one of values",
    ),
    (
        _object("RetentionPolicy", **_hold(since="2026-02-30T00:00:00Z")),
        "spec.legalHolds[0].since",
        "the month does not have that day",
    ),
    (
        _object(
            "MemoryStore", tenantPolicy={"maxMemoryPerTenant": "2Gi", "maxMemoryPerNamespace": "2G"}
        ),
        "spec.tenantPolicy.maxMemoryPerTenant",
        "lower it, or raise maxMemoryPerNamespace",
    ),
    (
        _object("RetentionPolicy", retention={"audit": {"min": "7y", "max": "72mo"}}),
        "spec.retention.audit.min",
        "min is longer than max: shorten min, or lengthen max",
    ),
    (
        _object("RetentionPolicy", retention={"content": {"min": "31d", "default": "30d"}}),
        "spec.retention.content.min",
        "default is shorter than min: lengthen default",
    ),
    (
        _object("RetentionPolicy", retention={"content": {"default": "31d", "max": "30d"}}),
        "spec.retention.content.default",
        "default is longer than max: shorten default",
    ),
]

_REPORT_STAYS = "a report is not changed after it was made: make another one"

_REFUSED_AT_UPDATE: list[tuple[Spec, Spec, str | None, str, str]] = [
    (
        {},
        {"isolation": "Minimal"},
        None,
        "spec.isolation",
        "isolation cannot change",
    ),
    (
        {"residency": "eu-west"},
        {"residency": "us-east"},
        None,
        "spec.residency",
        "residency cannot be changed, added or removed",
    ),
    ({"residency": "eu-west"}, {}, None, "spec.residency", "residency cannot be changed"),
    ({}, {"residency": "eu-west"}, None, "spec.residency", "residency cannot be changed"),
    (
        {},
        {"encryption": {"mode": "Disabled"}},
        None,
        "spec.encryption",
        "encryption cannot be disabled once it was Enabled",
    ),
    (
        {"storeRef": {"name": "first"}},
        {"storeRef": {"name": "second"}},
        "first",
        "spec.storeRef",
        "put that name back, or make a new tenant on the other store",
    ),
    ({}, {"storeRef": {"name": "second"}}, "first", "spec.storeRef", "put that name back"),
]


@pytest.mark.parametrize(("raw", "field", "message"), _REFUSED_AT_CREATION)
def test_the_server_says_what_to_do(
    raw: dict[str, Any], field: str, message: str, judge: Judge
) -> None:
    verdict = judge.create(raw)

    assert not verdict.accepted
    assert message in verdict.message
    if field != "metadata":
        assert f"{field}: Invalid value" in verdict.message
    assert any(message in violation.message for violation in validate(raw))


@pytest.mark.parametrize(("before", "after", "placed", "field", "message"), _REFUSED_AT_UPDATE)
def test_the_server_keeps_what_cannot_change(
    before: Spec, after: Spec, placed: str | None, field: str, message: str, judge: Judge
) -> None:
    stored = judge.create(_object("MemoryTenant", **before), dry_run=False).stored
    try:
        if placed:
            stored = judge.set_status("MemoryTenant", "ruled", {"store": placed})
        new = {**stored, "spec": {**_NEEDED["MemoryTenant"], **after}}

        verdict = judge.replace(new)

        assert not verdict.accepted
        assert f"{field}: Invalid value" in verdict.message
        assert message in verdict.message
        assert [violation.field for violation in validate(new, stored)] == [field]
    finally:
        judge.delete("MemoryTenant", "ruled")


def test_a_store_cannot_be_changed_by_leaving_it_out_first(judge: Judge) -> None:
    judge.create(_object("MemoryTenant", storeRef={"name": "first"}), dry_run=False)
    try:
        placed = judge.set_status("MemoryTenant", "ruled", {"store": "first"})
        without = judge.replace({**placed, "spec": _NEEDED["MemoryTenant"]}, dry_run=False).stored
        elsewhere = {**_NEEDED["MemoryTenant"], "storeRef": {"name": "second"}}

        assert not judge.replace({**without, "spec": elsewhere}).accepted
    finally:
        judge.delete("MemoryTenant", "ruled")


def test_a_report_keeps_saying_what_it_is_about(judge: Judge) -> None:
    stored = judge.create(_object("ComplianceReport"), dry_run=False).stored
    try:
        new = {**stored, "spec": {**stored["spec"], "policyRef": {"name": "another"}}}

        verdict = judge.replace(new)

        assert not verdict.accepted
        assert _REPORT_STAYS in verdict.message
        assert [found.message for found in validate(new, stored)] == [_REPORT_STAYS]
    finally:
        judge.delete("ComplianceReport", "ruled")


def test_every_rule_has_a_case_here() -> None:
    shown = [message for _, _, message in _REFUSED_AT_CREATION]
    shown += [message for *_, message in _REFUSED_AT_UPDATE]
    shown += [_REPORT_STAYS]

    unseen = {
        rule.message
        for kind in KINDS
        for rule in _rules(structural_schema(kind))
        if not any(message in rule.message for message in shown)
    }

    assert unseen == set()


def _rules(schema: Any) -> Iterator[Rule]:
    if isinstance(schema, Mapping):
        yield from schema.get(VALIDATIONS, ())
        for child in schema.values():
            yield from _rules(child)
