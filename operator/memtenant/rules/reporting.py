"""The CronJob of a policy's reports, and what is so when a report is missing. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding
from memtenant.api.reporting import Reporting
from memtenant.clock import rfc3339, utc_from_rfc3339
from memtenant.rules.schedule import read_schedule
from memtenant.tenancy.identity import child_name

__all__ = [
    "POLICY_LABEL",
    "REPORT_COMPONENT",
    "Missed",
    "cron_job",
    "cron_job_name",
    "missed_report",
    "scheduled_since",
    "stale_finding",
]

POLICY_LABEL = "memtenant.dev/policy"
"""On each CronJob, job and ComplianceReport: the RetentionPolicy's name."""

REPORT_COMPONENT = "report"
"""``app.kubernetes.io/component`` of the same."""

_SINCE = "memtenant.dev/scheduled-since"
_PREFIX = "memtenant-report"
_LONGEST_NAME = 52
_START_WITHIN = 600
"""Seconds after its time in which a run may still begin, as after an outage of the controller."""

_LONGEST_RUN = 3600


@dataclass(frozen=True, slots=True)
class Missed:
    """A run that was due at ``due`` and of which no report came. Not yet where ``until`` is in the
    future: then a report may still come.
    """

    due: datetime
    until: datetime


def cron_job_name(policy: str) -> str:
    """The policy's CronJob, in the home namespace. CronJobs' names end at 52 characters."""
    return child_name(_PREFIX, policy, _LONGEST_NAME)


def cron_job(
    policy: str,
    uid: str,
    reporting: Reporting,
    template: Mapping[str, Any],
    *,
    namespace: str,
    since: datetime,
) -> dict[str, Any]:
    """The manifest. ``template`` is a CronJob's jobTemplate; the first container is told the
    policy. The policy owns it, so that the garbage collector takes it along.
    """
    labels = {
        "app.kubernetes.io/managed-by": "memtenant",
        "app.kubernetes.io/component": REPORT_COMPONENT,
        POLICY_LABEL: policy,
    }
    job = copy.deepcopy(dict(template))
    job["metadata"] = _labelled(job.get("metadata"), labels)
    pod = job["spec"]["template"]
    pod["metadata"] = _labelled(pod.get("metadata"), labels)
    container = pod["spec"]["containers"][0]
    container["args"] = [*container.get("args", ()), "--policy", policy]
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": cron_job_name(policy),
            "namespace": namespace,
            "labels": labels,
            "annotations": {_SINCE: rfc3339(since)},
            "ownerReferences": [
                {
                    "apiVersion": "memtenant.dev/v1alpha1",
                    "kind": "RetentionPolicy",
                    "name": policy,
                    "uid": uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "schedule": reporting.schedule,
            "timeZone": reporting.time_zone,
            "suspend": reporting.suspend,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": _START_WITHIN,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": job,
        },
    }


def _labelled(metadata: Mapping[str, Any] | None, labels: Mapping[str, str]) -> dict[str, Any]:
    known = dict(metadata or {})
    return {**known, "labels": {**known.get("labels", {}), **labels}}


def scheduled_since(
    there: Mapping[str, Any] | None, reporting: Reporting, now: datetime
) -> datetime:
    """Since when reports are due at the times that the policy says now."""
    if there is None:
        return now
    spec = there.get("spec", {})
    same = (reporting.schedule, reporting.time_zone, reporting.suspend) == (
        spec.get("schedule"),
        spec.get("timeZone"),
        spec.get("suspend", False),
    )
    noted = there["metadata"].get("annotations", {}).get(_SINCE)
    if not same or noted is None:
        return now
    try:
        return min(now, utc_from_rfc3339(noted))
    except ValueError:
        return now


def missed_report(
    reporting: Reporting,
    template: Mapping[str, Any],
    *,
    since: datetime,
    last: datetime | None,
) -> Missed | None:
    """The first run after the last report (or since the schedule stands); None where none is due.

    Raises `InvalidResource` where the schedule cannot be read.
    """
    schedule = read_schedule(reporting.schedule, reporting.time_zone)
    due = schedule.next_after(since if last is None else max(since, last))
    if due is None or reporting.suspend:
        return None
    longest = template["spec"].get("activeDeadlineSeconds", _LONGEST_RUN)
    return Missed(due, due + timedelta(seconds=_START_WITHIN + longest))


def stale_finding(missed: Missed | None, policy: str, where: str, now: datetime) -> Finding:
    """The condition of the policy and of its tenants; the same words until a report comes."""
    if missed is None or now < missed.until:
        return Finding(ConditionType.STALE, ConditionStatus.FALSE, "UpToDate")
    return Finding(
        ConditionType.STALE,
        ConditionStatus.TRUE,
        "ReportMissed",
        f"RetentionPolicy {policy!r} has no report of the run that was due at "
        f"{rfc3339(missed.due)}: look at the jobs of CronJob {where}",
    )
