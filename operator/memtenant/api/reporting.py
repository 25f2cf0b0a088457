"""When a policy's reports are made, and what a status says of the last one."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints, WithJsonSchema

from memtenant.api.fields import Model, Timestamp, set_list
from memtenant.api.rule import VALIDATIONS, Rule

__all__ = ["SCHEDULE_PATTERN", "LastReport", "ReportFormat", "Reporting"]


def _times(number: str, *names: str) -> str:
    """One field of a schedule: ``*``, ``3``, ``1-5``, ``*/15``, or several of them."""
    one = f"({number}{''.join(f'|{name}' for name in names)})"
    part = rf"(\*|{one}(-{one})?)(/[1-9][0-9]?)?"
    return f"{part}(,{part})*"


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (
    _times("[0-5]?[0-9]"),
    _times("1?[0-9]|0[0-9]|2[0-3]"),
    _times("0?[1-9]|[12][0-9]|3[01]"),
    _times("0?[1-9]|1[0-2]", *_MONTHS),
    _times("[0-6]", *_WEEKDAYS),
)

_SCHEDULE = rf"^(@(hourly|daily|weekly|monthly|yearly)|{' '.join(_FIELDS)})$"
"""All that can be told of a schedule field by field. A range that runs backwards, or a 31st of
February, is found by `memtenant.rules.schedule`."""

SCHEDULE_PATTERN = r"^(@[a-z]+|[-0-9A-Z*/,]+( [-0-9A-Z*/,]+){4})$"

_IS_A_SCHEDULE = Rule(
    cel=f"self.matches('{_SCHEDULE.replace(chr(92), chr(92) * 2)}')",
    message="is no schedule: write minute, hour, day of the month, month and day of the week, as "
    "in 0 3 * * MON, or @hourly, @daily, @weekly, @monthly, @yearly",
    check=lambda it, _: re.search(_SCHEDULE, it) is not None,
)

Schedule = Annotated[
    str,
    StringConstraints(pattern=SCHEDULE_PATTERN, max_length=100),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": SCHEDULE_PATTERN,
            "maxLength": 100,
            VALIDATIONS: [_IS_A_SCHEDULE],
        }
    ),
]

_TIME_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"


class ReportFormat(StrEnum):
    """A form in which a report is written."""

    JSON = "JSON"
    HTML = "HTML"


class Reporting(Model):
    """When reports about the tenants under a policy are made, and what of them is kept."""

    schedule: Schedule = Field(
        description="When, as a CronJob says it: minute, hour, day of the month, month (1 to 12 or "
        "JAN), day of the week (0 to 6 or SUN), or @daily. `0 3 * * MON` is Mondays at 3:00."
    )
    time_zone: Annotated[str, StringConstraints(pattern=_TIME_ZONE_PATTERN, max_length=64)] = Field(
        default="Etc/UTC", description="Where it is that time, as Europe/Berlin."
    )
    formats: tuple[ReportFormat, ...] = Field(
        default=(ReportFormat.JSON, ReportFormat.HTML),
        description="What is written. report.json always is: the next report is compared with it.",
        min_length=1,
        **set_list(8),
    )
    history_limit: int = Field(
        default=30,
        description="How many ComplianceReports of the policy are kept; older ones are deleted, "
        "their files are not: those follow the record class evidence.",
        ge=1,
        le=1000,
    )
    suspend: bool = Field(
        default=False, description="true: no report is begun by itself until it is false again."
    )


class LastReport(Model):
    """The newest report about a policy's tenants."""

    name: str = Field(
        description="The ComplianceReport, in the operator's namespace.", max_length=63
    )
    time: Timestamp = Field(description="When it was made.")
    failed: int = Field(description="Controls that failed.", ge=0)
    errors: int = Field(description="Controls whose evidence was missing.", ge=0)
