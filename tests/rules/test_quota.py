from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.rules.quota import (
    FLOOD_LIMIT,
    FLOOD_RETURN,
    Limits,
    Pressure,
    QuotaState,
    Usage,
    judge,
    percent,
)
from tests.rules.builders import NOW

LIMITS = Limits(memory=1000, conversations=100)
LATER = NOW + timedelta(minutes=1)

usages = st.builds(
    Usage,
    memory=st.integers(0, 1200),
    conversations=st.integers(0, 120),
    queue=st.integers(0, 2 * FLOOD_LIMIT),
    index=st.integers(0, 2 * FLOOD_LIMIT),
    keys=st.integers(0, 2 * FLOOD_LIMIT),
)
states = st.lists(usages, max_size=4).map(
    lambda found: judged(*found)  # every state that measurements can lead to
)


def judged(*found: Usage, limits: Limits = LIMITS, before: QuotaState | None = None) -> QuotaState:
    """The state after these measurements, a minute apart."""
    state = before or QuotaState()
    for place, usage in enumerate(found):
        state = judge(state, usage, limits, NOW + place * timedelta(minutes=1))
    return state


@pytest.mark.parametrize(
    ("memory", "pressure"),
    [
        (0, Pressure.NORMAL),
        (799, Pressure.NORMAL),
        (800, Pressure.WARNING),
        (999, Pressure.WARNING),
        (1000, Pressure.OVER),
        (5000, Pressure.OVER),
    ],
)
def test_a_warning_stands_from_80_percent_and_writes_go_at_100(
    memory: int, pressure: Pressure
) -> None:
    assert judged(Usage(memory=memory)).pressure is pressure


@pytest.mark.parametrize(("memory", "over"), [(999, True), (950, True), (949, False), (0, False)])
def test_writes_come_back_only_under_95_percent(memory: int, over: bool) -> None:
    state = judged(Usage(memory=1000), Usage(memory=memory))
    assert bool(state.over) is over


@given(st.lists(st.integers(950, 999), min_size=1, max_size=20), states)
def test_between_95_and_100_percent_nothing_flaps(found: list[int], before: QuotaState) -> None:
    first = judge(before, Usage(memory=found[0]), LIMITS, NOW)
    after = [judged(Usage(memory=memory), before=first) for memory in found]
    assert {("memory" in state.over) for state in after} == {"memory" in first.over}
    assert ("memory" in first.over) == ("memory" in before.over)


@given(states, usages)
def test_the_same_measurement_again_changes_nothing(before: QuotaState, usage: Usage) -> None:
    once = judge(before, usage, LIMITS, NOW)
    assert judge(once, usage, LIMITS, LATER) == once


@given(states, usages)
def test_since_moves_with_pressure_and_flood_and_with_nothing_else(
    before: QuotaState, usage: Usage
) -> None:
    now = NOW + timedelta(days=1)
    after = judge(before, usage, LIMITS, now)
    same = (after.pressure, after.flooded) == (before.pressure, before.flooded)
    assert after.since == (before.since if same else now)


def test_a_second_limit_that_is_reached_does_not_restart_the_first_ones_time() -> None:
    state = judged(Usage(memory=1000), Usage(memory=1000, conversations=100))
    assert state.over == ("memory", "conversations")
    assert state.since == NOW


@given(states, usages)
def test_pressure_is_over_exactly_while_a_limit_is_named(before: QuotaState, usage: Usage) -> None:
    state = judge(before, usage, LIMITS, NOW)
    assert (state.pressure is Pressure.OVER) == bool(state.over)


def test_each_limit_returns_by_itself() -> None:
    state = judged(
        Usage(memory=1000, conversations=100),
        Usage(memory=949, conversations=97),
    )
    assert state.over == ("conversations",)


def test_a_raised_quota_gives_the_writes_back() -> None:
    over = judged(Usage(memory=1000))
    assert judge(over, Usage(memory=1000), Limits(2000, 100), LATER).pressure is Pressure.NORMAL


def test_a_lowered_quota_takes_the_writes_away() -> None:
    assert judged(Usage(memory=600), limits=Limits(600, 100)).over == ("memory",)


def test_without_a_limit_nothing_is_ever_over() -> None:
    state = judged(Usage(memory=1 << 60, conversations=1 << 40), limits=Limits(None, None))
    assert state == QuotaState()


@pytest.mark.parametrize("field", ["queue", "index", "keys"])
def test_each_kind_of_bookkeeping_floods_at_its_limit_and_returns_at_half(field: str) -> None:
    def bytes_of(amount: int) -> Usage:
        return Usage(**{field: amount})

    assert not judged(bytes_of(FLOOD_LIMIT - 1)).flooded
    assert judged(bytes_of(FLOOD_LIMIT)).flooded
    assert judged(bytes_of(FLOOD_LIMIT), bytes_of(FLOOD_RETURN)).flooded
    assert not judged(bytes_of(FLOOD_LIMIT), bytes_of(FLOOD_RETURN - 1)).flooded


def test_bookkeeping_is_not_summed_to_a_flood() -> None:
    part = FLOOD_LIMIT // 2
    assert not judged(Usage(queue=part, index=part, keys=part)).flooded


@given(states)
def test_a_state_survives_the_access_hash(state: QuotaState) -> None:
    assert QuotaState.from_fields(state.to_fields()) == state


@given(
    st.dictionaries(
        st.sampled_from(["pressure", "over", "flooded", "quota_since"]), st.text(max_size=12)
    )
)
def test_a_hash_that_somebody_spoiled_reads_as_some_state(fields: dict[str, str]) -> None:
    state = QuotaState.from_fields(fields)
    assert isinstance(state.pressure, Pressure)
    assert judge(state, Usage(), LIMITS, NOW).pressure is Pressure.NORMAL


def test_a_store_without_the_hash_reads_as_no_pressure() -> None:
    assert QuotaState.from_fields({}) == QuotaState()


@pytest.mark.parametrize(
    ("used", "limit", "shown"),
    [(0, 100, 0), (799, 1000, 79), (999, 1000, 99), (1000, 1000, 100), (3, 2, 150), (5, None, 0)],
)
def test_percent_is_rounded_down_so_that_100_means_reached(
    used: int, limit: int | None, shown: int
) -> None:
    assert percent(used, limit) == shown


def test_since_is_kept_to_the_second() -> None:
    exact = datetime(2026, 3, 15, 12, 30, 5, tzinfo=UTC)
    state = judge(QuotaState(), Usage(memory=1000), LIMITS, exact.replace(microsecond=700_000))
    assert QuotaState.from_fields(state.to_fields()).since == exact


def test_heads_of_conversations_may_fill_the_quota_but_not_flood_beyond_it() -> None:
    quota = Limits(memory=FLOOD_LIMIT, conversations=None)
    within = Usage(memory=FLOOD_LIMIT, heads=FLOOD_LIMIT)
    beyond = Usage(memory=2 * FLOOD_LIMIT, heads=2 * FLOOD_LIMIT)
    assert not judge(QuotaState(), within, quota, NOW).flooded
    assert judge(QuotaState(), beyond, quota, NOW).flooded
    assert not judge(QuotaState(), beyond, Limits(None, None), NOW).flooded
