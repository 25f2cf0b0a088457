"""Requests to the API server without kubectl: neither its checks nor its 100 ms."""

import http.client
import json
from typing import Any

from tests.e2e.witness import PATHS, Json
from tests.support.controlplane.cluster import Cluster


class Api:
    """One connection, as the admin. Not for several threads."""

    def __init__(self, cluster: Cluster) -> None:
        self._connection = http.client.HTTPSConnection(
            cluster.host, cluster.port, timeout=60, context=cluster.admin_tls()
        )

    def create(self, plural: str, raw: Json) -> tuple[int, Json]:
        """The status and what the server answers."""
        path = f"{_path(plural, raw['metadata'].get('namespace', ''))}?fieldValidation=Strict"
        return self._request("POST", path, raw)

    def discard(self, plural: str, namespace: str, name: str) -> None:
        """Delete the object whoever holds it by a finalizer; that it is gone is no error."""
        path = f"{_path(plural, namespace)}/{name}"
        self._request("PATCH", path, {"metadata": {"finalizers": None}})
        self._request("DELETE", path, {})
        self._request("PATCH", path, {"metadata": {"finalizers": None}})

    def _request(self, method: str, path: str, body: Any) -> tuple[int, Json]:
        patch = "application/merge-patch+json"
        headers = {"Content-Type": patch if method == "PATCH" else "application/json"}
        self._connection.request(method, path, json.dumps(body), headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        assert isinstance(answer, dict)
        return response.status, answer


def _path(plural: str, namespace: str) -> str:
    root, _, _ = PATHS[plural].rpartition("/")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else PATHS[plural]
