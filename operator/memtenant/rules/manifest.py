"""Where an object in the cluster is not as a manifest says.

An API server fills in defaults, writes amounts in its own way, and notes which fields whom belong
to: what of that is a difference, and what is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from memtenant.api.quantity import Quantity
from memtenant.errors import InvalidResource

__all__ = ["differences", "undeclared"]


def differences(wanted: Any, there: Any, at: str = "") -> list[str]:
    """Where what is there lacks, or has otherwise, what is wanted, as paths. What the API server
    filled in besides is no difference, but in what lets somebody through; the items of lists are
    compared in their order."""
    if isinstance(wanted, Mapping):
        if not isinstance(there, Mapping):
            return [at]
        beside = there.keys() - wanted.keys() if at.startswith("spec.ingress") else ()
        found = [f"{at}.{name}" for name in sorted(beside)]
        for name, value in wanted.items():
            found += differences(value, there.get(name), f"{at}.{name}" if at else name)
        return found
    if isinstance(wanted, list):
        there = there or []  # the API server keeps no empty list
        if not isinstance(there, list) or len(wanted) != len(there):
            return [at]
        return [
            path
            for number, (one, other) in enumerate(zip(wanted, there, strict=True))
            for path in differences(one, other, f"{at}[{number}]")
        ]
    return [] if wanted == there or _same_amount(wanted, there, at) else [at]


def undeclared(wanted: Mapping[str, Any], there: Mapping[str, Any], manager: str) -> list[str]:
    """Where what is there holds what the manager applied once, and what is not wanted any more."""
    applied = (
        entry.get("fieldsV1", {})
        for entry in there["metadata"].get("managedFields", ())
        if (entry["manager"], entry["operation"]) == (manager, "Apply")
        if not entry.get("subresource")
    )
    return [path for fields in applied for path in _beyond(fields, wanted)]


def _beyond(fields: Mapping[str, Any], wanted: Any, at: str = "") -> list[str]:
    """Paths of the fields, as the API server notes them (``f:`` a name, ``k:`` the keys of a list's
    item), that are not in what is wanted."""
    found = []
    for mark, below in fields.items():
        kind, _, name = mark.partition(":")
        if kind == "f":
            path = f"{at}.{name}" if at else name
            inside = wanted.get(name) if isinstance(wanted, Mapping) else None
        elif kind == "k":
            path, inside = f"{at}[{name}]", _item(wanted, json.loads(name))
        else:
            continue
        found += [path] if inside is None else _beyond(below, inside, path)
    return found


def _item(wanted: Any, keys: Mapping[str, Any]) -> Any:
    items = wanted if isinstance(wanted, list) else []
    return next((one for one in items if keys.items() <= one.items()), None)


def _same_amount(wanted: Any, there: Any, at: str) -> bool:
    """The API server writes quantities in its own way."""
    if ".resources." not in at or not isinstance(there, str):
        return False
    try:
        return Quantity.parse(wanted) == Quantity.parse(there)
    except InvalidResource:
        return False
