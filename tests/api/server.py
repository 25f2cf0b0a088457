"""A real API server as a judge: what it says about creating or replacing an object.

Raw HTTP on one kept connection: a verdict takes 2 ms, so that thousands of generated objects can
be judged. Field validation is Strict, as kubectl's is.
"""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from memtenant.api import GROUP, KINDS, VERSION
from tests.support.controlplane.cluster import Cluster

_STRICT = "fieldValidation=Strict"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the server takes an object, what it would store, or why it does not."""

    accepted: bool
    message: str
    stored: dict[str, Any]


class Refused(Exception):
    """The server refused what a test needs to succeed."""


class Judge:
    """Asks one API server. Objects of a namespaced kind go into `namespace`."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._connection = http.client.HTTPSConnection(
            cluster.host, cluster.port, timeout=60, context=_context(cluster)
        )

    def create(self, raw: Mapping[str, Any], *, dry_run: bool = True) -> Verdict:
        """The verdict on a new object."""
        return self._verdict("POST", self._path(raw["kind"]), raw, dry_run=dry_run)

    def replace(self, raw: Mapping[str, Any], *, dry_run: bool = True) -> Verdict:
        """The verdict on an object that replaces the one of its name."""
        path = f"{self._path(raw['kind'])}/{raw['metadata']['name']}"
        return self._verdict("PUT", path, raw, dry_run=dry_run)

    def set_status(self, kind: str, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Merge into the status as the operator does; the object afterwards."""
        return self._done(
            self._send(
                "PATCH",
                f"{self._path(kind)}/{name}/status?{_STRICT}",
                {"status": status},
                "application/merge-patch+json",
            )
        )

    def delete(self, kind: str, name: str) -> None:
        """Delete the object."""
        self._done(self._send("DELETE", f"{self._path(kind)}/{name}", None, _JSON))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _path(self, kind: str) -> str:
        names = KINDS[kind].NAMES
        where = f"/namespaces/{self._namespace}" if names.namespaced else ""
        return f"/apis/{GROUP}/{VERSION}{where}/{names.plural}"

    def _verdict(self, method: str, path: str, raw: Mapping[str, Any], *, dry_run: bool) -> Verdict:
        query = f"{path}?{_STRICT}" + ("&dryRun=All" if dry_run else "")
        status, answer = self._send(method, query, raw, _JSON)
        if status in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
            return Verdict(True, "", answer)
        if status in (http.HTTPStatus.BAD_REQUEST, http.HTTPStatus.UNPROCESSABLE_ENTITY):
            return Verdict(False, answer["message"], {})
        raise Refused(f"{method} {path}: {status}: {answer.get('message')}")

    def _done(self, answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        status, body = answer
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise Refused(f"{status}: {body.get('message')}")
        return body

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, content_type: str
    ) -> tuple[int, dict[str, Any]]:
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, {"Content-Type": content_type})
        answer = self._connection.getresponse()
        parsed = json.loads(answer.read())
        assert isinstance(parsed, dict)
        return answer.status, parsed


def _context(cluster: Cluster) -> ssl.SSLContext:
    user = yaml.safe_load(Path(cluster.kubeconfig).read_text())["users"][0]["user"]
    pair = cluster.folder / "judge.pem"
    pair.touch(mode=0o600)
    pair.write_bytes(
        b"".join(
            base64.b64decode(user[field])
            for field in ("client-key-data", "client-certificate-data")
        )
    )
    context = ssl.create_default_context(cafile=str(cluster.ca_file))
    context.load_cert_chain(pair)
    return context
