"""What a Strict tenant's instance should be: its size, its names, and who administers it.

Everything of it lies in the operator's home namespace, labelled, without an ownerReference: the
tenant's namespace may go, and what its policy keeps stays. Of which objects it consists in a
cluster, `memtenant.rules.instanceobjects` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from memtenant.api.dedicated import Dedicated, Fsync, TlsMode
from memtenant.rules.record import LABEL_NAME, LABEL_NAMESPACE
from memtenant.tenancy.identity import TenantId

__all__ = [
    "ADMIN_USER",
    "DATA_VOLUME",
    "DEFAULT_USER",
    "INSTANCE_COMPONENT",
    "INSTANCE_LABEL",
    "PORT",
    "SECRET_FOLDER",
    "TLS_FILES",
    "Instance",
    "Sighting",
    "admin_line",
    "claim_name",
    "host_of",
    "hosts_of",
    "instance_labels",
    "instance_name",
    "mebibytes",
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

_LONGEST_NAME = 52
"""A StatefulSet with a longer name gets no pod: its revision is appended to it in a label."""

_FSYNC = {Fsync.EVERY_SECOND: "everysec", Fsync.ALWAYS: "always"}
_MIB = 1 << 20
_LEAST_OVERHEAD = 16 * _MIB
_GIB = 1 << 30

DEFAULT_USER = "user default reset off ~* &* +@all"
"""Nobody is let in as it. But Redis reads its append-only file by its rules, and at a restart
passes over each transaction that they do not allow: whatever a Function or the operator wrote."""


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
    def settings(self) -> dict[str, str]:
        """What its server is set to, at its start and whenever it is otherwise."""
        return {
            "appendonly": "yes",
            "appendfsync": _FSYNC[self.template.persistence.fsync],
            "maxmemory": str(self.maxmemory),
            "maxmemory-policy": "noeviction",
        }

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


def mebibytes(size: int) -> str:
    """As a quantity that the API server gives back as an equal amount."""
    return f"{-(-size // _MIB)}Mi"
