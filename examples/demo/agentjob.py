"""A Job that runs an agent with its binding mounted, as `restricted` namespaces want it."""

from typing import Any


def agent_job(name: str, binding: str, words: list[str], image: str) -> dict[str, Any]:
    """``image`` is ``agent`` (plain Redis commands) or ``helpdesk`` (memtenant's SDK)."""
    container = {
        "name": "agent",
        "image": f"example.org/{image}:1",
        "args": [binding, *words],
        "env": [{"name": "SERVICE_BINDING_ROOT", "value": "/bindings"}],
        "volumeMounts": [{"name": "memory", "mountPath": f"/bindings/{binding}", "readOnly": True}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "memory", "secret": {"secretName": binding}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "helpdesk" if image == "helpdesk" else "support"},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
