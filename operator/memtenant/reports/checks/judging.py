"""How a check comes to its word: what was looked at, what was found, and what could not be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar

from memtenant.reports.evidence import Evidence, Missing, TenantEvidence, TenantFacts
from memtenant.rules.controls import Parameters

__all__ = ["MOST_FINDINGS", "Check", "Finding", "Judge", "Judgement", "Status"]

MOST_FINDINGS: Final = 50
"""That one control shows; the total is told."""

E = TypeVar("E")


class Status(StrEnum):
    """Worst first. ERROR: evidence is missing. SKIP: it does not apply, or was not decrypted.
    MANUAL: only a person can say."""

    FAIL = "Fail"
    ERROR = "Error"
    WARN = "Warn"
    MANUAL = "Manual"
    SKIP = "Skip"
    PASS = "Pass"  # noqa: S105 - a word of reports


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, or could not be seen: where, and in words."""

    status: Status
    subject: str
    words: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """``looked`` tells the evidence (n/N), ``at`` the time of the oldest of it."""

    status: Status
    looked: str
    at: datetime | None = None
    findings: tuple[Finding, ...] = ()
    total: int = 0


Check = Callable[[Evidence, Parameters], Judgement]


@dataclass(slots=True)
class Judge:
    """Collects findings; the worst decides. A judge that saw nothing at all skips."""

    evidence: Evidence
    _found: list[Finding] = field(default_factory=list)
    _total: int = 0
    _worst: dict[Status, None] = field(default_factory=dict)
    _times: list[datetime] = field(default_factory=list)
    _seen: int = 0
    _of: int = 0

    def fail(self, subject: str, words: str) -> None:
        """It does not hold."""
        self._add(Finding(Status.FAIL, subject, words))

    def warn(self, subject: str, words: str) -> None:
        """It holds, and somebody should look."""
        self._add(Finding(Status.WARN, subject, words))

    def skip(self, subject: str, words: str) -> None:
        """It could not be judged, and that is nobody's fault."""
        self._add(Finding(Status.SKIP, subject, words))

    def missing(self, subject: str, missing: Missing) -> None:
        """Evidence is not there: never a pass."""
        self._add(Finding(Status.ERROR, subject, str(missing)))

    def saw(self, at: datetime | None) -> None:
        """One of the things that were to be looked at was."""
        self._seen += 1
        if at is not None:
            self._times.append(at)

    def tenants(
        self, evidence_of: Callable[[TenantEvidence], E | Missing]
    ) -> Iterator[tuple[TenantFacts, E]]:
        """Each tenant whose evidence is there; of the others that it is missing."""
        for one in self.evidence.tenants:
            yield from self._evidence(one, evidence_of(one))

    def declared(
        self, evidence_of: Callable[[TenantEvidence], E | Missing]
    ) -> Iterator[tuple[TenantFacts, E]]:
        """As `tenants`, of those that are still declared: nobody works in the others."""
        for one in self.evidence.tenants:
            if isinstance(one.facts, Missing) or not one.facts.gone:
                yield from self._evidence(one, evidence_of(one))

    def judgement(self, looked: str, *, of: str = "tenants") -> Judgement:
        """What it comes to. ``looked`` says what was looked at in each of them."""
        if self._of:
            looked = f"{looked}: {self._seen}/{self._of} {of}"
        status = next(
            (one for one in Status if one in self._worst),
            Status.PASS if self._seen else Status.SKIP,
        )
        if status is Status.SKIP and not self._worst:
            looked = f"nothing to look at: no {of}"
        return Judgement(
            status, looked, min(self._times, default=None), tuple(self._found), self._total
        )

    def expect(self, many: int) -> None:
        """So many things are to be looked at."""
        self._of += many

    def _evidence(self, one: TenantEvidence, found: E | Missing) -> Iterator[tuple[TenantFacts, E]]:
        self._of += 1
        if isinstance(one.facts, Missing):
            self.missing(one.name, one.facts)
        elif isinstance(found, Missing):
            self.missing(one.name, found)
        else:
            self.saw(getattr(found, "at", self.evidence.now))
            yield one.facts, found

    def _add(self, finding: Finding) -> None:
        self._worst[finding.status] = None
        self._total += 1
        if len(self._found) < MOST_FINDINGS:
            subject, words = _shown(finding.subject, 512), _shown(finding.words, 2048)
            self._found.append(Finding(finding.status, subject, words))


def _shown(text: str, longest: int) -> str:
    """Names in it may be of any length: whoever reads the report has to take it."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
