"""What has to be kept of the evidence itself: the log, the reports, the revisions of the policy.

What went, the rule decides that was in force then: where a framework or a longer period was added
later, the time before is neither a pass nor a failure.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Final

from memtenant.clock import rfc3339
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.reports.checks.judging import Judge, Judgement
from memtenant.reports.evidence import Evidence, Missing, TenantEvents
from memtenant.reports.revisions import Revision, Under, in_force, rightly_gone
from memtenant.rules.controls import Parameters
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import PolicyFacts
from memtenant.rules.retention import Bound

__all__ = ["log_kept", "reports_kept", "revisions_kept"]

_EXAMPLES: Final = 5


def log_kept(evidence: Evidence, parameters: Parameters) -> Judgement:
    """What the rules ask to be kept of the log is there, and the periods in force keep it."""
    judge = Judge(evidence)
    at_hand, log, told = parameters.period("at_hand"), evidence.log, evidence.installation
    judge.expect(1)
    if isinstance(log, Missing):
        judge.missing("log", log)
    elif isinstance(told, Missing):
        judge.missing("installation", told)
    elif evidence.tenants:
        judge.saw(log.at)
        if not told.total:
            judge.missing("installation", Missing("log", "it has no event of the installation"))
        floor = evidence.policy.resolution.audit.floor
        _begins_early(judge, "installation", INSTALLATION_LOG, floor)
    for facts, events in judge.tenants(lambda one: one.events):
        name = str(facts.tenant)
        for record_class in (RecordClass.AUDIT, RecordClass.EVIDENCE):
            kept = facts.resolution.of(record_class)
            if kept.floor is not None and kept.effective.period < kept.floor.period:
                judge.fail(
                    name,
                    f"{record_class} is kept {kept.effective.period}, under {kept.floor.reason}",
                )
            if at_hand is not None and kept.effective.period < at_hand:
                judge.fail(name, f"{record_class} is kept {kept.effective.period}: under {at_hand}")
        if not events.total:
            judge.missing(name, Missing("log", "it has no event of this tenant"))
            continue
        _begins_early(judge, name, name, facts.resolution.audit.floor, events.policies)
    return judge.judgement(
        "the first event that is kept of each, and the periods in force", of="logs"
    )


def _begins_early(
    judge: Judge, name: str, log_id: str, floor: Bound | None, under: Under = ()
) -> None:
    """``under`` are the policies that it was under before."""
    evidence = judge.evidence
    first = None if isinstance(evidence.log, Missing) else evidence.log.begin_of(log_id)
    if first is None or floor is None or first <= floor.period.before(evidence.now):
        return
    words = (
        f"the log begins at {rfc3339(first)}, what came before was removed, and {floor.period} "
        f"have to be kept ({floor.reason})"
    )
    if _might_go(evidence, first, RecordClass.AUDIT, under):
        judge.warn(name, f"{words}. By the rule that was in force then, it might go")
    else:
        judge.fail(name, words)


def _might_go(
    evidence: Evidence, what: datetime, record_class: RecordClass, under: Under = ()
) -> bool:
    """Whether what came before might go by a minimum that is in force no more."""
    told = evidence.installation
    if isinstance(told, Missing):
        return False

    def before(facts: PolicyFacts, end: datetime) -> datetime:
        floor = facts.resolution.of(record_class).floor
        return end if floor is None else floor.period.before(end)

    found = [rightly_gone(_revisions(evidence), before)]
    for (policy, _), (_, left) in pairwise(under):
        last = in_force(told.revisions.get(policy, ()), left)
        if last is not None and last.facts is not None:
            found.append(before(last.facts, left))
    return any(one is not None and what <= one for one in found)


def _revisions(evidence: Evidence) -> tuple[Revision, ...]:
    told = evidence.installation
    if isinstance(told, Missing):
        return ()
    return tuple(told.revisions.get(evidence.policy.name, ()))


def reports_kept(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """The files of every earlier report of which the log was told are there, as they were."""
    judge, found = Judge(evidence), evidence.reports
    if isinstance(found, Missing):
        judge.expect(1)
        judge.missing("reports", found)
        return judge.judgement("earlier reports", of="reports")
    judge.expect(found.due)
    for _ in range(found.due - len(found.lost) - len(found.lapsed)):
        judge.saw(found.at)
    for run, words in sorted(found.lost.items()):
        judge.fail(f"report {run}", words)
    if found.lapsed:
        judge.warn(
            "reports",
            "earlier ones whose files went when the period of evidence was shorter: "
            f"{len(found.lapsed)} ({', '.join(found.lapsed[:_EXAMPLES])})",
        )
    if found.since > found.wanted:
        judge.warn(
            "reports",
            f"of those from {rfc3339(found.wanted)} to {rfc3339(found.since)} nothing is known: "
            "what the log was told of them went at the end of its own period "
            "(spec.retention.audit)",
        )
    if not found.due:
        for run in found.waiting:
            judge.skip(f"report {run}", "the log is told of it with one of the next seals")
    for run in found.untold:
        judge.warn(f"report {run}", "no leaf of the log names it: nothing proves it")
    return judge.judgement(
        f"files since {rfc3339(found.since)} against what the log was told", of="reports"
    )


def revisions_kept(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """What the policy said in each generation that was in force is in the log, word by word."""
    judge, told = Judge(evidence), evidence.installation
    judge.expect(1)
    if isinstance(told, Missing):
        judge.missing("installation", told)
        return judge.judgement("generations of the policy", of="policies")
    judge.saw(evidence.now)
    if isinstance(evidence.log, Missing):
        judge.missing("log", evidence.log)
    found, name = _revisions(evidence), f"RetentionPolicy/{evidence.policy.name}"
    _from_the_first_on(judge, name, told, found)
    if all((one.uid, one.generation) != (evidence.uid, evidence.generation) for one in found):
        why = f"generation {evidence.generation} of it is not in what is kept of the log"
        judge.missing(name, Missing("log", why))
    for one in found:
        if not one.worded:
            judge.warn(
                name,
                f"of generation {one.generation} of {rfc3339(one.since)} the log has no words, or "
                "the SHA-256 alone, for they are too long: keep the manifest",
            )
    worded = sum(one.worded for one in found)
    return judge.judgement(
        f"{len(found)} generations that were in force, {worded} word by word", of="policies"
    )


def _from_the_first_on(
    judge: Judge, name: str, told: TenantEvents, found: tuple[Revision, ...]
) -> None:
    """Nothing before the first that is kept may be missing."""
    evidence = judge.evidence
    floor = evidence.policy.resolution.evidence.floor
    log = evidence.log
    begin = None if isinstance(log, Missing) else log.begin_of(INSTALLATION_LOG)
    if found and found[0].generation <= 1:
        return
    if begin is None:
        if found:
            judge.warn(
                name,
                f"generation {found[0].generation} is the first in the log: what was in force "
                f"before {rfc3339(found[0].since)}, it was not told",
            )
        return
    if floor is not None and begin > floor.period.before(evidence.now):
        tell = judge.warn if _might_go(evidence, begin, RecordClass.EVIDENCE) else judge.fail
        tell(
            name,
            f"the log begins at {rfc3339(begin)}, and what the policy said before was removed: "
            f"{floor.period} have to be kept ({floor.reason})",
        )
