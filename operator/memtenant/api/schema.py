"""From pydantic models to the structural schemas and CRDs that Kubernetes takes.

A structural schema knows no ``$ref``, ``anyOf`` with null, ``const`` or ``title``; every field says
its type and what it is for. `Rule` objects stay in the schema as they are: `memtenant.api.generate`
renders them, `memtenant.api.validate` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from memtenant.api.parse import KINDS
from memtenant.api.quantity import Quantity
from memtenant.api.resource import CATEGORY, GROUP, VERSION, Column, Resource
from memtenant.api.rule import VALIDATIONS, Rule
from memtenant.tenancy.period import Period

__all__ = ["crd", "crds", "structural_schema"]

_ORDER = (
    *("description", "type", "format", "x-kubernetes-int-or-string", "enum", "default"),
    *("pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
    *("maxProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *("required", "properties", "additionalProperties", "items", VALIDATIONS),
)
"""Every key that a schema of ours may have, in the order in which a person reads it."""

_DROPPED = frozenset({"title", "$defs", "examples", "discriminator"})


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, with defaults as a person writes them in YAML."""

    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, Quantity | Period) else super().encode_default(dft)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = super().default_schema(schema)
        factory: object = schema.get("default_factory")
        if isinstance(factory, type) and issubclass(factory, BaseModel):
            return {**inner, "default": {}}
        return inner


@cache
def structural_schema(kind: str) -> Mapping[str, Any]:
    """The ``openAPIV3Schema`` of a kind, with `Rule` objects under x-kubernetes-validations."""
    model = KINDS[kind]
    raw = model.model_json_schema(schema_generator=_Generator)
    definitions = raw.get("$defs", {})
    parts = {
        name: _structural(raw["properties"][name], definitions, (name,))
        for name in ("spec", "status")
    }
    root = {
        "description": _plain(raw["description"]),
        "type": "object",
        "required": [name for name in parts if name in raw["required"]],
        "properties": {
            "apiVersion": {
                "description": f"{GROUP}/{VERSION}.",
                "type": "string",
            },
            "kind": {"description": f"{kind}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": parts["spec"],
            "status": _without_defaults(parts["status"]),
        },
        VALIDATIONS: raw[VALIDATIONS],
    }
    return {key: value for key, value in root.items() if value != []}


def _structural(node: Mapping[str, Any], definitions: Any, path: tuple[str, ...]) -> dict[str, Any]:
    merged = _dereferenced(node, definitions, path)
    schema: dict[str, Any] = {}
    for key, value in merged.items():
        if key in _DROPPED or (key == "default" and value in (None, [])):
            continue
        match key:
            case "properties":
                schema[key] = {
                    name: _structural(child, definitions, (*path, name))
                    for name, child in value.items()
                }
            case "items" | "additionalProperties":
                schema[key] = _structural(value, definitions, (*path, key))
            case "description":
                schema[key] = _plain(value)
            case _:
                schema[key] = value
    unknown = schema.keys() - set(_ORDER)
    if unknown:
        raise TypeError(f"{'.'.join(path)}: no structural form of {', '.join(sorted(unknown))}")
    if schema.get("default") == {}:
        schema["default"] = _filled_in(schema)
        if not schema["default"]:
            del schema["default"]
    return {key: schema[key] for key in _ORDER if key in schema}


def _dereferenced(
    node: Mapping[str, Any], definitions: Any, path: tuple[str, ...]
) -> Mapping[str, Any]:
    """The node with ``$ref`` and ``anyOf [T, null]`` replaced by what they mean."""
    node = dict(node)
    if "anyOf" in node:
        choices = [choice for choice in node.pop("anyOf") if choice != {"type": "null"}]
        if len(choices) != 1:
            raise TypeError(f"{'.'.join(path)}: a union has no structural form")
        node = {**_dereferenced(choices[0], definitions, path), **node}
    if "$ref" in node:
        target = definitions[node.pop("$ref").rpartition("/")[2]]
        node = {**_dereferenced(target, definitions, path), **node}
    return node


def _filled_in(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What an empty object becomes: the rules see a default before those below it are filled in."""
    children = schema.get("properties", {}).items()
    return {name: child["default"] for name, child in children if "default" in child}


def _without_defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A status is the operator's: the API server fills nothing in."""
    kept = {key: value for key, value in schema.items() if key != "default"}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = _without_defaults(kept[key])
    if "properties" in kept:
        kept["properties"] = {
            name: _without_defaults(child) for name, child in kept["properties"].items()
        }
    return kept


def _plain(text: str) -> str:
    return " ".join(text.split())


_AT_FIRST_SIGHT = {
    "conditions": [
        {
            "type": "Ready",
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for the operator to look at this object",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
    ]
}
"""The status of an object that the operator has not seen yet, filled in by the API server: without
any condition, kstatus would call it done. No write is as early as none (Gateway API does so)."""


def crd(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, in plain values: ready for YAML."""
    model: type[Resource] = KINDS[kind]
    names = model.NAMES
    schema = _rendered(structural_schema(kind))
    schema["properties"]["status"]["default"] = _AT_FIRST_SIGHT
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if names.namespaced else "Cluster",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": names.plural,
                "singular": names.singular,
                "shortNames": list(names.short),
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in model.COLUMNS],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def crds() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of all kinds, by kind."""
    return [crd(kind) for kind in sorted(KINDS)]


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "description": column.description,
        **({"priority": 1} if column.wide else {}),
        "jsonPath": column.path,
    }


def _rendered(value: Any) -> Any:
    match value:
        case Rule():
            return value.rendered()
        case Mapping():
            return {key: _rendered(child) for key, child in value.items()}
        case list() | tuple():
            return [_rendered(child) for child in value]
        case _:
            return value
