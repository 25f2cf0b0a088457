from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.fields import DeletionPolicy
from memtenant.rules.deletion import Content, Obstacle, obstacle_to_deletion
from memtenant.tenancy.period import Period
from tests.rules.builders import NOW

YEAR = Period(12, "mo")
REMOVING = [DeletionPolicy.DELETE, DeletionPolicy.SHRED]
removing = st.sampled_from(REMOVING)
contents = st.builds(
    Content,
    records=st.integers(0, 10),
    youngest=st.none() | st.datetimes(timezones=st.just(NOW.tzinfo)),
    undated=st.integers(0, 10),
)


def obstacle(
    policy: DeletionPolicy = DeletionPolicy.DELETE,
    matters: tuple[str, ...] = (),
    minimum: Period | None = None,
    content: Content | None = None,
    now: datetime = NOW,
) -> Obstacle | None:
    return obstacle_to_deletion(policy, matters, minimum, content or Content(), now)


@given(st.lists(st.text(max_size=5)), contents)
def test_nothing_stands_in_the_way_of_retaining(matters: list[str], content: Content) -> None:
    assert obstacle(DeletionPolicy.RETAIN, tuple(matters), YEAR, content) is None


@pytest.mark.parametrize("policy", REMOVING)
def test_without_hold_and_minimum_data_goes(policy: DeletionPolicy) -> None:
    assert obstacle(policy, content=Content(5, NOW)) is None


@given(removing, st.lists(st.text(min_size=1, max_size=5), min_size=1), contents)
def test_a_hold_keeps_data_whatever_its_age(
    policy: DeletionPolicy, matters: list[str], content: Content
) -> None:
    found = obstacle(policy, tuple(matters), None, content)
    assert found is not None
    assert found.reason == "LegalHold"
    assert found.until is None
    assert all(matter in found.message for matter in matters)


def test_the_message_of_a_hold_is_the_same_from_try_to_try() -> None:
    assert obstacle(matters=("b", "a")) == obstacle(matters=("a", "b"), now=NOW + timedelta(days=3))


@pytest.mark.parametrize("policy", REMOVING)
def test_a_minimum_keeps_data_until_it_has_passed_for_the_youngest(policy: DeletionPolicy) -> None:
    content = Content(5, datetime(2026, 1, 31, 9, tzinfo=NOW.tzinfo))
    until = datetime(2027, 1, 31, 9, tzinfo=NOW.tzinfo)
    found = obstacle(policy, minimum=YEAR, content=content, now=until - timedelta(seconds=1))
    assert found is not None
    assert (found.reason, found.until) == ("RetentionMinimum", until)
    assert "waits until 2027-01-31T09:00:00Z" in found.message
    assert "12mo" in found.message
    assert obstacle(policy, minimum=YEAR, content=content, now=until) is None


def test_a_minimum_does_not_keep_a_tenant_that_holds_nothing() -> None:
    assert obstacle(minimum=YEAR, content=Content()) is None


@given(removing, contents.filter(lambda content: content.records > 0))
def test_a_record_of_unknown_age_counts_as_written_now(
    policy: DeletionPolicy, content: Content
) -> None:
    if content.youngest is not None and not content.undated:
        return
    found = obstacle(policy, minimum=YEAR, content=content)
    assert found is not None
    assert found.until is None
    assert f"of {content.records} records do not say when they were written" in found.message


@given(removing, contents, st.timedeltas(timedelta(0), timedelta(days=3000)))
def test_what_may_be_deleted_once_may_be_deleted_later(
    policy: DeletionPolicy, content: Content, later: timedelta
) -> None:
    if obstacle(policy, minimum=YEAR, content=content) is None:
        assert obstacle(policy, minimum=YEAR, content=content, now=NOW + later) is None


@pytest.mark.parametrize(
    "found",
    [
        obstacle(matters=("SEC-1",)),
        obstacle(minimum=YEAR, content=Content(1, NOW)),
        obstacle(minimum=YEAR, content=Content(1, None, 1)),
    ],
    ids=["hold", "minimum", "unknown age"],
)
def test_every_obstacle_says_what_can_be_done(found: Obstacle | None) -> None:
    assert found is not None
    assert "deletionPolicy: Retain" in found.message
    assert found.message.startswith("Deletion policy Delete waits")
