"""What the times of seals prove of when a leaf was sealed."""

from memtenant.archive.leaps import DAY, Leaps

YEAR = 365 * DAY


def of(*times: int) -> Leaps:
    leaps = Leaps()
    for time in times:
        leaps.seal(time)
    return leaps


def test_while_a_day_has_a_seal_a_leaf_was_sealed_when_it_says() -> None:
    leaps = of(*range(10 * DAY, 20 * DAY, DAY))
    assert leaps.earliest(15 * DAY) == 15 * DAY
    assert leaps.earliest(15 * DAY, 20 * DAY) == 15 * DAY


def test_what_is_before_the_first_seal_may_have_any_time() -> None:
    assert Leaps().earliest(15 * DAY) == 0
    assert of(10 * DAY).earliest(10 * DAY) == 0
    assert of(10 * DAY).earliest(10 * DAY + 1) == 10 * DAY + 1


def test_a_leap_leaves_open_whether_time_passed_or_the_clock_was_behind() -> None:
    leaps = of(DAY, 2 * DAY, 2 * DAY + YEAR, 3 * DAY + YEAR)
    # Sealed right after the clock was put right, or a day before by one that was behind.
    assert leaps.earliest(2 * DAY + YEAR + 1) == 3 * DAY + 1
    assert leaps.earliest(3 * DAY + YEAR) == 4 * DAY
    # A year later all that is before the leap is older.
    assert leaps.earliest(2 * DAY + 2 * YEAR) == 2 * DAY + 2 * YEAR


def test_a_leap_that_no_seal_ended_yet_counts_too() -> None:
    leaps = of(DAY, 2 * DAY)
    assert leaps.earliest(2 * DAY, 2 * DAY + YEAR) == 0
    assert leaps.earliest(YEAR + 2 * DAY, 2 * DAY + YEAR) == 3 * DAY


def test_the_state_of_a_sealer_reads_back() -> None:
    leaps = of(DAY, 2 * DAY, YEAR, 2 * YEAR)
    assert Leaps.from_texts(leaps.to_texts()) == leaps
