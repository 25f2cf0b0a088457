"""ComplianceReports written and pruned: the port, and a state folder behind it.

A job may create, show and delete reports in the operator's namespace, and nothing else; the
operator only watches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from memtenant.errors import ResourceConflict
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import (
    MANAGED_BY_LABEL,
    MANAGED_BY_VALUE,
    Declared,
    Kind,
    ObjectKey,
)
from memtenant.rules.reporting import POLICY_LABEL

__all__ = ["ReportObjects", "by_age", "report_labels", "reports_in_folder"]


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


class _InFolder(ReportObjects):
    def __init__(self, resources: FolderResources) -> None:
        self._resources = resources

    async def of_policy(self, policy: str) -> tuple[Declared, ...]:
        found = [
            one
            for one in await self._resources.list(Kind.REPORT)
            if one.labels.get(POLICY_LABEL) == policy
        ]
        return tuple(sorted(found, key=by_age))

    async def save(
        self, policy: str, name: str, spec: Mapping[str, Any], status: Mapping[str, Any]
    ) -> None:
        key = ObjectKey.report(self._resources.home, name)
        if await self._resources.get(key) is not None:
            raise ResourceConflict(f"{key} is there already: reports are not changed")
        declared, _ = self._resources.declare(key, spec, labels=report_labels(policy))
        await self._resources.write_status(declared, status)

    async def delete(self, report: Declared) -> None:
        self._resources.delete(report.key)


def reports_in_folder(resources: FolderResources) -> ReportObjects:
    """Those of a state folder."""
    return _InFolder(resources)


def report_labels(policy: str) -> dict[str, str]:
    """By which a policy's reports are found."""
    return {MANAGED_BY_LABEL: MANAGED_BY_VALUE, POLICY_LABEL: policy}


def by_age(report: Declared) -> tuple[datetime, str]:
    """For sorting: the oldest first."""
    return report.creation_timestamp, report.key.name
