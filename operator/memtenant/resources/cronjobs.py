"""CronJobs of one namespace of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import Connection
from memtenant.resources.port import CronJobs

__all__ = ["KubernetesCronJobs"]


class KubernetesCronJobs(CronJobs):
    """What the port says of CronJobs, over an API server."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        kind = APIKind("CronJob", "batch/v1", "cronjobs")
        self._jobs = Collection(connection, kind, namespace)

    async def get(self, name: str) -> Mapping[str, Any] | None:
        """The CronJob, or None."""
        return await self._jobs.get(name)

    async def apply(self, manifest: Mapping[str, Any]) -> None:
        """Make the fields of ``manifest`` so; others' fields stay."""
        await self._jobs.apply(manifest)

    async def delete(self, name: str, uid: str) -> None:
        """Delete that very CronJob; what it started goes in the background."""
        await self._jobs.delete(name, {"uid": uid})
