"""The port over a Kubernetes API server.

Of a declared object the status is written by server-side apply, so that several writers keep to
their own fields, and the finalizers by a patch that compares what was read.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from memtenant.clock import Clock, system_clock
from memtenant.errors import InvalidResource, ResourceConflict, ResourceNotFound
from memtenant.resources.clusterevents import ClusterEvents
from memtenant.resources.clustersecrets import ClusterSecrets
from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import APPLY, JSON_PATCH, Connection, Request, path
from memtenant.resources.cronjobs import KubernetesCronJobs
from memtenant.resources.port import (
    API_VERSION,
    FIELD_MANAGER,
    GROUP,
    STATUS_MANAGER,
    VERSION,
    Declared,
    EventType,
    Kind,
    Listing,
    NamespaceInfo,
    ObjectKey,
    Resources,
    SecretDraft,
    StoredSecret,
)
from memtenant.resources.reading import declared_from, namespace_from

__all__ = ["KubernetesResources"]

_NAMESPACE = APIKind("Namespace", "v1", "namespaces")
_STATUS_TRIES = 5
_log = logging.getLogger(__name__)


class KubernetesResources(Resources):
    """Declared objects of a cluster. ``instance`` names this replica in the Events it writes."""

    def __init__(
        self, connection: Connection, *, home: str, instance: str, clock: Clock = system_clock
    ) -> None:
        self._connection = connection
        self._home = home
        self._secrets = ClusterSecrets(connection)
        self._namespaces = Collection(connection, _NAMESPACE)
        self._events = ClusterEvents(connection, instance=instance, clock=clock)

    @property
    def home(self) -> str:
        """The operator's own namespace."""
        return self._home

    @property
    def cron_jobs(self) -> KubernetesCronJobs:
        """Those of the home namespace."""
        return KubernetesCronJobs(self._connection, self._home)

    async def list(self, kind: Kind) -> Listing[Declared]:
        """All objects of a kind: one consistent snapshot, read in pages."""
        pages = [page async for page in self.pages(kind)]
        return Listing(tuple(one for page in pages for one in page), pages[-1].resource_version)

    async def pages(self, kind: Kind) -> AsyncIterator[Listing[Declared]]:
        """As `list`, page by page."""
        of_kind = APIKind(kind.value, API_VERSION, kind.plural)
        async for page in Collection(self._connection, of_kind).pages():
            items = tuple(declared_from(kind, raw) for raw in page["items"])
            yield Listing(items, page["metadata"]["resourceVersion"])

    async def get(self, key: ObjectKey) -> Declared | None:
        """The object, or None."""
        try:
            raw = await self._connection.call(Request("GET", _path_of(key), str(key)))
        except ResourceNotFound:
            return None
        return declared_from(key.kind, raw)

    async def add_finalizer(self, declared: Declared, finalizer: str) -> Declared:
        """The object with ``finalizer`` added, unless others changed the finalizers meanwhile."""
        if finalizer in declared.finalizers:
            return declared
        return await self._set_finalizers(declared, (*declared.finalizers, finalizer))

    async def remove_finalizer(self, declared: Declared, finalizer: str) -> None:
        """Take ``finalizer`` away, unless others changed the finalizers meanwhile."""
        if finalizer not in declared.finalizers:
            return
        rest = tuple(name for name in declared.finalizers if name != finalizer)
        try:
            await self._set_finalizers(declared, rest)
        except ResourceNotFound:
            _log.debug("%s is gone already", declared.key)

    async def write_status(self, declared: Declared, status: Mapping[str, Any]) -> str:
        """Apply the whole status. The server ignores a uid here (measured on 1.36), so the
        resourceVersion guards, and is read again as long as the object is the same one.
        """
        version = declared.resource_version
        for _ in range(_STATUS_TRIES):
            try:
                return await self._apply_status(declared, status, version)
            except ResourceConflict:
                now = await self.get(declared.key)
                if now is None:
                    raise ResourceNotFound(f"{declared.key} does not exist") from None
                if now.uid != declared.uid:
                    break
                version = now.resource_version
        raise ResourceConflict(f"{declared.key} is another object now, or changes all the time")

    async def get_secret(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret, or None."""
        return await self._secrets.get(namespace, name)

    async def create_secret(self, draft: SecretDraft) -> StoredSecret:
        """Make the Secret, if there is none of that name."""
        return await self._secrets.create(draft)

    async def replace_secret(self, stored: StoredSecret, data: Mapping[str, bytes]) -> StoredSecret:
        """Change all of ``data`` of the very Secret that was read."""
        return await self._secrets.replace(stored, data)

    async def apply_secret(
        self, draft: SecretDraft, *, current: StoredSecret | None
    ) -> StoredSecret:
        """Make the Secret that was read what ``draft`` says; see the port."""
        return await self._secrets.apply(draft, current)

    async def delete_secret(self, stored: StoredSecret) -> None:
        """Delete the very Secret that was read."""
        await self._secrets.delete(stored)

    async def list_secrets(
        self, namespace: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of a namespace that carry all of ``labels``."""
        pages = self._secrets.pages(namespace, labels)
        return tuple([secret async for page in pages for secret in page])

    async def list_secrets_lacking(
        self, namespace: str, label: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of type Opaque that carry all of ``labels`` and not ``label``."""
        return await self._secrets.lacking(namespace, label, labels)

    async def secret_pages(
        self, namespace: str, labels: Mapping[str, str]
    ) -> AsyncIterator[tuple[StoredSecret, ...]]:
        """As `list_secrets`, page by page, in the order of names."""
        async for page in self._secrets.pages(namespace, labels):
            yield page

    async def can_read_secrets(self, namespace: str) -> bool:
        """Ask the authorizer."""
        return await self._secrets.can_read(namespace)

    async def list_namespaces(self) -> Listing[NamespaceInfo]:
        """All namespaces: one consistent snapshot, read in pages."""
        items: list[NamespaceInfo] = []
        version = "0"
        async for page in self._namespaces.pages():
            items += [namespace_from(raw) for raw in page["items"]]
            version = page["metadata"]["resourceVersion"]
        return Listing(tuple(items), version)

    async def get_namespace(self, name: str) -> NamespaceInfo | None:
        """The namespace, or None."""
        raw = await self._namespaces.get(name)
        return None if raw is None else namespace_from(raw)

    async def emit_event(
        self, declared: Declared, event_type: EventType, reason: str, message: str
    ) -> None:
        """Write an Event, once."""
        await self._events.emit(declared, event_type, reason, message)

    async def _apply_status(
        self, declared: Declared, status: Mapping[str, Any], version: str
    ) -> str:
        key = declared.key
        metadata = {"name": key.name, "resourceVersion": version}
        if key.namespace:
            metadata["namespace"] = key.namespace
        raw = await self._connection.call(
            Request(
                "PATCH",
                f"{_path_of(key)}/status",
                f"{key} (status)",
                body={
                    "apiVersion": API_VERSION,
                    "kind": key.kind.value,
                    "metadata": metadata,
                    "status": status,
                },
                content_type=APPLY,
                query={"fieldManager": STATUS_MANAGER, "force": "true"},
            )
        )
        return str(raw["metadata"]["resourceVersion"])

    async def _set_finalizers(self, declared: Declared, finalizers: tuple[str, ...]) -> Declared:
        """Only the finalizers are compared, so that a status written meanwhile is no conflict."""
        here = "/metadata/finalizers"
        was = list(declared.finalizers) or None
        try:
            raw = await self._connection.call(
                Request(
                    "PATCH",
                    _path_of(declared.key),
                    f"{declared.key} (finalizers)",
                    body=[
                        {"op": "test", "path": "/metadata/uid", "value": declared.uid},
                        {"op": "test", "path": here, "value": was},
                        {"op": "add", "path": here, "value": list(finalizers)},
                    ],
                    content_type=JSON_PATCH,
                    query={"fieldManager": FIELD_MANAGER},
                )
            )
        except InvalidResource as error:
            # A failed test is a 422, as is a finalizer added to an object in deletion.
            raise ResourceConflict(
                f"the finalizers of {declared.key} changed since they were read, or it is being "
                "deleted"
            ) from error
        return declared_from(declared.key.kind, raw)


def _path_of(key: ObjectKey) -> str:
    if key.namespace:
        return path("apis", GROUP, VERSION, "namespaces", key.namespace, key.kind.plural, key.name)
    return path("apis", GROUP, VERSION, key.kind.plural, key.name)
