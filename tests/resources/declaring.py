"""A user beside the operator, so that one contract can be tested over each adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from memtenant.errors import ResourceNotFound
from memtenant.resources.connection import APPLY, Connection, Request, path
from memtenant.resources.folder import FolderResources
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.port import (
    API_VERSION,
    GROUP,
    VERSION,
    Declared,
    ObjectKey,
    Resources,
)


class Declaring(Protocol):
    """What a user does, and the port to what comes of it."""

    @property
    def resources(self) -> Resources: ...

    @property
    def namespace(self) -> str: ...

    async def declare(
        self,
        key: ObjectKey,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Declared: ...

    async def delete(self, key: ObjectKey) -> None: ...

    async def user_secret(
        self, name: str, data: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """A Secret that the user makes."""

    async def events(self, declared: Declared) -> list[str]:
        """The messages about an object."""


class InFolder:
    """A user of a state folder."""

    def __init__(self, resources: FolderResources, root: Path) -> None:
        self.resources = resources
        self.namespace = "support"
        self._root = root

    async def declare(
        self,
        key: ObjectKey,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Declared:
        return self.resources.declare(key, spec, labels=labels, annotations=annotations)[0]

    async def delete(self, key: ObjectKey) -> None:
        self.resources.delete(key)

    async def user_secret(
        self, name: str, data: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        raw = {key: value.encode() for key, value in data.items()}
        self.resources.declare_secret(self.namespace, name, raw, labels=labels)

    async def events(self, declared: Declared) -> list[str]:
        log = self._root / "events.log"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [line["message"] for line in lines if line["object"] == str(declared.key)]


class InCluster:
    """A user of a cluster, with kubectl's server-side apply."""

    def __init__(
        self, resources: KubernetesResources, connection: Connection, namespace: str
    ) -> None:
        self.resources = resources
        self.namespace = namespace
        self._connection = connection

    async def declare(
        self,
        key: ObjectKey,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Declared:
        metadata: dict[str, Any] = {"name": key.name}
        # An empty map is stored as none, so that applying it again would be a change each time.
        metadata |= {"labels": dict(labels)} if labels else {}
        metadata |= {"annotations": dict(annotations)} if annotations else {}
        body = {
            "apiVersion": API_VERSION,
            "kind": key.kind.value,
            "metadata": metadata,
            "spec": spec,
        }
        query = {"fieldManager": "kubectl", "force": "true"}
        await self._connection.call(
            Request("PATCH", _path(key), str(key), body, APPLY, query=query)
        )
        declared = await self.resources.get(key)
        assert declared is not None
        return declared

    async def delete(self, key: ObjectKey) -> None:
        await self._connection.call(Request("DELETE", _path(key), str(key)))

    async def delete_finally(self, key: ObjectKey) -> None:
        """Delete also what has finalizers."""
        merge = "application/merge-patch+json"
        body = {"metadata": {"finalizers": None}}
        try:
            await self._connection.call(Request("PATCH", _path(key), str(key), body, merge))
            await self.delete(key)
        except ResourceNotFound:
            pass

    async def user_secret(
        self, name: str, data: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": dict(labels)},
            "stringData": dict(data),
        }
        where = path("api", "v1", "namespaces", self.namespace, "secrets")
        await self._connection.call(Request("POST", where, name, body))

    async def events(self, declared: Declared) -> list[str]:
        namespace = declared.key.namespace or "default"
        where = path("apis", "events.k8s.io", "v1", "namespaces", namespace, "events")
        found = await self._connection.call(Request("GET", where, "Events"))
        return [
            event["note"] for event in found["items"] if event["regarding"]["uid"] == declared.uid
        ]


def _path(key: ObjectKey) -> str:
    place = ("namespaces", key.namespace) if key.namespace else ()
    return path("apis", GROUP, VERSION, *place, key.kind.plural, key.name)
