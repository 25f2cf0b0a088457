"""A policy's CronJob kept as declared, and what is told of its reports.

The job makes the reports, with an identity of its own; the operator sees them as objects, and notes
when one did not come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding
from memtenant.api.report import ComplianceReportStatus
from memtenant.api.reporting import LastReport, Reporting
from memtenant.errors import InvalidResource, MemtenantError
from memtenant.reconcile.declared import status_before
from memtenant.reconcile.world import Reported, World
from memtenant.resources.port import CronJobs, Declared
from memtenant.rules.manifest import differences
from memtenant.rules.reporting import (
    Missed,
    cron_job,
    cron_job_name,
    missed_report,
    scheduled_since,
    stale_finding,
)

__all__ = ["Kept", "keep_reporting"]

_FALSE = ConditionStatus.FALSE


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a policy's CronJob, and what is told; ``look_again`` is in seconds."""

    told: Reported
    findings: tuple[Finding, ...] = ()
    changed: bool = False
    look_again: float | None = None


async def keep_reporting(world: World, policy: Declared, reporting: Reporting | None) -> Kept:
    """Make the CronJob what the policy says, and look whether reports come."""
    last = newest_report(world, policy.key.name)
    fresh = stale_finding(None, policy.key.name, "", world.clock.now())
    jobs, template = world.resources.cron_jobs, world.report_job
    if jobs is None:
        return Kept(Reported(last, fresh), () if reporting is None else (_by_hand(),))
    try:
        if reporting is None or template is None:
            findings = () if reporting is None else (_disabled(),)
            return Kept(Reported(last, fresh), findings, await _remove(jobs, policy))
        return await _schedule(world, policy, reporting, jobs, template, last)
    except MemtenantError as error:
        if error.retryable:
            raise
        # Reports are not what tenants rest on: the policy goes on for them.
        return Kept(Reported(last, fresh), () if reporting is None else _refused(error))


async def _schedule(
    world: World,
    policy: Declared,
    reporting: Reporting,
    jobs: CronJobs,
    template: Mapping[str, Any],
    last: LastReport | None,
) -> Kept:
    now, name = world.clock.now(), policy.key.name
    where = f"{world.resources.home}/{cron_job_name(name)}"
    there = await jobs.get(cron_job_name(name))
    if there is not None and not _is_ours(there, policy):
        return Kept(Reported(last, stale_finding(None, name, where, now)), (_foreign(where),))
    since = scheduled_since(there, reporting, now)
    missed = missed_report(
        reporting, template, since=since, last=None if last is None else last.time
    )
    wanted = cron_job(
        name, policy.uid, reporting, template, namespace=world.resources.home, since=since
    )
    changed = there is None or bool(differences(wanted, there))
    if changed:
        await jobs.apply(wanted)
    return Kept(
        Reported(last, stale_finding(missed, name, where, now)),
        (_scheduled(reporting),),
        changed,
        _seconds_until(missed, now),
    )


def newest_report(world: World, policy: str) -> LastReport | None:
    """The newest complete report about the policy's tenants. Only the home namespace counts: who
    may make objects elsewhere must not make a policy look looked at.
    """
    found = []
    for key in world.mirror.reports_of_policy(policy):
        declared = world.mirror.get(key)
        if declared is None or key.namespace != world.resources.home:
            continue
        status = status_before(declared, ComplianceReportStatus)
        if status.made_at is not None and status.summary is not None:
            counts, time = status.summary, status.made_at
            if time > world.clock.now():
                # Else none that is missed would be noticed until then.
                time = min(time, declared.creation_timestamp)
            found.append(
                LastReport(
                    name=key.name,
                    time=time,
                    failed=counts.fail,
                    errors=counts.error,
                )
            )
    return max(found, key=lambda one: (one.time, one.name), default=None)


async def _remove(jobs: CronJobs, policy: Declared) -> bool:
    """Take away the CronJob of a policy that asks for no reports any more."""
    there = await jobs.get(cron_job_name(policy.key.name))
    if there is None or not _is_ours(there, policy):
        return False
    await jobs.delete(there["metadata"]["name"], there["metadata"]["uid"])
    return True


def _is_ours(there: Mapping[str, Any], policy: Declared) -> bool:
    """Whether it was made for a policy of this name; the policy may be a later one."""
    owners = there["metadata"].get("ownerReferences", ())
    return any(
        (one["kind"], one["name"]) == (policy.key.kind.value, policy.key.name) for one in owners
    )


def _seconds_until(missed: Missed | None, now: datetime) -> float | None:
    if missed is None or missed.until <= now:
        return None
    return max(1.0, (missed.until - now).total_seconds())


def _scheduled(reporting: Reporting) -> Finding:
    kind = ConditionType.REPORT_SCHEDULED
    if reporting.suspend:
        return Finding(kind, _FALSE, "Suspended", "spec.report.suspend is true: no report is begun")
    return Finding(
        kind,
        ConditionStatus.TRUE,
        "Scheduled",
        f"A report is begun at {reporting.schedule} ({reporting.time_zone})",
    )


def _by_hand() -> Finding:
    words = "Without a cluster nothing runs by itself: make reports with `memtenant report run`"
    return Finding(ConditionType.REPORT_SCHEDULED, _FALSE, "ByHand", words)


def _disabled() -> Finding:
    return Finding(
        ConditionType.REPORT_SCHEDULED,
        _FALSE,
        "ReportsDisabled",
        "The operator was given no job to run reports with: set the chart's reports.enabled to "
        "true, or make reports with `memtenant report run`",
    )


def _foreign(where: str) -> Finding:
    return Finding(
        ConditionType.REPORT_SCHEDULED,
        _FALSE,
        "ForeignCronJob",
        f"CronJob {where} was not made by memtenant: rename or delete it",
    )


def _refused(error: MemtenantError) -> tuple[Finding, ...]:
    """What keeps the CronJob from being made. A schedule that cannot be read is the spec's fault,
    which the policy says as a whole."""
    text, reason = str(error), error.reason
    finding = Finding(ConditionType.REPORT_SCHEDULED, _FALSE, reason, text)
    if not isinstance(error, InvalidResource):
        return (finding,)
    words = f"{text}. Tenants go on under the policy"
    return (
        finding,
        Finding(ConditionType.READY, _FALSE, reason, words),
        Finding(ConditionType.STALLED, ConditionStatus.TRUE, reason, words),
    )
