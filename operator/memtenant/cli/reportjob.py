"""``memtenant report run --in-cluster``: what a policy's CronJob runs, in a pod of the chart's.

Everything but the policy comes from the environment and from where the chart mounts things.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from memtenant.cli import output
from memtenant.cli.cluster import needs_operator
from memtenant.errors import UsageError

__all__ = ["report_in_cluster"]

_REPORTER = Path("/var/run/memtenant/reporter")
_KEYRINGS = Path("/var/run/memtenant/keyrings")


def report_in_cluster(policy: str, archive: Path, root: Path) -> None:
    """Make a report with the pod's own identity, and a ComplianceReport in its namespace."""
    home = os.environ.get("MEMTENANT_HOME_NAMESPACE", "")
    audit_namespace = os.environ.get("MEMTENANT_AUDIT_NAMESPACE", "")
    if not home or not audit_namespace:
        raise UsageError(
            "--in-cluster is for the pods of report jobs, which know MEMTENANT_HOME_NAMESPACE and "
            "MEMTENANT_AUDIT_NAMESPACE: start one by `kubectl create job --from=cronjob/...`"
        )
    readers = os.environ.get("MEMTENANT_LOG_KEY_READERS", "").split(",")
    asyncio.run(_report(policy, archive, root, home, audit_namespace, tuple(filter(None, readers))))


async def _report(
    policy: str,
    archive: Path,
    root: Path,
    home: str,
    audit_namespace: str,
    readers: tuple[str, ...],
) -> None:
    try:
        from memtenant.resources.connection import Connection
        from memtenant.resources.kubernetes import KubernetesResources
    except ImportError as error:
        raise needs_operator(error) from None
    from memtenant.reports.incluster import (
        ClusterSources,
        Mounts,
        read_audit_key,
        read_installation,
        read_public_key,
    )
    from memtenant.reports.making import make_and_keep
    from memtenant.resources.clusterreports import reports_in_cluster

    mounts = Mounts(
        Path(os.environ.get("MEMTENANT_REPORTER", _REPORTER)),
        archive,
        Path(os.environ.get("MEMTENANT_KEYRINGS", _KEYRINGS)),
    )
    async with Connection.open() as connection:
        resources = KubernetesResources(connection, home=home, instance="memtenant-report")
        sources = ClusterSources(
            connection,
            resources,
            mounts,
            audit_namespace=audit_namespace,
            public_key=await read_public_key(connection, audit_namespace),
            expected=readers,
        )
        made = await make_and_keep(
            sources,
            reports_in_cluster(connection, home),
            policy,
            root,
            audit_key=read_audit_key(mounts),
            installation=read_installation(mounts),
        )
    counts = ", ".join(f"{count} {name}" for name, count in made.report.counts().items() if count)
    output.line(f"ComplianceReport {home}/{made.name}: {counts or 'no control applies'}")
    output.line(f"Files: {made.folder}")
    if made.in_log:
        output.line(f"Its manifest is told to the audit log through store {made.in_log}")
    else:
        output.warn("the audit log does not know of it: the log above says why")
    for run in made.pruned:
        output.line(f"Removed the files of {run}: past the period of evidence")
