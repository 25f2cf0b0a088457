"""What an API server does with an object and its structural schema, offline.

Nulls pruned, defaults filled in, unknown fields refused, types and bounds checked: as
k8s.io/apiextensions-apiserver and k8s.io/kube-openapi do it, for the keywords that our schemas
have. Values are plain JSON. tests/api/test_parity.py compares with a real API server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

__all__ = ["Violation", "filled_in", "unknown_fields", "violations"]

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: the path of the field to change, and what to do about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def filled_in(value: Any, schema: Schema) -> Any:
    """A copy of the value without nulls that the schema does not take, and with its defaults."""
    match value:
        case dict():
            children = _children(value, schema)
            kept = {
                key: filled_in(child, children[key]) if key in children else child
                for key, child in value.items()
                if child is not None or key not in children
            }
            for key, child in schema.get("properties", {}).items():
                if key not in kept and "default" in child:
                    kept[key] = filled_in(child["default"], child)
            return kept
        case list() if "items" in schema:
            return [filled_in(item, schema["items"]) for item in value]
        case _:
            return value


def unknown_fields(value: Any, schema: Schema, path: str) -> Iterator[Violation]:
    """Fields that the schema does not have: a typing error that would do nothing, silently."""
    match value:
        case dict():
            children = _children(value, schema)
            for key, child in value.items():
                if key in children:
                    yield from unknown_fields(child, children[key], f"{path}.{key}")
                else:
                    yield Violation(f"{path}.{key}", f"unknown field: {_advice(key, schema)}")
        case list() if "items" in schema:
            for index, item in enumerate(value):
                yield from unknown_fields(item, schema["items"], f"{path}[{index}]")


def _advice(key: str, schema: Schema) -> str:
    known = list(schema.get("properties", ()))
    match get_close_matches(key, known, n=1):
        case [close]:
            return f"write {close}, if that is meant"
        case _:
            return f"remove it; there are {', '.join(known) or 'none'}"


def _children(value: dict[str, Any], schema: Schema) -> Mapping[str, Schema]:
    """The schema of each field that the schema knows."""
    if "additionalProperties" in schema:
        below: Schema = schema["additionalProperties"]
        return dict.fromkeys(value, below)
    properties: Mapping[str, Schema] = schema.get("properties", {})
    return properties


def violations(value: Any, schema: Schema, path: str) -> Iterator[Violation]:
    """Where the value (after `filled_in`) breaks types and bounds. CEL rules are not run here."""
    wanted = _type(schema)
    if not _is_of_type(value, wanted):
        yield Violation(path, f"must be {_A[wanted]}, not {_shown(value)}")
        return
    if "enum" in schema and value not in schema["enum"]:
        yield Violation(path, f"must be one of {', '.join(schema['enum'])}, not {_shown(value)}")
    match value:
        case str():
            yield from _string(value, schema, path)
        case bool():
            pass
        case int() | float():
            yield from _number(value, schema, path)
        case list():
            yield from _list(value, schema, path)
        case dict():
            yield from _object(value, schema, path)


_A = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "boolean": "true or false",
    "int-or-string": "a whole number or a string",
}


_INT64 = 2**63


def _type(schema: Schema) -> str:
    return "int-or-string" if schema.get("x-kubernetes-int-or-string") else str(schema["type"])


def _is_of_type(value: Any, wanted: str) -> bool:
    match value:
        case bool():
            return wanted == "boolean"
        case str():
            return wanted in ("string", "int-or-string")
        case int():
            return wanted == "integer" or (wanted == "int-or-string" and -_INT64 <= value < _INT64)
        case float():
            # JSON knows one kind of number, so 10.0 is whole; CEL takes no such int-or-string.
            return wanted == "integer" and value.is_integer()
        case list():
            return wanted == "array"
        case dict():
            return wanted == "object"
        case _:
            return False


def _string(value: str, schema: Schema, path: str) -> Iterator[Violation]:
    if len(value) > schema.get("maxLength", len(value)):
        yield Violation(path, f"is longer than {schema['maxLength']} characters: shorten it")
    if len(value) < schema.get("minLength", 0):
        yield Violation(path, f"is shorter than {schema['minLength']} characters: write something")
    if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
        about = f": {_first_sentence(schema['description'])}" if "description" in schema else ""
        yield Violation(path, f"{_shown(value)} is not of the form {schema['pattern']}{about}")


def _first_sentence(description: str) -> str:
    return description.partition(". ")[0].removesuffix(".")


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    """RE2 ends at the end of the text, Python's ``$`` also before a newline there."""
    return re.compile(pattern.removesuffix("$") + r"\Z")


def _number(value: float, schema: Schema, path: str) -> Iterator[Violation]:
    if value < schema.get("minimum", value):
        yield Violation(path, f"{value} is less than {schema['minimum']}: write more")
    if value > schema.get("maximum", value):
        yield Violation(path, f"{value} is more than {schema['maximum']}: write less")


def _list(value: list[Any], schema: Schema, path: str) -> Iterator[Violation]:
    if len(value) > schema.get("maxItems", len(value)):
        yield Violation(path, f"has more than {schema['maxItems']} items: remove some")
    if len(value) < schema.get("minItems", 0):
        yield Violation(path, f"has fewer than {schema['minItems']} items: add one, or remove it")
    for index, item in enumerate(value):
        yield from violations(item, schema["items"], f"{path}[{index}]")
    seen = set()
    for index, item in enumerate(value):
        identity = _identity(item, schema)
        if identity is None:
            continue
        if identity in seen:
            yield Violation(f"{path}[{index}]", f"{identity} is there twice: remove one")
        seen.add(identity)


def _identity(item: Any, schema: Schema) -> str | None:
    """What must be unique among the items: the key of a map list, an item of a set."""
    match schema.get("x-kubernetes-list-type"):
        case "set":
            return repr(item)
        case "map" if isinstance(item, dict):
            return " ".join(repr(item.get(key)) for key in schema["x-kubernetes-list-map-keys"])
        case _:
            return None


def _object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Violation]:
    if len(value) > schema.get("maxProperties", len(value)):
        yield Violation(path, f"has more than {schema['maxProperties']} entries: remove some")
    for key in schema.get("required", ()):
        if key not in value:
            yield Violation(f"{path}.{key}", "is required: add it")
    children = _children(value, schema)
    for key, child in value.items():
        if key in children:
            yield from violations(child, children[key], f"{path}.{key}")


def _shown(value: Any) -> str:
    match value:
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            text = repr(value)
            return text if len(text) <= 80 else f"{text[:77]}…"
