"""When a CronJob fires, computed as Kubernetes' own controller does it.

The controller's rules (robfig/cron): with a day of the month and a day of the week both given,
either will do; a step on a single number runs to the end of its range; a minute that the clocks
skip does not come, and one that they repeat comes twice. Libraries follow Debian's cron in these
points, so that they would call a run missed that Kubernetes never planned.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from memtenant.errors import InvalidResource

__all__ = ["Schedule", "read_schedule"]

_MINUTE = timedelta(minutes=1)
_HORIZON = timedelta(days=5 * 366)
"""The controller looks so far ahead: longer than from one 29th of February to the next but one."""

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_NAMES = (
    *((),) * 3,
    ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
)
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """The minutes at which something is due in one time zone.

    ``weekdays`` count from Sunday, which is 0. ``either_day`` says that one of the two kinds of day
    is enough.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    zone: tzinfo

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time after ``moment``, in UTC; None where there is none in five years."""
        now = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        last = now + _HORIZON
        while now < last:
            local = now.astimezone(self.zone)
            if local.month not in self.months or not self._on_day(local):
                now = max(now + _MINUTE, self._midnight_after(local))
            elif local.hour not in self.hours:
                now += timedelta(minutes=60 - local.minute)
            elif local.minute not in self.minutes:
                now += _MINUTE
            else:
                return now
        return None

    def _on_day(self, local: datetime) -> bool:
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (day or weekday) if self.either_day else (day and weekday)

    def _midnight_after(self, local: datetime) -> datetime:
        tomorrow = local.date() + timedelta(days=1)
        return datetime.combine(tomorrow, time(), self.zone).astimezone(UTC)


def read_schedule(text: str, zone: str) -> Schedule:
    """The schedule of five fields (or a macro) in a time zone by its name.

    Raises `InvalidResource` with the reason ``InvalidSchedule`` or ``UnknownTimeZone``.
    """
    fields = _MACROS.get(text, text).split(" ")
    if len(fields) != len(_RANGES):
        raise _invalid(text, "it needs five fields")
    minutes, hours, days, months, weekdays = (
        _values(text, field, low, high, names)
        for field, (low, high), names in zip(fields, _RANGES, _NAMES, strict=True)
    )
    found = Schedule(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        either_day=not _is_any(fields[2]) and not _is_any(fields[4]),
        zone=_zone(zone),
    )
    if found.next_after(datetime(2024, 1, 1, tzinfo=UTC)) is None:
        raise _invalid(text, "no calendar has such a day")
    return found


def _is_any(field: str) -> bool:
    """Whether it leaves the day open: a ``*`` without a step among its parts."""
    return any(part in ("*", "*/1") for part in field.split(","))


def _values(text: str, field: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(text, first, low, names)
            end = _number(text, last, low, names) if dash else (high if step else begin)
        if begin > end:
            raise _invalid(text, f"the range {span} runs backwards")
        if begin < low or end > high:
            raise _invalid(text, f"{span} is not within {low} to {high}")
        found |= set(range(begin, end + 1, _number(text, step or "1", 0, ())))
    return frozenset(found)


def _number(text: str, word: str, low: int, names: tuple[str, ...]) -> int:
    if word in names:
        return names.index(word) + low
    if not word.isascii() or not word.isdigit():
        raise _invalid(text, f"{word!r} is no number")
    return int(word)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise InvalidResource(
            f"time zone {name!r} is not in the tz database: write one as Europe/Berlin",
            field="spec.report.timeZone",
            reason="UnknownTimeZone",
        ) from None


def _invalid(text: str, why: str) -> InvalidResource:
    return InvalidResource(
        f"{text!r} is no schedule, {why}: write minute, hour, day of the month, month and day of "
        "the week, as in 0 3 * * MON",
        field="spec.report.schedule",
        reason="InvalidSchedule",
    )
