"""A validation rule declared once: CEL for the API server, a Python check for `validate`.

Both halves see the same thing: the plain JSON value at the rule's place after defaulting, and on
an update of an object the old one. tests/api/test_parity.py holds them to the same verdict on a
real API server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["VALIDATIONS", "Rule", "ruled"]

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule at one place of a schema.

    ``cel`` is what the API server evaluates, ``check(value, old)`` the same offline; ``old`` is
    None unless the rule is a transition. ``message`` says what to do, ``field`` is the path below
    the rule's place that a person has to change (rendered as ``fieldPath``).
    """

    cel: str
    message: str
    check: Callable[[Any, Any], bool]
    field: str = ""

    @property
    def is_transition(self) -> bool:
        """Whether the rule compares with the old object: such rules run on updates only."""
        return "oldSelf" in self.cel

    def rendered(self) -> dict[str, str]:
        """The entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | {"fieldPath": self.field} if self.field else entry


def ruled(*rules: Rule, **schema: Any) -> Callable[[dict[str, Any]], None]:
    """A pydantic ``json_schema_extra`` that puts the rules (and further keys) into the schema."""

    def extend(target: dict[str, Any]) -> None:
        if rules:
            target[VALIDATIONS] = [*target.get(VALIDATIONS, ()), *rules]
        target.update(schema)

    return extend
