"""A report: what was judged, on which evidence, and what to do. One document, one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from memtenant.clock import rfc3339, utc_from_rfc3339
from memtenant.errors import ReportInvalid
from memtenant.reports.canonical import canonical
from memtenant.reports.checks import Finding, Judgement, Status
from memtenant.reports.evidence import Period
from memtenant.rules.controls import Control, Parameters, Severity
from memtenant.tenancy.document import DocumentInvalid, Fields, read_json

__all__ = ["ControlResult", "FrameworkResult", "Report", "Row"]

_FORMAT: Final = 1
_MAX_BYTES: Final = 256 * 1024 * 1024
_MANY: Final = 100_000
_LONGEST: Final = 4096

Row = Mapping[str, object]
"""One line of a table of the report: only texts, whole numbers, lists and rows."""


@dataclass(frozen=True, slots=True)
class ControlResult:
    """One control, judged."""

    control: Control
    judgement: Judgement

    def to_row(self) -> Row:
        """As it is in the document."""
        control, judgement = self.control, self.judgement
        return {
            "id": control.id,
            "clause": control.clause,
            "title": control.title,
            "severity": control.severity.value,
            "check": control.check,
            "status": judgement.status.value,
            "looked": judgement.looked,
            "at": rfc3339(judgement.at) if judgement.at else "",
            "findings": [
                {"status": one.status.value, "subject": one.subject, "words": one.words}
                for one in judgement.findings
            ],
            "findingsTotal": judgement.total,
            "remedy": control.remedy,
            "why": control.why,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """What `to_row` wrote."""
        return cls(
            Control(
                id=fields.text("id"),
                clause=fields.text("clause"),
                title=fields.text("title"),
                severity=fields.choice("severity", Severity),
                check=fields.text("check"),
                parameters=Parameters(),
                remedy=fields.text("remedy"),
                why=fields.text("why"),
            ),
            Judgement(
                status=fields.choice("status", Status),
                looked=fields.text("looked", 4096),
                at=utc_from_rfc3339(at) if (at := fields.text("at", 40)) else None,
                findings=tuple(
                    Finding(
                        one.choice("status", Status), one.text("subject"), one.text("words", 4096)
                    )
                    for one in fields.each("findings", _MANY)
                ),
                total=fields.integer("findingsTotal"),
            ),
        )


@dataclass(frozen=True, slots=True)
class FrameworkResult:
    """One framework. ``date`` is that of its data."""

    id: str
    title: str
    source: str
    date: str
    controls: tuple[ControlResult, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found. The tables (``tenants`` and so on) are rows as they are shown."""

    installation: str
    policy: str
    generation: int
    made: datetime
    period: Period
    frameworks: tuple[FrameworkResult, ...]
    tenants: tuple[Row, ...] = ()
    stores: tuple[Row, ...] = ()
    events: Row = field(default_factory=dict)
    log: Row = field(default_factory=dict)
    recommendations: tuple[Row, ...] = ()
    difference: Row | None = None

    def counts(self) -> dict[str, int]:
        """How many controls have each status; those that none has too."""
        found = Counter(one.judgement.status for one in self.results())
        return {status.value: found.get(status, 0) for status in Status}

    def results(self) -> tuple[ControlResult, ...]:
        """Every control of every framework."""
        return tuple(one for framework in self.frameworks for one in framework.controls)

    @property
    def worst(self) -> Status:
        """The worst status of any control; Pass where there is none."""
        found = {one.judgement.status for one in self.results()}
        return next((one for one in Status if one in found), Status.PASS)

    @property
    def checkpoint(self) -> str:
        """The checkpoint of the log that it saw: what the next report holds the log to."""
        return str(self.log.get("checkpoint", ""))

    @property
    def nodes(self) -> dict[str, list[str]]:
        """The nodes of each store that it saw: which ones the next report looks for."""
        return {
            str(row["store"]): [str(one) for one in listed]
            for row in self.stores
            if isinstance(listed := row.get("nodes"), list)
        }

    def to_document(self) -> dict[str, Any]:
        """The whole of it."""
        return {
            "format": _FORMAT,
            "installation": self.installation,
            "policy": {"name": self.policy, "generation": self.generation},
            "made": rfc3339(self.made),
            "period": {
                "since": rfc3339(self.period.since),
                "until": rfc3339(self.period.until),
                "chosen": self.period.chosen,
            },
            "summary": {"controls": len(self.results()), "byStatus": self.counts()},
            "frameworks": [
                {
                    "id": one.id,
                    "title": one.title,
                    "source": one.source,
                    "date": one.date,
                    "controls": [result.to_row() for result in one.controls],
                }
                for one in self.frameworks
            ],
            "tenants": list(self.tenants),
            "stores": list(self.stores),
            "events": self.events,
            "log": self.log,
            "recommendations": list(self.recommendations),
            "difference": self.difference,
        }

    def to_json(self) -> bytes:
        """Canonical (RFC 8785)."""
        return canonical(self.to_document())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `to_json` wrote; `ReportInvalid` names what is wrong."""
        try:
            fields = read_json(data, limit=_MAX_BYTES)
            if fields.integer("format") != _FORMAT:
                raise fields.wrong("format", f"{_FORMAT}: a newer memtenant wrote it")
            return cls._of(fields)
        except ValueError as error:
            why = error if isinstance(error, DocumentInvalid) else "a time in it is none"
            raise ReportInvalid(
                f"This is no report of memtenant: {why}. Name the report.json that "
                "`memtenant report run` wrote"
            ) from None

    @classmethod
    def _of(cls, fields: Fields) -> Self:
        policy, period = fields.inner("policy"), fields.inner("period")
        return cls(
            installation=fields.text("installation"),
            policy=policy.text("name"),
            generation=policy.integer("generation"),
            made=fields.moment("made"),
            period=Period(
                period.moment("since"),
                period.moment("until"),
                "chosen" in period and period.flag("chosen"),
            ),
            frameworks=tuple(
                FrameworkResult(
                    one.text("id"),
                    one.text("title"),
                    one.text("source"),
                    one.text("date"),
                    tuple(ControlResult.from_fields(two) for two in one.each("controls", _MANY)),
                )
                for one in fields.each("frameworks", _MANY)
            ),
            tenants=fields.rows("tenants"),
            stores=_rows(fields, "stores", "store"),
            events=fields.row("events"),
            log=fields.row("log"),
            recommendations=_rows(fields, "recommendations", "do"),
            difference=_difference(fields),
        )


def _rows(fields: Fields, name: str, *texts: str) -> tuple[Row, ...]:
    """Rows each of which has these texts, by which it is shown."""
    for one in fields.each(name, _MANY):
        for text in texts:
            one.text(text, _LONGEST)
    return fields.rows(name)


def _difference(fields: Fields) -> Row | None:
    found = fields.optional_row("difference")
    if found is not None:
        inner = fields.inner("difference")
        inner.text("since")
        turned = ("framework", "control", "title", "before", "after")
        for one in _rows(inner, "turned", *turned):
            Fields(one, inner.path("turned")).flag("better")
    return found
