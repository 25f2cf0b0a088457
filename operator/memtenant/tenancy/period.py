"""Periods as people and laws state them: ``90s``, ``10m``, ``30d``, ``2w``, ``12mo``, ``7y``.

Months and years are calendar months and years, not 30 or 365 days: seven years from a leap day is
the 28th of February (45 CFR 164.316(b)(2)(i) and 17 CFR 210.2-06 count years).
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import total_ordering

from memtenant.errors import InvalidResource

__all__ = ["PERIOD_PATTERN", "Period"]

PERIOD_PATTERN = r"^[1-9][0-9]{0,6}(s|m|h|d|w|mo|y)$"
"""One unit, a whole number of it, never zero: the ``pattern`` of every duration in the CRDs."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MONTHS = {"mo": 1, "y": 12}
_DAYS_PER_MONTH = 365.2425 / 12
_MAX_YEARS = 1000


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Period:
    """A length of time in one unit.

    Periods are ordered by their mean length (a month is 365.2425/12 days), which is how a longest
    minimum or shortest maximum is chosen among clauses that count in different units. Two periods
    of the same mean length are equal (``12mo`` and ``1y``).
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read ``30d``; raises `InvalidResource` that shows the accepted forms."""
        found = re.fullmatch(PERIOD_PATTERN, text)
        if found is None:
            raise InvalidResource(
                f"{text!r} is not a period: write a whole number and one unit, as 90s, 10m, 12h, "
                "30d, 2w, 12mo or 7y"
            )
        unit = found.group(1)
        period = cls(int(text[: -len(unit)]), unit)
        if period.days > _MAX_YEARS * 366:
            raise InvalidResource(f"{text!r} is longer than {_MAX_YEARS} years")
        return period

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Period) and self.days == other.days

    def __lt__(self, other: Period) -> bool:
        return self.days < other.days

    def __hash__(self) -> int:
        return hash(self.days)

    @property
    def days(self) -> float:
        """The mean length in days; for ordering and display, never for a cut-off."""
        if self.unit in _MONTHS:
            return self.count * _MONTHS[self.unit] * _DAYS_PER_MONTH
        return self.count * _SECONDS[self.unit] / 86_400

    def after(self, moment: datetime) -> datetime:
        """``moment`` plus this period; a day that the month lacks becomes the month's last.

        Saturates at the last moment that ``datetime`` knows.
        """
        return self._shift(moment, 1)

    def before(self, moment: datetime) -> datetime:
        """``moment`` minus this period: the cut-off of a record class. Saturates likewise."""
        return self._shift(moment, -1)

    def _shift(self, moment: datetime, sign: int) -> datetime:
        limit = (datetime.max if sign > 0 else datetime.min).replace(tzinfo=moment.tzinfo)  # noqa: DTZ901
        try:
            if self.unit not in _MONTHS:
                return moment + sign * timedelta(seconds=self.count * _SECONDS[self.unit])
            months = moment.year * 12 + moment.month - 1 + sign * self.count * _MONTHS[self.unit]
            year, month = divmod(months, 12)
            last = calendar.monthrange(year, month + 1)[1]
            return moment.replace(year=year, month=month + 1, day=min(moment.day, last))
        except (OverflowError, ValueError, calendar.IllegalMonthError):
            return limit
