"""Secrets of a state folder, and binding Secrets laid out as files that an agent can mount."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from typing import Any
from uuid import uuid4

from memtenant.errors import InvalidResource, ResourceConflict, ResourceNotFound
from memtenant.resources.port import API_VERSION, Declared, SecretDraft, StoredSecret
from memtenant.resources.reading import secret_from
from memtenant.resources.secretchange import change_towards
from memtenant.resources.statefolder import StateFolder, check_name, reading

__all__ = ["FolderSecrets"]

_KEY = re.compile(r"(?!\.\.?$|\.\.)[-._a-zA-Z0-9]{1,253}")
_BINDING_TYPE = "servicebinding.io/"


class FolderSecrets:
    """What the port says of Secrets, without waiting: memory for reads, files behind writes."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._secrets: dict[tuple[str, str], dict[str, Any]] = {}
        for file, raw in folder.read_all("secrets"):
            with reading(file):
                secret = secret_from(raw)
                self._secrets[secret.namespace, secret.name] = raw
            if folder.writable and secret.type.startswith(_BINDING_TYPE):
                # A process that was killed may have written the one and not the other.
                self._lay_out(secret)

    def get(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret, or None."""
        raw = self._secrets.get((namespace, name))
        return None if raw is None else secret_from(raw)

    def of_namespace(self, namespace: str) -> tuple[StoredSecret, ...]:
        """The Secrets of a namespace, by name."""
        keys = sorted(key for key in self._secrets if key[0] == namespace)
        return tuple(secret_from(self._secrets[key]) for key in keys)

    def namespaces(self) -> set[str]:
        """The namespaces that have Secrets."""
        return {namespace for namespace, _ in self._secrets}

    def create(self, draft: SecretDraft) -> StoredSecret:
        """Make the Secret; `ResourceConflict` if there is one of that name."""
        if (draft.namespace, draft.name) in self._secrets:
            raise ResourceConflict(f"Secret {draft.namespace}/{draft.name} exists already")
        metadata: dict[str, Any] = {
            "name": draft.name,
            "namespace": draft.namespace,
            "uid": str(uuid4()),
            "labels": draft.all_labels,
            "annotations": dict(draft.annotations),
        }
        if draft.owned_by is not None:
            metadata["ownerReferences"] = [_owner_reference(draft.owned_by)]
        return self.store(metadata, draft.type, draft.data)

    def replace(self, stored: StoredSecret, data: Mapping[str, bytes]) -> StoredSecret:
        """Change all of ``data`` of the very Secret that was read."""
        if stored.data == data:
            return stored
        return self.store(self._same(stored)["metadata"], stored.type, data)

    def apply(self, draft: SecretDraft, current: StoredSecret | None) -> StoredSecret:
        """Make the Secret that was read what ``draft`` says."""
        if current is None:
            return self.create(draft)
        change = change_towards(draft, current)
        if not change:
            return current
        metadata = dict(self._same(current)["metadata"])
        metadata["labels"] = {**current.labels, **change.labels}
        metadata["annotations"] = {**current.annotations, **change.annotations}
        if change.owner_uid is not None and draft.owned_by is not None:
            metadata["ownerReferences"] = [_owner_reference(draft.owned_by)]
        return self.store(metadata, draft.type, draft.data)

    def delete(self, stored: StoredSecret) -> None:
        """Delete the very Secret that was read; gone already is fine."""
        if (stored.namespace, stored.name) in self._secrets:
            self._same(stored)
            self._remove(stored.namespace, stored.name)

    def collect(self, alive: Collection[str]) -> None:
        """Remove the Secrets of which no owner's uid is among ``alive``."""
        for (namespace, name), raw in tuple(self._secrets.items()):
            owners = {owner["uid"] for owner in raw["metadata"].get("ownerReferences") or ()}
            if owners and owners.isdisjoint(alive):
                self._remove(namespace, name)

    def store(
        self, metadata: Mapping[str, Any], secret_type: str, data: Mapping[str, bytes]
    ) -> StoredSecret:
        """Write a Secret, whatever was there."""
        namespace, name = metadata["namespace"], metadata["name"]
        check_name(namespace, name)
        for key in data:
            if not _KEY.fullmatch(key):
                raise InvalidResource(f"Secret {namespace}/{name}: {key!r} is no key of a Secret")
        raw = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {**metadata, "resourceVersion": str(self._folder.next_version())},
            "type": secret_type,
            "data": {key: b64encode(value).decode("ascii") for key, value in data.items()},
        }
        self._folder.write(raw, "secrets", namespace, name, private=True)
        self._secrets[namespace, name] = raw
        stored = secret_from(raw)
        if secret_type.startswith(_BINDING_TYPE):
            self._lay_out(stored)
        return stored

    def _lay_out(self, secret: StoredSecret) -> None:
        if not self._folder.binding_is(secret.namespace, secret.name, secret.data):
            self._folder.lay_out_binding(secret.namespace, secret.name, secret.data)

    def _same(self, stored: StoredSecret) -> dict[str, Any]:
        raw = self._secrets.get((stored.namespace, stored.name))
        what = f"Secret {stored.namespace}/{stored.name}"
        if raw is None:
            raise ResourceNotFound(f"{what} does not exist")
        read = (stored.uid, stored.resource_version)
        if (raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]) != read:
            raise ResourceConflict(f"{what} was changed by somebody else")
        return raw

    def _remove(self, namespace: str, name: str) -> None:
        self._folder.remove_binding(namespace, name)
        self._folder.remove("secrets", namespace, name)
        del self._secrets[namespace, name]


def _owner_reference(owner: Declared) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": owner.key.kind.value,
        "name": owner.key.name,
        "uid": owner.uid,
    }
