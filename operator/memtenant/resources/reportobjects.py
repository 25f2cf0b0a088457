"""ComplianceReports written and pruned: by a report job in a cluster, by hand in a state folder.

A job may create, show and delete reports in the operator's namespace, and nothing else; the
operator only watches them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from memtenant.errors import ResourceConflict, ResourceNotFound
from memtenant.resources.connection import APPLY, Connection, Request, path
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import (
    API_VERSION,
    GROUP,
    MANAGED_BY_LABEL,
    MANAGED_BY_VALUE,
    VERSION,
    Declared,
    Kind,
    ObjectKey,
)
from memtenant.resources.reading import declared_from
from memtenant.rules.reporting import POLICY_LABEL

__all__ = ["ReportObjects", "reports_in_cluster", "reports_in_folder"]

_MANAGER = "memtenant-reporter"
_log = logging.getLogger(__name__)


class ReportObjects(Protocol):
    """The ComplianceReports of the operator's namespace."""

    async def of_policy(self, policy: str) -> tuple[Declared, ...]:
        """The policy's reports, the oldest first."""

    async def save(
        self, policy: str, name: str, spec: Mapping[str, Any], status: Mapping[str, Any]
    ) -> None:
        """Make a report with all that it says; `ResourceConflict` if there is one of that name."""

    async def delete(self, report: Declared) -> None:
        """Delete a report; gone already is fine."""


class _InCluster(ReportObjects):
    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    async def of_policy(self, policy: str) -> tuple[Declared, ...]:
        query = {"labelSelector": f"{POLICY_LABEL}={policy}"}
        raw = await self._connection.call(self._request("GET", query=query))
        found = [declared_from(Kind.REPORT, one) for one in raw["items"]]
        return tuple(sorted(found, key=_age))

    async def save(
        self, policy: str, name: str, spec: Mapping[str, Any], status: Mapping[str, Any]
    ) -> None:
        head = {"apiVersion": API_VERSION, "kind": Kind.REPORT.value}
        body = {**head, "metadata": {"name": name, "labels": _labels(policy)}, "spec": spec}
        # Not repeated after a lost answer: it might conflict with itself.
        await self._connection.call(
            self._request("POST", body=body, query={"fieldManager": _MANAGER}, repeatable=False)
        )
        await self._connection.call(
            self._request(
                "PATCH",
                name,
                "status",
                body={**head, "metadata": {"name": name}, "status": status},
                content_type=APPLY,
                query={"fieldManager": _MANAGER, "force": "true"},
            )
        )

    async def delete(self, report: Declared) -> None:
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": report.uid},
        }
        try:
            await self._connection.call(self._request("DELETE", report.key.name, body=options))
        except ResourceNotFound:
            _log.debug("%s is gone already", report.key)

    def _request(
        self,
        method: str,
        *place: str,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> Request:
        where = ("apis", GROUP, VERSION, "namespaces", self._namespace, Kind.REPORT.plural)
        what = f"ComplianceReport {'/'.join((self._namespace, *place))}"
        return Request(
            *(method, path(*where, *place), what),
            body=body,
            content_type=content_type,
            query=query,
            repeatable=repeatable,
        )


class _InFolder(ReportObjects):
    def __init__(self, resources: FolderResources) -> None:
        self._resources = resources

    async def of_policy(self, policy: str) -> tuple[Declared, ...]:
        found = [
            one
            for one in await self._resources.list(Kind.REPORT)
            if one.labels.get(POLICY_LABEL) == policy
        ]
        return tuple(sorted(found, key=_age))

    async def save(
        self, policy: str, name: str, spec: Mapping[str, Any], status: Mapping[str, Any]
    ) -> None:
        key = ObjectKey.report(self._resources.home, name)
        if await self._resources.get(key) is not None:
            raise ResourceConflict(f"{key} is there already: reports are not changed")
        declared, _ = self._resources.declare(key, spec, labels=_labels(policy))
        await self._resources.write_status(declared, status)

    async def delete(self, report: Declared) -> None:
        self._resources.delete(report.key)


def reports_in_cluster(connection: Connection, namespace: str) -> ReportObjects:
    """Those of a namespace of a cluster."""
    return _InCluster(connection, namespace)


def reports_in_folder(resources: FolderResources) -> ReportObjects:
    """Those of a state folder."""
    return _InFolder(resources)


def _labels(policy: str) -> dict[str, str]:
    return {MANAGED_BY_LABEL: MANAGED_BY_VALUE, POLICY_LABEL: policy}


def _age(report: Declared) -> tuple[datetime, str]:
    return report.creation_timestamp, report.key.name
