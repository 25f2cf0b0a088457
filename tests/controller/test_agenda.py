"""The work queue's guarantees, on generated histories with time passed in."""

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from memtenant.controller.agenda import Agenda

LANES = 4
LIMIT = 2
FAIR = 4

KEYS = st.integers(0, 11)
GROUPS = st.sampled_from([None, "eu", "us"])


class Histories(RuleBasedStateMachine):
    """Any order of calls that workers and events can make, checked against a plain model."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.agenda: Agenda[int, str] = Agenda(lanes=LANES, group_limit=LIMIT, fair_every=FAIR)
        self.now = 0.0
        self.paused_until = 0.0
        self.held: set[str] = set()
        # What is owed: key -> (due, group, lane); what runs: key -> group.
        self.owed: dict[int, tuple[float, str | None, int]] = {}
        self.working: dict[int, str | None] = {}

    @rule(
        key=KEYS,
        lane=st.integers(0, LANES - 1),
        group=GROUPS,
        after=st.sampled_from([0.0, 1.0, 5.0]),
    )
    def add(self, key: int, lane: int, group: str | None, after: float) -> None:
        if after:
            self.agenda.add(key, lane=lane, group=group, due=self.now + after)
        else:
            self.agenda.add(key, lane=lane, group=group)
        due = self.now + after
        if key in self.owed:
            due = min(due, self.owed[key][0])
            lane = min(lane, self.owed[key][2])
        self.owed[key] = due, group, lane

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=running)
    def take(self) -> object:
        key = self.agenda.take(self.now)
        if key is None:
            assert not self.startable()
            return multiple()
        assert key in self.startable()
        _, group, _ = self.owed.pop(key)
        self.working[key] = group
        return key

    @rule(key=running)
    def done(self, key: int) -> None:
        if key in self.working:
            self.agenda.done(key)
            del self.working[key]

    @rule(group=st.sampled_from(["eu", "us"]), hold=st.booleans())
    def hold(self, group: str, hold: bool) -> None:
        if hold:
            self.agenda.hold(group)
            self.held.add(group)
        else:
            self.agenda.release(group)
            self.held.discard(group)

    @rule(seconds=st.sampled_from([0.5, 3.0]))
    def pause(self, seconds: float) -> None:
        self.paused_until = self.now + seconds
        self.agenda.pause_until(self.paused_until)

    def startable(self) -> set[int]:
        """What may start now. A key added to two groups in turn counts on the later one."""
        if self.now < self.paused_until:
            return set()
        load: dict[str | None, int] = defaultdict(int)
        for group in self.working.values():
            load[group] += 1
        return {
            key
            for key, (due, group, lane) in self.owed.items()
            if key not in self.working
            and due <= self.now
            and (group not in self.held or lane == 0)
            and (group is None or load[group] < LIMIT)
        }

    @invariant()
    def counts_agree(self) -> None:
        assert self.agenda.running() == len(self.working)
        waiting = sum(self.agenda.ready_by_lane()) + self.agenda.delayed()
        assert waiting == len(set(self.owed) - set(self.working))

    @invariant()
    def sleep_never_outlasts_the_next_work(self) -> None:
        future = [due for key, (due, _, _) in self.owed.items() if key not in self.working]
        if future and not self.startable():
            next_due = self.agenda.next_due(self.now)
            later = [due for due in future if due > self.now]
            if self.now < self.paused_until:
                assert next_due is not None
                assert self.now < next_due <= self.paused_until
            elif later:
                assert next_due is not None
                assert next_due <= min(later)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def agenda(limit: int = 100, fair_every: int = 8) -> Agenda[str, str]:
    return Agenda(lanes=LANES, group_limit=limit, fair_every=fair_every)


def drain(work: Agenda[str, str], now: float = 0.0) -> list[str]:
    taken = []
    while (key := work.take(now)) is not None:
        taken.append(key)
        work.done(key)
    return taken


def test_urgent_lanes_go_first() -> None:
    work = agenda(fair_every=1000)
    for key, lane in [("refresh", 3), ("change", 2), ("new", 1), ("deleted", 0)]:
        work.add(key, lane=lane)
    assert drain(work) == ["deleted", "new", "change", "refresh"]


def test_a_refresh_is_taken_although_new_work_never_ends() -> None:
    work = agenda(fair_every=8)
    work.add("refresh", lane=3)
    taken: list[str | None] = []
    for number in range(8):
        work.add(f"new-{number}", lane=1)
        taken.append(work.take(0.0))
    assert "refresh" in taken


def test_a_key_added_again_while_worked_on_is_done_again() -> None:
    work = agenda()
    work.add("a", lane=2)
    assert work.take(0.0) == "a"
    work.add("a", lane=0)
    work.add("a", lane=3)
    assert work.take(0.0) is None
    work.done("a")
    assert work.ready_by_lane() == [1, 0, 0, 0]
    assert drain(work) == ["a"]


def test_an_event_ends_the_wait_of_a_retry() -> None:
    work = agenda()
    work.add("a", lane=2, due=300.0)
    assert work.take(1.0) is None
    work.add("a", lane=2)
    assert drain(work, now=1.0) == ["a"]
    assert drain(work, now=300.0) == []


def test_a_store_takes_no_more_than_its_share_of_workers() -> None:
    work = agenda(limit=2)
    for key in "abc":
        work.add(key, lane=1, group="slow")
    work.add("d", lane=3, group="quick")
    assert [work.take(0.0) for _ in range(4)] == ["a", "b", "d", None]
    work.done("a")
    assert work.take(0.0) == "c"


def test_a_held_store_keeps_its_tenants_waiting_but_for_the_most_urgent_and_no_others() -> None:
    work = agenda()
    work.hold("gone")
    work.add("a", lane=1, group="gone")
    work.add("deleted", lane=0, group="gone")
    work.add("b", lane=3, group="well")
    work.add("store", lane=2)
    assert drain(work) == ["deleted", "store", "b"]
    work.release("gone")
    assert drain(work) == ["a"]


def test_done_refuses_what_was_not_taken() -> None:
    work = agenda()
    work.add("a", lane=0)
    with pytest.raises(ValueError, match="not taken"):
        work.done("a")
