"""An agent's two alternating usernames: when one is made, shown, retired and revoked.

A rotation never changes a password under an open connection. It makes the other username, waits
until every binding shows it, and revokes the old one when the kubelets have had time to hand the
new binding over and nobody is connected with the old one, at the latest after a grace period
(DATA.md, Keys).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from memtenant.tenancy.identity import AgentName, Slot, TenantId, agent_user, other_slot
from memtenant.tenancy.period import Period

__all__ = ["Advance", "Credential", "Principal", "RotationRules", "advance"]


@dataclass(frozen=True, slots=True)
class Credential:
    """One username's password; ``version`` never repeats for an agent. Times are whole seconds, as
    the tenant record keeps them."""

    password: str = field(repr=False)
    version: int
    created: datetime
    retiring_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """The one or two usernames of an agent (under Minimal isolation: of the whole tenant).

    ``active`` is the slot that the bindings are known to show (at first: the one made for them). A
    second credential is either *pending* (made, not yet in every binding) or *retiring*
    (``retiring_since`` is set).
    """

    active: Slot
    slots: Mapping[Slot, Credential]

    @property
    def pending(self) -> Slot | None:
        """The slot that the bindings must show next, if a rotation is under way."""
        other = other_slot(self.active)
        credential = self.slots.get(other)
        return other if credential is not None and credential.retiring_since is None else None

    @property
    def shown(self) -> Slot:
        """The slot that a binding written now shows."""
        return self.pending or self.active


@dataclass(frozen=True, slots=True)
class RotationRules:
    """How often credentials change, and how long two of them overlap.

    ``kubelet_lag`` is how long a mounted Secret may lag behind the API server; ``grace`` ends the
    wait for an old username that stays connected.
    """

    every: Period | None
    min_overlap: timedelta
    kubelet_lag: timedelta
    grace: timedelta

    @property
    def earliest(self) -> timedelta:
        """The least time between a binding's change and the old username's revocation."""
        return max(self.min_overlap, self.kubelet_lag)


@dataclass(frozen=True, slots=True)
class Advance:
    """The next state of a tenant's principals.

    ``revoke`` are usernames to remove from every node; ``due`` is when to look again (None: never
    by time); ``rotated`` are the principals whose rotation began now; ``honoured`` says that the
    rotation that was asked for is among them, or needless because every credential is new.
    """

    principals: Mapping[AgentName, Principal]
    revoke: tuple[str, ...]
    due: datetime | None
    rotated: tuple[AgentName, ...]
    honoured: bool


def advance(
    tenant: TenantId,
    before: Mapping[AgentName, Principal],
    wanted: tuple[AgentName, ...],
    rules: RotationRules,
    *,
    now: datetime,
    rotate: bool,
    shown: Mapping[AgentName, Slot | None],
    idle: frozenset[str],
    last_version: int,
    mint: Callable[[], str],
) -> Advance:
    """Decide each principal's next state.

    ``rotate`` asks for a rotation of all: they turn together, as soon as none is in the middle of
    an earlier one, and until then none begins by time. ``shown`` tells which slot all bindings of
    a principal show (None: not all the same, or one is missing); ``idle`` are usernames without a
    connection on any node; ``last_version`` is the highest version so far; ``mint`` makes a
    password.
    """
    standing: dict[AgentName, Principal] = {}
    revoke: list[str] = []
    for name in wanted:
        if name in before:
            promoted = _promote(before[name], shown.get(name), now)
            standing[name], gone = _revoke(promoted, tenant, name, rules, now, idle)
            revoke += gone
    for name in before.keys() - set(wanted):
        revoke += [agent_user(tenant, name, slot) for slot in before[name].slots]
    together = rotate and all(len(principal.slots) == 1 for principal in standing.values())
    after: dict[AgentName, Principal] = {}
    due: list[datetime] = []
    rotated: list[AgentName] = []
    for name in wanted:
        principal = standing.get(name)
        if principal is None:
            principal = Principal("a", {"a": _fresh(now, mint(), last_version + 1)})
        elif together or (not rotate and _is_due(principal, rules, now)):
            principal = _begin(principal, _fresh(now, mint(), last_version + 1))
            rotated.append(name)
        after[name] = principal
        due += _looks(principal, rules, now)
    return Advance(after, tuple(sorted(revoke)), min(due, default=None), tuple(rotated), together)


def _promote(principal: Principal, shown: Slot | None, now: datetime) -> Principal:
    if principal.pending is None or shown != principal.pending:
        return principal
    # Rounded up: the overlap counts from here, and must not lose a part of a second.
    since = (now + timedelta(microseconds=999_999)).replace(microsecond=0)
    old = replace(principal.slots[principal.active], retiring_since=since)
    return Principal(principal.pending, {**principal.slots, principal.active: old})


def _fresh(now: datetime, password: str, version: int) -> Credential:
    return Credential(password, version, now.replace(microsecond=0))


def _begin(principal: Principal, fresh: Credential) -> Principal:
    return replace(principal, slots={**principal.slots, other_slot(principal.active): fresh})


def _revoke(
    principal: Principal,
    tenant: TenantId,
    name: AgentName,
    rules: RotationRules,
    now: datetime,
    idle: frozenset[str],
) -> tuple[Principal, list[str]]:
    old = other_slot(principal.active)
    credential = principal.slots.get(old)
    if credential is None or credential.retiring_since is None:
        return principal, []
    age = now - credential.retiring_since
    user = agent_user(tenant, name, old)
    if age < rules.earliest or (user not in idle and age < max(rules.grace, rules.earliest)):
        return principal, []
    return replace(principal, slots={principal.active: principal.slots[principal.active]}), [user]


def _rotation_due(principal: Principal, rules: RotationRules) -> datetime | None:
    if rules.every is None:
        return None
    return rules.every.after(principal.slots[principal.shown].created)


def _is_due(principal: Principal, rules: RotationRules, now: datetime) -> bool:
    due = _rotation_due(principal, rules)
    return len(principal.slots) == 1 and due is not None and due <= now


def _looks(principal: Principal, rules: RotationRules, now: datetime) -> list[datetime]:
    """When time alone changes something. A rotation that is due but must wait for the other
    username to be free is not among them: what frees it is.
    """
    due = _rotation_due(principal, rules)
    return [
        *([due] if due is not None and due > now else []),
        *_revocation_due(principal, rules, now),
    ]


def _revocation_due(principal: Principal, rules: RotationRules, now: datetime) -> list[datetime]:
    retiring = [c.retiring_since for c in principal.slots.values() if c.retiring_since is not None]
    if not retiring:
        return []
    earliest = retiring[0] + rules.earliest
    if earliest > now:
        return [earliest]
    # Ever more rarely: some connections stay for days, and each look asks every node.
    look_again = now + max((now - retiring[0]) / 4, timedelta(seconds=5))
    return [min(look_again, max(retiring[0] + rules.grace, now + timedelta(seconds=1)))]
