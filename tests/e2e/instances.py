"""Instances of Strict tenants, as pods of a kubelet, and the volumes that they claim."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from memtenant.rules.instance import ADMIN_USER, PORT, instance_name
from memtenant.tenancy.identity import TenantId
from tests.support.kubelet import Image, Kubelet
from tests.support.servers import Flavour

__all__ = ["Instance", "instance_of", "server_image", "storage_class", "volume"]


@dataclass(frozen=True, slots=True)
class Instance:
    """The server in a tenant's pod, as it is reached now, and its administrator's password."""

    host: str
    port: int
    password: str

    @property
    def endpoint(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def upstream(self) -> int | None:
        """None: an instance follows nobody."""
        return None

    def admin(self) -> "redis.Redis":
        """A client as the operator, without retries."""
        return self.client(ADMIN_USER, self.password)

    def client(self, username: str, password: str) -> "redis.Redis":
        """A client as another user, without retries; connects at its first command."""
        return redis.Redis(
            self.host,
            self.port,
            username=username,
            password=password,
            socket_timeout=20,
            retry=Retry(NoBackoff(), 0),
        )


def instance_of(
    kubelet: Kubelet, home: str, tenant: TenantId, secret: Mapping[str, bytes]
) -> Instance:
    """Where it is now, by its pod; ``secret`` is the data of the instance's Secret."""
    address = kubelet.address(home, f"{instance_name(tenant)}-0")
    return Instance(address, PORT, secret["password"].decode())


def server_image(folder: Path, name: str, flavour: Flavour, folders: Iterable[Path] = ()) -> Image:
    """A server of this machine as a pod's. All pods share this machine's network: each listens on
    an address of its own."""
    program = folder / name
    program.write_text(f'#!/bin/sh\nexec {flavour.binary()} "$@" --bind "$POD_ADDRESS"\n')
    program.chmod(0o755)
    # No other server is in the way of the one that the image has.
    plain = f"{folder}:/usr/local/bin:/bin:/usr/bin"
    return Image(env={"PATH": plain}, folders=(*folders, folder))


def storage_class() -> dict[str, Any]:
    """One whose volumes may grow."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "growing"},
        "provisioner": "kubernetes.io/no-provisioner",
        "allowVolumeExpansion": True,
    }


def volume(number: int) -> dict[str, Any]:
    """One of its volumes."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{number}"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "growing",
            "hostPath": {"path": "/var/empty"},
        },
    }
