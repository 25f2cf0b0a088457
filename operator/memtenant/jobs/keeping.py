"""For how long logs are kept: of tenants that there are, of those that are gone, and what is about
no tenant.

The operator tells it of each tenant that there is, as its policy in force says; it is said in the
tree whenever it changes. Of a log of which nothing is told any more, the longest that was ever said
of it counts: whoever shortens a period before the end frees nothing by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from memtenant.archive import Kept
from memtenant.audit.leaf import TREE
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.tenancy.audited import Audited

__all__ = ["FOR_EVER", "told_months", "what_may_go"]

FOR_EVER = 0

_ALL = (INSTALLATION_LOG, TREE)


def told_months(
    stores: Iterable[Mapping[str, Audited]], before: Mapping[str, Kept]
) -> dict[str, int]:
    """What is to be said of each log. What is about no tenant is kept as long as any tenant's log
    or evidence is, or ever was. Of a log that several stores name the longest counts: who has one
    store to himself shortens nothing of a tenant that is on another."""
    told: dict[str, int] = {}
    evidence = []
    for audited in stores:
        for log, one in audited.items():
            months = one.keep_months or FOR_EVER
            told[log] = _longest((months, told.get(log, months)))
            evidence.append(one.evidence_months or FOR_EVER)
    if not told:
        return {}
    known = (kept.longest for log, kept in before.items() if log not in told)
    return told | dict.fromkeys(_ALL, _longest((*told.values(), *evidence), known))


def what_may_go(told: Mapping[str, int], kept: Mapping[str, Kept]) -> dict[str, int]:
    """The logs whose old months go, and after how many months."""
    gone = {
        log: one.longest if one.last != FOR_EVER else FOR_EVER
        for log, one in kept.items()
        if log not in told
    }
    return {log: months for log, months in {**gone, **told}.items() if months != FOR_EVER}


def _longest(now: Iterable[int], ever: Iterable[int] = ()) -> int:
    found = list(now)
    return FOR_EVER if FOR_EVER in found else max(*found, *ever, FOR_EVER + 1)
