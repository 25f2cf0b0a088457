from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memtenant.errors import InvalidResource
from memtenant.rules.frameworks import (
    ClassRule,
    Clause,
    Framework,
    RecordClass,
    built_in_frameworks,
    select_frameworks,
)
from memtenant.rules.retention import (
    ClassBounds,
    ClassRetention,
    Resolution,
    cut_offs,
    resolve,
)
from memtenant.tenancy.period import Period

CONTENT, DERIVED = RecordClass.CONTENT, RecordClass.DERIVED
AUDIT, EVIDENCE = RecordClass.AUDIT, RecordClass.EVIDENCE
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)

Policy = Mapping[RecordClass, ClassBounds]
Choice = Mapping[RecordClass, Period]


def period(text: str) -> Period:
    return Period.parse(text)


def bounds(least: str = "", most: str = "", default: str = "") -> ClassBounds:
    return ClassBounds(*(Period.parse(text) if text else None for text in (least, most, default)))


def frameworks(*names: str) -> tuple[Framework, ...]:
    return select_frameworks(built_in_frameworks(), names)


def shown(retention: ClassRetention) -> tuple[str, str, str]:
    return (
        str(retention.floor.period) if retention.floor else "",
        str(retention.effective.period),
        str(retention.ceiling.period) if retention.ceiling else "",
    )


# -- defaults --------------------------------------------------------------------------------------


def test_with_nothing_said_content_is_kept_30_days_and_audit_a_year() -> None:
    resolution = resolve({}, [])
    assert shown(resolution.content) == ("", "30d", "")
    assert shown(resolution.derived) == ("", "30d", "30d")
    assert shown(resolution.audit) == ("", "12mo", "")
    assert shown(resolution.evidence) == ("", "12mo", "")
    assert resolution.content.effective.reason == "memtenant default"
    assert resolution.unjustified == ()


@pytest.mark.parametrize(
    ("names", "content", "audit"),
    [
        (["GDPR"], "365d", "12mo"),
        (["HIPAA"], "2555d", "6y"),
        (["SOX"], "2555d", "7y"),
        (["PCI_DSS"], "365d", "12mo"),
        (["GDPR", "HIPAA"], "2555d", "6y"),
        (["HIPAA", "SOX", "PCI_DSS"], "2555d", "7y"),
    ],
)
def test_the_longest_default_and_the_longest_minimum_count(
    names: list[str], content: str, audit: str
) -> None:
    resolution = resolve({}, frameworks(*names))
    assert str(resolution.content.effective.period) == content
    assert str(resolution.derived.effective.period) == content
    assert str(resolution.audit.effective.period) == audit
    assert str(resolution.evidence.effective.period) == audit


def test_each_bound_says_what_set_it() -> None:
    resolution = resolve({CONTENT: bounds(most="90d")}, frameworks("HIPAA"))
    assert resolution.content.effective.reason == "RetentionPolicy spec.retention.content.max"
    assert resolution.audit.floor is not None
    assert resolution.audit.floor.reason == "HIPAA 45 CFR 164.316(b)(2)(i): 6 calendar years"
    assert resolution.audit.effective == resolution.audit.floor
    assert resolution.derived.effective.reason == (
        "content is kept so long (RetentionPolicy spec.retention.content.max)"
    )


def test_a_policys_default_comes_before_a_frameworks() -> None:
    resolution = resolve({CONTENT: bounds(default="60d")}, frameworks("GDPR"))
    assert resolution.content.effective.reason == "RetentionPolicy spec.retention.content.default"
    assert shown(resolution.content) == ("", "60d", "")


def test_a_default_gives_way_to_a_frameworks_minimum() -> None:
    resolution = resolve({AUDIT: bounds(default="1y")}, frameworks("SOX"))
    assert shown(resolution.audit) == ("7y", "7y", "")


def test_every_class_is_found_by_name() -> None:
    resolution = resolve({}, frameworks("SOX"))
    assert list(resolution.by_class()) == list(RecordClass)
    assert resolution.of(AUDIT) is resolution.audit
    assert resolution.of(EVIDENCE) is resolution.evidence


# -- the tenant's choice ---------------------------------------------------------------------------


def test_a_tenant_chooses_within_the_bounds() -> None:
    resolution = resolve({CONTENT: bounds("7d", "90d")}, [], {CONTENT: period("30d")})
    assert shown(resolution.content) == ("7d", "30d", "90d")
    assert resolution.content.effective.reason == "MemoryTenant spec.retention.content"


@pytest.mark.parametrize(
    ("record_class", "choice", "relation"),
    [
        (CONTENT, "6d", "at least 7d (RetentionPolicy spec.retention.content.min)"),
        (CONTENT, "91d", "at most 90d (RetentionPolicy spec.retention.content.max)"),
        (AUDIT, "5y", "at least 6y (HIPAA 45 CFR 164.316(b)(2)(i): 6 calendar years)"),
        (AUDIT, "2190d", "at least 6y (HIPAA 45 CFR 164.316(b)(2)(i): 6 calendar years)"),
        (DERIVED, "91d", "at most 90d (content is kept so long (RetentionPolicy "),
    ],
)
def test_a_choice_out_of_bounds_is_refused_with_field_and_bound(
    record_class: RecordClass, choice: str, relation: str
) -> None:
    with pytest.raises(InvalidResource) as caught:
        resolve({CONTENT: bounds("7d", "90d")}, frameworks("HIPAA"), {record_class: period(choice)})
    assert caught.value.field == f"spec.retention.{record_class}"
    assert caught.value.reason == "RetentionOutOfBounds"
    assert str(caught.value).startswith(
        f"spec.retention.{record_class} is {choice}, and must be {relation}"
    )


def test_derived_records_follow_a_shorter_choice_for_content() -> None:
    resolution = resolve({}, frameworks("GDPR"), {CONTENT: period("10d")})
    assert shown(resolution.derived) == ("", "10d", "10d")
    with pytest.raises(InvalidResource, match="at most 10d"):
        resolve({}, [], {CONTENT: period("10d"), DERIVED: period("11d")})


def test_a_minimum_for_derived_records_is_one_for_their_source() -> None:
    policy = {DERIVED: bounds(least="60d")}
    resolution = resolve(policy, [])
    assert shown(resolution.content) == ("60d", "60d", "")
    assert resolution.content.effective.reason == "RetentionPolicy spec.retention.derived.min"
    with pytest.raises(InvalidResource, match=r"at least 60d .*spec\.retention\.derived\.min"):
        resolve(policy, [], {CONTENT: period("30d")})


# -- justification and conflict --------------------------------------------------------------------


def test_longer_than_gdprs_default_asks_for_a_legal_basis() -> None:
    resolution = resolve({}, frameworks("GDPR", "HIPAA"))
    found = [(one.record_class, one.limit.source) for one in resolution.unjustified]
    assert found == [(CONTENT, "GDPR")]
    message = resolution.unjustified[0].message
    assert message.startswith("content is kept for 2555d (HIPAA ")
    assert "longer than 365d (GDPR Art. 5(1)(e) and 5(2)" in message
    assert message.endswith("state spec.legalBasis in the RetentionPolicy, or keep it shorter")


def test_a_stated_legal_basis_justifies() -> None:
    basis = "Art. 6(1)(c): 45 CFR 164.316"
    assert resolve({}, frameworks("GDPR", "HIPAA"), legal_basis=basis).unjustified == ()


def test_blanks_are_no_legal_basis() -> None:
    assert resolve({}, frameworks("GDPR", "HIPAA"), legal_basis=" \n").unjustified


def test_a_tenant_that_keeps_content_no_longer_than_the_default_needs_no_basis() -> None:
    names = ("GDPR", "HIPAA", "PCI_DSS")
    assert resolve({}, frameworks(*names), {CONTENT: period("365d")}).unjustified == ()
    found = resolve({}, frameworks(*names), {CONTENT: period("366d")}).unjustified
    assert [one.limit.source for one in found] == ["GDPR", "PCI_DSS"]


def test_a_minimum_above_a_maximum_is_a_conflict() -> None:
    with pytest.raises(InvalidResource) as caught:
        resolve({AUDIT: bounds(most="1y")}, frameworks("SOX"))
    assert caught.value.reason == "RetentionConflict"
    assert caught.value.field == "spec.legalBasis"
    assert str(caught.value).startswith(
        "audit must be kept for at least 7y (SOX 17 CFR 210.2-06: 7 calendar years) and at most 1y "
        "(RetentionPolicy spec.retention.audit.max): "
    )


def test_365_days_are_shorter_than_12_months() -> None:
    with pytest.raises(InvalidResource, match="at least 12mo"):
        resolve({AUDIT: bounds(most="365d")}, frameworks("PCI_DSS"))
    assert shown(resolve({AUDIT: bounds(most="1y")}, frameworks("PCI_DSS")).audit) == (
        "12mo",
        "12mo",
        "1y",
    )


def test_on_a_stated_basis_the_minimum_prevails_and_says_what_it_overrode() -> None:
    resolution = resolve(
        {AUDIT: bounds(most="1y")}, frameworks("SOX"), legal_basis="17 CFR 210.2-06"
    )
    assert shown(resolution.audit) == ("7y", "7y", "7y")
    assert resolution.audit.overridden is not None
    assert resolution.audit.overridden.reason == "RetentionPolicy spec.retention.audit.max"
    assert resolve({}, frameworks("SOX")).audit.overridden is None


@pytest.mark.parametrize("basis", ["", "because"])
@pytest.mark.parametrize(
    "policy",
    [
        {CONTENT: bounds("90d", "30d")},
        {DERIVED: bounds("90d", "30d")},
        {CONTENT: bounds(most="30d"), DERIVED: bounds("90d")},
    ],
)
def test_no_basis_mends_a_policy_that_contradicts_itself(policy: Policy, basis: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        resolve(policy, frameworks("GDPR"), legal_basis=basis)
    assert caught.value.reason == "InvalidSpec"
    assert caught.value.field.endswith(".min")


# -- cut-offs --------------------------------------------------------------------------------------


def test_cut_offs_follow_the_calendar() -> None:
    cuts = cut_offs(resolve({}, frameworks("SOX"), {CONTENT: period("1mo")}), NOW)
    assert cuts[CONTENT].expire_before == datetime(2026, 2, 15, 12, tzinfo=UTC)
    assert cuts[CONTENT].keep_from is None
    assert cuts[AUDIT].expire_before == datetime(2019, 3, 15, 12, tzinfo=UTC)
    assert cuts[AUDIT].keep_from == datetime(2019, 3, 15, 12, tzinfo=UTC)


def test_a_cut_off_keeps_every_minimum_in_a_short_month() -> None:
    # On average a month is longer than 30 days; from mid-March back it is 28.
    made_up = Framework(
        "MADE_UP",
        "",
        "",
        date(2026, 1, 1),
        {CONTENT: ClassRule(minimum=Clause(period("1mo"), "1"))},
        {},
    )
    resolution = resolve({CONTENT: bounds(least="30d")}, [made_up])
    assert shown(resolution.content) == ("1mo", "1mo", "")
    cut = cut_offs(resolution, NOW)[CONTENT]
    assert cut.expire_before == cut.keep_from == NOW - timedelta(days=30)


# -- what always holds -----------------------------------------------------------------------------

some_periods = st.builds(Period, st.integers(1, 40), st.sampled_from(["d", "w", "mo", "y"]))
maybe = st.none() | some_periods
classes = st.sampled_from(RecordClass)
policies = st.dictionaries(classes, st.builds(ClassBounds, maybe, maybe, maybe))
choices = st.dictionaries(classes, some_periods)
basis = st.sampled_from(["", "Art. 6(1)(c)"])
clauses = st.none() | st.builds(Clause, some_periods, st.sampled_from(["§ 1", "§ 2"]))
rules = st.builds(ClassRule, clauses, clauses, clauses, justify_clause=st.sampled_from(["", "§ 3"]))
made_up_frameworks = st.builds(
    Framework,
    st.sampled_from("ABCD"),
    st.just(""),
    st.just(""),
    st.just(date(2026, 1, 1)),
    st.dictionaries(classes, rules),
    st.just({}),
)
several = st.lists(
    made_up_frameworks | st.sampled_from(list(built_in_frameworks().values())),
    max_size=4,
    unique_by=lambda framework: framework.id,
)
moments = st.datetimes(
    datetime.fromisoformat("2000-01-01"),
    datetime.fromisoformat("2100-01-01"),
    timezones=st.just(UTC),
)


def attempt(
    policy: Policy, selected: list[Framework], choice: Choice, legal_basis: str
) -> Resolution | str:
    try:
        return resolve(policy, selected, choice, legal_basis)
    except InvalidResource as error:
        return str(error)


@given(policies, several, choices, basis)
def test_what_is_in_force_is_never_outside_floor_and_ceiling(
    policy: Policy, selected: list[Framework], choice: Choice, legal_basis: str
) -> None:
    resolution = attempt(policy, selected, choice, legal_basis)
    assume(isinstance(resolution, Resolution))
    assert isinstance(resolution, Resolution)
    for retention in resolution.by_class().values():
        if retention.floor:
            assert retention.floor.period <= retention.effective.period
        if retention.ceiling:
            assert retention.effective.period <= retention.ceiling.period
    assert resolution.derived.effective.period <= resolution.content.effective.period


@given(policies, several, choices, basis, st.randoms())
def test_the_order_of_frameworks_never_matters(
    policy: Policy,
    selected: list[Framework],
    choice: Choice,
    legal_basis: str,
    random: Random,
) -> None:
    shuffled = list(selected)
    random.shuffle(shuffled)
    assert attempt(policy, selected, choice, legal_basis) == attempt(
        policy, shuffled, choice, legal_basis
    )


@given(policies, several, choices, basis, classes, some_periods)
def test_tightening_never_lengthens(
    policy: Policy,
    selected: list[Framework],
    choice: Choice,
    legal_basis: str,
    record_class: RecordClass,
    tighter: Period,
) -> None:
    before = attempt(policy, selected, choice, legal_basis)
    assume(isinstance(before, Resolution))
    assert isinstance(before, Resolution)
    old = policy.get(record_class, ClassBounds())
    most = tighter if old.max is None else min(old.max, tighter)
    tightened = [
        attempt({**policy, record_class: replace(old, max=most)}, selected, choice, legal_basis)
    ]
    if tighter <= before.of(record_class).effective.period:
        chosen = {**choice, record_class: tighter}
        tightened.append(attempt(policy, selected, chosen, legal_basis))
    for after in tightened:
        if isinstance(after, Resolution):
            for each in RecordClass:
                assert after.of(each).effective.period <= before.of(each).effective.period


@given(policies, several, choices, basis, moments)
def test_nothing_expires_under_a_minimum_and_derived_goes_first(
    policy: Policy,
    selected: list[Framework],
    choice: Choice,
    legal_basis: str,
    now: datetime,
) -> None:
    resolution = attempt(policy, selected, choice, legal_basis)
    assume(isinstance(resolution, Resolution))
    assert isinstance(resolution, Resolution)
    cuts = cut_offs(resolution, now)
    for record_class, retention in resolution.by_class().items():
        for minimum in retention.minimums:
            assert cuts[record_class].expire_before <= minimum.period.before(now)
    assert cuts[CONTENT].expire_before <= cuts[DERIVED].expire_before
