"""A schedule fires when Kubernetes' CronJob controller would fire."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtenant.api.validate import validate
from memtenant.errors import InvalidResource
from memtenant.rules.schedule import Schedule, read_schedule

_ZONES = ["Etc/UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]
_FIELDS = [
    ["*", "0", "30", "*/15", "5-10", "50/3", "0,59"],
    ["*", "0", "2", "3", "*/6", "22-23"],
    ["*", "1", "29", "31", "*/10"],
    ["*", "2", "3,10", "MAR-NOV", "*/5"],
    ["*", "0", "SUN", "1-5", "MON,FRI"],
]
_FIRST = datetime(2026, 3, 26, tzinfo=UTC)
_TEXTS = st.tuples(*map(st.sampled_from, _FIELDS)).map(" ".join)


def _due(schedule: Schedule, moment: datetime) -> bool:
    local = moment.astimezone(schedule.zone)
    day, weekday = local.day in schedule.days, local.isoweekday() % 7 in schedule.weekdays
    return (
        local.minute in schedule.minutes
        and local.hour in schedule.hours
        and local.month in schedule.months
        and ((day or weekday) if schedule.either_day else (day and weekday))
    )


@settings(deadline=None, max_examples=60)
@given(
    text=_TEXTS,
    zone=st.sampled_from(_ZONES),
    start=st.integers(0, 222 * 1440).map(lambda it: _FIRST + timedelta(minutes=it)),
)
def test_no_minute_between_is_left_out(text: str, zone: str, start: datetime) -> None:
    try:
        schedule = read_schedule(text, zone)
    except InvalidResource:
        return  # the 31st of February

    found = schedule.next_after(start)

    minute = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    until = min(found or datetime.max.replace(tzinfo=UTC), start + timedelta(days=3))
    while minute < until:
        assert not _due(schedule, minute), (minute, found)
        minute += timedelta(minutes=1)
    assert found is None or (_due(schedule, found) and found > start)


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("0 3 * * MON", "Etc/UTC", "2026-11-28T22:00", "2026-11-30T03:00"),
        ("@daily", "Europe/Berlin", "2026-11-28T22:00", "2026-11-28T23:00"),
        ("0 0 29 2 *", "Etc/UTC", "2026-01-01T00:00", "2028-02-29T00:00"),
        # Either of the two days.
        ("0 0 13 * 5", "Etc/UTC", "2026-11-14T00:00", "2026-11-20T00:00"),
        # The clocks skip 2:30 on the 29th of March, and repeat it on the 25th of October.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-30T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T01:30"),
        # A step on a number runs to the end.
        ("50/5 * * * *", "Etc/UTC", "2026-01-01T00:50", "2026-01-01T00:55"),
    ],
)
def test_the_next_time(text: str, zone: str, after: str, expected: str) -> None:
    found = read_schedule(text, zone).next_after(datetime.fromisoformat(after + "+00:00"))

    assert found == datetime.fromisoformat(expected + "+00:00")


@pytest.mark.parametrize(
    ("text", "zone", "reason", "words"),
    [
        ("0 3-1 * * *", "Etc/UTC", "InvalidSchedule", "3-1 runs backwards"),
        ("0 0 31 2 *", "Etc/UTC", "InvalidSchedule", "no calendar has such a day"),
        ("0 0 * * 7", "Etc/UTC", "InvalidSchedule", "not within 0 to 6"),
        ("0 0 * *", "Etc/UTC", "InvalidSchedule", "five fields"),
        ("0 0 * * ²", "Etc/UTC", "InvalidSchedule", "no number"),
        ("@daily", "Local", "UnknownTimeZone", "tz database"),
        ("@daily", "../etc/passwd", "UnknownTimeZone", "tz database"),
    ],
)
def test_what_is_no_schedule_is_told(text: str, zone: str, reason: str, words: str) -> None:
    with pytest.raises(InvalidResource, match=words) as told:
        read_schedule(text, zone)

    assert told.value.reason == reason


@settings(deadline=None)
@given(text=_TEXTS)
def test_what_can_be_read_the_api_takes(text: str) -> None:
    raw = {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": "RetentionPolicy",
        "metadata": {"name": "a"},
        "spec": {"report": {"schedule": text}},
    }

    assert validate(raw) == ()
