from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.errors import InvalidResource
from memtenant.tenancy.period import PERIOD_PATTERN, Period

LEAP_DAY = datetime(2024, 2, 29, 12, tzinfo=UTC)

periods = st.builds(
    Period, st.integers(1, 999), st.sampled_from(["s", "m", "h", "d", "w", "mo", "y"])
)
moments = st.datetimes(
    datetime.fromisoformat("1900-01-01"),
    datetime.fromisoformat("2200-01-01"),
    timezones=st.just(UTC),
)


@pytest.mark.parametrize("text", ["90s", "10m", "12h", "30d", "2w", "12mo", "7y", "1y"])
def test_a_period_is_written_as_it_was_read(text: str) -> None:
    assert str(Period.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "d", "0d", "030d", "-1d", "1.5d", "30 d", "30d\n", "30D", "1d12h", "٣d", "12345678d"],
)
def test_anything_else_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(InvalidResource, match="as 90s, 10m, 12h, 30d, 2w, 12mo or 7y"):
        Period.parse(text)


def test_a_period_beyond_a_thousand_years_is_refused() -> None:
    assert Period.parse("1000y").count == 1000
    with pytest.raises(InvalidResource, match="longer than 1000 years"):
        Period.parse("1003y")


def test_years_are_calendar_years() -> None:
    assert Period.parse("7y").after(datetime(2024, 3, 1, tzinfo=UTC)) == datetime(
        2031, 3, 1, tzinfo=UTC
    )
    assert Period.parse("7y").before(LEAP_DAY) == datetime(2017, 2, 28, 12, tzinfo=UTC)


def test_a_day_that_the_month_lacks_becomes_its_last() -> None:
    assert Period.parse("1mo").after(datetime(2023, 1, 31, tzinfo=UTC)).day == 28
    assert Period.parse("1mo").after(datetime(2024, 1, 31, tzinfo=UTC)).day == 29
    assert Period.parse("1mo").before(datetime(2024, 12, 31, tzinfo=UTC)).day == 30


def test_seven_years_are_longer_than_2555_days() -> None:
    assert Period.parse("2555d") < Period.parse("7y")
    assert Period.parse("365d") < Period.parse("12mo")
    assert Period.parse("12mo") == Period.parse("1y")
    assert hash(Period.parse("12mo")) == hash(Period.parse("1y"))
    assert Period.parse("60s") == Period.parse("1m") != Period.parse("1mo")


def test_a_period_is_not_equal_to_its_text() -> None:
    assert Period.parse("30d") != "30d"


def test_arithmetic_saturates_at_the_ends_of_time() -> None:
    assert Period.parse("1000y").before(datetime(500, 1, 1, tzinfo=UTC)).year == 1
    assert Period.parse("9999d").before(datetime(2, 1, 1, tzinfo=UTC)).year == 1
    assert Period.parse("1000y").after(datetime(9500, 1, 1, tzinfo=UTC)).year == 9999


@given(periods, moments)
def test_after_is_later_and_before_is_earlier(period: Period, moment: datetime) -> None:
    assert period.before(moment) < moment < period.after(moment)


@given(periods, moments)
def test_a_calendar_period_never_drifts_from_its_mean_by_more_than_three_days(
    period: Period, moment: datetime
) -> None:
    drift = abs((period.after(moment) - moment) - timedelta(days=period.days))
    assert drift <= timedelta(days=3)


@given(periods)
def test_the_pattern_of_the_crds_accepts_every_period(period: Period) -> None:
    assert re.fullmatch(PERIOD_PATTERN, str(period))
    assert Period.parse(str(period)) == period


@given(periods, periods, periods)
def test_periods_are_totally_ordered(one: Period, two: Period, three: Period) -> None:
    assert (one < two) + (one == two) + (one > two) == 1
    if one <= two <= three:
        assert one <= three
