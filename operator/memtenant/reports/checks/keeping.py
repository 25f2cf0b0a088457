"""Retention, holds and erasures: what is kept too long, and what went too early."""

from __future__ import annotations

from datetime import datetime, timedelta

from memtenant.clock import rfc3339
from memtenant.reports.checks.judging import Judge, Judgement
from memtenant.reports.evidence import (
    Coverage,
    Evidence,
    Missing,
    RecordEvidence,
    TenantEvents,
    TenantEvidence,
    TenantFacts,
)
from memtenant.rules.controls import Parameters
from memtenant.rules.expiry import step
from memtenant.tenancy.erasure import MAX_RECEIPTS

__all__ = [
    "erasures_completed",
    "kept_within_period",
    "nothing_deleted_under_hold",
    "nothing_removed_under_minimum",
    "period_justified",
]


def kept_within_period(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """No record is older than its cut-off, by its header and by its event."""
    judge = Judge(evidence)
    for facts, records in judge.tenants(lambda one: one.records):
        name = str(facts.tenant)
        if records.undated:
            where = ", ".join(records.examples.get("undated", ()))
            judge.fail(
                name, f"entries that tell no time and never expire: {records.undated} ({where})"
            )
        if records.misdated:
            where = ", ".join(records.examples.get("misdated", ()))
            judge.fail(
                name,
                f"records that bear a time which they cannot have: {records.misdated} ({where}): "
                "somebody dated them around memtenant. The operator's next pass dates them back; "
                "where the time is that of a writer who is still to come, the record goes a period "
                "after it was first seen, or with its conversation, which an agent can delete",
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
    told = 0
    for one in evidence.tenants:
        if isinstance(one.facts, Missing) or isinstance(one.records, Missing):
            continue
        events = one.events if isinstance(one.events, Missing) else one.events.coverage
        if isinstance(events, Coverage):
            told += 1
            _kept_by_events(judge, one.facts, one.records, events)
        elif one.records.limits.get("audit") == "1":
            judge.missing(one.name, events)
    return judge.judgement(f"all records by their headers, of {told} tenants by their events too")


def _kept_by_events(
    judge: Judge, facts: TenantFacts, records: RecordEvidence, told: Coverage
) -> None:
    if facts.matters or told.oldest is None or records.expired:
        return
    grace = timedelta(seconds=step(facts.resolution))
    if facts.resolution.content.effective.period.after(told.oldest) < judge.evidence.now - grace:
        judge.fail(
            str(facts.tenant),
            f"a record that lives was told at {rfc3339(told.oldest)}, before what its own header "
            f"says: somebody wrote it with another time ({told.oldest_at})",
        )


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
        begin = events.held_at or min(facts.matters.values())
        _was_told(judge, name, events, facts.resolution.content.effective.period.before(begin))
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
        elif events.coverage.doubt:
            judge.warn(name, events.coverage.doubt)
    if evidence.tenants and not held:
        judge.skip(evidence.policy.name, "no legal hold stands")
    return judge.judgement(f"sealed events and live records, {held} held")


def nothing_removed_under_minimum(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Every message that the log tells and that is younger than its minimum is there."""
    judge = Judge(evidence)
    kept, since = 0, ""
    for facts, events in judge.tenants(lambda one: one.events):
        name = str(facts.tenant)
        floor = facts.resolution.content.floor
        if floor is None:
            continue
        kept += 1
        _was_told(judge, name, events, floor.period.before(evidence.now))
        if not events.total:
            judge.missing(name, Missing("log", "it has no event of this tenant"))
        elif isinstance(events.coverage, Missing):
            judge.missing(name, events.coverage)
        elif events.floor_since is None:
            why = "the log does not say since when the policy is what it is"
            judge.missing(name, Missing("minimum", why))
        else:
            since = f", which is what it is since {rfc3339(events.floor_since)}"
        if isinstance(events.coverage, Coverage) and events.coverage.doubt:
            judge.warn(name, events.coverage.doubt)
        if events.early_total:
            shown = "; ".join(events.early)
            judge.fail(
                name,
                f"messages that are gone under their minimum of {floor.period} ({floor.reason}): "
                f"{events.early_total} ({shown})",
            )
    if evidence.tenants and not kept:
        judge.skip(evidence.policy.name, "no minimum of content stands")
    return judge.judgement(f"sealed events and live messages, {kept} under a minimum{since}")


def _was_told(judge: Judge, name: str, events: TenantEvents, since: datetime) -> None:
    """What was stored while nothing was told may be gone, and nothing says so. What was stored
    ``since`` has to be there."""
    log = judge.evidence.log
    begin = None if isinstance(log, Missing) else log.begin_of(name)
    if events.unaudited:
        why = f"the audit was off: {', '.join(events.unaudited)}"
        judge.missing(name, Missing("log", why))
    elif events.untold_until is not None and since < events.untold_until:
        why = (
            f"nothing tells what was stored before {rfc3339(events.untold_until)}, when it was not "
            f"audited, and what was stored since {rfc3339(since)} has to be there"
        )
        judge.missing(name, Missing("log", why))
    if events.dropped:
        why = f"events were dropped in the period, which nobody drained: {events.dropped}"
        judge.missing(name, Missing("log", why))
    if begin is not None and since < begin:
        why = (
            f"the log begins at {rfc3339(begin)}, and what was stored since {rfc3339(since)} has "
            "to be there: keep the log as long"
        )
        judge.missing(name, Missing("log", why))


def erasures_completed(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Every receipt came to its end in time and is true: of whom it tells there is no data key, no
    index and no record. Whom the log tells that an agent asked to forget has one."""
    judge = Judge(evidence)
    asked, looked, within = 0, 0, parameters.needed_period("within")
    for facts, records in judge.tenants(lambda one: one.records):
        name = str(facts.tenant)
        asked += records.erasures
        looked += records.erased_looked
        for one in records.erasures_slowest:
            if within.after(one.asked) < (one.ended or evidence.now):
                judge.fail(
                    name,
                    f"erasure {one.id} of {rfc3339(one.asked)} is {one.phase}: not within {within}",
                )
        if records.erasures_remaining:
            where = ", ".join(records.examples.get("erased", ()))
            judge.fail(
                name,
                f"records of erased persons that were left: {records.erasures_remaining}"
                + (f" ({where})" if where else ""),
            )
        for words in records.left:
            judge.fail(name, words)
        if records.left_total > len(records.left):
            judge.fail(name, f"and {records.left_total - len(records.left)} more of erased persons")
    for tenant in evidence.tenants:
        if not isinstance(tenant.records, Missing):
            _forgotten(judge, tenant, tenant.records)
    return judge.judgement(f"{asked} receipts, {looked} persons behind them looked for")


def _forgotten(judge: Judge, tenant: TenantEvidence, records: RecordEvidence) -> None:
    """What the sealed log knows of it, and the store cannot take back."""
    audited = records.limits.get("audit") == "1"
    if isinstance(tenant.events, Missing):
        if audited:
            judge.missing(tenant.name, tenant.events)
        return
    if records.erasures and not audited:
        judge.skip(
            tenant.name,
            "it is not audited: whether records of who was erased are there again, only the log "
            "could tell",
        )
    lost = tenant.events.erasures_asked - records.erasures_known
    # The oldest receipts make room for new ones.
    if lost > 0 and records.erasures_known < MAX_RECEIPTS:
        judge.fail(
            tenant.name,
            "persons whom the log tells that an agent asked to forget, and of whom there is "
            f"neither a request nor a receipt: {lost}",
        )
    back = tenant.events.forgotten_alive
    if back > records.erasures_open:
        where = ", ".join(tenant.events.forgotten_places)
        judge.fail(
            tenant.name,
            f"persons of whom records are there that were told before they were forgotten: {back}, "
            f"and {records.erasures_open} erasures are under way or refused "
            f"({tenant.events.forgotten_records} records, as in {where})",
        )
