"""ComplianceReports of a cluster's operator's namespace: what a report job writes and prunes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import Connection
from memtenant.resources.port import API_VERSION, Declared, Kind
from memtenant.resources.reading import declared_from
from memtenant.resources.reportobjects import ReportObjects, by_age, report_labels
from memtenant.rules.reporting import POLICY_LABEL

__all__ = ["reports_in_cluster"]

_REPORT = APIKind(Kind.REPORT.value, API_VERSION, Kind.REPORT.plural)
_HEAD = {"apiVersion": _REPORT.version, "kind": _REPORT.name}


class _InCluster(ReportObjects):
    def __init__(self, connection: Connection, namespace: str) -> None:
        self._reports = Collection(connection, _REPORT, namespace, manager="memtenant-reporter")

    async def of_policy(self, policy: str) -> tuple[Declared, ...]:
        pages = self._reports.pages({"labelSelector": f"{POLICY_LABEL}={policy}"})
        found = [declared_from(Kind.REPORT, one) async for page in pages for one in page["items"]]
        return tuple(sorted(found, key=by_age))

    async def save(
        self, policy: str, name: str, spec: Mapping[str, Any], status: Mapping[str, Any]
    ) -> None:
        metadata = {"name": name, "labels": report_labels(policy)}
        await self._reports.create({**_HEAD, "metadata": metadata, "spec": spec})
        told = {**_HEAD, "metadata": {"name": name}, "status": status}
        await self._reports.apply(told, subresource="status")

    async def delete(self, report: Declared) -> None:
        await self._reports.delete(report.key.name, {"uid": report.uid})


def reports_in_cluster(connection: Connection, namespace: str) -> ReportObjects:
    """Those of a namespace of a cluster."""
    return _InCluster(connection, namespace)
