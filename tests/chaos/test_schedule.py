from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.faults import OF_SHAPE
from tests.chaos.run import scheduled
from tests.chaos.schedule import Fault, Kind, plan

KINDS = st.lists(
    st.builds(
        Kind,
        name=st.text("abcdef", min_size=1, max_size=6),
        target=st.sampled_from(["store", "api", "link"]),
        longest=st.floats(0.1, 10.0),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda kind: kind.name,
)
SEEDS, SECONDS = st.integers(0, 2**32), st.floats(0.0, 300.0)


@given(SEEDS, SECONDS, KINDS)
def test_a_seed_makes_the_same_schedule_in_whatever_order_kinds_are_named(
    seed: int, seconds: float, kinds: list[Kind]
) -> None:
    once, again = plan(seed, seconds, kinds), plan(seed, seconds, tuple(kinds))
    assert once == again
    assert [str(one) for one in once] == [str(one) for one in again]


@given(SEEDS, SECONDS, KINDS)
def test_faults_end_in_time_and_those_on_one_target_never_overlap(
    seed: int, seconds: float, kinds: list[Kind]
) -> None:
    faults = plan(seed, seconds, kinds)
    assert list(faults) == sorted(faults, key=lambda one: one.at)
    free: dict[str, float] = defaultdict(float)
    for one in faults:
        assert one.at >= free[one.target]
        free[one.target] = one.at + one.seconds
        assert one.at + one.seconds <= seconds + 0.02, "rounded to hundredths"


@given(SEEDS, SECONDS, KINDS)
def test_a_kind_comes_again_when_the_others_of_its_target_have_come(
    seed: int, seconds: float, kinds: list[Kind]
) -> None:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for kind in kinds:
        counts[kind.target][kind.name] = 0
    for one in plan(seed, seconds, kinds):
        counts[one.target][one.kind] += 1
        assert max(counts[one.target].values()) - min(counts[one.target].values()) <= 1


@given(SEEDS, st.sampled_from(sorted(OF_SHAPE)), st.data())
def test_leaving_faults_out_moves_none_of_the_others(
    seed: int, shape: str, data: st.DataObject
) -> None:
    names = [one.kind.name for one in OF_SHAPE[shape]]
    only = data.draw(st.sets(st.sampled_from(names)))

    def of(faults: tuple[Fault, ...]) -> list[Fault]:
        return [one for one in faults if one.kind in only or not only]

    assert list(scheduled(seed, 60.0, sorted(only), shape)) == of(scheduled(seed, 60.0, [], shape))


def test_kinds_of_one_shape_have_different_names() -> None:
    for faults in OF_SHAPE.values():
        assert len({one.kind.name for one in faults}) == len(faults)
