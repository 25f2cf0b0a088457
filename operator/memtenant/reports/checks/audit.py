"""The audit: that it is on, alive, complete and unbroken."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from memtenant.clock import rfc3339
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.reports.bookkeeping import whole
from memtenant.reports.checks.judging import Judge, Judgement
from memtenant.reports.evidence import Evidence, Missing, TenantEvents, moment
from memtenant.rules.controls import Parameters

__all__ = [
    "audit_covers",
    "audited",
    "changes_recorded",
    "log_verifies",
    "sealer_live",
]

_PATIENCE: Final = timedelta(seconds=60)
"""After which the Functions take a heartbeat for stale (docs/functions.md)."""


def audited(evidence: Evidence, parameters: Parameters) -> Judgement:
    """The store is told to write an event for each write and, where asked, each read; none was
    dropped in the period."""
    judge = Judge(evidence)
    sealed = {one.name: one.events for one in evidence.tenants}
    for facts, records in judge.declared(lambda one: one.records):
        name = str(facts.tenant)
        if not records.limits:
            judge.missing(name, Missing("o:limits", "the store has no limits of this tenant"))
            continue
        if records.limits.get("audit") != "1":
            judge.fail(name, "writes leave no event: the tenant is not audited")
        elif parameters.flag("reads") and records.limits.get("audit_reads") != "1":
            judge.fail(name, "reads leave no event")
        _none_dropped(judge, name, records.dropped, sealed[name])
        _never_off(judge, name, sealed[name], reads=parameters.flag("reads"))
    return judge.judgement("what each store is told to audit, and what it dropped")


def _none_dropped(judge: Judge, name: str, untold: int, sealed: TenantEvents | Missing) -> None:
    """``untold`` are those of which the log does not know yet."""
    if isinstance(sealed, Missing):
        if untold:
            judge.fail(name, f"events dropped while the sealer was away: {untold} or more")
        judge.missing(name, sealed)
        return
    dropped = sealed.dropped + untold
    if dropped:
        judge.fail(name, f"events dropped while the sealer was away: {dropped}")
    if sealed.put_back:
        judge.fail(
            name,
            "the store's count of dropped events became less, so that it does not tell all: "
            f"{sealed.put_back} times",
        )
    if sealed.not_drained and not dropped:
        judge.warn(
            name,
            "nobody drained its queue, and what its agents did then left no event (by the store's "
            f"count, nothing): {', '.join(sealed.not_drained)}",
        )


def _never_off(judge: Judge, name: str, sealed: TenantEvents | Missing, *, reads: bool) -> None:
    """What is audited now may not have been in all of the period."""
    if isinstance(sealed, Missing):
        return  # told already
    if sealed.unaudited:
        judge.fail(name, f"the audit was off: {', '.join(sealed.unaudited)}")
    if reads and sealed.unread:
        judge.fail(name, f"reads left no event: {', '.join(sealed.unread)}")
    if sealed.audited_since is not None:
        judge.warn(
            name,
            f"its audit began at {rfc3339(sealed.audited_since)}: what was done before, nothing "
            "tells",
        )


def sealer_live(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """The queue of every audited tenant is drained, and the log was sealed of late."""
    judge = Judge(evidence)
    judge.expect(1)
    log = evidence.log
    if isinstance(log, Missing):
        judge.missing("log", log)
    elif log.sealed_at is None:
        judge.fail("log", "it was never sealed")
    elif evidence.is_to_come(log.sealed_at):
        judge.missing("log", _to_come("the last seal", log.sealed_at))
    else:
        judge.saw(log.at)
        late = evidence.now - log.sealed_at
        if late > max(_PATIENCE, 3 * _window(evidence)):
            judge.fail("log", f"the last seal is of {rfc3339(log.sealed_at)}")
    for facts, records in judge.declared(lambda one: one.records):
        if not records.limits:
            judge.missing(
                str(facts.tenant), Missing("o:limits", "the store has no limits of this tenant")
            )
            continue
        if records.limits.get("audit") != "1":
            judge.skip(str(facts.tenant), "it is not audited: nothing drains its queue")
            continue
        beat = whole(records.limits.get("audit_heartbeat", ""))
        age = None if beat is None else evidence.now.timestamp() - beat / 1000
        if age is None:
            judge.fail(str(facts.tenant), "no sealer has ever drained its queue")
        elif evidence.is_to_come(moment(beat or 0)):
            judge.missing(str(facts.tenant), _to_come("the last drain", moment(beat or 0)))
        elif age > max(_PATIENCE, 3 * _window(evidence)).total_seconds():
            judge.fail(str(facts.tenant), f"its queue was last drained {int(age)} s ago")
    return judge.judgement("the last seal and the drain of each queue", of="log and tenants")


def _to_come(what: str, at: datetime) -> Missing:
    return Missing("clock", f"{what} is of {rfc3339(at)}, which is still to come by this clock")


def _window(evidence: Evidence) -> timedelta:
    return timedelta(seconds=evidence.seal_every)


def audit_covers(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Every record that lives has an event, every event a record, a deletion or an expiry; nothing
    is missing or forged between."""
    judge = Judge(evidence)
    records = covered = 0
    judge.expect(1)
    if isinstance(evidence.installation, Missing):
        judge.missing("installation", evidence.installation)
    elif evidence.tenants:
        judge.saw(evidence.now)
        _sound(judge, "installation", evidence.installation)
    for facts, events in judge.tenants(lambda one: one.events):
        name, found = str(facts.tenant), events.coverage
        _sound(judge, name, events)
        if isinstance(found, Missing):
            judge.missing(name, found)
            continue
        if not events.total and not found.records:
            judge.skip(name, "no event in the log and no record: nothing to hold against the other")
        records += found.records
        covered += found.covered + found.waiting
        if found.uncovered:
            where = f" ({', '.join(found.places)})" if found.places else ""
            judge.fail(name, f"records without an event: {found.uncovered}/{found.records}{where}")
        if found.vanished:
            judge.fail(
                name,
                "records that the log tells and that are gone, with neither an event nor their "
                f"period to say why: {found.vanished}",
            )
        if found.doubt:
            judge.warn(name, found.doubt)
        if found.before:
            judge.warn(
                name,
                f"records older than the log of this tenant: {found.before}/{found.records}",
            )
    return judge.judgement(f"all messages and context values, {covered}/{records} told", of="logs")


def _sound(judge: Judge, name: str, events: TenantEvents) -> None:
    if events.gaps:
        judge.fail(name, f"counters of writers missing, for events were taken: {events.gaps}")
    if events.bad:
        judge.fail(name, f"entries that are no events of the agent that they name: {events.bad}")
    if events.forged:
        judge.fail(name, f"events that tell a second outcome of one counter: {events.forged}")


def log_verifies(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Leaves, trees and checkpoints fit together, under the log's signature."""
    judge = Judge(evidence)
    judge.expect(1)
    log = evidence.log
    if isinstance(log, Missing):
        judge.missing("log", log)
        return judge.judgement("the sealed log", of="logs")
    judge.saw(log.at)
    for doubt in evidence.doubts:
        judge.warn("log", f"it is held against an older checkpoint, or none: {doubt}")
    for problem in log.problems:
        judge.fail("log", problem)
    if log.unverified:
        judge.missing("log", Missing("signature", log.unverified))
    elif not log.problems and not log.verified:
        judge.missing("log", Missing("log", "it was not verified to its end"))
    held = "with a checkpoint from an earlier report" if log.anchored else "not anchored"
    return judge.judgement(f"the tree of {log.size} leaves, {held}", of="logs")


def changes_recorded(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """The generation in force of the policy, of its stores and of each tenant has its event."""
    judge = Judge(evidence)
    judge.expect(1)
    log = evidence.installation
    if isinstance(log, Missing):
        judge.missing("installation", log)
    else:
        judge.saw(evidence.now)
        policy = {(f"RetentionPolicy/{evidence.policy.name}", evidence.uid): evidence.generation}
        stores = {
            (f"MemoryStore/{name}", uid): one for (name, uid), one in evidence.generations.items()
        }
        # One that was deleted and made again begins anew: by its uid it is another.
        begin = _begin(evidence, INSTALLATION_LOG)
        for (name, uid), generation in (policy | stores).items():
            if (name, uid) not in log.specs and begin is not None:
                judge.missing(name, _older_than_log(generation, begin))
            elif (name, uid) not in log.specs:
                judge.fail(name, f"no change of it is in the log (uid {uid})")
            elif log.specs[name, uid] < generation:
                judge.fail(name, f"generation {generation} of it is not in the log")
        if log.unnamed:
            judge.warn(
                "installation",
                f"changes of policies and stores that name no person: {log.unnamed}",
            )
    for facts, events in judge.declared(lambda one: one.events):
        seen = max((many for (_, uid), many in events.specs.items() if uid == facts.uid), default=0)
        begin = _begin(evidence, str(facts.tenant))
        if not seen and begin is not None:
            judge.missing(str(facts.tenant), _older_than_log(facts.generation, begin))
        elif not events.specs and events.total:
            judge.warn(
                str(facts.tenant),
                f"generation {facts.generation} of its spec is older than its audit",
            )
        elif seen < facts.generation:
            judge.fail(
                str(facts.tenant), f"generation {facts.generation} of its spec is not in the log"
            )
        if events.unnamed:
            judge.warn(
                str(facts.tenant), f"changes of its spec that name no person: {events.unnamed}"
            )
    return judge.judgement("generations against the log", of="logs")


def _begin(evidence: Evidence, log_id: str) -> datetime | None:
    return None if isinstance(evidence.log, Missing) else evidence.log.begin_of(log_id)


def _older_than_log(generation: int, begin: datetime) -> Missing:
    why = (
        f"the log begins at {rfc3339(begin)}, and what came before was removed: whether generation "
        f"{generation} was told then, nothing says. The next change of it is"
    )
    return Missing("log", why)
