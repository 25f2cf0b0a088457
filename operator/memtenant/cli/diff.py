"""What differs between two JSON values, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ABSENT", "Change", "difference"]


class _Absent:
    def __repr__(self) -> str:
        return "none"


ABSENT = _Absent()
"""The value of a field that is not there."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field: ``spec.quota.memory``, ``spec.agents[triage].access``."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is ABSENT:
            return f"+ {self.path}: {_shown(self.after)}"
        if self.after is ABSENT:
            return f"- {self.path}: {_shown(self.before)}"
        return f"~ {self.path}: {_shown(self.before)} → {_shown(self.after)}"


def difference(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """The smallest fields that differ, in a stable order. Lists of objects with names are compared
    by name; other lists as a whole.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            below = f"{path}.{key}" if path else key
            yield from difference(before.get(key, ABSENT), after.get(key, ABSENT), below)
    elif (old := _by_name(before)) is not None and (new := _by_name(after)) is not None:
        for name in [*old, *(name for name in new if name not in old)]:
            yield from difference(old.get(name, ABSENT), new.get(name, ABSENT), f"{path}[{name}]")
    elif before is ABSENT and isinstance(after, Mapping) and after:
        for key in sorted(after):
            yield from difference(ABSENT, after[key], f"{path}.{key}" if path else key)
    elif type(before) is not type(after) or before != after:
        yield Change(path, before, after)


def _by_name(value: Any) -> dict[str, Any] | None:
    """The items of a map list by their key; None for what is none."""
    if not isinstance(value, list) or not value:
        return None
    for key in ("name", "matter"):
        if all(isinstance(item, Mapping) and isinstance(item.get(key), str) for item in value):
            return {item[key]: item for item in value}
    return None


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, ensure_ascii=False)
