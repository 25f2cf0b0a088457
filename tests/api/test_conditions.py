"""Conditions: stable where nothing changed, present only while they mean something."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.conditions import (
    PRESENT_ONLY_WHILE_TRUE,
    Condition,
    ConditionStatus,
    ConditionType,
    Finding,
    find,
    is_true,
    merge,
)

_NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
_LATER = _NOW + timedelta(hours=1)

_findings = st.lists(
    st.builds(
        Finding,
        st.sampled_from(ConditionType),
        st.sampled_from(ConditionStatus),
        st.sampled_from(["Provisioned", "StoreUnavailable", "QuotaTooLarge"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ),
    max_size=6,
)


def _merged(
    findings: list[Finding], *, before: tuple[Condition, ...] = ()
) -> tuple[Condition, ...]:
    return merge(before, findings, now=_NOW, generation=1)


@given(_findings)
def test_the_same_findings_later_change_nothing(findings: list[Finding]) -> None:
    first = _merged(findings)

    # Of several findings of one type the last counts, so a repetition may pass through others.
    last = list({finding.type: finding for finding in findings}.values())
    assert merge(first, last, now=_LATER, generation=1) == _merged(last)


@given(_findings, _findings)
def test_time_moves_with_status_only(first: list[Finding], second: list[Finding]) -> None:
    before = _merged(list({finding.type: finding for finding in first}.values()))
    last = list({finding.type: finding for finding in second}.values())

    after = merge(before, last, now=_LATER, generation=2)

    for condition in after:
        old = find(before, condition.type)
        changed = old is None or old.status is not condition.status
        assert condition.last_transition_time == (_LATER if changed else _NOW)


@given(_findings, _findings)
def test_what_only_trouble_shows_is_never_there_otherwise(
    first: list[Finding], second: list[Finding]
) -> None:
    after = merge(_merged(first), second, now=_LATER, generation=2)

    assert all(
        condition.status is ConditionStatus.TRUE
        for condition in after
        if condition.type in PRESENT_ONLY_WHILE_TRUE
    )


@given(_findings, _findings)
def test_types_are_unique_and_sorted(first: list[Finding], second: list[Finding]) -> None:
    types = [one.type for one in merge(_merged(first), second, now=_LATER, generation=2)]

    assert types == sorted(set(types))


def test_a_type_without_a_finding_stays() -> None:
    before = _merged([Finding(ConditionType.READY, ConditionStatus.TRUE, "Provisioned")])

    after = merge(
        before,
        [Finding(ConditionType.STALLED, ConditionStatus.TRUE, "QuotaTooLarge")],
        now=_LATER,
        generation=2,
    )

    assert is_true(after, ConditionType.READY)
    assert find(after, ConditionType.READY) == before[0]


def test_stalled_goes_when_it_is_over() -> None:
    before = _merged([Finding(ConditionType.STALLED, ConditionStatus.TRUE, "QuotaTooLarge")])

    after = merge(
        before,
        [Finding(ConditionType.STALLED, ConditionStatus.FALSE, "Provisioned")],
        now=_LATER,
        generation=2,
    )

    assert after == ()


def test_a_message_without_end_is_cut() -> None:
    (condition,) = _merged([Finding(ConditionType.READY, ConditionStatus.FALSE, "X", "y" * 10_000)])

    assert len(condition.message) == 4096
