"""How ``memtenant retention`` shows periods with their clauses, and what would go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from memtenant.cli import output
from memtenant.clock import rfc3339
from memtenant.reconcile.retention import Expected, Retention
from memtenant.resources.port import ObjectKey
from memtenant.rules.expiry import CUTOFF_FIELDS
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.retention import Bound, Resolution

__all__ = [
    "Explained",
    "expected_as_data",
    "explained_as_data",
    "show_expected",
    "show_explained",
]


@dataclass(frozen=True, slots=True)
class Explained:
    """A tenant, or a policy for those that choose nothing; ``problem``: it cannot be resolved."""

    key: ObjectKey
    policy: str = ""
    resolution: Resolution | None = None
    retention: Retention | None = None
    problem: str = ""


def explained_as_data(one: Explained, now: datetime) -> dict[str, object]:
    """One object's periods, for JSON and YAML."""
    if one.resolution is None:
        return {"object": str(one.key), "problem": one.problem}
    shown: dict[str, object] = {
        "object": str(one.key),
        "policy": one.policy,
        "classes": {
            record_class.value: {
                "kept": _bound_as_data(kept.effective),
                "atLeast": _bound_as_data(kept.floor),
                "atMost": _bound_as_data(kept.ceiling),
                "overridden": _bound_as_data(kept.overridden),
            }
            for record_class, kept in one.resolution.by_class().items()
        },
        "unjustified": [found.message for found in one.resolution.unjustified],
    }
    if one.retention is not None:
        at = one.retention.expiry_at(now)
        shown["heldBy"] = list(one.retention.matters)
        shown["cutOffs"] = {
            record_class.value: rfc3339(_moment(at.fields[field]))
            for record_class, field in CUTOFF_FIELDS.items()
            if field in at.fields
        }
        shown["nextStep"] = rfc3339(at.next_step)
    return shown


def _bound_as_data(bound: Bound | None) -> dict[str, str] | None:
    if bound is None:
        return None
    return {"period": str(bound.period), "source": bound.source, "clause": bound.clause}


def _moment(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) // 1000, UTC)


def show_explained(found: Sequence[Explained], now: datetime) -> None:
    """Print the periods of each object, and what is to be said of them."""
    for number, one in enumerate(found):
        if number:
            output.line()
        if one.resolution is None:
            output.line(f"{one.key} cannot be resolved: {one.problem}", style="red")
            continue
        under = f", under RetentionPolicy {one.policy}" if one.retention is not None else ""
        output.line(f"{one.key}{under}", style="bold")
        rows = [
            (
                record_class.value,
                str(kept.effective.period),
                kept.effective.reason,
                _bound(kept.floor),
                _bound(kept.ceiling),
            )
            for record_class, kept in one.resolution.by_class().items()
        ]
        output.table(("class", "kept", "because", "at least", "at most"), rows)
        _show_notes(one, now)
    if not found:
        output.note("No tenant and no policy is declared")


def _show_notes(one: Explained, now: datetime) -> None:
    assert one.resolution is not None  # noqa: S101 - shown only where it is resolved
    for record_class, kept in one.resolution.by_class().items():
        if kept.overridden is not None:
            output.line(
                f"{record_class}: at most {_bound(kept.overridden)} gave way to the minimum, on "
                "the stated legal basis",
                style="yellow",
            )
    for found in one.resolution.unjustified:
        output.line(found.message, style="yellow")
    if one.retention is None:
        return
    if one.retention.matters:
        held = ", ".join(one.retention.matters)
        output.line(f"Held by {held}: nothing expires", style="yellow")
        return
    at = one.retention.expiry_at(now)
    for record_class, field in CUTOFF_FIELDS.items():
        if field in at.fields:
            output.line(f"{record_class} before {rfc3339(_moment(at.fields[field]))} has expired")
    output.line(f"next step of the cut-offs: {rfc3339(at.next_step)}")


def _bound(bound: Bound | None) -> str:
    return f"{bound.period} ({bound.reason})" if bound is not None else ""


def expected_as_data(one: Expected) -> dict[str, object]:
    """What would go of one tenant, for JSON and YAML."""
    tally, kept = one.tally, one.retention
    return {
        "tenant": str(kept.tenant),
        "heldBy": list(kept.matters),
        "content": {
            "messages": tally.messages,
            "values": tally.values,
            "checkpoints": tally.checkpoints,
            "conversations": tally.conversations,
            "contexts": tally.contexts,
            "under": _bound_as_data(kept.resolution.content.effective),
        },
        "derived": {
            "summaries": tally.summaries,
            "under": _bound_as_data(kept.resolution.derived.effective),
        },
        "bytes": tally.size,
        "kept": tally.kept,
        "undated": tally.undated,
        "problem": one.problem,
    }


def show_expected(found: Iterable[Expected], until: datetime) -> None:
    """Print what would go of each tenant."""
    rows: list[Sequence[str]] = []
    problems = []
    for one in found:
        if one.problem:
            problems.append(f"{one.retention.tenant}: {one.problem}")
            continue
        rows += _rows(one)
    if rows:
        output.line(f"What would go until {rfc3339(until)}", style="bold")
        columns = ("tenant", "class", "records", "as a whole", "under")
        output.table(columns, rows)
    for words in problems:
        output.fail(words)
    if not rows and not problems:
        output.note("No tenant is declared")


def _rows(one: Expected) -> list[Sequence[str]]:
    tally, kept = one.tally, one.retention
    tenant = str(kept.tenant)
    if kept.matters:
        return [(tenant, "", "0", "", f"held by {', '.join(kept.matters)}: nothing expires")]
    whole = f"{tally.conversations} conversations, {tally.contexts} contexts"
    resolution = kept.resolution
    return [
        (
            tenant,
            RecordClass.CONTENT.value,
            str(tally.messages + tally.values + tally.checkpoints),
            whole,
            _bound(resolution.content.effective),
        ),
        (
            tenant,
            RecordClass.DERIVED.value,
            str(tally.summaries),
            "",
            _bound(resolution.derived.effective),
        ),
    ]
