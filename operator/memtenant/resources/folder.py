"""The port over a state folder: memtenant without a cluster.

What an API server does to an object is done here too: uid, resourceVersion, generation on a change
of spec, finalizers and deletionTimestamp, owned Secrets that go with their owner. Namespaces are
implicit: each exists, with a uid that stays and the one label that Kubernetes itself sets.

Everything is read once and kept in memory; writes go through to the files (`StateFolder`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

from memtenant.clock import Clock, rfc3339, system_clock
from memtenant.errors import InvalidResource, ResourceConflict, ResourceNotFound
from memtenant.resources.eventgate import LONGEST_NOTE, EventGate
from memtenant.resources.foldersecrets import FolderSecrets
from memtenant.resources.port import (
    API_VERSION,
    FOREIGN_SECRET,
    OPAQUE,
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
from memtenant.resources.reading import declared_from
from memtenant.resources.statefolder import StateFolder, check_name, reading

__all__ = ["FolderResources", "Outcome"]

_CLUSTER = "_"


class Outcome(Enum):
    """What a declaration did, in kubectl's words."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


class FolderResources(Resources):
    """Declared objects, Secrets and Events in a folder. Made by `open`."""

    def __init__(self, folder: StateFolder, *, home: str, clock: Clock) -> None:
        self._folder = folder
        self._home = home
        self._clock = clock
        self._events = EventGate(clock)
        self._objects: dict[ObjectKey, dict[str, Any]] = {}
        self._statuses: dict[ObjectKey, dict[str, Any]] = {}
        self._secrets = FolderSecrets(folder)
        self._load()

    @classmethod
    @contextmanager
    def open(
        cls,
        root: Path,
        *,
        writable: bool = True,
        home: str = "memtenant-system",
        clock: Clock = system_clock,
    ) -> Iterator[FolderResources]:
        """The state in ``root``, which is made if it is not there.

        Of several processes one may write: `ResourceConflict` with reason ``StateLocked`` for the
        others. Those that only read see the state as it was when they opened it.
        """
        folder = StateFolder(root, writable=writable)
        try:
            yield cls(folder, home=home, clock=clock)
        finally:
            folder.close()

    @property
    def root(self) -> Path:
        """The folder."""
        return self._folder.root

    @property
    def home(self) -> str:
        """The namespace that stands for the operator's own."""
        return self._home

    @property
    def cron_jobs(self) -> None:
        """Nothing runs by itself here."""
        return None

    def declare(
        self,
        key: ObjectKey,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> tuple[Declared, Outcome]:
        """Make an object what a manifest says, as ``kubectl apply`` does; status stays."""
        check_name(key.name, *([key.namespace] if key.kind.namespaced else []))
        wanted = _json({"spec": spec, "labels": labels or {}, "annotations": annotations or {}})
        known = self._objects.get(key)
        metadata: dict[str, Any]
        if known is None:
            metadata = {
                "name": key.name,
                **({"namespace": key.namespace} if key.namespace else {}),
                "uid": str(uuid4()),
                "generation": 1,
                "creationTimestamp": rfc3339(self._clock.now()),
            }
            outcome = Outcome.CREATED
        else:
            metadata = dict(known["metadata"])
            if (
                all(
                    (metadata.get(part) or {}) == wanted[part] for part in ("labels", "annotations")
                )
                and known["spec"] == wanted["spec"]
            ):
                return self._declared(key), Outcome.UNCHANGED
            if known["spec"] != wanted["spec"]:
                metadata["generation"] += 1
            outcome = Outcome.CONFIGURED
        metadata |= {"labels": wanted["labels"], "annotations": wanted["annotations"]}
        self._store(key, metadata, wanted["spec"])
        return self._declared(key), outcome

    def delete(self, key: ObjectKey) -> bool:
        """Delete as the API server does: at once, or when its finalizers are gone. False if there
        is no such object.
        """
        known = self._objects.get(key)
        if known is None:
            return False
        metadata = dict(known["metadata"])
        if not metadata.get("finalizers"):
            self._remove(key)
        elif "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = rfc3339(self._clock.now())
            metadata["generation"] += 1
            self._store(key, metadata, known["spec"])
        return True

    def declare_secret(
        self,
        namespace: str,
        name: str,
        data: Mapping[str, bytes],
        *,
        secret_type: str = OPAQUE,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Make a Secret what a user's manifest says. One that memtenant made is not touched."""
        known = self._secrets.get(namespace, name)
        if known is not None and known.owner is not None:
            raise ResourceConflict(
                f"Secret {namespace}/{name} was made by memtenant for {known.owner!r}: give "
                "yours another name",
                reason=FOREIGN_SECRET,
            )
        if known is not None and known.type != secret_type:
            raise InvalidResource(f"Secret {namespace}/{name}: its type cannot change; delete it")
        wanted = (dict(data), dict(labels or {}), dict(annotations or {}))
        if known is not None and (known.data, known.labels, known.annotations) == wanted:
            return Outcome.UNCHANGED
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid4()) if known is None else known.uid,
            "labels": wanted[1],
            "annotations": wanted[2],
        }
        self._secrets.store(metadata, secret_type, data)
        return Outcome.CREATED if known is None else Outcome.CONFIGURED

    async def list(self, kind: Kind) -> Listing[Declared]:
        """All objects of a kind."""
        keys = sorted(key for key in self._objects if key.kind is kind)
        items = tuple(self._declared(key) for key in keys)
        return Listing(items, str(self._folder.version))

    async def get(self, key: ObjectKey) -> Declared | None:
        """The object, or None."""
        return self._declared(key) if key in self._objects else None

    async def add_finalizer(self, declared: Declared, finalizer: str) -> Declared:
        """The object with ``finalizer`` added, unless others changed the finalizers meanwhile."""
        if finalizer in declared.finalizers:
            return declared
        now = self._unchanged_finalizers(declared)
        if now.deleting:
            raise ResourceConflict(f"{declared.key} is being deleted: it takes no new finalizer")
        self._set_finalizers(declared.key, (*declared.finalizers, finalizer))
        return self._declared(declared.key)

    async def remove_finalizer(self, declared: Declared, finalizer: str) -> None:
        """Take ``finalizer`` away; the last one of an object in deletion takes it along."""
        if finalizer not in declared.finalizers or declared.key not in self._objects:
            return
        now = self._unchanged_finalizers(declared)
        rest = tuple(name for name in declared.finalizers if name != finalizer)
        if now.deleting and not rest:
            self._remove(declared.key)
        else:
            self._set_finalizers(declared.key, rest)

    async def write_status(self, declared: Declared, status: Mapping[str, Any]) -> str:
        """Replace the status, if it differs."""
        now = self._same(declared)
        wanted = _json(status)
        if now.status == wanted:
            return now.resource_version
        version = str(self._folder.next_version())
        content = {"resourceVersion": version, "status": wanted}
        self._folder.write(content, "status", *_place(declared.key))
        self._statuses[declared.key] = content
        return version

    async def get_secret(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret, or None."""
        return self._secrets.get(namespace, name)

    async def create_secret(self, draft: SecretDraft) -> StoredSecret:
        """Make the Secret, if there is none of that name."""
        return self._secrets.create(draft)

    async def replace_secret(self, stored: StoredSecret, data: Mapping[str, bytes]) -> StoredSecret:
        """Change all of ``data`` of the very Secret that was read."""
        return self._secrets.replace(stored, data)

    async def apply_secret(
        self, draft: SecretDraft, *, current: StoredSecret | None
    ) -> StoredSecret:
        """Make the Secret that was read what ``draft`` says; see the port."""
        return self._secrets.apply(draft, current)

    async def delete_secret(self, stored: StoredSecret) -> None:
        """Delete the very Secret that was read."""
        self._secrets.delete(stored)

    async def list_secrets(
        self, namespace: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of a namespace that carry all of ``labels``."""
        found = self._secrets.of_namespace(namespace)
        return tuple(secret for secret in found if labels.items() <= secret.labels.items())

    async def list_secrets_lacking(
        self, namespace: str, label: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of type Opaque that carry all of ``labels`` and not ``label``."""
        found = await self.list_secrets(namespace, labels)
        return tuple(one for one in found if one.type == OPAQUE and label not in one.labels)

    async def can_read_secrets(self, namespace: str) -> bool:
        """Whoever may open the folder may."""
        return True

    async def list_namespaces(self) -> Listing[NamespaceInfo]:
        """The namespaces that something is in, and the operator's own."""
        names = {key.namespace for key in self._objects if key.namespace}
        names |= self._secrets.namespaces() | {self._home}
        items = tuple(self._namespace(name) for name in sorted(names))
        return Listing(items, str(self._folder.version))

    async def get_namespace(self, name: str) -> NamespaceInfo | None:
        """The namespace; each one exists."""
        return self._namespace(name)

    async def emit_event(
        self, declared: Declared, event_type: EventType, reason: str, message: str
    ) -> None:
        """Write a line to ``events.log``, the same words once in ten minutes."""
        if not self._folder.writable or not self._events.admit(declared, reason, message):
            return
        self._folder.log_event(
            {
                "time": rfc3339(self._clock.now()),
                "type": event_type.value,
                "reason": reason,
                "object": str(declared.key),
                "message": message[:LONGEST_NOTE],
            }
        )

    def _load(self) -> None:
        for kind in Kind:
            for file, raw in self._folder.read_all("objects", kind.plural):
                with reading(file):
                    namespace = raw["metadata"].get("namespace", "")
                    key = ObjectKey(kind, namespace, raw["metadata"]["name"])
                    declared_from(kind, raw)
                    self._objects[key] = raw
            for file, raw in self._folder.read_all("status", kind.plural):
                with reading(file):
                    where = "" if file.parent.name == _CLUSTER else file.parent.name
                    key = ObjectKey(kind, where, file.stem)
                    int(raw["resourceVersion"])
                    if key in self._objects:
                        self._statuses[key] = raw
        if self._folder.writable:
            self._collect()

    def _collect(self) -> None:
        """Remove the Secrets whose owner is gone, as the garbage collector does."""
        self._secrets.collect({raw["metadata"]["uid"] for raw in self._objects.values()})

    def _declared(self, key: ObjectKey) -> Declared:
        raw = self._objects[key]
        status = self._statuses.get(key, {"resourceVersion": "0", "status": {}})
        newest = max((raw["metadata"]["resourceVersion"], status["resourceVersion"]), key=int)
        metadata = {**raw["metadata"], "resourceVersion": newest}
        return declared_from(key.kind, {**raw, "metadata": metadata, "status": status["status"]})

    def _same(self, declared: Declared) -> Declared:
        """The object as it is now, if it is still that one."""
        if declared.key not in self._objects:
            raise ResourceNotFound(f"{declared.key} does not exist")
        now = self._declared(declared.key)
        if now.uid != declared.uid:
            raise ResourceConflict(f"{declared.key} is another object of that name now")
        return now

    def _unchanged_finalizers(self, declared: Declared) -> Declared:
        now = self._same(declared)
        if now.finalizers != declared.finalizers:
            raise ResourceConflict(f"the finalizers of {declared.key} changed since they were read")
        return now

    def _set_finalizers(self, key: ObjectKey, finalizers: tuple[str, ...]) -> None:
        raw = self._objects[key]
        self._store(key, {**raw["metadata"], "finalizers": [*finalizers]}, raw["spec"])

    def _store(self, key: ObjectKey, metadata: dict[str, Any], spec: Any) -> None:
        raw = {
            "apiVersion": API_VERSION,
            "kind": key.kind.value,
            "metadata": metadata | {"resourceVersion": str(self._folder.next_version())},
            "spec": spec,
        }
        self._folder.write(raw, "objects", *_place(key))
        self._objects[key] = raw

    def _remove(self, key: ObjectKey) -> None:
        self._folder.remove("status", *_place(key))
        self._folder.remove("objects", *_place(key))
        self._statuses.pop(key, None)
        del self._objects[key]
        self._collect()

    def _namespace(self, name: str) -> NamespaceInfo:
        return NamespaceInfo(
            name=name,
            uid=str(uuid5(UUID(self._folder.uid), name)),
            labels={"kubernetes.io/metadata.name": name},
            terminating=False,
            resource_version=str(self._folder.version),
        )


def _place(key: ObjectKey) -> tuple[str, str, str]:
    return key.kind.plural, key.namespace or _CLUSTER, key.name


def _json(value: Mapping[str, Any]) -> Any:
    """A copy that holds nothing but JSON, so that what is in memory is what is on disk."""
    return json.loads(json.dumps(value))
