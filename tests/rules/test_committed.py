"""The sums are those of what was entered, whatever came and went."""

from hypothesis import given
from hypothesis import strategies as st

from memtenant.rules.committed import Committed
from memtenant.tenancy.identity import TenantId

_TENANTS = [TenantId(namespace, name) for namespace in ("a", "b") for name in ("x", "y", "z")]
_QUOTAS = st.integers(min_value=0, max_value=1 << 50)


@given(st.lists(st.tuples(st.sampled_from(_TENANTS), st.none() | _QUOTAS)))
def test_sums_follow_what_is_entered_and_struck(steps: list[tuple[TenantId, int | None]]) -> None:
    committed, plain = Committed(), dict[TenantId, int]()
    for tenant, quota in steps:
        if quota is None:
            committed.strike(tenant)
            plain.pop(tenant, None)
        else:
            committed.enter(tenant, quota)
            plain[tenant] = quota
        assert dict(committed) == plain
        assert committed.total == sum(plain.values())
        for one in _TENANTS:
            others = {other: held for other, held in plain.items() if other != one}
            assert committed.to_others(one) == sum(others.values())
            for namespace in ("a", "b", "c"):
                assert committed.to_others(one, namespace) == sum(
                    held for other, held in others.items() if other.namespace == namespace
                )
