from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memtenant.rules.credentials import Advance, Credential, Principal, RotationRules, advance
from memtenant.tenancy.identity import AgentName, agent_user, other_slot
from memtenant.tenancy.period import Period
from tests.rules.builders import NOW, RULES, TENANT, minting, one_credential

SECOND = timedelta(seconds=1)


def step(
    before: Mapping[AgentName, Principal],
    *wanted: AgentName,
    rules: RotationRules = RULES,
    now: datetime = NOW,
    rotate: bool = False,
    shown: Mapping[AgentName, str | None] | None = None,
    idle: frozenset[str] = frozenset(),
    last_version: int = 1,
    mint: Callable[[], str] | None = None,
) -> Advance:
    return advance(
        TENANT,
        before,
        wanted,
        rules,
        now=now,
        rotate=rotate,
        shown=shown or {},
        idle=idle,
        last_version=last_version,
        mint=mint or minting(),
    )


def user(agent: AgentName, slot: str) -> str:
    return agent_user(TENANT, agent, slot)


def retiring(since: datetime, agent_slot: str = "a") -> Principal:
    """Version 2 is in use, version 1 waits to be revoked."""
    return Principal(
        other_slot(agent_slot),
        {
            agent_slot: Credential("old", 1, NOW, retiring_since=since),
            other_slot(agent_slot): Credential("new", 2, NOW),
        },
    )


# -- one step --------------------------------------------------------------------------------------


def test_a_new_agent_gets_one_username() -> None:
    made = step({}, "triage", last_version=4)
    assert made.principals == {"triage": Principal("a", {"a": Credential("password-1", 5, NOW)})}
    assert (made.revoke, made.rotated, made.due) == ((), (), None)


def test_a_settled_agent_stays_as_it_is() -> None:
    before = {"triage": one_credential()}
    assert step(before, "triage", shown={"triage": "a"}).principals == before


def test_a_rotation_makes_the_other_username_and_leaves_the_old_one_alone() -> None:
    before = one_credential()
    made = step({"triage": before}, "triage", rotate=True, shown={"triage": "a"})
    after = made.principals["triage"]
    assert after.slots["a"] == before.slots["a"]
    assert after.slots["b"] == Credential("password-1", 2, NOW)
    assert (after.active, after.pending, after.shown) == ("a", "b", "b")
    assert made.rotated == ("triage",)
    assert made.honoured


def test_the_old_username_retires_once_every_binding_shows_the_new_one() -> None:
    pending = step({"triage": one_credential()}, "triage", rotate=True).principals
    assert step(pending, "triage", shown={"triage": None}).principals == pending
    assert step(pending, "triage", shown={"triage": "a"}).principals == pending
    after = step(pending, "triage", shown={"triage": "b"}).principals["triage"]
    assert after.active == "b"
    assert after.slots["a"].retiring_since == NOW


@pytest.mark.parametrize(
    ("age", "idle", "revoked"),
    [
        (timedelta(minutes=10) - SECOND, True, False),
        (timedelta(minutes=10), True, True),
        (timedelta(minutes=10), False, False),
        (timedelta(hours=24) - SECOND, False, False),
        (timedelta(hours=24), False, True),
    ],
)
def test_the_old_username_goes_when_idle_after_the_overlap_or_at_the_end_of_grace(
    age: timedelta, idle: bool, revoked: bool
) -> None:
    old = user("triage", "a")
    made = step(
        {"triage": retiring(NOW - age)},
        "triage",
        shown={"triage": "b"},
        idle=frozenset({old} if idle else ()),
    )
    assert made.revoke == ((old,) if revoked else ())
    assert sorted(made.principals["triage"].slots) == (["b"] if revoked else ["a", "b"])


@pytest.mark.parametrize(
    ("min_overlap", "kubelet_lag", "earliest"), [(1, 3, 3), (3, 3, 3), (90, 3, 90)]
)
def test_neither_the_overlap_nor_the_kubelets_lag_is_cut_short(
    min_overlap: int, kubelet_lag: int, earliest: int
) -> None:
    rules = replace(
        RULES,
        min_overlap=timedelta(minutes=min_overlap),
        kubelet_lag=timedelta(minutes=kubelet_lag),
        grace=timedelta(0),
    )
    ready = NOW - timedelta(minutes=earliest)
    idle = frozenset({user("triage", "a")})
    shown = {"triage": "b"}
    early = step(
        {"triage": retiring(ready + SECOND)}, "triage", rules=rules, shown=shown, idle=idle
    )
    assert early.revoke == ()
    assert step({"triage": retiring(ready)}, "triage", rules=rules, shown=shown).revoke


def test_a_part_of_a_second_is_never_taken_from_the_overlap() -> None:
    """The record keeps whole seconds."""
    shown_at = NOW + timedelta(milliseconds=900)
    pending = step({"triage": one_credential()}, "triage", rotate=True).principals
    after = step(pending, "triage", shown={"triage": "b"}, now=shown_at).principals["triage"]
    since = after.slots["a"].retiring_since
    assert since is not None
    assert since >= shown_at
    assert since.microsecond == 0


def test_credentials_are_dated_as_the_record_keeps_them() -> None:
    made = step({}, "triage", now=NOW + timedelta(milliseconds=900))
    assert made.principals["triage"].slots["a"].created == NOW


def test_a_removed_agent_loses_every_username() -> None:
    before = {"triage": retiring(NOW), "gone": one_credential(slot="b"), "too": retiring(NOW)}
    made = step(before, "triage")
    assert made.revoke == (user("gone", "b"), user("too", "a"), user("too", "b"))
    assert set(made.principals) == {"triage"}


def test_an_agent_that_comes_back_never_sees_an_earlier_version() -> None:
    made = step({}, "triage", last_version=7)
    assert made.principals["triage"].slots["a"].version == 8


def test_credentials_turn_by_themselves_when_their_time_has_come() -> None:
    rules = replace(RULES, every=Period(30, "d"))
    before = {"triage": one_credential()}
    due = NOW + timedelta(days=30)
    waits = step(before, "triage", rules=rules, now=due - SECOND)
    assert (waits.rotated, waits.due) == ((), due)
    assert step(before, "triage", rules=rules, now=due).rotated == ("triage",)


def test_a_rotation_that_is_due_waits_for_the_old_username_without_a_busy_loop() -> None:
    """Measured without this: one look a second for as long as somebody stayed connected."""
    rules = replace(RULES, every=Period(1, "h"))
    now = NOW + timedelta(hours=3)
    made = step({"triage": retiring(NOW)}, "triage", rules=rules, now=now, shown={"triage": "b"})
    assert made.rotated == ()
    assert made.due is not None
    assert made.due - now > timedelta(minutes=1)


def test_a_connection_that_stays_is_looked_at_ever_more_rarely_and_cut_at_the_end_of_grace() -> (
    None
):
    before, now, looks = {"triage": retiring(NOW)}, NOW, 0
    while True:
        made = step(before, "triage", now=now, shown={"triage": "b"})
        if made.revoke:
            break
        assert made.due is not None
        now, looks = made.due, looks + 1
    assert now == NOW + RULES.grace
    assert looks < 30


def test_an_agent_made_in_the_pass_that_rotates_is_not_rotated_at_once() -> None:
    """Otherwise both its usernames would have the same version, and so the same audit key."""
    before = {"triage": one_credential()}
    made = step(before, "triage", "fresh", rotate=True, shown={"triage": "a"})
    assert made.rotated == ("triage",)
    assert list(made.principals["fresh"].slots) == ["a"]


def test_a_rotation_asked_of_a_tenant_without_credentials_is_honoured_by_new_ones() -> None:
    made = step({}, "triage", rotate=True, last_version=5)
    assert made.honoured
    assert {c.version for c in made.principals["triage"].slots.values()} == {6}


def test_agents_turn_together_once_none_is_in_the_middle_of_a_rotation() -> None:
    before = {"calm": one_credential(), "busy": retiring(NOW)}
    shown = {"calm": "a", "busy": "b"}
    waits = step(before, "calm", "busy", rotate=True, shown=shown, now=NOW + timedelta(hours=1))
    assert (waits.rotated, waits.honoured) == ((), False)
    turn = step(before, "calm", "busy", rotate=True, shown=shown, now=NOW + timedelta(hours=24))
    assert (turn.rotated, turn.honoured) == (("calm", "busy"), True)
    assert turn.revoke == (user("busy", "a"),)


def test_a_rotation_that_was_asked_for_is_not_starved_by_those_that_fall_due() -> None:
    rules = replace(RULES, every=Period(1, "h"))
    before = {"calm": one_credential(), "busy": retiring(NOW + timedelta(hours=1))}
    made = step(
        before,
        "calm",
        "busy",
        rules=rules,
        rotate=True,
        shown={"calm": "a", "busy": "b"},
        now=NOW + timedelta(hours=2),
    )
    assert made.rotated == ()


def test_no_password_is_minted_where_none_is_due() -> None:
    def never() -> str:
        raise AssertionError("minted")

    step({"triage": retiring(NOW)}, "triage", rotate=True, shown={"triage": "b"}, mint=never)


# -- over time, with crashes -----------------------------------------------------------------------

AGENTS: Mapping[AgentName, tuple[str, ...]] = {"triage": ("triage",), "shared": ("one", "two")}
"""Principals and the bindings that show them: under Minimal isolation several show one."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a binding shows."""

    slot: str
    credential: Credential


@dataclass(slots=True)
class Life:
    """One life of a principal, from its making to its removal."""

    slots: dict[int, str]
    shown_since: dict[int, datetime]


class Rotations(RuleBasedStateMachine):
    """Reconciles that crash anywhere, agents that come, go and stay connected, time that passes.

    The order of a reconcile's steps is the order of a plan: revoke, record, users, bindings.
    """

    @initialize(
        overlap=st.integers(1, 40),
        lag=st.integers(1, 10),
        grace=st.integers(0, 300),
        every=st.sampled_from([None, Period(45, "m"), Period(1, "d")]),
    )
    def start(self, overlap: int, lag: int, grace: int, every: Period | None) -> None:
        minutes = [timedelta(minutes=m) for m in (overlap, lag, grace)]
        self.timing = RotationRules(every, *minutes)
        self.now = NOW
        self.mint = minting()
        self.asked = False
        self.wanted = set(AGENTS)
        self.principals: dict[AgentName, Principal] = {}
        self.last_version = 0
        self.server: dict[str, str] = {}
        self.bindings: dict[tuple[AgentName, str], Shown] = {}
        self.busy: set[str] = set()
        self.lives: dict[AgentName, Life] = {}
        self.passwords: dict[tuple[AgentName, int], str] = {}
        self.due: datetime | None = NOW
        self.revoked_for_good: set[tuple[AgentName, str]] = set()

    # What happens

    @rule(upto=st.integers(0, 8))
    def reconcile_and_crash(self, upto: int) -> None:
        self._reconcile(upto)

    @rule()
    def reconcile(self) -> None:
        made = self._reconcile(None)
        self._check_end_of_pass(made)

    @rule(seconds=st.sampled_from([0.4, 1, 59.7, 180, 600, 2_000, 10_000, 100_000]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.due is not None)
    @rule()
    def the_operator_looks_when_it_said(self) -> None:
        assert self.due is not None
        self.now = max(self.now, self.due)
        self.reconcile()

    @rule()
    def rotation_is_asked_for(self) -> None:
        self.asked = True

    @rule(agent=st.sampled_from(sorted(AGENTS)), slot=st.sampled_from("ab"))
    def somebody_connects_or_disconnects(self, agent: AgentName, slot: str) -> None:
        self.busy ^= {user(agent, slot)}
        self.busy &= self.server.keys()

    @precondition(lambda self: bool(self.bindings))
    @rule(data=st.data())
    def a_binding_is_deleted_by_hand(self, data: st.DataObject) -> None:
        del self.bindings[data.draw(st.sampled_from(sorted(self.bindings)))]

    @rule(agent=st.sampled_from(sorted(AGENTS)))
    def an_agent_is_removed(self, agent: AgentName) -> None:
        self.wanted.discard(agent)

    @rule(agent=st.sampled_from(sorted(AGENTS)))
    def an_agent_is_declared(self, agent: AgentName) -> None:
        self.wanted.add(agent)

    # What must hold at every moment

    @invariant()
    def every_credential_that_a_binding_shows_is_alive(self) -> None:
        for (agent, name), shown in self.bindings.items():
            if (agent, name) not in self.revoked_for_good:
                assert self.server.get(user(agent, shown.slot)) == shown.credential.password

    @invariant()
    def usernames_alternate_and_versions_grow(self) -> None:
        for life in self.lives.values():
            slots = list(life.slots.values())
            assert list(life.slots) == sorted(life.slots)
            assert all(one != next_ for one, next_ in pairwise(slots))

    def teardown(self) -> None:
        """Left alone, whatever happened, everything settles in a bounded number of looks."""
        if not hasattr(self, "timing"):
            return
        self.timing = replace(self.timing, every=None)
        made = self._reconcile(None)
        for _ in range(60):
            if made.due is None and not self.asked and not self._unsettled():
                break
            self.now = max(self.now + SECOND, made.due or self.now)
            made = self._reconcile(None)
            self._check_end_of_pass(made)
        assert not self._unsettled()
        assert not self.asked
        assert made.due is None
        assert self.server.keys() == {user(a, p.active) for a, p in self.principals.items()}

    # How it goes

    def _unsettled(self) -> bool:
        return any(len(principal.slots) > 1 for principal in self.principals.values())

    def _reconcile(self, upto: int | None) -> Advance:
        made = advance(
            TENANT,
            self.principals,
            tuple(sorted(self.wanted)),
            self.timing,
            now=self.now,
            rotate=self.asked,
            shown={agent: self._shown(agent) for agent in self.wanted},
            idle=frozenset(u for u in map_users() if u not in self.busy),
            last_version=self.last_version,
            mint=self.mint,
        )
        self.due = made.due
        for act in self._plan(made)[:upto]:
            act()
        return made

    def _plan(self, made: Advance) -> list[Callable[[], None]]:
        plan: list[Callable[[], None]] = [
            lambda: self._revoke(made),
            lambda: self._save(made),
            lambda: self._set_users(made),
        ]
        for agent in sorted(made.principals):
            plan += [
                lambda agent=agent, name=name: self._write_binding(made, agent, name)  # type: ignore[misc]
                for name in AGENTS[agent]
            ]
        gone = [key for key in self.bindings if key[0] not in made.principals]
        plan += [lambda key=key: self._remove_binding(key) for key in gone]  # type: ignore[misc]
        return plan

    def _shown(self, agent: AgentName) -> str | None:
        slots = {
            found.slot if (found := self.bindings.get((agent, name))) else None
            for name in AGENTS[agent]
        }
        return slots.pop() if len(slots) == 1 else None

    def _revoke(self, made: Advance) -> None:
        for name in made.revoke:
            agent, slot = name.split(".")[-2:]
            if agent in made.principals:
                self._check_not_too_early(made, agent, slot)
            else:
                self.revoked_for_good |= {key for key in self.bindings if key[0] == agent}
            self.server.pop(name, None)
            self.busy.discard(name)

    def _check_not_too_early(self, made: Advance, agent: AgentName, slot: str) -> None:
        successor = made.principals[agent].slots[other_slot(slot)]
        since = self.lives[agent].shown_since[successor.version]
        assert self.now - since >= max(self.timing.min_overlap, self.timing.kubelet_lag)

    def _save(self, made: Advance) -> None:
        for agent, principal in made.principals.items():
            if agent not in self.principals:
                self.lives[agent] = Life({}, {})
            for slot, credential in principal.slots.items():
                self.lives[agent].slots[credential.version] = slot
                known = self.passwords.setdefault((agent, credential.version), credential.password)
                assert known == credential.password, "a version was used twice"
        self.principals = dict(made.principals)
        versions = [c.version for p in self.principals.values() for c in p.slots.values()]
        self.last_version = max([self.last_version, *versions])
        self.asked = self.asked and not made.honoured

    def _set_users(self, made: Advance) -> None:
        for agent, principal in made.principals.items():
            for slot, credential in principal.slots.items():
                self.server[user(agent, slot)] = credential.password

    def _write_binding(self, made: Advance, agent: AgentName, name: str) -> None:
        principal = made.principals[agent]
        credential = principal.slots[principal.shown]
        self.bindings[agent, name] = Shown(principal.shown, credential)
        self.revoked_for_good.discard((agent, name))
        shown = [self.bindings.get((agent, each)) for each in AGENTS[agent]]
        if all(one is not None and one.credential.version == credential.version for one in shown):
            self.lives[agent].shown_since.setdefault(credential.version, self.now)

    def _remove_binding(self, key: tuple[AgentName, str]) -> None:
        self.bindings.pop(key, None)

    def _check_end_of_pass(self, made: Advance) -> None:
        alive = {user(a, slot) for a, p in self.principals.items() for slot in p.slots}
        assert self.server.keys() == alive
        assert self.principals.keys() == self.wanted
        latest = max(self.timing.grace, self.timing.earliest)
        for agent, principal in self.principals.items():
            old = other_slot(principal.active)
            since = principal.slots[old].retiring_since if old in principal.slots else None
            if since is None:
                continue
            age = self.now - since
            assert age < latest
            assert age < self.timing.earliest or user(agent, old) in self.busy
            assert made.due is not None
            assert made.due <= max(since + latest, self.now + SECOND)
        if made.due is not None:
            assert made.due > self.now, "a look that is already over is a busy loop"


def map_users() -> list[str]:
    return [user(agent, slot) for agent in AGENTS for slot in "ab"]


TestRotations = Rotations.TestCase
TestRotations.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
