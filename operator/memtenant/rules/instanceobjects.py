"""The Kubernetes objects of which an instance consists in a cluster, and what its pod runs.

The manifests follow from the instance alone, so that what is there can be compared with them
(`memtenant.rules.manifest`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtenant.rules.instance import (
    DATA_VOLUME,
    INSTANCE_LABEL,
    PORT,
    SECRET_FOLDER,
    TLS_FILES,
    Instance,
    instance_labels,
    instance_name,
    mebibytes,
)
from memtenant.rules.record import LABEL_NAME, LABEL_NAMESPACE
from memtenant.tenancy.identity import TenantId

__all__ = [
    "IMAGE_ANNOTATION",
    "has_tls",
    "headless_service",
    "is_outdated",
    "network_policy",
    "stateful_set",
]

IMAGE_ANNOTATION = "memtenant.dev/image"
"""On pods: the image as the store's template has it. What the pod runs may be named otherwise: a
cluster's own registry takes the place of the public one at admission."""

# Users that agents have stay in the file over restarts; the operator's own and `default` are what
# this release says. No initContainer and no ConfigMap: one container, whatever the image.
_START = """\
umask 077
cd /data
touch users.acl
grep -v -e '^user default ' -e '^user memtenant-operator ' users.acl > users.acl.new || true
cat /etc/memtenant/admin.acl >> users.acl.new
mv users.acl.new users.acl
server="$(command -v valkey-server || command -v redis-server)"
exec "$server" --dir /data --aclfile /data/users.acl "$@"
"""


def headless_service(instance: Instance, home: str) -> dict[str, Any]:
    """The name under which the one pod is found, also before it is ready: the operator makes it
    ready for agents."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(instance.tenant, home),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _selector(instance.tenant),
            "ports": [{"name": "redis", "port": PORT, "targetPort": "redis", "protocol": "TCP"}],
        },
    }


def network_policy(instance: Instance, home: str) -> dict[str, Any]:
    """Only pods of the tenant's namespace, the operator's, the sealer's and those of report jobs
    reach it, and it reaches nobody."""
    tenant = instance.tenant
    clients = [
        {"namespaceSelector": _named(tenant.namespace)},
        {
            "namespaceSelector": _named(home),
            "podSelector": {
                "matchExpressions": [
                    {
                        "key": "app.kubernetes.io/component",
                        "operator": "In",
                        "values": ["controller", "report", "sealer"],
                    }
                ]
            },
        },
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(tenant, home),
        "spec": {
            "podSelector": {"matchLabels": _selector(tenant)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": clients, "ports": [{"port": "redis", "protocol": "TCP"}]}],
            "egress": [],
        },
    }


def stateful_set(instance: Instance, home: str, volume: int) -> dict[str, Any]:
    """One pod and its volume of ``volume`` bytes. A changed template restarts nothing by itself
    (OnDelete): the operator ends the pod when it is its turn."""
    tenant, template = instance.tenant, instance.template
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(tenant, home),
        "spec": {
            "replicas": 1,
            "serviceName": instance.name,
            "selector": {"matchLabels": _selector(tenant)},
            "updateStrategy": {"type": "OnDelete"},
            "podManagementPolicy": "OrderedReady",
            "template": {
                "metadata": {
                    "labels": instance_labels(tenant),
                    "annotations": {IMAGE_ANNOTATION: template.image},
                },
                "spec": _pod(instance),
            },
            "volumeClaimTemplates": [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": DATA_VOLUME, "labels": instance_labels(tenant)},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": mebibytes(volume)}},
                        **(
                            {"storageClassName": template.storage_class_name}
                            if template.storage_class_name
                            else {}
                        ),
                    },
                }
            ],
        },
    }


def is_outdated(pod: Mapping[str, Any], wanted: Instance) -> bool:
    """Whether a pod runs with another image than it should, or not as safely."""
    container = pod["spec"]["containers"][0]
    annotations = pod["metadata"].get("annotations", {})
    image = annotations.get(IMAGE_ANNOTATION, container["image"])
    return (image, has_tls(pod)) != (wanted.template.image, wanted.tls)


def has_tls(pod: Mapping[str, Any]) -> bool:
    """Whether the pod's server speaks TLS."""
    return "--tls-port" in pod["spec"]["containers"][0].get("args", ())


def _pod(instance: Instance) -> dict[str, Any]:
    scheduling = instance.template.scheduling
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 999,
            "runAsGroup": 999,
            "fsGroup": 999,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(instance)],
        "volumes": [
            {
                "name": "admin",
                "secret": {
                    "secretName": instance.name,
                    "defaultMode": 0o440,
                    "items": [{"key": key, "path": key} for key in _mounted(instance)],
                },
            }
        ],
    }
    if scheduling.node_selector:
        spec["nodeSelector"] = dict(scheduling.node_selector)
    if scheduling.tolerations:
        spec["tolerations"] = [
            {
                "key": one.key,
                "operator": "Exists" if one.value is None else "Equal",
                **({} if one.value is None else {"value": one.value}),
                **({} if one.effect is None else {"effect": one.effect}),
            }
            for one in scheduling.tolerations
        ]
    if scheduling.priority_class_name is not None:
        spec["priorityClassName"] = scheduling.priority_class_name
    return spec


def _mounted(instance: Instance) -> tuple[str, ...]:
    """What of the Secret the pod gets: no password."""
    return ("admin.acl", *(TLS_FILES.values() if instance.tls else ()))


def _container(instance: Instance) -> dict[str, Any]:
    template = instance.template
    return {
        "name": "server",
        "image": template.image,
        "command": ["sh", "-ec", _START, "memtenant"],
        "args": _arguments(instance),
        "ports": [{"name": "redis", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": _probe(period=2, failures=2),
        # A file of gigabytes is read at the start before a connection is answered.
        "startupProbe": _probe(period=2, failures=900),
        "livenessProbe": _probe(period=10, failures=6),
        "resources": {
            "requests": {
                "cpu": template.resources.cpu,
                "memory": mebibytes(instance.requested_memory),
            }
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": DATA_VOLUME, "mountPath": "/data"},
            {"name": "admin", "mountPath": SECRET_FOLDER, "readOnly": True},
        ],
    }


def _arguments(instance: Instance) -> list[str]:
    declared = instance.settings
    settings = {
        **_ports(instance),
        "protected-mode": "no",
        "appendonly": declared["appendonly"],
        "appendfsync": declared["appendfsync"],
        "save": "",
        "maxmemory": declared["maxmemory"],
        "maxmemory-policy": declared["maxmemory-policy"],
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _ports(instance: Instance) -> dict[str, str]:
    if not instance.tls:
        return {"port": str(PORT)}
    files = {name: f"{SECRET_FOLDER}/{file}" for name, file in TLS_FILES.items()}
    return {"port": "0", "tls-port": str(PORT), "tls-auth-clients": "no", **files}


def _probe(*, period: int, failures: int) -> dict[str, Any]:
    return {
        "tcpSocket": {"port": "redis"},
        "periodSeconds": period,
        "failureThreshold": failures,
    }


def _metadata(tenant: TenantId, home: str) -> dict[str, Any]:
    return {"name": instance_name(tenant), "namespace": home, "labels": instance_labels(tenant)}


def _selector(tenant: TenantId) -> dict[str, str]:
    return {
        name: value
        for name, value in instance_labels(tenant).items()
        if name in (INSTANCE_LABEL, LABEL_NAMESPACE, LABEL_NAME)
    }


def _named(namespace: str) -> dict[str, Any]:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
