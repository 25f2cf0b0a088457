"""The verdict of an API server on an object, offline, for a creation and for an update.

The same structural schema and the same rules as in the CRDs (`memtenant.api.schema`), in the
server's order: unknown fields, nulls and defaults, types and bounds, then rules. Accepted here
means accepted by ``kubectl apply`` (strict field validation) on a real API server, and the other
way round: tests/api/test_parity.py holds both to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memtenant.api.objectmeta import metadata_violations, stored_metadata
from memtenant.api.parse import KINDS, kind_of
from memtenant.api.rule import VALIDATIONS, Rule
from memtenant.api.schema import structural_schema
from memtenant.api.structural import Violation, filled_in, unknown_fields, violations
from memtenant.errors import InvalidResource

__all__ = ["Violation", "defaulted", "require_valid", "validate"]


def validate(new: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> tuple[Violation, ...]:
    """What is wrong with the object; nothing where an API server would take it.

    ``old`` is the accepted object that ``new`` replaces, with the status that it has there; None
    for a creation. A ``status`` in ``new`` is not looked at beyond unknown fields: the server
    keeps the one that it has.
    """
    try:
        kind = kind_of(new).kind_name()
    except InvalidResource as error:
        return (Violation(error.field, str(error)),)
    schema = structural_schema(kind)
    raw = dict(new)
    unknown = tuple(_unknown(raw, schema))
    if unknown:
        return unknown
    written = tuple(
        metadata_violations(raw.get("metadata"), namespaced=KINDS[kind].NAMES.namespaced)
    )
    status = (old or {}).get("status")
    given = {key: value for key, value in raw.items() if key != "status"}
    whole = filled_in(given | ({"status": status} if status else {}), schema)
    found = (*written, *_below(violations(whole, schema, "")))
    if found:
        return found
    before = None if old is None else filled_in(dict(old), schema)
    return tuple(_below(_broken(whole, before, schema, "")))


def require_valid(new: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> None:
    """Raise `InvalidResource` with the first violation, and how many more there are."""
    found = validate(new, old)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InvalidResource(f"{found[0]}{more}", field=found[0].field)


def defaulted(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A valid new object as an API server would store it.

    Nulls pruned, defaults filled in, and without a ``status``: that is the operator's to write.
    """
    given = {key: value for key, value in raw.items() if key != "status"}
    schema = structural_schema(kind_of(raw).kind_name())
    stored: dict[str, Any] = filled_in(given, schema)
    return stored | {"metadata": stored_metadata(raw["metadata"])}


def _unknown(raw: dict[str, Any], schema: Mapping[str, Any]) -> Iterator[Violation]:
    known = schema["properties"]
    for key, value in raw.items():
        if key not in known:
            yield Violation(key, f"unknown field: write one of {', '.join(known)}")
        elif key in ("spec", "status"):
            yield from unknown_fields(value, known[key], key)


def _below(found: Iterator[Violation]) -> Iterator[Violation]:
    """Paths from the object's root: ``spec.quota``, as kubectl shows them."""
    for one in found:
        yield Violation(one.field.removeprefix("."), one.message)


def _broken(value: Any, old: Any, schema: Mapping[str, Any], path: str) -> Iterator[Violation]:
    """Rules that do not hold at this place and below it. ``old`` is None where nothing was."""
    rules: list[Rule] = schema.get(VALIDATIONS, [])
    for rule in rules:
        if rule.is_transition and old is None:
            continue
        if not rule.check(value, old):
            yield Violation(f"{path}{rule.field}", rule.message)
    match value:
        case dict():
            properties = schema.get("properties", {})
            for key, child in value.items():
                below = properties.get(key, schema.get("additionalProperties"))
                if below is not None:
                    before = old.get(key) if isinstance(old, dict) else None
                    yield from _broken(child, before, below, f"{path}.{key}")
        case list():
            for index, item in enumerate(value):
                yield from _broken(item, None, schema["items"], f"{path}[{index}]")
