"""The tables of a report: tenants, stores, events and the log, as rows, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from memtenant.clock import rfc3339
from memtenant.reports.checks import Status
from memtenant.reports.evidence import (
    Coverage,
    Evidence,
    LogEvidence,
    Missing,
    RecordEvidence,
    StoreEvidence,
    TenantEvents,
    TenantEvidence,
    TenantFacts,
)
from memtenant.reports.report import FrameworkResult, Row
from memtenant.rules.controls import MANUAL, Severity

__all__ = ["event_totals", "log_row", "recommendations", "store_rows", "tenant_rows"]


def tenant_rows(evidence: Evidence) -> tuple[Row, ...]:
    """One a tenant: declared, kept, encrypted, told."""
    return tuple(_tenant(one, evidence.now) for one in evidence.tenants)


def _tenant(one: TenantEvidence, now: datetime) -> Row:
    row: dict[str, object] = {"tenant": one.name}
    if isinstance(one.facts, TenantFacts) and one.facts.gone:
        row["gone"] = True
    for part in (one.facts, one.records, one.events):
        if isinstance(part, Missing):
            row.setdefault("missing", str(part))
    if isinstance(one.facts, TenantFacts):
        row |= _facts(one.facts, now)
    if isinstance(one.records, RecordEvidence):
        row |= _records(one.records)
    if isinstance(one.events, TenantEvents):
        row |= _events(one.events)
    return row


def _facts(facts: TenantFacts, now: datetime) -> Row:
    status = facts.status
    content = facts.resolution.content
    return {
        "store": facts.store,
        "isolation": facts.spec.isolation.value,
        "agents": len(facts.spec.agents_or_default()),
        "kept": str(content.effective.period),
        "keptBy": content.effective.reason,
        "atMost": str(content.ceiling.period) if content.ceiling else "",
        "atLeast": str(content.floor.period) if content.floor else "",
        "heldBy": sorted(facts.matters),
        "keyVersion": status.key_version or 0,
        "keyAgeDays": (now - status.key_made_at).days if status.key_made_at else -1,
        "quotaPercent": status.usage.memory_percent if status.usage else -1,
    }


def _records(records: RecordEvidence) -> Row:
    return {
        "records": records.records,
        "encrypted": records.encrypted,
        "readable": records.authenticated + records.plain,
        "conversations": records.usage.conversations,
        "memory": records.usage.memory,
        "oldest": {name: rfc3339(time) for name, time in sorted(records.oldest.items())},
        "expired": sum(records.expired.values()),
        "erased": records.marks,
        "found": dict(sorted(records.hits.items())),
        "audited": records.limits.get("audit") == "1",
    }


def _events(events: TenantEvents) -> Row:
    told = events.coverage
    row: dict[str, object] = {
        "events": sum(events.by_operation.values()),
        "subjects": events.subjects,
        "refused": events.refused,
        "gaps": events.gaps,
        "bad": events.bad + events.forged,
        "lastEvent": rfc3339(events.last) if events.last else "",
    }
    if isinstance(told, Coverage):
        row |= {
            "told": told.covered + told.waiting,
            "untold": told.uncovered,
            "tellable": told.records,
            "vanished": told.vanished,
        }
    return row


def store_rows(evidence: Evidence) -> tuple[Row, ...]:
    """One a store."""
    return tuple(
        {"store": name, "missing": str(one)} if isinstance(one, Missing) else _store(one)
        for name, one in sorted(evidence.stores.items())
    )


def _store(one: StoreEvidence) -> Row:
    return {
        "store": one.name,
        "address": one.address,
        "nodes": list(one.nodes),
        "unreachable": list(one.unreachable),
        "tls": one.tls,
        "durable": one.durable,
        "usersCompared": one.checked,
        "usersThatDiffer": len(one.drift),
        "openNodes": list(one.open_nodes),
        "strangers": list(one.strangers),
    }


def event_totals(evidence: Evidence) -> Row:
    """Of the period, over all tenants under the policy and the installation."""
    by_operation, by_agent = Counter[str](), Counter[str]()
    refused = subjects = gaps = bad = 0
    missing = []
    for name, one in _logs(evidence):
        if isinstance(one, Missing):
            missing.append(f"{name}: {one.why}")
            continue
        by_operation.update(one.by_operation)
        by_agent.update({f"{name}/{agent}": many for agent, many in one.by_agent.items()})
        refused += one.refused
        subjects += one.subjects
        gaps += one.gaps
        bad += one.bad + one.forged
    return {
        "byOperation": dict(sorted(by_operation.items())),
        "byAgent": dict(sorted(by_agent.items())),
        "refused": refused,
        "subjects": subjects,
        "gaps": gaps,
        "bad": bad,
        "missing": missing[:50],
    }


def _logs(evidence: Evidence) -> Iterable[tuple[str, TenantEvents | Missing]]:
    yield "installation", evidence.installation
    for one in evidence.tenants:
        yield one.name, one.events


def log_row(log: LogEvidence | Missing) -> Row:
    """The sealed log as a whole."""
    if isinstance(log, Missing):
        return {"missing": str(log), "checkpoint": ""}
    return {
        "verified": log.verified and not log.problems and not log.unverified,
        "problems": list(log.problems),
        "unverified": log.unverified,
        "anchored": log.anchored,
        "size": log.size,
        "sealedAt": rfc3339(log.sealed_at) if log.sealed_at else "",
        "checkpoint": log.checkpoint,
    }


def recommendations(frameworks: Iterable[FrameworkResult]) -> tuple[Row, ...]:
    """What to do, the worst first; what several controls ask for is said once."""
    severities = {one: place for place, one in enumerate(Severity)}
    statuses = {one: place for place, one in enumerate(Status)}
    found: dict[str, dict[str, object]] = {}
    order: dict[str, tuple[int, int]] = {}
    for framework in frameworks:
        for result in framework.controls:
            control, judgement = result.control, result.judgement
            if judgement.status not in (Status.FAIL, Status.ERROR, Status.WARN):
                continue
            if control.check == MANUAL:
                continue
            do = control.remedy
            rank = (statuses[judgement.status], severities[control.severity])
            if judgement.status is Status.ERROR:
                do = "Make the evidence available that is missing, and run the report again"
            row = found.setdefault(
                do,
                {
                    "do": do,
                    "severity": control.severity.value,
                    "status": judgement.status.value,
                    "controls": [],
                    "because": [],
                },
            )
            if do not in order or rank < order[do]:
                order[do] = rank
                row |= {"severity": control.severity.value, "status": judgement.status.value}
            _add(row, "controls", [f"{framework.id} {control.id}"], 20)
            _add(row, "because", [f"{one.subject}: {one.words}" for one in judgement.findings], 5)
    return tuple(found[do] for do in sorted(found, key=lambda do: (*order[do], do)))


def _add(row: Mapping[str, object], name: str, more: Iterable[str], most: int) -> None:
    shown = row[name]
    assert isinstance(shown, list)  # noqa: S101 - made above
    for one in more:
        if one not in shown and len(shown) < most:
            shown.append(one)
