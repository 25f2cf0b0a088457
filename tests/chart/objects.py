"""The smallest declared objects, as a user writes them."""

from tests.chart.rendered import Object

API = "memtenant.dev/v1alpha1"


def store(name: str) -> Object:
    """A MemoryStore whose server nobody runs."""
    spec = {
        "standalone": {"endpoint": "valkey.redis.svc:6379"},
        "adminSecretRef": {"name": "admin", "key": "password"},
    }
    return {"apiVersion": API, "kind": "MemoryStore", "metadata": {"name": name}, "spec": spec}


def policy(name: str) -> Object:
    """A RetentionPolicy that asks for nothing."""
    return {"apiVersion": API, "kind": "RetentionPolicy", "metadata": {"name": name}, "spec": {}}


def tenant(namespace: str, name: str) -> Object:
    """A MemoryTenant under the policy `standard`."""
    return {
        "apiVersion": API,
        "kind": "MemoryTenant",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"retentionPolicyRef": {"name": "standard"}},
    }


def report(namespace: str, name: str) -> Object:
    """A ComplianceReport that says nothing yet."""
    moment = "2026-01-31T09:30:00Z"
    return {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": "ComplianceReport",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"policyRef": {"name": "rbac"}, "period": {"since": moment, "until": moment}},
    }
