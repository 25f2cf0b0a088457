from hypothesis import given
from hypothesis import strategies as st

from memtenant.controller.backoff import Backoff


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_never_zero_and_never_longer_than_the_longest(
    failures: int, draw: float
) -> None:
    backoff: Backoff[str] = Backoff(first=0.25, longest=300.0, uniform=lambda: draw)
    delays = [backoff.failed("a") for _ in range(min(failures, 80))]
    assert all(0 < delay <= 300.0 for delay in delays)
    assert delays == sorted(delays)


def test_very_many_failures_do_not_overflow() -> None:
    backoff: Backoff[str] = Backoff(longest=300.0, uniform=lambda: 0.0)
    assert [backoff.failed("a") for _ in range(3000)][-1] == 150.0


def test_two_keys_that_failed_together_do_not_return_together() -> None:
    draws = iter([0.0, 0.9])
    backoff: Backoff[str] = Backoff(uniform=lambda: next(draws))
    assert backoff.failed("a") != backoff.failed("b")


def test_a_success_makes_the_next_failure_the_first() -> None:
    backoff: Backoff[str] = Backoff(first=1.0, uniform=lambda: 0.0)
    first = backoff.failed("a")
    backoff.failed("a")
    backoff.forget("a")
    assert backoff.failed("a") == first
    assert backoff.failures("a") == 1
