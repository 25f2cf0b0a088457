"""The port over a Kubernetes API server.

Two ways to write, each for its purpose:

- a status by server-side apply, so that several writers keep to their own fields;
- Secrets and finalizers by patches that carry what was read. Server-side apply cannot create only
  where nothing is and would quietly merge into a stranger's Secret; a create followed by applies
  would leave removed keys behind, as fields of the creating "Update" (both measured on 1.36).
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any

from memtenant.clock import Clock, system_clock
from memtenant.errors import (
    InvalidResource,
    MemtenantError,
    ResourceConflict,
    ResourceNotFound,
)
from memtenant.resources.connection import (
    APPLY,
    JSON_PATCH,
    MERGE_PATCH,
    Connection,
    Request,
    path,
)
from memtenant.resources.cronjobs import KubernetesCronJobs
from memtenant.resources.eventgate import LONGEST_NOTE, EventGate, event_name
from memtenant.resources.port import (
    API_VERSION,
    FIELD_MANAGER,
    GROUP,
    OPAQUE,
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
from memtenant.resources.reading import declared_from, namespace_from, secret_from
from memtenant.resources.secretchange import change_towards

__all__ = ["KubernetesResources"]

_PAGE = 500
_STATUS_TRIES = 5
_MANAGED = {"fieldManager": FIELD_MANAGER}
_log = logging.getLogger(__name__)


class KubernetesResources(Resources):
    """Declared objects of a cluster. ``instance`` names this replica in the Events it writes."""

    def __init__(
        self, connection: Connection, *, home: str, instance: str, clock: Clock = system_clock
    ) -> None:
        self._connection = connection
        self._home = home
        self._instance = instance
        self._clock = clock
        self._events = EventGate(clock)

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
        where = path("apis", GROUP, VERSION, kind.plural)
        async for page in self._pages(where, kind.plural):
            items = tuple(declared_from(kind, raw) for raw in page["items"])
            yield Listing(items, page["metadata"]["resourceVersion"])

    async def get(self, key: ObjectKey) -> Declared | None:
        """The object, or None."""
        raw = await self._get(Request("GET", _path_of(key), str(key)))
        return None if raw is None else declared_from(key.kind, raw)

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
        raw = await self._get(_secret_request("GET", namespace, name))
        return None if raw is None else secret_from(raw)

    async def create_secret(self, draft: SecretDraft) -> StoredSecret:
        """Make the Secret. Not repeated after a lost answer: it might conflict with itself."""
        metadata: dict[str, Any] = {
            "name": draft.name,
            "labels": draft.all_labels,
            "annotations": dict(draft.annotations),
        }
        if draft.owned_by is not None:
            metadata["ownerReferences"] = [_owner_reference(draft.owned_by)]
        raw = await self._connection.call(
            Request(
                "POST",
                path("api", "v1", "namespaces", draft.namespace, "secrets"),
                f"Secret {draft.namespace}/{draft.name}",
                body={
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": draft.type,
                    "metadata": metadata,
                    "data": _encoded(draft.data),
                },
                query=_MANAGED,
                repeatable=False,
                secret=True,
            )
        )
        return secret_from(raw)

    async def replace_secret(self, stored: StoredSecret, data: Mapping[str, bytes]) -> StoredSecret:
        """Change all of ``data`` of the very Secret that was read."""
        changed = {name: value for name, value in data.items() if stored.data.get(name) != value}
        removed = stored.data.keys() - data.keys()
        if not changed and not removed:
            return stored
        return await self._patch_secret(
            stored, {"data": _encoded(changed) | dict.fromkeys(removed)}, {}
        )

    async def apply_secret(
        self, draft: SecretDraft, *, current: StoredSecret | None
    ) -> StoredSecret:
        """Make the Secret that was read what ``draft`` says; see the port."""
        if current is None:
            return await self.create_secret(draft)
        change = change_towards(draft, current)
        if not change:
            return current
        body: dict[str, Any] = {"data": _encoded(change.data) | dict.fromkeys(change.removed)}
        metadata: dict[str, Any] = {
            "labels": dict(change.labels),
            "annotations": dict(change.annotations),
        }
        if change.owner_uid is not None and draft.owned_by is not None:
            metadata["ownerReferences"] = [_owner_reference(draft.owned_by)]
        return await self._patch_secret(current, body, metadata)

    async def delete_secret(self, stored: StoredSecret) -> None:
        """Delete the very Secret that was read."""
        request = _secret_request(
            "DELETE",
            stored.namespace,
            stored.name,
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": {
                    "uid": stored.uid,
                    "resourceVersion": stored.resource_version,
                },
            },
        )
        try:
            await self._connection.call(request)
        except ResourceNotFound:
            _log.debug("%s is gone already", request.what)

    async def list_secrets(
        self, namespace: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of a namespace that carry all of ``labels``."""
        pages = self.secret_pages(namespace, labels)
        return tuple([secret async for page in pages for secret in page])

    async def list_secrets_lacking(
        self, namespace: str, label: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of type Opaque that carry all of ``labels`` and not ``label``."""
        selector = ",".join((*_equalities(labels), f"!{label}"))
        query = {"labelSelector": selector, "fieldSelector": f"type={OPAQUE}"}
        pages = self._secret_pages(namespace, query)
        return tuple([secret async for page in pages for secret in page])

    async def secret_pages(
        self, namespace: str, labels: Mapping[str, str]
    ) -> AsyncIterator[tuple[StoredSecret, ...]]:
        """As `list_secrets`, page by page, in the order of names."""
        query = {"labelSelector": ",".join(_equalities(labels))} if labels else {}
        async for page in self._secret_pages(namespace, query):
            yield page

    async def _secret_pages(
        self, namespace: str, query: Mapping[str, str]
    ) -> AsyncIterator[tuple[StoredSecret, ...]]:
        pages = self._pages(
            path("api", "v1", "namespaces", namespace, "secrets"),
            f"Secrets of namespace {namespace}",
            query,
            secret=True,
        )
        async for page in pages:
            yield tuple(secret_from(raw) for raw in page["items"])

    async def can_read_secrets(self, namespace: str) -> bool:
        """Ask the authorizer, by a SelfSubjectAccessReview that every account may make."""
        review = await self._connection.call(
            Request(
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "SelfSubjectAccessReview",
                body={
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "spec": {
                        "resourceAttributes": {
                            "namespace": namespace,
                            "verb": "get",
                            "resource": "secrets",
                        }
                    },
                },
            )
        )
        return bool(review["status"].get("allowed"))

    async def list_namespaces(self) -> Listing[NamespaceInfo]:
        """All namespaces: one consistent snapshot, read in pages."""
        items: list[NamespaceInfo] = []
        version = "0"
        async for page in self._pages("/api/v1/namespaces", "Namespaces"):
            items += [namespace_from(raw) for raw in page["items"]]
            version = page["metadata"]["resourceVersion"]
        return Listing(tuple(items), version)

    async def get_namespace(self, name: str) -> NamespaceInfo | None:
        """The namespace, or None."""
        raw = await self._get(
            Request("GET", path("api", "v1", "namespaces", name), f"Namespace {name}")
        )
        return None if raw is None else namespace_from(raw)

    async def emit_event(
        self, declared: Declared, event_type: EventType, reason: str, message: str
    ) -> None:
        """Write an Event, once; another replica's equal one (409) serves as well."""
        if not self._events.admit(declared, reason, message):
            return
        now = self._clock.now()
        # Events about cluster-scoped objects live in "default": the API server insists on it.
        namespace = declared.key.namespace or "default"
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": event_name(declared, reason, message, now.timestamp()),
                "namespace": namespace,
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": event_type.value,
            "reason": reason,
            "action": "Reconcile",
            "note": message[:LONGEST_NOTE],
            "reportingController": GROUP,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": declared.key.kind.value,
                "name": declared.key.name,
                "namespace": declared.key.namespace,
                "uid": declared.uid,
                "resourceVersion": declared.resource_version,
            },
        }
        try:
            await self._connection.call(
                Request(
                    "POST",
                    path("apis", "events.k8s.io", "v1", "namespaces", namespace, "events"),
                    f"Event about {declared.key}",
                    body=event,
                    repeatable=False,
                )
            )
        except ResourceConflict:
            _log.debug("said already: %s of %s", reason, declared.key)
        except MemtenantError as error:
            _log.warning("Event %s about %s was not written: %s", reason, declared.key, error)

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

    async def _get(self, request: Request) -> Any:
        try:
            return await self._connection.call(request)
        except ResourceNotFound:
            return None

    async def _pages(
        self,
        where: str,
        what: str,
        query: Mapping[str, str] | None = None,
        *,
        secret: bool = False,
    ) -> AsyncIterator[Any]:
        """The pages of a list, all of one snapshot: each is asked for while the one before it is
        worked on. `ResourceUnavailable` if the snapshot expires (410).
        """

        def ask(rest: str) -> asyncio.Task[Any]:
            page = {"limit": str(_PAGE)} | ({"continue": rest} if rest else {})
            request = Request("GET", where, what, query={**(query or {}), **page}, secret=secret)
            return asyncio.create_task(self._connection.call(request))

        asked = ask("")
        try:
            while True:
                page = await asked
                rest = page["metadata"].get("continue", "")
                if not rest:
                    yield page
                    return
                asked = ask(rest)
                yield page
        finally:
            asked.cancel()

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
                    query=_MANAGED,
                )
            )
        except InvalidResource as error:
            # A failed test is a 422, as is a finalizer added to an object in deletion.
            raise ResourceConflict(
                f"the finalizers of {declared.key} changed since they were read, or it is being "
                "deleted"
            ) from error
        return declared_from(declared.key.kind, raw)

    async def _patch_secret(
        self, stored: StoredSecret, body: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> StoredSecret:
        """Merge a change into the very Secret that was read: uid and resourceVersion are in it."""
        guard = {"uid": stored.uid, "resourceVersion": stored.resource_version}
        request = _secret_request(
            "PATCH",
            stored.namespace,
            stored.name,
            body={**body, "metadata": {**metadata, **guard}},
            content_type=MERGE_PATCH,
            query=_MANAGED,
        )
        return secret_from(await self._connection.call(request))


def _path_of(key: ObjectKey) -> str:
    if key.namespace:
        return path("apis", GROUP, VERSION, "namespaces", key.namespace, key.kind.plural, key.name)
    return path("apis", GROUP, VERSION, key.kind.plural, key.name)


def _secret_request(
    method: str,
    namespace: str,
    name: str,
    *,
    body: Any = None,
    content_type: str = "application/json",
    query: Mapping[str, str] | None = None,
) -> Request:
    return Request(
        method,
        path("api", "v1", "namespaces", namespace, "secrets", name),
        f"Secret {namespace}/{name}",
        body=body,
        content_type=content_type,
        query=query,
        secret=True,
    )


def _owner_reference(owner: Declared) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": owner.key.kind.value,
        "name": owner.key.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _equalities(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(labels.items())]


def _encoded(data: Mapping[str, bytes]) -> dict[str, str | None]:
    return {name: b64encode(value).decode("ascii") for name, value in data.items()}
