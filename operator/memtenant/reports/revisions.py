"""What a policy said at which time, by the sealed log: of a removal the rule decides that was in
force then.

Each generation that the operator acts upon is an event of the installation's log, with its spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from memtenant.api.policy import RetentionPolicySpec
from memtenant.errors import MemtenantError
from memtenant.rules.policy import PolicyFacts, policy_facts

__all__ = ["Revision", "Revisions", "Under", "ended", "in_force", "rightly_gone", "stands_since"]


@dataclass(frozen=True, slots=True)
class Revision:
    """A generation of a policy, in force from ``since`` until the next. ``worded``: its event has
    the spec; ``facts`` is None where that is not so, or cannot be resolved by this memtenant."""

    uid: str
    generation: int
    since: datetime
    worded: bool
    facts: PolicyFacts | None

    @classmethod
    def told(cls, name: str, detail: Mapping[str, object], since: datetime) -> Revision | None:
        """What an event tells of a policy; None where it tells no generation."""
        generation, spec = detail.get("generation"), detail.get("spec")
        if not isinstance(generation, int):
            return None
        facts = None
        if isinstance(spec, dict):
            try:
                facts = policy_facts(name, RetentionPolicySpec.model_validate(spec))
            except (MemtenantError, ValueError):
                facts = None
        worded = isinstance(spec, dict)
        return cls(str(detail.get("uid", "")), generation, since, worded, facts)


Revisions = Mapping[str, Sequence[Revision]]
"""By the name of the policy, the oldest first."""

Under = Sequence[tuple[str, datetime]]
"""The policies that a tenant was under, by name, each with when it came under it."""


def in_force(revisions: Sequence[Revision], at: datetime) -> Revision | None:
    """The one that was in force up to a moment."""
    return next((one for one in reversed(revisions) if one.since < at), None)


def ended(revisions: Sequence[Revision]) -> Iterator[tuple[PolicyFacts, datetime]]:
    """Those that are in force no more and whose rules are known, and when each ended."""
    for one, after in pairwise(revisions):
        if one.facts is not None:
            yield one.facts, after.since


def rightly_gone(
    revisions: Sequence[Revision], before: Callable[[PolicyFacts, datetime], datetime | None]
) -> datetime | None:
    """From before which things may have been removed by a rule that is in force no more; ``before``
    says it of one at its end."""
    found = [before(facts, end) for facts, end in ended(revisions)]
    return max((one for one in found if one is not None), default=None)


def stands_since(
    revisions: Sequence[Revision], uid: str, generation: int, says: Callable[[PolicyFacts], bool]
) -> datetime | None:
    """Since when without a break each revision up to this one ``says`` so; None where the log does
    not have this one."""
    since = None
    for one in reversed(revisions):
        if since is None:
            if (one.uid, one.generation) == (uid, generation):
                since = one.since
            continue
        if one.facts is None or not says(one.facts):
            break
        since = one.since
    return since
