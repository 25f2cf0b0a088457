from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from memtenant.rules.expiry import expiry
from memtenant.rules.policy import policy_facts
from memtenant.rules.retention import Resolution
from memtenant.tenancy.identity import TenantId
from tests.rules.builders import NOW, TENANT, policy_spec, tenant_spec

periods = st.builds(
    lambda count, unit: f"{count}{unit}",
    st.integers(1, 400),
    st.sampled_from(["s", "m", "h", "d", "w", "mo"]),
)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1)).map(  # noqa: DTZ001 - made UTC
    lambda moment: moment.replace(tzinfo=UTC, microsecond=0)
)


def kept_for(content: str) -> Resolution:
    facts = policy_facts("standard", policy_spec())
    return facts.resolve_for(tenant_spec(retention={"content": content}))


def cut(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


@given(periods, moments)
@example("1mo", datetime(2020, 3, 30, tzinfo=UTC))
def test_nothing_expires_early_and_everything_within_a_step(content: str, now: datetime) -> None:
    resolution = kept_for(content)
    found = expiry(TENANT, resolution, now, held=False)
    period = resolution.content.effective.period
    due, gone = period.before(now), cut(found.fields["cutoff_content"])
    step = max(timedelta(minutes=1), min(timedelta(days=1), (now - due) / 29))
    calendar_slack = timedelta(days=4) if content.endswith("mo") else timedelta(0)
    assert due - step - calendar_slack <= gone
    assert period.after(gone) <= now  # not `gone <= due`: months before 29 and 30 March are one day
    assert found.fields["cutoff_derived"] >= found.fields["cutoff_content"]


@given(periods, moments, st.floats(0, 0.999))
def test_between_two_steps_nothing_moves(content: str, now: datetime, part: float) -> None:
    first = expiry(TENANT, kept_for(content), now, held=False)
    assert first.next_step > now
    later = now + (first.next_step - now) * part
    assert expiry(TENANT, kept_for(content), later, held=False) == first
    moved = expiry(TENANT, kept_for(content), first.next_step, held=False)
    assert moved.next_step > first.next_step


@given(periods, moments)
def test_under_a_hold_nothing_expires(content: str, now: datetime) -> None:
    assert expiry(TENANT, kept_for(content), now, held=True).fields == {}


@given(moments, st.integers(-14, 14))
def test_the_time_zone_of_a_clock_does_not_matter(now: datetime, hours: int) -> None:
    elsewhere = now.astimezone(timezone(timedelta(hours=hours)))
    kept = kept_for("13mo")
    assert expiry(TENANT, kept, elsewhere, held=False) == expiry(TENANT, kept, now, held=False)


def test_a_year_from_a_leap_day_has_passed_on_the_first_of_march() -> None:
    written = datetime(2024, 2, 29, 0, 0, tzinfo=UTC)
    kept = kept_for("1y")
    for now, expired in (
        (datetime(2025, 2, 28, 23, 59, tzinfo=UTC), False),
        (datetime(2025, 3, 2, 0, 0, tzinfo=UTC), True),
    ):
        found = expiry(TENANT, kept, now, held=False)
        assert (written < cut(found.fields["cutoff_content"])) is expired


def test_years_are_years_and_not_so_many_days() -> None:
    now = datetime(2027, 3, 1, tzinfo=UTC)
    years = expiry(TENANT, kept_for("7y"), now, held=False).fields["cutoff_content"]
    days = expiry(TENANT, kept_for("2555d"), now, held=False).fields["cutoff_content"]
    assert cut(days) - cut(years) >= timedelta(days=1)


def test_a_minimum_is_kept() -> None:
    spec = policy_spec(retention={"content": {"min": "90d", "default": "90d"}})
    resolution = policy_facts("standard", spec).resolution
    found = expiry(TENANT, resolution, NOW, held=False)
    assert cut(found.fields["cutoff_content"]) <= NOW - timedelta(days=90)


def test_derived_records_go_before_their_sources_where_the_policy_says_so() -> None:
    spec = policy_spec(retention={"derived": {"max": "7d"}, "content": {"default": "60d"}})
    found = expiry(TENANT, policy_facts("standard", spec).resolution, NOW, held=False)
    assert cut(found.fields["cutoff_derived"]) > NOW - timedelta(days=9)
    assert cut(found.fields["cutoff_content"]) < NOW - timedelta(days=59)


def test_tenants_do_not_all_move_at_one_moment() -> None:
    resolution = kept_for("30d")
    steps = {
        expiry(TenantId("support", f"t{number}"), resolution, NOW, held=False).next_step
        for number in range(100)
    }
    assert len(steps) > 90
