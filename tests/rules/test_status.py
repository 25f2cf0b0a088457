from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.conditions import Condition, ConditionStatus, ConditionType, find, is_true
from memtenant.api.tenant import MemoryTenantSpec, MemoryTenantStatus
from memtenant.crypto.keyring import activate, add_version
from memtenant.rules.audit import NOT_AUDITED
from memtenant.rules.desired import desired
from memtenant.rules.keymotion import KeyAdvance, KeyScan, KeyStage
from memtenant.rules.placement import Refusal
from memtenant.rules.policy import policy_facts, retention_findings, retention_status
from memtenant.rules.quota import Limits, Pressure, QuotaState, Usage, judge
from memtenant.rules.status import (
    Provisioned,
    as_json,
    deletion_blocked,
    ready_status,
    refused,
    waiting,
)
from memtenant.rules.withheld import withheld
from tests.rules.builders import (
    KEYS,
    NOW,
    ROOT,
    minting,
    policy_spec,
    settled,
    situation,
    tenant_spec,
)

MIB = 1 << 20
LATER = NOW + timedelta(minutes=5)
REFUSAL = Refusal("QuotaTooLarge", "spec.quota.memory", "9Gi is more than the store gives")
SPEC = tenant_spec(quota={"memory": "100Mi", "conversations": 100})

ONLY_WHILE_TRUE = [
    "Reconciling",
    "Stalled",
    "DataKeysUnreadable",
    "RetentionUnjustified",
    "DeletionBlocked",
]

Step = Callable[[MemoryTenantStatus, datetime, int], MemoryTenantStatus]


def provisioned(
    spec: MemoryTenantSpec = SPEC,
    usage: Usage | None = None,
    *,
    state: QuotaState | None = None,
    key_available: bool = True,
    policy: dict[str, Any] | None = None,
    **changes: Any,
) -> Provisioned:
    if state is None:
        limits = Limits(spec.quota.memory.bytes, spec.quota.conversations)
        state = judge(QuotaState(), usage or Usage(), limits, NOW)
    resolution = policy_facts("standard", policy_spec(**(policy or {}))).resolve_for(spec)
    return Provisioned(
        spec=spec,
        desired=desired(situation(spec, quota_state=state, **changes), NOW, minting()),
        quota_state=state,
        keys=KeyAdvance(KEYS),
        key_scan=None,
        key_available=key_available,
        key_secret="Secret support/acme-key",
        retention=retention_status(resolution),
        audit=NOT_AUDITED.status,
        retention_findings=retention_findings(resolution),
        usage=usage,
        measured_at=NOW if usage else None,
    )


def ready(
    before: MemoryTenantStatus | None = None,
    found: Provisioned | None = None,
    now: datetime = NOW,
    generation: int = 1,
) -> MemoryTenantStatus:
    return ready_status(
        before or MemoryTenantStatus(), found or provisioned(), now=now, generation=generation
    )


def stored(status: MemoryTenantStatus) -> MemoryTenantStatus:
    """Through the API server and back."""
    return MemoryTenantStatus.model_validate(as_json(status))


def condition(status: MemoryTenantStatus, kind: str) -> Condition:
    found = find(status.conditions, kind)
    assert found is not None, f"no condition {kind}"
    return found


def said(status: MemoryTenantStatus, kind: str) -> tuple[str, str]:
    found = condition(status, kind)
    return found.status.value, found.reason


def steps() -> st.SearchStrategy[Step]:
    """Everything that a reconcile may have to say."""
    usages = st.builds(
        Usage,
        memory=st.integers(0, 120).map(lambda mib: mib * MIB),
        conversations=st.integers(0, 120),
        queue=st.sampled_from([0, 1 << 30]),
    )
    words = st.sampled_from(["StoreNotReady", "NotProven"])

    def is_ready(usage: Usage, available: bool, policy: dict[str, Any], taken: bool) -> Step:
        found = provisioned(usage=usage, key_available=available, policy=policy)
        if taken:
            found = replace(found, withheld=withheld(found.desired.record.tenant, ["default"]))
        return lambda before, now, generation: ready(before, found, now, generation)

    policies = st.sampled_from(
        [{}, {"frameworks": ["GDPR"], "retention": {"content": {"default": "2y"}}}]
    )
    return st.one_of(
        st.builds(is_ready, usages, st.booleans(), policies, st.booleans()),
        st.just(lambda before, now, gen: refused(before, REFUSAL, now=now, generation=gen)),
        words.map(
            lambda word: (
                lambda before, now, gen: waiting(before, word, "in words", now=now, generation=gen)
            )
        ),
        st.just(
            lambda before, now, gen: deletion_blocked(
                before, "LegalHold", "SEC-1", now=now, generation=gen
            )
        ),
    )


histories = st.lists(st.tuples(steps(), st.integers(0, 1)), min_size=1, max_size=5)


def after(history: list[tuple[Step, int]]) -> tuple[MemoryTenantStatus, datetime, int]:
    """The status after these steps a minute apart, each through the API server; some come with a
    new generation."""
    status, now, generation = MemoryTenantStatus(), NOW, 1
    for say, changed in history:
        now, generation = now + timedelta(minutes=1), generation + changed
        status = stored(say(status, now, generation))
    return status, now, generation


# -- what tools rely on (kstatus) ------------------------------------------------------------------


@given(histories)
def test_what_means_trouble_or_work_is_there_only_while_true(
    history: list[tuple[Step, int]],
) -> None:
    status, _, _ = after(history)
    for kind in ONLY_WHILE_TRUE:
        assert find(status.conditions, kind) is None or is_true(status.conditions, kind)


@given(histories)
def test_a_tenant_is_not_stalled_and_in_work_at_once(history: list[tuple[Step, int]]) -> None:
    status, _, _ = after(history)
    both = [kind for kind in ("Stalled", "Reconciling") if is_true(status.conditions, kind)]
    assert len(both) < 2


@given(histories)
def test_whoever_is_stalled_is_not_ready(history: list[tuple[Step, int]]) -> None:
    status, _, _ = after(history)
    if is_true(status.conditions, "Stalled"):
        assert said(status, "Ready")[0] == "False"


@given(histories)
def test_ready_is_said_of_every_generation_that_was_seen(history: list[tuple[Step, int]]) -> None:
    status, _, generation = after(history)
    assert status.observed_generation == generation
    assert condition(status, "Ready").observed_generation == generation


@given(histories)
def test_the_same_once_more_writes_nothing(history: list[tuple[Step, int]]) -> None:
    status, now, generation = after(history)
    say, _ = history[-1]
    again = say(status, now + timedelta(hours=1), generation)
    assert as_json(again) == as_json(status)


@given(histories)
def test_a_condition_keeps_its_time_while_its_status_stays(history: list[tuple[Step, int]]) -> None:
    before, now, generation = after(history[:-1]) if history[1:] else after(history)
    say, _ = history[-1]
    next_ = say(before, now + timedelta(hours=1), generation)
    for one in next_.conditions:
        was = find(before.conditions, one.type)
        if was is not None:
            same = was.status is one.status
            assert (one.last_transition_time == was.last_transition_time) == same


@given(histories)
def test_no_message_has_a_part_that_changes_from_try_to_try(
    history: list[tuple[Step, int]],
) -> None:
    status, _, _ = after(history)
    for one in status.conditions:
        assert not re.search(r"\d\d:\d\d|\d{4}-\d\d-\d\d|0x[0-9a-f]{4}|\battempt\b", one.message)


# -- ready -----------------------------------------------------------------------------------------


def test_a_tenant_that_is_as_declared_says_where_and_how() -> None:
    spec = tenant_spec(agents=[{"name": "triage"}, {"name": "audit", "access": "ReadOnly"}])
    status = stored(ready(found=provisioned(spec, Usage(memory=MIB))))
    assert (status.tenant_id, status.store, status.key_version) == ("support.acme", "shared", 1)
    assert status.binding is not None
    assert status.binding.name == "acme-triage"
    assert [(one.agent, one.name, one.username) for one in status.bindings] == [
        ("triage", "acme-triage", "mt.support.acme.triage.a"),
        ("audit", "acme-audit", "mt.support.acme.audit.a"),
    ]
    assert said(status, "Ready") == ("True", "Provisioned")
    assert condition(status, "Ready").message == "2 agents can work on store shared"
    assert said(status, "IsolationVerified") == ("True", "Proven")
    assert said(status, "KeyAvailable") == ("True", "KeyAvailable")
    assert said(status, "WithinQuota") == ("True", "WithinQuota")
    assert said(status, "RetentionResolved") == ("True", "Resolved")


def test_ready_ends_what_stood_in_the_way() -> None:
    stalled = refused(MemoryTenantStatus(), REFUSAL, now=NOW, generation=1)
    blocked = deletion_blocked(stalled, "LegalHold", "SEC-1", now=NOW, generation=1)
    status = ready(blocked, now=LATER)
    assert {one.type for one in status.conditions} == {
        "Ready",
        "IsolationVerified",
        "KeyAvailable",
        "WithinQuota",
        "RetentionResolved",
    }


def test_a_rotation_in_progress_shows_the_binding_that_is_being_written() -> None:
    again, _ = settled(SPEC)
    turned = desired(replace(again, rotate_token="now"), LATER, lambda: "another password")
    status = ready(found=replace(provisioned(), desired=turned))
    (one,) = status.bindings
    assert (one.username, one.version) == ("mt.support.acme.default.b", 2)
    assert one.rotated_at == LATER


def test_a_change_of_access_is_dated_and_no_change_is_not() -> None:
    held = {"SEC-1": "digest"}
    first = stored(ready())
    assert first.access is not None
    assert first.access.since == NOW
    then = stored(ready(first, provisioned(matters=held), now=LATER))
    assert then.access is not None
    assert (then.access.mode.value, then.access.since) == ("Held", LATER)
    last = ready(then, provisioned(matters=held), now=LATER + timedelta(days=1))
    assert last.access == then.access


# -- quota -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status", "reason", "words"),
    [
        (QuotaState(), "True", "WithinQuota", "Less than 80 %"),
        (QuotaState(Pressure.WARNING), "True", "QuotaNearlyUsed", "80 % of a quota or more"),
        (
            QuotaState(Pressure.OVER, ("memory", "conversations")),
            "False",
            "QuotaExceeded",
            "The quota of memory and conversations is used up",
        ),
        (QuotaState(flooded=True), "False", "Flooded", "users are off"),
    ],
)
def test_the_quota_condition_says_what_is_left_to_do(
    state: QuotaState, status: str, reason: str, words: str
) -> None:
    shown = ready(found=provisioned(state=state))
    assert said(shown, "WithinQuota") == (status, reason)
    assert words in condition(shown, "WithinQuota").message


def test_over_quota_a_tenant_is_ready_because_its_agents_read_and_delete() -> None:
    shown = ready(found=provisioned(state=QuotaState(Pressure.OVER, ("memory",))))
    assert said(shown, "Ready")[0] == "True"


def test_a_tenant_whose_users_are_off_is_not_ready() -> None:
    shown = ready(found=provisioned(state=QuotaState(flooded=True)))
    assert said(shown, "Ready") == ("False", "Flooded")
    assert said(ready(shown), "Ready") == ("True", "Provisioned")


@given(st.integers(0, 130), st.integers(0, 130), st.integers(0, 130), st.integers(0, 130))
def test_usage_is_written_again_at_five_points_or_a_change_of_band(
    memory: int, conversations: int, memory_then: int, conversations_then: int
) -> None:
    first = stored(ready(found=provisioned(usage=Usage(memory * MIB, conversations))))
    found = provisioned(usage=Usage(memory_then * MIB, conversations_then))
    then = ready(first, replace(found, measured_at=LATER), now=LATER)

    def band(*percents: int) -> int:
        return sum(max(percents) >= bound for bound in (80, 95, 100))

    moved = max(abs(memory - memory_then), abs(conversations - conversations_then)) >= 5
    crossed = band(memory, conversations) != band(memory_then, conversations_then)
    assert (then.usage != first.usage) == (moved or crossed)
    if moved or crossed:
        assert then.usage is not None
        assert (then.usage.memory_percent, then.usage.since) == (memory_then, LATER)


def test_usage_is_written_again_when_the_quota_changes() -> None:
    first = stored(ready(found=provisioned(usage=Usage(MIB))))
    spec = tenant_spec(quota={"memory": "101Mi", "conversations": 100})
    then = ready(first, provisioned(spec, Usage(MIB)))
    assert then.usage is not None
    assert str(then.usage.memory_limit) == "101Mi"


def test_a_tenant_that_was_never_measured_shows_no_usage() -> None:
    assert ready().usage is None


def test_what_was_measured_before_a_restart_stays_until_the_next_measurement() -> None:
    first = stored(ready(found=provisioned(usage=Usage(MIB))))
    assert ready(first, provisioned()).usage == first.usage


# -- keys and retention ----------------------------------------------------------------------------


def turning(scan: KeyScan | None) -> Provisioned:
    """Version 1 retires, 2 is active, 3 is pending."""
    opened = add_version(activate(add_version(KEYS, ROOT, now=NOW), ROOT), ROOT, now=NOW)
    return replace(provisioned(), keys=KeyAdvance(opened), key_scan=scan)


def test_a_key_that_turns_is_shown_with_its_versions_and_what_remains() -> None:
    scan = KeyScan(KeyStage(2, 1), NOW, total=50, old=20, rewrapped=15, unreadable=5)
    shown = ready(found=turning(scan))
    assert as_json(shown)["keys"] == {
        "active": 2,
        "pending": [3],
        "retiring": [1],
        "dataKeys": 50,
        "remaining": 5,
        "unreadable": 5,
        "since": "2026-03-15T12:30:00Z",
    }
    assert shown.key_version == 2
    unreadable = find(shown.conditions, "DataKeysUnreadable")
    assert unreadable is not None
    assert "5 data keys" in unreadable.message


def test_what_the_last_pass_found_is_shown_until_the_next_one_after_a_restart() -> None:
    scan = KeyScan(KeyStage(2, 1), NOW, total=50, old=20, rewrapped=15, unreadable=5)
    before = ready(found=turning(scan))
    assert ready(before, turning(None)) == before
    clean = replace(scan, old=0, rewrapped=0, unreadable=0)
    after = ready(before, turning(clean))
    assert after.keys is not None
    assert (after.keys.remaining, after.keys.unreadable) == (0, None)
    assert find(after.conditions, "DataKeysUnreadable") is None
    assert ready(after, provisioned()).keys is None


def test_a_key_secret_that_is_gone_is_a_condition_and_the_tenant_goes_on() -> None:
    shown = ready(found=provisioned(key_available=False))
    assert said(shown, "KeyAvailable") == ("False", "KeySecretMissing")
    assert "Secret support/acme-key is gone" in condition(shown, "KeyAvailable").message
    assert said(shown, "Ready")[0] == "True"


def test_an_unjustified_period_is_a_condition_until_a_basis_is_stated() -> None:
    policy = {"frameworks": ["GDPR"], "retention": {"content": {"default": "2y"}}}
    shown = ready(found=provisioned(policy=policy))
    assert said(shown, "RetentionUnjustified") == ("True", "NoLegalBasis")
    mended = ready(shown, provisioned(policy=policy | {"legalBasis": "a contract"}))
    assert find(mended.conditions, "RetentionUnjustified") is None


# -- refused, waiting, in deletion -----------------------------------------------------------------


def test_a_refused_tenant_is_stalled_with_the_field_named() -> None:
    status = refused(MemoryTenantStatus(), REFUSAL, now=NOW, generation=3)
    assert said(status, "Stalled") == ("True", "QuotaTooLarge")
    assert said(status, "Ready") == ("False", "QuotaTooLarge")
    assert condition(status, "Ready").message == (
        "spec.quota.memory: 9Gi is more than the store gives"
    )


def test_a_refusal_that_is_of_no_field_begins_with_its_message() -> None:
    status = refused(MemoryTenantStatus(), replace(REFUSAL, field=""), now=NOW, generation=1)
    assert condition(status, "Stalled").message == REFUSAL.message


@pytest.mark.parametrize(
    "say",
    [
        lambda before: refused(before, REFUSAL, now=LATER, generation=2),
        lambda before: waiting(before, "StoreNotReady", "words", now=LATER, generation=2),
        lambda before: deletion_blocked(before, "LegalHold", "words", now=LATER, generation=2),
    ],
    ids=["refused", "waiting", "deletion blocked"],
)
def test_whoever_is_kept_from_a_change_goes_on_showing_what_it_has(
    say: Callable[[MemoryTenantStatus], MemoryTenantStatus],
) -> None:
    before = stored(ready(found=provisioned(usage=Usage(MIB))))
    shown, kept = dict(as_json(say(before))), dict(as_json(before))
    for changing in ("conditions", "observedGeneration"):
        del shown[changing], kept[changing]
    assert shown == kept
    for kind in ("IsolationVerified", "KeyAvailable", "WithinQuota", "RetentionResolved"):
        assert find(say(before).conditions, kind) == find(before.conditions, kind)


def test_a_tenant_that_waits_for_the_first_time_is_of_unknown_readiness() -> None:
    status = waiting(MemoryTenantStatus(), "StoreNotReady", "words", now=NOW, generation=1)
    assert said(status, "Ready") == ("Unknown", "StoreNotReady")
    assert said(status, "Reconciling") == ("True", "StoreNotReady")


def test_a_tenant_that_was_ready_for_this_generation_stays_so_while_it_waits() -> None:
    status = waiting(ready(), "StoreNotReady", "words", now=LATER, generation=1)
    assert said(status, "Ready") == ("True", "Provisioned")
    assert said(status, "Reconciling") == ("True", "StoreNotReady")


def test_a_tenant_that_was_ready_before_a_change_is_not_called_ready_for_it() -> None:
    status = waiting(ready(generation=1), "StoreNotReady", "words", now=LATER, generation=2)
    assert said(status, "Ready") == ("Unknown", "StoreNotReady")


def test_a_tenant_that_waits_is_no_longer_stalled() -> None:
    stalled = refused(MemoryTenantStatus(), REFUSAL, now=NOW, generation=1)
    status = waiting(stalled, "StoreNotReady", "words", now=LATER, generation=1)
    assert find(status.conditions, "Stalled") is None


def test_a_deletion_that_may_not_go_on_says_why_and_nothing_older() -> None:
    before = waiting(ready(), "StoreNotReady", "words", now=NOW, generation=1)
    status = deletion_blocked(before, "LegalHold", "SEC-1 holds", now=LATER, generation=2)
    assert said(status, "DeletionBlocked") == ("True", "LegalHold")
    assert said(status, "Ready") == ("False", "LegalHold")
    assert find(status.conditions, "Reconciling") is None


# -- as written ------------------------------------------------------------------------------------


def test_what_is_not_known_is_left_out() -> None:
    assert as_json(MemoryTenantStatus()) == {}
    assert "usage" not in as_json(ready())


def test_a_status_shows_no_secret() -> None:
    found = provisioned(usage=Usage(MIB))
    binding = found.desired.bindings["default"]
    shown = repr(as_json(ready(found=found))) + repr(found)
    assert binding.username in shown
    assert binding.password not in shown
    assert binding.keyring.decode() not in shown


def test_every_condition_is_of_a_known_type() -> None:
    known = {kind.value for kind in ConditionType}
    assert {one.type for one in ready().conditions} <= known
    assert {one.status for one in ready().conditions} == {ConditionStatus.TRUE}
