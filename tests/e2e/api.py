"""Requests to the API server without kubectl: neither its checks nor its 100 ms."""

import http
import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Self

from tests.e2e.witness import PATHS, Json
from tests.support.controlplane.cluster import Cluster

_PATHS = {
    **PATHS,
    "cronjobs": "/apis/batch/v1/cronjobs",
    "networkpolicies": "/apis/networking.k8s.io/v1/networkpolicies",
    "persistentvolumeclaims": "/api/v1/persistentvolumeclaims",
    "pods": "/api/v1/pods",
    "services": "/api/v1/services",
    "statefulsets": "/apis/apps/v1/statefulsets",
}


class Api:
    """One connection, as the admin. Not for several threads."""

    def __init__(self, cluster: Cluster) -> None:
        self._connection = http.client.HTTPSConnection(
            cluster.host, cluster.port, timeout=60, context=cluster.admin_tls()
        )

    @classmethod
    @contextmanager
    def of(cls, cluster: Cluster) -> Iterator[Self]:
        """One for a few requests."""
        api = cls(cluster)
        with closing(api._connection):
            yield api

    def create(self, plural: str, raw: Json) -> tuple[int, Json]:
        """The status and what the server answers."""
        path = f"{_path(plural, raw['metadata'].get('namespace', ''))}?fieldValidation=Strict"
        return self._request("POST", path, raw)

    def get(self, plural: str, namespace: str, name: str) -> Json | None:
        """The object; None where there is none. Raises OSError where the server does not say."""
        status, answer = self._request("GET", f"{_path(plural, namespace)}/{name}", None)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        if status != http.HTTPStatus.OK:
            raise OSError(f"the API server answered {status}")
        return answer

    def list(self, plural: str, namespace: str) -> list[Json]:
        """Every object of the kind there. Raises OSError where the server does not say."""
        status, answer = self._request("GET", _path(plural, namespace), None)
        if status != http.HTTPStatus.OK:
            raise OSError(f"the API server answered {status}")
        return list(answer["items"])

    def merge(self, plural: str, namespace: str, name: str, patch: Mapping[str, object]) -> int:
        """Change an object as a person does who edits it; the status."""
        return self._request("PATCH", f"{_path(plural, namespace)}/{name}", patch)[0]

    def delete(self, plural: str, namespace: str, name: str) -> int:
        """Ask for its deletion; the status."""
        return self._request("DELETE", f"{_path(plural, namespace)}/{name}", {})[0]

    def discard(self, plural: str, namespace: str, name: str) -> None:
        """Delete the object whoever holds it by a finalizer; that it is gone is no error."""
        path = f"{_path(plural, namespace)}/{name}"
        self._request("PATCH", path, {"metadata": {"finalizers": None}})
        self._request("DELETE", path, {})
        self._request("PATCH", path, {"metadata": {"finalizers": None}})

    def _request(self, method: str, path: str, body: Any) -> tuple[int, Json]:
        patch = "application/merge-patch+json"
        headers = {"Content-Type": patch if method == "PATCH" else "application/json"}
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, path, sent, headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        assert isinstance(answer, dict)
        return response.status, answer


def _path(plural: str, namespace: str) -> str:
    root, _, _ = _PATHS[plural].rpartition("/")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else _PATHS[plural]
