"""What stays in force of a tenant that cannot be as it is declared now.

A team can bring its tenant into that state at will: a quota beyond what the store gives, a key
Secret that holds no key. So what was accepted last goes on being enforced, from the record and the
operator's hashes alone: its quota, its holds and minimums, on the users that it has, and the period
after which its records go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from memtenant.api.fields import Isolation
from memtenant.rules.acl import AccessState
from memtenant.rules.credentials import Advance
from memtenant.rules.desired import Desired, accesses_from, render_principals
from memtenant.rules.expiry import CUTOFF_FIELDS
from memtenant.rules.policy import Matters, matters_to
from memtenant.rules.quota import Limits, QuotaState, Usage, judge
from memtenant.rules.record import TenantRecord
from memtenant.rules.told import TOLD, Actors, Told, deeds

__all__ = ["Accepted", "Standing", "accepted", "standing"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the store remembers of the tenant's last reconcile that reached its end: the hashes
    ``o:limits`` and ``o:access`` as they are, and how the tenant is audited."""

    limits: Mapping[str, str]
    access: Mapping[str, str]
    audited: str
    quota: Limits


@dataclass(frozen=True, slots=True)
class Standing:
    """What should be on the store, and the quota that says so. Bindings and record stay."""

    desired: Desired
    quota: Limits
    quota_state: QuotaState


def accepted(
    record: TenantRecord, limits: Mapping[str, str], access: Mapping[str, str], audited: str = ""
) -> Accepted | None:
    """None where the store does not remember this tenant: it never was ready, or lost its data."""
    if access.get("incarnation") != record.incarnation:
        return None
    try:
        quota = Limits(int(limits["memory"]), int(limits["conversations"]))
    except (KeyError, ValueError):
        return None
    return Accepted(limits, access, audited, quota)


def standing(
    record: TenantRecord,
    before: Accepted,
    *,
    commands: frozenset[str],
    usage: Usage | None,
    matters: Matters,
    content_minimum: bool,
    cut_offs: Mapping[str, str] | None,
    generation: int,
    refused: bool,
    actors: Actors,
    now: datetime,
) -> Standing:
    """The users and hashes of what was accepted, under the usage, holds and minimum of now.
    ``cut_offs`` are those of now by what was accepted; None where that is not known: they stay.
    ``refused``: the tenant's ``generation`` is not accepted, not only in need of another try."""
    quota_state = QuotaState.from_fields(before.access)
    if usage is not None:
        quota_state = judge(quota_state, usage, before.quota, now)
    state = AccessState(
        over_quota=bool(quota_state.over),
        held=bool(matters) or content_minimum,
        off=quota_state.flooded,
    )
    accesses = accesses_from(before.access.get("agents", ""))
    known = Told.from_text(before.access.get(TOLD, ""))
    told = known and replace(
        known,
        generation=generation if refused else known.generation,
        refused=refused or known.refused,
        mode=state.mode.value,
        matters=tuple(sorted(matters)),
    )
    return Standing(
        Desired(
            record=record,
            users=render_principals(
                record.tenant,
                record.principals,
                accesses,
                state,
                commands,
                own_keys=record.isolation == Isolation.STRICT,
            ),
            revoke=(),
            limits=_limits(before, matters, state, cut_offs),
            access={
                **before.access,
                "matters": matters_to(matters),
                "minimum": "1" if content_minimum else "0",
                **quota_state.to_fields(),
                **({TOLD: told.to_text()} if told else {}),
            },
            audited=before.audited,
            bindings={},
            state=state,
            advance=Advance(record.principals, (), None, (), honoured=False),
            deeds=deeds(record.tenant, known, told, new=False, actors=actors),
        ),
        before.quota,
        quota_state,
    )


def _limits(
    before: Accepted, matters: Matters, state: AccessState, cut_offs: Mapping[str, str] | None
) -> dict[str, str]:
    """As accepted; what is past its period goes on expiring, and under a legal hold nothing."""
    gone = set(CUTOFF_FIELDS.values()) if matters or cut_offs is not None else set()
    kept = {name: value for name, value in before.limits.items() if name not in gone}
    moved = {} if matters or cut_offs is None else cut_offs
    return {**kept, **moved, "held": "1" if state.held else "0"}
