"""Declared objects as people write them."""

from typing import Any

API = "memtenant.dev/v1alpha1"


def tenant(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "MemoryTenant",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "retentionPolicyRef": {"name": "none"},
            "quota": {"memory": "16Mi", "conversations": 100},
            **spec,
        },
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "RetentionPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def secret(namespace: str, name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "stringData": {"root": "not-for-watchers"},
    }
