"""ComplianceReports of a cluster's operator's namespace: what a report job writes and prunes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from memtenant.errors import ResourceNotFound
from memtenant.resources.connection import APPLY, Connection, Request, path
from memtenant.resources.port import API_VERSION, GROUP, VERSION, Declared, Kind
from memtenant.resources.reading import declared_from
from memtenant.resources.reportobjects import ReportObjects, by_age, report_labels
from memtenant.rules.reporting import POLICY_LABEL

__all__ = ["reports_in_cluster"]

_MANAGER = "memtenant-reporter"
_log = logging.getLogger(__name__)


class _InCluster(ReportObjects):
    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    async def of_policy(self, policy: str) -> tuple[Declared, ...]:
        query = {"labelSelector": f"{POLICY_LABEL}={policy}"}
        raw = await self._connection.call(self._request("GET", query=query))
        found = [declared_from(Kind.REPORT, one) for one in raw["items"]]
        return tuple(sorted(found, key=by_age))

    async def save(
        self, policy: str, name: str, spec: Mapping[str, Any], status: Mapping[str, Any]
    ) -> None:
        head = {"apiVersion": API_VERSION, "kind": Kind.REPORT.value}
        body = {**head, "metadata": {"name": name, "labels": report_labels(policy)}, "spec": spec}
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


def reports_in_cluster(connection: Connection, namespace: str) -> ReportObjects:
    """Those of a namespace of a cluster."""
    return _InCluster(connection, namespace)
