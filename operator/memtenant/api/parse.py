"""From a raw object, as the API server or a folder gives it, to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from memtenant.api.policy import RetentionPolicy
from memtenant.api.report import ComplianceReport
from memtenant.api.resource import API_VERSION, Resource
from memtenant.api.store import MemoryStore
from memtenant.api.tenant import MemoryTenant
from memtenant.errors import InvalidResource

__all__ = ["KINDS", "kind_of", "parse"]

AnyResource = MemoryTenant | MemoryStore | RetentionPolicy | ComplianceReport

KINDS: Mapping[str, type[AnyResource]] = {
    "ComplianceReport": ComplianceReport,
    "MemoryStore": MemoryStore,
    "MemoryTenant": MemoryTenant,
    "RetentionPolicy": RetentionPolicy,
}
"""The declared kinds by name."""


def kind_of(raw: Mapping[str, Any]) -> type[AnyResource]:
    """The model of a raw object's kind; `InvalidResource` where it is none of ours."""
    api_version, kind = raw.get("apiVersion"), raw.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None or api_version != API_VERSION:
        raise InvalidResource(
            f"{api_version!s} {kind!s} is not declared by memtenant: write apiVersion: "
            f"{API_VERSION} and kind: {', '.join(sorted(KINDS))}",
            field="kind",
        )
    return model


def parse(raw: Mapping[str, Any]) -> AnyResource:
    """The model of a raw object.

    Defaults are filled in and unknown fields ignored, so that an operator one version behind its
    CRDs reads every object. Raises `InvalidResource` with the path of the first field that cannot
    be read and a sentence about it.
    """
    model = kind_of(raw)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise _as_invalid(model, raw, error) from None


def _as_invalid(
    model: type[Resource], raw: Mapping[str, Any], error: ValidationError
) -> InvalidResource:
    metadata = raw.get("metadata")
    name = metadata.get("name", "?") if isinstance(metadata, Mapping) else "?"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(step) for step in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return InvalidResource(
        f"{model.kind_name()} {name!r}: {path}: {message}"
        + (f" (and {more} more)" if more else ""),
        field=path,
    )
