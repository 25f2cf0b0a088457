"""What a regulation asks for that a report can judge: controls, as data of the framework's file.

A control names the check that judges it (`memtenant.reports.checks`) or says why only a person can
judge it. Adding one, or a framework, is data: no code knows a control by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from memtenant.errors import InvalidResource
from memtenant.tenancy.masking import Detector
from memtenant.tenancy.period import Period

__all__ = ["MANUAL", "Control", "ParameterInvalid", "Parameters", "Severity"]

MANUAL = "Manual"
"""The check of a control that only a person can judge; ``why`` tells it."""


class Severity(StrEnum):
    """How much it matters that a control does not hold."""

    CRITICAL = "Critical"
    HIGH = "High"
    MEDIUM = "Medium"
    LOW = "Low"


class ParameterInvalid(ValueError):
    """A parameter of a control that its check cannot use."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a control's data hands to its check."""

    values: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def period(self, name: str) -> Period | None:
        """A length of time, or None where none is given."""
        if name not in self.values:
            return None
        try:
            return Period.parse(str(self.values[name]))
        except InvalidResource as error:
            raise ParameterInvalid(f"{name}: {error}") from None

    def needed_period(self, name: str) -> Period:
        """A length of time without which nothing can be judged."""
        found = self.period(name)
        if found is None:
            raise ParameterInvalid(f"{name} is needed: a length of time, as 90d or 1y")
        return found

    def needed_detectors(self, name: str) -> tuple[Detector, ...]:
        """Kinds of values without which nothing can be judged."""
        found = self.detectors(name)
        if not found:
            raise ParameterInvalid(f"{name} is needed: a list of {', '.join(Detector)}")
        return found

    def detectors(self, name: str) -> tuple[Detector, ...]:
        """Kinds of values; none where nothing is given."""
        found = self.values.get(name, [])
        known = {one.value: one for one in Detector}
        if not isinstance(found, list) or not all(one in known for one in found):
            raise ParameterInvalid(f"{name} must be a list of {', '.join(known)}")
        return tuple(known[one] for one in found)

    def flag(self, name: str) -> bool:
        """true or false; false where nothing is given."""
        found = self.values.get(name, False)
        if not isinstance(found, bool):
            raise ParameterInvalid(f"{name} must be true or false")
        return found


@dataclass(frozen=True, slots=True)
class Control:
    """One demand of a framework. ``remedy`` is what to do where it does not hold."""

    id: str
    clause: str
    title: str
    severity: Severity
    check: str
    parameters: Parameters = Parameters()
    remedy: str = ""
    why: str = ""
