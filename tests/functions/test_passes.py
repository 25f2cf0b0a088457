"""What passes tell of a writer: never less than is true, and not much more."""

from hypothesis import given
from hypothesis import strategies as st

from memtenant.functions.passes import Passes

DAY = 86_400_000
MOMENTS = st.integers(1, 4000 * DAY)


@st.composite
def passes(draw: st.DrawFn) -> list[tuple[int, int]]:
    """When each began and ended: one after the other, mostly a day apart."""
    found, now = [], draw(MOMENTS)
    gaps = st.one_of(st.integers(1, 2 * DAY), st.integers(2 * DAY, 60 * DAY))
    for gap, length in draw(st.lists(st.tuples(gaps, st.integers(0, 3 * DAY)), max_size=200)):
        began = now + gap
        now = began + length
        found.append((began, now))
    return found


def known(every: list[tuple[int, int]]) -> Passes:
    found = Passes()
    for began, ended in every:
        found = found.and_then(began, ended)
    return Passes.parse(found.to_bytes())


@given(passes(), MOMENTS)
def test_a_writer_is_never_taken_for_closed_before_a_pass_closed_it(
    every: list[tuple[int, int]], time: int
) -> None:
    ended = known(every).ended(time)
    truth = min((end for began, end in every if began >= time), default=None)
    assert (ended is None) == (truth is None)
    assert ended is None or ended >= (truth or 0)


@given(st.integers(1, 5000), st.integers(0, DAY // 2), st.integers(0, 6000 * DAY))
def test_daily_passes_of_years_are_a_few_bytes_and_tell_the_day(
    count: int, length: int, time: int
) -> None:
    every = [(at * DAY, at * DAY + length) for at in range(1, count + 1)]
    found = known(every)
    assert len(found.to_bytes()) == 18
    ended = found.ended(time)
    assert ended is None or ended <= max(time, DAY) + DAY + length


@given(passes())
def test_gaps_of_years_take_no_more_room_than_a_call_brings(every: list[tuple[int, int]]) -> None:
    assert len(known(every).to_bytes()) <= 4096


def test_what_nobody_wrote_tells_of_no_pass() -> None:
    assert Passes.parse(b"x" * 17) == Passes.parse(None) == Passes()
    assert Passes().ended(0) is None
    assert Passes().and_then(5, 9).and_then(5, 10) == Passes().and_then(5, 9)
