"""How long each class of record is kept: floor, ceiling and what is in force, with the clause.

Per class, over policy, frameworks and tenant: ``floor = max(minimums)``, ``ceiling =
min(maximums)``. The tenant chooses within. Without a choice: the policy's default, else the longest
default of the frameworks, else memtenant's own, each held within floor and ceiling
(docs/retention.md).

Derived records never outlive their source. So content's period is a maximum of theirs, and a
minimum for them is one for content too: a summary goes when its source goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from memtenant.errors import InvalidResource
from memtenant.rules.frameworks import Clause, Framework, RecordClass
from memtenant.tenancy.period import Period

__all__ = [
    "Bound",
    "ClassBounds",
    "ClassRetention",
    "CutOff",
    "Resolution",
    "Unjustified",
    "cut_offs",
    "resolve",
]

_POLICY = "RetentionPolicy"
_TENANT = "MemoryTenant"
_PRODUCT = "memtenant"

_PRODUCT_DEFAULTS = {
    RecordClass.CONTENT: Period(30, "d"),
    RecordClass.AUDIT: Period(12, "mo"),
    RecordClass.EVIDENCE: Period(12, "mo"),
}
"""Where neither tenant nor policy nor framework says anything. Derived follows content."""


@dataclass(frozen=True, slots=True)
class ClassBounds:
    """What a policy says about one class of record; None leaves it to the frameworks."""

    min: Period | None = None
    max: Period | None = None
    default: Period | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """A period and what set it: a framework's clause, or the field of a policy or tenant."""

    period: Period
    source: str
    clause: str

    @property
    def reason(self) -> str:
        """``HIPAA 45 CFR 164.316(b)(2)(i): 6 calendar years``."""
        return f"{self.source} {self.clause}"


@dataclass(frozen=True, slots=True)
class ClassRetention:
    """One class of record: ``floor ≤ effective ≤ ceiling``, where there are any.

    ``minimums`` are all of them: clauses that count in months and in days can change places from
    month to month, and a cut-off keeps every one. ``overridden`` is the maximum that gave way to
    the floor on a stated legal basis.
    """

    effective: Bound
    floor: Bound | None
    ceiling: Bound | None
    minimums: tuple[Bound, ...] = field(default=(), repr=False)
    overridden: Bound | None = None


@dataclass(frozen=True, slots=True)
class Unjustified:
    """A period longer than the default of a framework that asks for reasons, with none stated."""

    record_class: RecordClass
    effective: Bound
    limit: Bound

    @property
    def message(self) -> str:
        """One sentence that says what is too long, by which clause, and what to do."""
        return (
            f"{self.record_class} is kept for {self.effective.period} ({self.effective.reason}), "
            f"longer than {self.limit.period} ({self.limit.reason}): state spec.legalBasis in the "
            "RetentionPolicy, or keep it shorter"
        )


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is in force for all four classes."""

    content: ClassRetention
    derived: ClassRetention
    audit: ClassRetention
    evidence: ClassRetention
    unjustified: tuple[Unjustified, ...] = ()

    def of(self, record_class: RecordClass) -> ClassRetention:
        """What is in force for one class."""
        return self.by_class()[record_class]

    def by_class(self) -> dict[RecordClass, ClassRetention]:
        """All four, in the order in which they are shown."""
        return {
            RecordClass.CONTENT: self.content,
            RecordClass.DERIVED: self.derived,
            RecordClass.AUDIT: self.audit,
            RecordClass.EVIDENCE: self.evidence,
        }


@dataclass(frozen=True, slots=True)
class CutOff:
    """Two moments of one class of record.

    What was written before ``expire_before`` has expired. What was written at or after
    ``keep_from`` is under a minimum: nobody removes it (None: there is no minimum).
    """

    expire_before: datetime
    keep_from: datetime | None


def resolve(
    policy: Mapping[RecordClass, ClassBounds],
    frameworks: Sequence[Framework],
    choice: Mapping[RecordClass, Period] | None = None,
    legal_basis: str = "",
) -> Resolution:
    """The retention in force. With no ``choice``: what a tenant gets that chooses nothing.

    Raises `InvalidResource`: reason ``RetentionConflict`` when a minimum is longer than a maximum
    and no legal basis is stated; ``RetentionOutOfBounds`` when the tenant's choice is; and
    ``InvalidSpec`` when the policy contradicts itself, which no legal basis mends.
    """
    scene = _Scene(policy, frameworks, choice or {}, legal_basis.strip())
    content = scene.settle(RecordClass.CONTENT, None)
    kept = {
        RecordClass.CONTENT: content,
        RecordClass.DERIVED: scene.settle(RecordClass.DERIVED, content.effective),
        RecordClass.AUDIT: scene.settle(RecordClass.AUDIT, None),
        RecordClass.EVIDENCE: scene.settle(RecordClass.EVIDENCE, None),
    }
    return Resolution(
        **{record_class.value: retention for record_class, retention in kept.items()},
        unjustified=() if scene.legal_basis else tuple(_unjustified(kept, frameworks)),
    )


def cut_offs(resolution: Resolution, now: datetime) -> dict[RecordClass, CutOff]:
    """Where each class is cut at ``now``, by the calendar.

    No cut-off passes a minimum, and derived records go no later than content.
    """
    cuts = {
        record_class: _cut_off(retention, now)
        for record_class, retention in resolution.by_class().items()
    }
    content, derived = cuts[RecordClass.CONTENT], cuts[RecordClass.DERIVED]
    cuts[RecordClass.DERIVED] = CutOff(
        max(content.expire_before, derived.expire_before), derived.keep_from
    )
    return cuts


def _cut_off(retention: ClassRetention, now: datetime) -> CutOff:
    keep_from = min((bound.period.before(now) for bound in retention.minimums), default=None)
    expire_before = retention.effective.period.before(now)
    return CutOff(expire_before if keep_from is None else min(expire_before, keep_from), keep_from)


@dataclass(frozen=True, slots=True)
class _Scene:
    """Everything that is said about the retention of one tenant, or of none yet."""

    policy: Mapping[RecordClass, ClassBounds]
    frameworks: Sequence[Framework]
    choice: Mapping[RecordClass, Period]
    legal_basis: str

    def settle(self, record_class: RecordClass, source: Bound | None) -> ClassRetention:
        """Floor, ceiling and what is in force; ``source`` is what derived records come from."""
        minimums = tuple(sorted(self._minimums(record_class), key=_longest_first))
        maximums = sorted(self._maximums(record_class, source), key=_shortest_first)
        floor = minimums[0] if minimums else None
        ceiling = maximums[0] if maximums else None
        overridden = None
        if floor and ceiling and floor.period > ceiling.period:
            self._refuse_conflict(record_class, floor, ceiling)
            # A record kept too long can still be deleted; one deleted too early is gone, and the
            # law that demands it has been broken for good (GDPR itself yields: Art. 17(3)(b)).
            ceiling, overridden = floor, ceiling
        wanted = self._wanted(record_class, source)
        effective = _chosen(record_class, wanted, floor, ceiling)
        return ClassRetention(effective, floor, ceiling, minimums, overridden)

    def _minimums(self, record_class: RecordClass) -> Iterator[Bound]:
        asked = [record_class]
        if record_class is RecordClass.CONTENT:
            asked.append(RecordClass.DERIVED)
        for each in asked:
            for framework in self.frameworks:
                yield from _bound(framework, framework.rule(each).minimum)
            bounds = self._bounds(each)
            if bounds.min is not None:
                yield Bound(bounds.min, _POLICY, f"spec.retention.{each}.min")

    def _maximums(self, record_class: RecordClass, source: Bound | None) -> Iterator[Bound]:
        if source is not None:
            yield Bound(source.period, "content", f"is kept so long ({source.reason})")
        for framework in self.frameworks:
            yield from _bound(framework, framework.rule(record_class).maximum)
        bounds = self._bounds(record_class)
        if bounds.max is not None:
            yield Bound(bounds.max, _POLICY, f"spec.retention.{record_class}.max")

    def _wanted(self, record_class: RecordClass, source: Bound | None) -> Bound:
        """What is asked for before floor and ceiling."""
        chosen = self.choice.get(record_class)
        if chosen is not None:
            return Bound(chosen, _TENANT, f"spec.retention.{record_class}")
        default = self._bounds(record_class).default
        if default is not None:
            return Bound(default, _POLICY, f"spec.retention.{record_class}.default")
        usual = [
            bound
            for framework in self.frameworks
            for bound in _bound(framework, framework.rule(record_class).default)
        ]
        if usual:
            return min(usual, key=_longest_first)
        if source is not None:
            return Bound(source.period, "content", f"is kept so long ({source.reason})")
        return Bound(_PRODUCT_DEFAULTS[record_class], _PRODUCT, "default")

    def _bounds(self, record_class: RecordClass) -> ClassBounds:
        return self.policy.get(record_class, ClassBounds())

    def _refuse_conflict(self, record_class: RecordClass, floor: Bound, ceiling: Bound) -> None:
        """Raise, unless a legal basis settles the conflict."""
        what = (
            f"{record_class} must be kept for at least {floor.period} ({floor.reason}) and at most "
            f"{ceiling.period} ({ceiling.reason})"
        )
        if floor.source == ceiling.source == _POLICY:
            raise InvalidResource(
                f"{what}: shorten the one or lengthen the other in the RetentionPolicy",
                field=floor.clause,
            )
        if not self.legal_basis:
            raise InvalidResource(
                f"{what}: change the bound that is yours to change, or state spec.legalBasis in "
                "the RetentionPolicy, on which the minimum prevails",
                field="spec.legalBasis",
                reason="RetentionConflict",
            )


def _chosen(
    record_class: RecordClass, wanted: Bound, floor: Bound | None, ceiling: Bound | None
) -> Bound:
    """What was wanted, within the bounds: a default gives way, a tenant's choice is refused."""
    crossed = None
    if floor and wanted.period < floor.period:
        crossed, relation = floor, "at least"
    elif ceiling and wanted.period > ceiling.period:
        crossed, relation = ceiling, "at most"
    if crossed is None:
        return wanted
    if wanted.source == _TENANT:
        raise InvalidResource(
            f"spec.retention.{record_class} is {wanted.period}, and must be {relation} "
            f"{crossed.period} ({crossed.reason}): choose within, or remove the field",
            field=f"spec.retention.{record_class}",
            reason="RetentionOutOfBounds",
        )
    return crossed


def _unjustified(
    kept: Mapping[RecordClass, ClassRetention], frameworks: Iterable[Framework]
) -> Iterator[Unjustified]:
    for record_class, retention in kept.items():
        limits = sorted(
            (
                Bound(rule.default.period, framework.id, rule.justify_clause)
                for framework in frameworks
                for rule in [framework.rule(record_class)]
                if rule.default is not None and rule.justify_clause
            ),
            key=_shortest_first,
        )
        for limit in limits:
            if retention.effective.period > limit.period:
                yield Unjustified(record_class, retention.effective, limit)


def _bound(framework: Framework, clause: Clause | None) -> Iterator[Bound]:
    if clause is not None:
        yield Bound(clause.period, framework.id, clause.clause)


def _longest_first(bound: Bound) -> tuple[float, str, str]:
    """Order that no order of frameworks changes: equal periods by who set them."""
    return -bound.period.days, bound.source, bound.clause


def _shortest_first(bound: Bound) -> tuple[float, str, str]:
    return bound.period.days, bound.source, bound.clause
