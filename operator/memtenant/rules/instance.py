"""What a Strict tenant's instance should be: how large, how named, and made of which objects.

Pure: the manifests follow from the tenant, its quota and the store's template alone, so that what
is there can be compared with them. Everything lies in the operator's home namespace, labelled,
without an ownerReference: the tenant's namespace may go, and what its policy keeps stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memtenant.api.dedicated import Dedicated, Fsync, TlsMode
from memtenant.api.quantity import Quantity
from memtenant.errors import InvalidResource
from memtenant.rules.record import LABEL_NAME, LABEL_NAMESPACE
from memtenant.tenancy.identity import TenantId

__all__ = [
    "ADMIN_USER",
    "DATA_VOLUME",
    "DEFAULT_USER",
    "IMAGE_ANNOTATION",
    "INSTANCE_COMPONENT",
    "INSTANCE_LABEL",
    "PORT",
    "SECRET_FOLDER",
    "TLS_FILES",
    "Instance",
    "Sighting",
    "admin_line",
    "claim_name",
    "differences",
    "has_tls",
    "headless_service",
    "host_of",
    "hosts_of",
    "instance_labels",
    "instance_name",
    "is_outdated",
    "mebibytes",
    "network_policy",
    "stateful_set",
    "undeclared",
]

PORT = 6379
SECRET_FOLDER = "/etc/memtenant"  # noqa: S105 - a folder in the pod
TLS_FILES = {
    "tls-cert-file": "tls.crt",
    "tls-key-file": "tls.key",
    "tls-ca-cert-file": "ca.crt",
}
"""Settings of the server, and the files in the pod that they name."""

DATA_VOLUME = "data"
ADMIN_USER = "memtenant-operator"
INSTANCE_LABEL = "memtenant.dev/component"
INSTANCE_COMPONENT = "tenant-instance"
IMAGE_ANNOTATION = "memtenant.dev/image"
"""On pods: the image as the store's template has it. What the pod runs may be named otherwise: a
cluster's own registry takes the place of the public one at admission."""

_LONGEST_NAME = 52
"""A StatefulSet with a longer name gets no pod: its revision is appended to it in a label."""

_MIB = 1 << 20
_LEAST_OVERHEAD = 16 * _MIB
_GIB = 1 << 30

DEFAULT_USER = "user default reset off ~* &* +@all"
"""Nobody is let in as it. But Redis reads its append-only file by its rules, and at a restart
passes over each transaction that they do not allow: whatever a Function or the operator wrote."""

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


@dataclass(frozen=True, slots=True)
class Instance:
    """A tenant's instance as it should be. ``quota`` is in bytes."""

    tenant: TenantId
    store: str
    quota: int
    template: Dedicated

    @property
    def name(self) -> str:
        """The name of its StatefulSet, Service, NetworkPolicy and Secret."""
        return instance_name(self.tenant)

    @property
    def tls(self) -> bool:
        """Whether connections are protected by TLS."""
        return self.template.tls.mode is TlsMode.ENABLED

    @property
    def maxmemory(self) -> int:
        """The quota, and room for what is not the tenant's: users, Functions, buffers."""
        return self.quota + max(_LEAST_OVERHEAD, self.quota // 8)

    @property
    def volume(self) -> int:
        """Bytes of the volume: while the append-only file is rewritten, the old, the new and what
        came meanwhile lie side by side. In whole GiB."""
        return -(-3 * self.maxmemory // _GIB) * _GIB

    @property
    def requested_memory(self) -> int:
        """What the node keeps for the pod: the process takes some more than `maxmemory`."""
        return self.maxmemory + max(64 * _MIB, self.maxmemory // 4)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of an instance. ``host`` is empty while there is nothing to connect to, ``why``
    says why; ``tls``: it speaks TLS; ``outdated``: it runs with another image than it should, or
    not as safely, and a restart changes that. ``process`` tells it from the one after a restart,
    where it could be mistaken.
    """

    host: str = ""
    port: int = PORT
    why: str = ""
    tls: bool = False
    outdated: bool = False
    process: str = ""


def instance_name(tenant: TenantId) -> str:
    """The name of a tenant's instance. Namespace and name are joined by what either may hold, so a
    hash of the tenant keeps two apart."""
    digest = hashlib.sha256(str(tenant).encode()).hexdigest()[:8]
    readable = f"mt-{tenant.namespace}-{tenant.name}"[: _LONGEST_NAME - 9].rstrip("-")
    return f"{readable}-{digest}"


def claim_name(tenant: TenantId) -> str:
    """The name of the claim that the StatefulSet makes for its one pod's volume."""
    return f"{DATA_VOLUME}-{instance_name(tenant)}-0"


def host_of(tenant: TenantId, home: str) -> str:
    """How agents and the operator reach the instance."""
    return f"{instance_name(tenant)}.{home}.svc"


def hosts_of(tenant: TenantId, home: str) -> tuple[str, ...]:
    """The names that its certificate is for."""
    host = host_of(tenant, home)
    return host, f"{host}.cluster.local"


def instance_labels(tenant: TenantId) -> dict[str, str]:
    """By which everything of an instance is found."""
    return {
        "app.kubernetes.io/name": "memtenant-instance",
        "app.kubernetes.io/managed-by": "memtenant",
        INSTANCE_LABEL: INSTANCE_COMPONENT,
        LABEL_NAMESPACE: tenant.namespace,
        LABEL_NAME: tenant.name,
    }


def admin_line(password: str, rules: Sequence[str]) -> bytes:
    """What the aclfile says of `default` and of the operator's user: the password as a hash."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    users = (DEFAULT_USER, f"user {ADMIN_USER} reset on #{digest} {' '.join(rules)}")
    return "".join(f"{line}\n" for line in users).encode()


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
    fsync = "always" if instance.template.persistence.fsync is Fsync.ALWAYS else "everysec"
    settings = {
        **_ports(instance),
        "protected-mode": "no",
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "maxmemory": str(instance.maxmemory),
        "maxmemory-policy": "noeviction",
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


def mebibytes(size: int) -> str:
    """As a quantity that the API server gives back as an equal amount."""
    return f"{-(-size // _MIB)}Mi"


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


def differences(wanted: Any, there: Any, at: str = "") -> list[str]:
    """Where what is there lacks, or has otherwise, what is wanted, as paths. What the API server
    filled in besides is no difference, but in what lets somebody through; the items of lists are
    compared in their order."""
    if isinstance(wanted, Mapping):
        if not isinstance(there, Mapping):
            return [at]
        beside = there.keys() - wanted.keys() if at.startswith("spec.ingress") else ()
        found = [f"{at}.{name}" for name in sorted(beside)]
        for name, value in wanted.items():
            found += differences(value, there.get(name), f"{at}.{name}" if at else name)
        return found
    if isinstance(wanted, list):
        there = there or []  # the API server keeps no empty list
        if not isinstance(there, list) or len(wanted) != len(there):
            return [at]
        return [
            path
            for number, (one, other) in enumerate(zip(wanted, there, strict=True))
            for path in differences(one, other, f"{at}[{number}]")
        ]
    return [] if wanted == there or _same_amount(wanted, there, at) else [at]


def undeclared(wanted: Mapping[str, Any], there: Mapping[str, Any], manager: str) -> list[str]:
    """Where what is there holds what the manager applied once, and what is not wanted any more."""
    applied = (
        entry.get("fieldsV1", {})
        for entry in there["metadata"].get("managedFields", ())
        if (entry["manager"], entry["operation"]) == (manager, "Apply")
        if not entry.get("subresource")
    )
    return [path for fields in applied for path in _beyond(fields, wanted)]


def _beyond(fields: Mapping[str, Any], wanted: Any, at: str = "") -> list[str]:
    """Paths of the fields, as the API server notes them (``f:`` a name, ``k:`` the keys of a list's
    item), that are not in what is wanted."""
    found = []
    for mark, below in fields.items():
        kind, _, name = mark.partition(":")
        if kind == "f":
            path = f"{at}.{name}" if at else name
            inside = wanted.get(name) if isinstance(wanted, Mapping) else None
        elif kind == "k":
            path, inside = f"{at}[{name}]", _item(wanted, json.loads(name))
        else:
            continue
        found += [path] if inside is None else _beyond(below, inside, path)
    return found


def _item(wanted: Any, keys: Mapping[str, Any]) -> Any:
    items = wanted if isinstance(wanted, list) else []
    return next((one for one in items if keys.items() <= one.items()), None)


def _same_amount(wanted: Any, there: Any, at: str) -> bool:
    """The API server writes quantities in its own way."""
    if ".requests." not in at or not isinstance(there, str):
        return False
    try:
        return Quantity.parse(wanted) == Quantity.parse(there)
    except InvalidResource:
        return False
