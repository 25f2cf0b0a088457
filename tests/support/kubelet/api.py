"""The few calls of the Kubernetes API that a kubelet makes, as plain JSON. Safe in any thread."""

import json
from pathlib import Path
from typing import Any

import urllib3
from kubernetes.config import new_client_from_config as new_client

Object = dict[str, Any]
AWAY = urllib3.exceptions.HTTPError  # what every call raises while the API server is away


class ApiError(Exception):
    """The API server refused: its status code and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """A client of the server that a kubeconfig names."""

    def __init__(self, kubeconfig: Path) -> None:
        client = new_client(str(kubeconfig))  # type: ignore[no-untyped-call]
        self.url = str(client.configuration.host)
        token = client.configuration.get_api_key_with_prefix("authorization")
        self._headers = {"Authorization": token} if token else {}
        self._pool = client.rest_client.pool_manager

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """The server's answer. A PATCH is a JSON merge patch. Raises ApiError or AWAY."""
        kind = "merge-patch+json" if method == "PATCH" else "json"
        answer = self._pool.request(
            method,
            self.url + path,
            body=None if body is None else json.dumps(body),
            headers=self._headers | {"Content-Type": f"application/{kind}"},
            timeout=5.0,
            retries=False,
        )
        found: Object = json.loads(answer.data)
        if answer.status >= 400:
            raise ApiError(answer.status, str(found.get("message")))
        return found

    def find(self, path: str) -> Object | None:
        """GET, or None where there is nothing."""
        try:
            return self.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
