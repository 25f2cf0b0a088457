"""The few calls of the Kubernetes API that a kubelet makes, as plain JSON."""

from pathlib import Path
from typing import Any

import urllib3

Object = dict[str, Any]


class NotYet(Exception):
    """Something is missing, refused or away for now: a reason for the pod's status."""


class Api:
    """A client of the server that a kubeconfig with a client certificate names."""

    def __init__(self, kubeconfig: Path) -> None:
        # Half a second of imports, in every run of every tier if it stood above.
        from kubernetes.config import new_client_from_config

        client = new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self.url = str(client.configuration.host)
        self._pool = client.rest_client.pool_manager

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """The server's answer. A PATCH is a JSON merge patch. Raises NotYet."""
        url, kind = f"{self.url}/api/v1/{path}", "merge-patch+json" if method == "PATCH" else "json"
        how = {"headers": {"Content-Type": f"application/{kind}"}, "timeout": 5.0}
        try:
            answer = self._pool.request(method, url, json=body, retries=False, **how)
            found: Object = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise NotYet(f"no answer to {method} {path}: {error}") from error
        if answer.status >= 400:
            raise NotYet(found.get("message", answer.reason))
        return found
