"""Kubernetes JSON read into the port's types, and the fields that nobody needs left out."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from memtenant.clock import utc_from_rfc3339
from memtenant.resources.port import (
    OPAQUE,
    Declared,
    Kind,
    NamespaceInfo,
    ObjectKey,
    StoredSecret,
)

__all__ = ["declared_from", "namespace_from", "secret_from"]

# A copy of the whole object: 1 to 2 KiB that no rule reads. A change of it that matters is a
# change of spec, labels or other annotations too.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def declared_from(kind: Kind, raw: Mapping[str, Any]) -> Declared:
    """The object that the API server (or kopf) gave as JSON. ``KeyError`` if it is no object."""
    metadata = raw["metadata"]
    return Declared(
        key=ObjectKey(kind, metadata.get("namespace", ""), metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=metadata.get("generation", 0),
        creation_timestamp=utc_from_rfc3339(metadata["creationTimestamp"]),
        deletion_timestamp=_moment(metadata.get("deletionTimestamp")),
        labels=dict(metadata.get("labels") or {}),
        annotations={
            name: value
            for name, value in (metadata.get("annotations") or {}).items()
            if name != _LAST_APPLIED
        },
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=raw.get("spec") or {},
        status=raw.get("status") or {},
    )


def namespace_from(raw: Mapping[str, Any]) -> NamespaceInfo:
    """The namespace that the API server (or kopf) gave as JSON."""
    metadata = raw["metadata"]
    return NamespaceInfo(
        name=metadata["name"],
        uid=metadata["uid"],
        labels=dict(metadata.get("labels") or {}),
        terminating=metadata.get("deletionTimestamp") is not None,
        resource_version=metadata["resourceVersion"],
    )


def secret_from(raw: Mapping[str, Any]) -> StoredSecret:
    """The Secret in the JSON of Kubernetes, its ``data`` decoded."""
    metadata = raw["metadata"]
    return StoredSecret(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        labels=dict(metadata.get("labels") or {}),
        annotations=dict(metadata.get("annotations") or {}),
        type=raw.get("type", OPAQUE),
        data={name: b64decode(value) for name, value in (raw.get("data") or {}).items()},
        owner_uids=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else utc_from_rfc3339(text)
