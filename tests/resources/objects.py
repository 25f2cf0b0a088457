"""Declared objects as an API server writes them."""

from collections.abc import Mapping
from typing import Any

from memtenant.resources.port import API_VERSION, ObjectKey


def raw_object(
    key: ObjectKey,
    version: int,
    *,
    uid: str = "u1",
    generation: int = 1,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """An object in Kubernetes' JSON, with what the API server adds and nobody needs."""
    return {
        "apiVersion": API_VERSION,
        "kind": key.kind.value,
        "metadata": {
            "name": key.name,
            **({"namespace": key.namespace} if key.namespace else {}),
            "uid": uid,
            "resourceVersion": str(version),
            "generation": generation,
            "creationTimestamp": "2026-01-31T09:30:00Z",
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            **metadata,
        },
        "spec": dict(spec or {}),
        "status": dict(status or {}),
    }


def raw_namespace(
    name: str, version: int, *, uid: str = "n1", labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A namespace in Kubernetes' JSON."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-31T09:30:00Z",
            "labels": dict(labels or {}),
        },
    }
