"""What of a tenant's content had expired when the rule changed that said so.

A head that is trimmed leaves no event. So where a period was lengthened, or a hold set, messages
are rightly gone that today's rule would keep: those that were past the period in force until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from memtenant.errors import InvalidResource
from memtenant.reports.evidence import TenantFacts, moment
from memtenant.reports.revisions import Revisions, in_force
from memtenant.rules.expiry import CUTOFF_FIELDS, expiry
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.policy import chosen_by
from memtenant.rules.retention import Resolution
from memtenant.tenancy.period import Period

__all__ = ["Choice", "Lapses", "lapses_of"]

Choice = Mapping[RecordClass, Period]
"""The periods that a tenant chose."""


@dataclass(slots=True)
class Lapses:
    """One tenant's, in milliseconds. ``today`` is the cut-off at a time by the rule in force now,
    ``then`` by the one that was in force up to it, under a policy and a choice (None: not known).
    ``changes``: when policies changed, in order. ``now``: the tenant's policy and choice; they
    count for all the time where the log does not tell of others. ``before``: messages that were
    told before it had expired; ``assumed``: before this one too, if the tenant was under the same
    policy and chose the same before the log first tells so.
    """

    today: Callable[[int], int] = lambda _at: 0
    then: Callable[[str, Choice, int], int | None] = lambda _policy, _choice, _at: None
    changes: deque[int] = field(default_factory=deque)
    now: tuple[str, Choice] | None = None
    before: int = 0
    assumed: int = 0
    _under: tuple[str, Choice] | None = None
    _policy: object = None
    _untold: list[int] = field(default_factory=list)
    _earlier: list[int] = field(default_factory=list)
    _matters: set[object] = field(default_factory=set)

    def until(self, at: int) -> None:
        """Everything up to this time was told."""
        while self.changes and self.changes[0] <= at:
            self._lapse(self.changes.popleft())

    def named(self, policy: object, choice: Choice | None, at: int) -> None:
        """The tenant is under this policy, and chose so, from then on."""
        self.until(at)
        under = (policy, choice) if isinstance(policy, str) and choice is not None else None
        if self._under is not None and under != self._under:
            self._lapse(at)
        self._earlier += self._untold
        self._untold.clear()
        if self._policy not in (None, policy):
            self._earlier.clear()  # of what it chose under another one, this one says nothing
        self._under, self._policy = under, policy
        self._assume(under)
        if under is not None or self.now is None or policy != self.now[0]:
            self.now = None  # else what it chose was not told, and may be what it chooses now

    def held(self, matter: object, at: int) -> None:
        """Nothing expires from then on. What had by then is rightly gone."""
        self.until(at)
        if not self._matters:
            known = self._under and self.then(*self._under, at)
            self._raise(self.today(at) if known is None else known)
        self._matters.add(matter)

    def released(self, matter: object, at: int) -> None:
        """The hold is over."""
        self.until(at)
        self._matters.discard(matter)

    def ended(self, at: int) -> None:
        """All of the log was read."""
        self.until(at)
        if self.now is not None:
            for change in self._untold:
                self._raise(self.then(*self.now, change) or 0)
        self._assume(self.now)
        self._untold.clear()

    def _lapse(self, at: int) -> None:
        if self._matters:
            return
        if self._under is not None:
            self._raise(self.then(*self._under, at) or 0)
        else:
            self._untold.append(at)

    def _assume(self, under: tuple[str, Choice] | None) -> None:
        if under is None:
            return
        for change in self._earlier:
            self.assumed = max(self.assumed, self.then(*under, change) or 0)
        self._earlier.clear()

    def _raise(self, before: int) -> None:
        self.before = max(self.before, before)


def lapses_of(facts: TenantFacts, policy: str, revisions: Revisions) -> Lapses:
    """Those of a tenant, before anything of its log was read."""

    def cut_off(resolution: Resolution, at: int) -> int:
        cuts = expiry(facts.tenant, resolution, moment(at), held=False).fields
        return int(cuts.get(CUTOFF_FIELDS[RecordClass.CONTENT], "0"))

    def then(under: str, choice: Choice, at: int) -> int | None:
        revision = in_force(revisions.get(under, ()), moment(at))
        if revision is None or revision.facts is None:
            return None
        try:
            return cut_off(revision.facts.resolve_chosen(choice), at)
        except InvalidResource:
            return None  # it was refused, and what was accepted before went on

    changes = sorted(
        round(one.since.timestamp() * 1000) for told in revisions.values() for one in told[1:]
    )
    return Lapses(
        today=lambda at: cut_off(facts.resolution, at),
        then=then,
        changes=deque(changes),
        now=None if facts.gone else (policy, chosen_by(facts.spec)),
    )
