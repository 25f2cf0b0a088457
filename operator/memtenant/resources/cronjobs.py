"""CronJobs over a Kubernetes API server, by server-side apply."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from memtenant.errors import ResourceNotFound
from memtenant.resources.connection import APPLY, Connection, Request, path
from memtenant.resources.port import FIELD_MANAGER, CronJobs

__all__ = ["KubernetesCronJobs"]

_log = logging.getLogger(__name__)


class KubernetesCronJobs(CronJobs):
    """The CronJobs of one namespace."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    async def get(self, name: str) -> Mapping[str, Any] | None:
        """The CronJob, or None."""
        try:
            found: Mapping[str, Any] = await self._connection.call(self._request("GET", name))
        except ResourceNotFound:
            return None
        return found

    async def apply(self, manifest: Mapping[str, Any]) -> None:
        """Make the fields of ``manifest`` so; what this manager applied before and is not in it
        goes.
        """
        await self._connection.call(
            self._request(
                "PATCH",
                manifest["metadata"]["name"],
                body=manifest,
                content_type=APPLY,
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
            )
        )

    async def delete(self, name: str, uid: str) -> None:
        """Delete that very CronJob; what it started goes in the background."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._connection.call(self._request("DELETE", name, body=options))
        except ResourceNotFound:
            _log.debug("CronJob %s is gone already", name)

    def _request(
        self,
        method: str,
        name: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Request:
        return Request(
            method,
            path("apis", "batch", "v1", "namespaces", self._namespace, "cronjobs", name),
            f"CronJob {self._namespace}/{name}",
            body=body,
            content_type=content_type,
            query=query,
        )
