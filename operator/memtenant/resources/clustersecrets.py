"""Secrets of a cluster, by a create and by patches that carry what was read.

Server-side apply cannot create only where nothing is, and would quietly merge into a stranger's
Secret; a create followed by applies would leave removed keys behind, as fields of the creating
"Update" (both measured on 1.36).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any

from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import Connection, Request
from memtenant.resources.port import API_VERSION, OPAQUE, Declared, SecretDraft, StoredSecret
from memtenant.resources.reading import secret_from
from memtenant.resources.secretchange import change_towards

__all__ = ["ClusterSecrets"]

_SECRET = APIKind("Secret", "v1", "secrets", secret=True)
_REVIEW = "authorization.k8s.io/v1", "SelfSubjectAccessReview"


class ClusterSecrets:
    """What the port says of Secrets, over an API server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret, or None."""
        raw = await self._of(namespace).get(name)
        return None if raw is None else secret_from(raw)

    async def create(self, draft: SecretDraft) -> StoredSecret:
        """Make the Secret; `ResourceConflict` if there is one of that name."""
        metadata: dict[str, Any] = {
            "name": draft.name,
            "labels": draft.all_labels,
            "annotations": dict(draft.annotations),
        }
        if draft.owned_by is not None:
            metadata["ownerReferences"] = [_owner_reference(draft.owned_by)]
        manifest = {
            "apiVersion": _SECRET.version,
            "kind": _SECRET.name,
            "type": draft.type,
            "metadata": metadata,
            "data": _encoded(draft.data),
        }
        return secret_from(await self._of(draft.namespace).create(manifest))

    async def replace(self, stored: StoredSecret, data: Mapping[str, bytes]) -> StoredSecret:
        """Change all of ``data`` of the very Secret that was read."""
        changed = {name: value for name, value in data.items() if stored.data.get(name) != value}
        removed = stored.data.keys() - data.keys()
        if not changed and not removed:
            return stored
        return await self._merge(stored, {"data": _encoded(changed) | dict.fromkeys(removed)}, {})

    async def apply(self, draft: SecretDraft, current: StoredSecret | None) -> StoredSecret:
        """Make the Secret that was read what ``draft`` says; see the port."""
        if current is None:
            return await self.create(draft)
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
        return await self._merge(current, body, metadata)

    async def delete(self, stored: StoredSecret) -> None:
        """Delete the very Secret that was read."""
        await self._of(stored.namespace).delete(stored.name, _as_read(stored))

    async def pages(
        self, namespace: str, labels: Mapping[str, str]
    ) -> AsyncIterator[tuple[StoredSecret, ...]]:
        """Those that carry all of ``labels``, page by page, in the order of names."""
        query = {"labelSelector": ",".join(_equalities(labels))} if labels else {}
        async for page in self._of(namespace).pages(query):
            yield tuple(secret_from(raw) for raw in page["items"])

    async def lacking(
        self, namespace: str, label: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """Those of type Opaque that carry all of ``labels`` and not ``label``."""
        selector = ",".join((*_equalities(labels), f"!{label}"))
        query = {"labelSelector": selector, "fieldSelector": f"type={OPAQUE}"}
        pages = self._of(namespace).pages(query)
        return tuple([secret_from(raw) async for page in pages for raw in page["items"]])

    async def can_read(self, namespace: str) -> bool:
        """Ask the authorizer, by a SelfSubjectAccessReview that every account may make."""
        version, kind = _REVIEW
        asked = {"namespace": namespace, "verb": "get", "resource": _SECRET.plural}
        review = await self._connection.call(
            Request(
                "POST",
                f"/apis/{version}/selfsubjectaccessreviews",
                kind,
                body={
                    "apiVersion": version,
                    "kind": kind,
                    "spec": {"resourceAttributes": asked},
                },
            )
        )
        return bool(review["status"].get("allowed"))

    async def _merge(
        self, stored: StoredSecret, body: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> StoredSecret:
        """Merge a change into the very Secret that was read."""
        change = {**body, "metadata": {**metadata, **_as_read(stored)}}
        return secret_from(await self._of(stored.namespace).merge(stored.name, change))

    def _of(self, namespace: str) -> Collection:
        return Collection(self._connection, _SECRET, namespace)


def _as_read(stored: StoredSecret) -> dict[str, str]:
    return {"uid": stored.uid, "resourceVersion": stored.resource_version}


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
