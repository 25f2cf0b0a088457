"""Retention, holds and erasures: what is kept too long, and what went too early."""

from __future__ import annotations

from datetime import timedelta

from memtenant.clock import rfc3339
from memtenant.reports.checks.judging import Judge, Judgement
from memtenant.reports.evidence import Coverage, Evidence, Missing
from memtenant.rules.controls import Parameters
from memtenant.rules.expiry import step
from memtenant.tenancy.erasure import MAX_RECEIPTS

__all__ = [
    "erasures_completed",
    "kept_within_period",
    "nothing_deleted_under_hold",
    "period_justified",
]


def kept_within_period(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """No record is older than its cut-off, by its header and by its event."""
    judge = Judge(evidence)
    for store in evidence.stores.values():
        if isinstance(store, Missing):
            continue
        for name in store.leftovers:
            judge.warn(
                store.name,
                f"{name} is not declared any more and has records there: no policy says how long "
                "they are kept, and they were not looked at",
            )
    for facts, records in judge.tenants(lambda one: one.records):
        name = str(facts.tenant)
        if records.undated:
            where = ", ".join(records.examples.get("undated", ()))
            judge.fail(
                name, f"entries that tell no time and never expire: {records.undated} ({where})"
            )
        if facts.matters:
            continue
        for record_class, many in sorted(records.expired.items()):
            retention = facts.resolution.by_class()
            kept = next(one for name_, one in retention.items() if name_ == record_class)
            judge.fail(
                name,
                f"records of {record_class} older than {kept.effective.period} "
                f"({kept.effective.reason}): {many}, the oldest of "
                f"{rfc3339(records.oldest[record_class])}",
            )
    for one in evidence.tenants:
        if isinstance(one.events, Missing) or isinstance(one.facts, Missing) or one.facts.matters:
            continue
        told = one.events.coverage
        if isinstance(told, Coverage) and told.oldest is not None:
            period = one.facts.resolution.content.effective.period
            grace = timedelta(seconds=step(one.facts.resolution))
            if period.after(told.oldest) < evidence.now - grace and not _is_expired(one.records):
                judge.fail(
                    one.name,
                    f"a record that lives was told at {rfc3339(told.oldest)}, before what its own "
                    "header says: somebody wrote it with another time",
                )
    return judge.judgement("all records by their headers")


def _is_expired(records: object) -> bool:
    return bool(getattr(records, "expired", None))


def period_justified(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Longer than a framework's default only with a stated legal basis."""
    judge = Judge(evidence)
    for facts, _ in judge.tenants(lambda one: one.facts):
        for found in facts.resolution.unjustified:
            judge.fail(str(facts.tenant), found.message)
    return judge.judgement("the periods in force")


def nothing_deleted_under_hold(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Of a tenant that is held, every record that was told is there, and no removal was."""
    judge = Judge(evidence)
    held = 0
    for facts, events in judge.tenants(lambda one: one.events):
        name = str(facts.tenant)
        for words in events.released:
            judge.warn(name, f"a hold ended or was overridden: {words}")
        if not facts.matters:
            continue
        held += 1
        if not events.total:
            judge.missing(name, Missing("log", "it has no event of this tenant"))
            continue
        matters = ", ".join(sorted(facts.matters))
        if events.destroyed_total:
            judge.fail(
                name,
                f"removals while {matters} stood: {events.destroyed_total} "
                f"({'; '.join(events.destroyed)})",
            )
        if isinstance(events.coverage, Missing):
            judge.missing(name, events.coverage)
        elif events.coverage.vanished:
            judge.fail(
                name,
                f"records that the log tells and that are gone while {matters} stands, with no "
                f"event that says why: {events.coverage.vanished}",
            )
    return judge.judgement(f"sealed events and live records, {held} held")


def erasures_completed(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Every receipt came to its end in time, and its last pass found nothing; whom the log tells
    that an agent asked to forget has one."""
    judge = Judge(evidence)
    asked, within = 0, parameters.needed_period("within")
    for facts, records in judge.tenants(lambda one: one.records):
        asked += records.erasures
        for one in records.erasures_slowest:
            if within.after(one.asked) < (one.ended or evidence.now):
                judge.fail(
                    str(facts.tenant),
                    f"erasure {one.id} of {rfc3339(one.asked)} is {one.phase}: not within {within}",
                )
        if records.erasures_remaining:
            judge.fail(
                str(facts.tenant),
                f"records of erased persons that were left: {records.erasures_remaining}",
            )
    for tenant in evidence.tenants:
        if isinstance(tenant.records, Missing):
            continue  # told above
        if isinstance(tenant.events, Missing):
            if tenant.records.limits.get("audit") == "1":
                judge.missing(tenant.name, tenant.events)
            continue
        lost = tenant.events.erasures_asked - tenant.records.erasures_known
        # The oldest receipts make room for new ones.
        if lost > 0 and tenant.records.erasures_known < MAX_RECEIPTS:
            judge.fail(
                tenant.name,
                "persons whom the log tells that an agent asked to forget, and of whom there is "
                f"neither a request nor a receipt: {lost}",
            )
    return judge.judgement(f"{asked} receipts of erasures")
