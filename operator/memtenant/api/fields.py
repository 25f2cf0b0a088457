"""The kinds of field that more than one resource has: names, periods, quantities, references."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from memtenant.api.quantity import Quantity
from memtenant.api.rule import VALIDATIONS, Rule, ruled
from memtenant.clock import rfc3339, utc_from_rfc3339
from memtenant.errors import InvalidResource
from memtenant.tenancy.identity import MAX_NAME
from memtenant.tenancy.period import PERIOD_PATTERN, Period

__all__ = [
    "AuditFailure",
    "DeletionPolicy",
    "EnforcementMode",
    "Isolation",
    "MeasuredBytes",
    "Model",
    "Moment",
    "Name",
    "NameRef",
    "PeriodField",
    "QuantityField",
    "Residency",
    "RightMode",
    "SecretKey",
    "SecretKeyRef",
    "SecretName",
    "Timestamp",
    "cel_seconds",
    "map_list",
    "seconds",
    "set_list",
]

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_DATA_KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E|[eE][0-9]{1,2})?$"
MOMENT_PATTERN = (
    r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)


class Model(BaseModel):
    """What all models share: immutable, camelCase in YAML, deaf to fields that it does not know.

    Unknown fields are refused where a person writes them (`memtenant.api.validate`, and the API
    server under strict field validation), not where the operator reads them: an operator that is
    one version behind its CRDs must still read every object.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


class Isolation(StrEnum):
    """How far a tenant is kept apart from its neighbours."""

    STRICT = "Strict"
    MODERATE = "Moderate"
    MINIMAL = "Minimal"


class DeletionPolicy(StrEnum):
    """What becomes of a tenant's data and keys when the tenant is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"
    SHRED = "Shred"


class EnforcementMode(StrEnum):
    """Whether a policy insists on a feature."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"


class AuditFailure(StrEnum):
    """What becomes of a call that cannot be audited, because nobody drains the queue."""

    CLOSED = "Closed"
    OPEN = "Open"


class RightMode(StrEnum):
    """Whether a policy insists on what a person may ask for, leaves it open, or rules it out."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"
    FORBIDDEN = "Forbidden"


def set_list(most: int) -> Any:
    """Field keywords of a list whose items are unique; server-side apply merges it by item."""
    return {"max_length": most, "json_schema_extra": ruled(**{"x-kubernetes-list-type": "set"})}


def map_list(key: str, most: int) -> Any:
    """Field keywords of a list that is a map keyed by ``key``; server-side apply merges it so."""
    extra = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {"max_length": most, "json_schema_extra": ruled(**extra)}


def _reading(kind: type, read: Callable[[Any], Any], *written: type) -> Callable[[Any], Any]:
    """A validator that takes a ``kind`` as it is and reads it from what may be ``written``."""

    def validate(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if isinstance(value, bool) or not isinstance(value, written):
            raise ValueError(f"cannot be {type(value).__name__}: write a text")  # noqa: TRY004
        try:
            return read(value)
        except (InvalidResource, OverflowError) as error:
            # Pydantic adds the field's path to a ValueError, and to nothing else.
            raise ValueError(str(error)) from None

    return validate


# Periods. A CEL `duration` knows no days: lengths are compared in seconds of the mean year, the
# order of `tenancy.period.Period`; a month of 365.2425/12 days is a whole number of seconds.

_UNIT_SECONDS = {
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
    "mo": 2_629_746,
    "y": 31_556_952,
}
_LONGEST = 1000 * 366 * 86_400


def cel_seconds(value: str) -> str:
    """CEL for the mean length in seconds of the period that the expression ``value`` holds."""
    units = ", ".join(f"'{unit}': {length}" for unit, length in _UNIT_SECONDS.items())
    return f"int({value}.find('^[0-9]+')) * {{{units}}}[{value}.find('[a-z]+$')]"


def seconds(period: str) -> int:
    """The same offline: the mean length of a well-formed period in seconds."""
    digits = period.rstrip("smhdwoy")
    return int(digits) * _UNIT_SECONDS[period[len(digits) :]]


_NOT_TOO_LONG = Rule(
    cel=f"{cel_seconds('self')} <= {_LONGEST}",
    message="is longer than 1000 years: write a shorter period, as 30d, 12mo or 7y",
    check=lambda it, _: seconds(it) <= _LONGEST,
)

PeriodField = Annotated[
    Period,
    PlainValidator(_reading(Period, Period.parse, str)),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": PERIOD_PATTERN,
            "maxLength": 9,
            VALIDATIONS: [_NOT_TOO_LONG],
        }
    ),
]
"""A `Period`; in YAML a whole number and one unit: 90s, 10m, 12h, 30d, 2w, 12mo, 7y."""

_SMALLEST, _LARGEST = Quantity.parse("1Mi"), Quantity.parse("1Pi")

_OF_A_SENSIBLE_SIZE = Rule(
    cel="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && "
    "quantity(string(self)).compareTo(quantity('1Pi')) <= 0",
    message="must be from 1Mi to 1Pi: write an amount of memory, as 64Mi, 512Mi or 2Gi",
    check=lambda it, _: _SMALLEST <= Quantity.parse(it) <= _LARGEST,
)

QuantityField = Annotated[
    Quantity,
    PlainValidator(_reading(Quantity, Quantity.parse, str, int, float)),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
            VALIDATIONS: [_OF_A_SENSIBLE_SIZE],
        }
    ),
]
"""A `Quantity` of bytes that a person asks for: 1Mi to 1Pi."""

MeasuredBytes = Annotated[
    Quantity,
    PlainValidator(_reading(Quantity, Quantity.parse, str, int, float)),
    PlainSerializer(str),
    WithJsonSchema({"x-kubernetes-int-or-string": True}),
]
"""A `Quantity` of bytes that the operator reports in a status."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=MAX_NAME)]
"""A DNS label of at most 40 characters: the name of a store, policy, tenant or agent."""

Residency = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=63)]
"""Where data may lie, in the platform's own words: a DNS label, as eu-west."""

Timestamp = Annotated[
    datetime,
    PlainValidator(_reading(datetime, utc_from_rfc3339, str)),
    PlainSerializer(rfc3339),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A moment that the operator reports in a status, as RFC 3339 writes it."""

_THE_MONTH_HAS_THE_DAY = Rule(
    cel="int(self.substring(8, 10)) <= "
    "(self.substring(5, 7) in ['04', '06', '09', '11'] ? 30 : self.substring(5, 7) != '02' ? 31 : "
    "int(self.substring(0, 4)) % 4 != 0 ? 28 : int(self.substring(0, 4)) % 100 != 0 ? 29 : "
    "int(self.substring(0, 4)) % 400 != 0 ? 28 : 29)",
    message="the month does not have that day: write a date of the calendar",
    check=lambda it, _: int(it[8:10]) <= monthrange(int(it[:4]), int(it[5:7]))[1],
)

Moment = Annotated[
    datetime,
    PlainValidator(_reading(datetime, utc_from_rfc3339, str)),
    PlainSerializer(rfc3339),
    # No `format`: with one, the API server takes a list where a string belongs.
    WithJsonSchema(
        {
            "type": "string",
            "pattern": MOMENT_PATTERN,
            "maxLength": 35,
            VALIDATIONS: [_THE_MONTH_HAS_THE_DAY],
        }
    ),
]
"""A moment that a person writes: 2026-01-31T09:30:00Z."""

SecretName = Annotated[
    str, StringConstraints(pattern=SUBDOMAIN_PATTERN, min_length=1, max_length=253)
]
"""The name of a Secret: a DNS subdomain."""

SecretKey = Annotated[
    str, StringConstraints(pattern=_DATA_KEY_PATTERN, min_length=1, max_length=253)
]
"""A key in the data of a Secret."""


class SecretKeyRef(Model):
    """One key of one Secret."""

    name: SecretName = Field(description="Name of the Secret.")
    key: SecretKey = Field(description="Key in the Secret's data.")


class NameRef(Model):
    """A cluster-scoped object, by name."""

    name: Name = Field(description="Name of the object.")
