"""Sees every version of every object that memtenant reads or writes, as the API server tells it.

A test reads here what is (without asking again and again), what ever was (which no later write
can hide), and that nothing was written while nothing should be.
"""

import http
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.controlplane.cluster import Cluster

Json = dict[str, Any]

PATHS = {
    "memorytenants": "/apis/memtenant.dev/v1alpha1/memorytenants",
    "memorystores": "/apis/memtenant.dev/v1alpha1/memorystores",
    "retentionpolicies": "/apis/memtenant.dev/v1alpha1/retentionpolicies",
    "secrets": "/api/v1/secrets",
    "events": "/apis/events.k8s.io/v1/events",
    "leases": "/apis/coordination.k8s.io/v1/leases",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch. ``type`` is ADDED, MODIFIED or DELETED."""

    plural: str
    type: str
    object: Json

    @property
    def name(self) -> tuple[str, str]:
        """(namespace, name); the namespace of a cluster-scoped object is empty."""
        metadata = self.object["metadata"]
        return metadata.get("namespace", ""), metadata["name"]


@dataclass
class Witness:
    """Watches from its start to `close`; goes on by itself when the API server comes back."""

    cluster: Cluster
    changes: list[Change] = field(default_factory=list)
    _latest: dict[str, dict[tuple[str, str], Json]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _open: set[http.client.HTTPSConnection] = field(default_factory=set)

    def start(self) -> None:
        """Begin to watch; returns when everything was listed once."""
        listed = []
        for plural, path in PATHS.items():
            self._latest[plural] = {}
            done = threading.Event()
            listed.append(done)
            threading.Thread(
                target=self._follow,
                args=(plural, path, done),
                name=f"witness {plural}",
                daemon=True,
            ).start()
        for done in listed:
            assert done.wait(60), "the API server cannot be listed"

    def close(self) -> None:
        """End every watch."""
        self._closing.set()
        for connection in list(self._open):
            with suppress(OSError):
                if connection.sock is not None:
                    connection.sock.close()

    def latest(self, plural: str, namespace: str, name: str) -> Json | None:
        """The object as last seen; None where there is none."""
        with self._lock:
            return self._latest[plural].get((namespace, name))

    def all(self, plural: str) -> list[Json]:
        """Every object of the kind as last seen."""
        with self._lock:
            return list(self._latest[plural].values())

    def since(self, mark: int) -> list[Change]:
        """The changes after `len(witness.changes)` was ``mark``."""
        with self._lock:
            return self.changes[mark:]

    def _follow(self, plural: str, path: str, listed: threading.Event) -> None:
        version = ""
        while not self._closing.is_set():
            try:
                if not version:
                    version = self._list(plural, path)
                    listed.set()
                version = self._watch(plural, path, version)
            except (OSError, http.client.HTTPException, ValueError, AttributeError):
                self._closing.wait(0.1)

    def _list(self, plural: str, path: str) -> str:
        with self._connection() as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise ConnectionError(f"{path}: {response.status}")  # its storage still starts
            answer = json.loads(response.read())
        known = dict(self._latest[plural])
        for item in answer["items"]:
            change = Change(plural, "ADDED", item)
            known.pop(change.name, None)
            self._note(change)
        for gone in known.values():
            self._note(Change(plural, "DELETED", gone))
        return str(answer["metadata"]["resourceVersion"])

    def _watch(self, plural: str, path: str, version: str) -> str:
        query = f"?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        with self._connection() as connection:
            connection.request("GET", path + query)
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                return ""
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return ""
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._note(Change(plural, event["type"], event["object"]))
        return version

    def _note(self, change: Change) -> None:
        with self._lock:
            known = self._latest[change.plural].get(change.name)
            if change.type == "DELETED":
                self._latest[change.plural].pop(change.name, None)
            elif known is None or _version(known) < _version(change.object):
                self._latest[change.plural][change.name] = change.object
            else:
                return
            self.changes.append(change)

    def _connection(self) -> "_Opened":
        connection = http.client.HTTPSConnection(
            self.cluster.host, self.cluster.port, timeout=120, context=self.cluster.admin_tls()
        )
        return _Opened(connection, self._open)


@dataclass
class _Opened:
    connection: http.client.HTTPSConnection
    register: set[http.client.HTTPSConnection]

    def __enter__(self) -> http.client.HTTPSConnection:
        self.register.add(self.connection)
        return self.connection

    def __exit__(self, *exception: object) -> None:
        self.register.discard(self.connection)
        self.connection.close()


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := response.readline():
        yield line


def _version(item: Json) -> int:
    return int(item["metadata"]["resourceVersion"])
