"""What probes and Prometheus get."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from prometheus_client import generate_latest

from memtenant.controller import health
from memtenant.controller.metrics import Metrics, Round
from memtenant.controller.series import declared_series
from memtenant.controller.watches import Watches, watch_name
from memtenant.errors import StoreUnavailable
from memtenant.jobs.expire import Removal
from memtenant.reconcile.outcome import Measured, Outcome, merged
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Declared, Kind, Listing, ObjectKey
from memtenant.tenancy.identity import TenantId

EU = ObjectKey.store("eu")


def declared(key: ObjectKey, version: int = 1, **status: Any) -> Declared:
    return Declared(key, key.name, str(version), 1, datetime(2026, 1, 1, tzinfo=UTC), status=status)


def condition(kind: str, status: str) -> dict[str, str]:
    return {"type": kind, "status": status}


async def test_probes_say_what_is_wrong() -> None:
    wrong: list[str] = []

    async def metrics() -> str:
        return "up 1\n"

    async with (
        health.serve("127.0.0.1", 0, dead=lambda: wrong, unready=list, metrics=metrics) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        wrong.append("a watch is dead")
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (503, "a watch is dead")
        async with http.get("/readyz") as answer:
            assert answer.status == 200
        async with http.get("/metrics") as answer:
            assert await answer.text() == "up 1\n"


def test_a_watch_is_silent_after_too_long_and_only_a_vital_one_counts() -> None:
    now = 0.0
    watches = Watches(clock=lambda: now)
    watches.expect(["memorytenants", "memorystores"], vital=True)
    watches.expect(["secrets@support"], vital=False)
    now = 170.0
    watches.heard("memorystores")
    watches.heard("somebody-elses")
    now = 200.0
    assert watches.silent(180) == ["memorytenants"]
    assert watches.ages() == {"memorytenants": 200, "memorystores": 30, "secrets@support": 200}
    watches.dismiss(["memorytenants"])
    assert watches.silent(180) == []


def test_a_watch_is_named_by_what_it_watches() -> None:
    assert watch_name("/apis/memtenant.dev/v1alpha1/memorytenants") == "memorytenants"
    assert watch_name("/api/v1/namespaces") == "namespaces"
    assert watch_name("/api/v1/secrets") == "secrets"
    assert watch_name("/api/v1/namespaces/support/secrets") == "secrets@support"


async def test_a_tenant_that_is_gone_takes_its_series_along() -> None:
    mirror = Mirror()
    key = ObjectKey.tenant("support", "acme")
    live = [Measured(TenantId("support", "acme"), 5, 10, 1, None)]
    access = {"mode": "OverQuota", "since": "2026-01-01T00:00:00Z"}
    keys = {"retiring": [1, 2], "since": "2026-01-01T00:00:00Z", "remaining": 7}
    mirror.put(declared(key, conditions=[condition("Ready", "True")], access=access, keys=keys))
    text = await declared_series(mirror, tenant_limit=10, measured=live)
    assert 'memtenant_tenant_usage_bytes{tenant="support.acme"} 5\n' in text
    assert 'memtenant_tenant_limit_bytes{tenant="support.acme"} 10\n' in text
    assert "tenant_conversations_limit{" not in text
    assert 'memtenant_tenant_access{tenant="support.acme",mode="OverQuota"} 1\n' in text
    assert 'memtenant_tenants{ready="True"} 1\n' in text
    assert 'memtenant_tenant_keys_retiring{tenant="support.acme"} 2\n' in text
    assert 'memtenant_tenant_data_keys_remaining{tenant="support.acme"} 7\n' in text
    assert "tenant_data_keys_unreadable{" not in text
    since = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert f'keys_since_timestamp_seconds{{tenant="support.acme"}} {since}\n' in text
    assert f'access_since_timestamp_seconds{{tenant="support.acme"}} {since}\n' in text
    mirror.replace(Kind.TENANT, Listing((), "9"))
    assert "support.acme" not in await declared_series(mirror, tenant_limit=10, measured=live)


async def test_of_too_many_tenants_the_troubled_ones_are_shown() -> None:
    mirror = Mirror()
    for number in range(20):
        state = "False" if number % 5 == 4 else "True"
        key = ObjectKey.tenant("support", f"t{number:02}")
        mirror.put(declared(key, conditions=[condition("Ready", state)]))
    text = await declared_series(mirror, tenant_limit=6)
    shown = set(re.findall(r'tenant="support\.(t\d+)"', text))
    assert {"t04", "t09", "t14", "t19"} < shown
    assert len(shown) == 6
    assert 'memtenant_tenants{ready="False"} 4\n' in text
    assert 'memtenant_tenants{ready="True"} 16\n' in text


async def test_of_too_many_that_are_ready_the_fullest_are_shown() -> None:
    mirror, live = Mirror(), []
    for number in range(20):
        mirror.put(
            declared(
                ObjectKey.tenant("support", f"t{number:02}"),
                conditions=[condition("Ready", "True")],
            )
        )
        used = 90 if number in (7, 13) else number
        live.append(Measured(TenantId("support", f"t{number:02}"), used, 100, 0, None))
    text = await declared_series(mirror, tenant_limit=3, measured=live)
    assert set(re.findall(r'tenant="support\.(t\d+)"', text)) == {"t07", "t13", "t19"}


async def test_nonsense_in_a_status_does_not_break_the_page() -> None:
    mirror = Mirror()
    key = ObjectKey.tenant("support", "acme")
    mirror.put(
        declared(
            key,
            conditions=["?", {"type": 'a"\n\\'}],
            usage=3,
            access={"since": "?"},
            keys={"retiring": "?", "remaining": "?"},
        )
    )
    mirror.put(declared(EU, nodes=[{"role": "Primary", "acl": "InSync"}, 3], conditions=None))
    text = await declared_series(mirror, tenant_limit=6)
    assert 'memtenant_store_nodes{store="eu",role="Primary",acl="InSync"} 1\n' in text
    sample = re.compile(r'memtenant_[a-z_]+\{([a-z]+="([^"\\\n]|\\.)*",?)*\} [0-9.]+')
    assert all(line.startswith("#") or sample.fullmatch(line) for line in text.splitlines())


async def test_a_policy_tells_of_its_last_report_and_of_one_that_is_missing() -> None:
    mirror = Mirror()
    mirror.put(
        declared(
            ObjectKey.policy("gdpr"),
            conditions=[condition("Stale", "True")],
            lastReport={"time": "2026-01-01T00:00:00Z", "failed": 2, "errors": 0},
        )
    )
    text = await declared_series(mirror, tenant_limit=6)
    assert 'policy_condition{policy="gdpr",condition="Stale",status="True"} 1\n' in text
    since = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert f'policy_report_timestamp_seconds{{policy="gdpr"}} {since}\n' in text
    assert 'policy_report_controls{policy="gdpr",result="fail"} 2\n' in text
    assert 'policy_report_controls{policy="gdpr",result="error"} 0\n' in text


async def test_a_store_that_is_gone_takes_its_series_along() -> None:
    metrics = Metrics()
    metrics.round_ended(EU, Round.REPAIR, Outcome(changed=True), 0.1)
    metrics.round_failed(EU, Round.MEASURE)
    metrics.store_away(EU, away=True)
    assert b'store="eu"' in generate_latest(metrics.registry)
    metrics.store_gone(EU)
    assert b'store="eu"' not in generate_latest(metrics.registry)


def test_a_store_whose_pass_over_all_keys_does_not_end_tells_since_when() -> None:
    """Of a template the instance that waits longest, whichever rounds their passes end in."""
    metrics, began = Metrics(), datetime(2026, 1, 1, tzinfo=UTC)
    for ahead in (1, 2):
        passed = Outcome(removal=Removal({}, began + timedelta(days=ahead), passed=True))
        waits = Outcome(removal=Removal({}, began + timedelta(hours=ahead)))
        metrics.round_ended(EU, Round.EXPIRE, merged([passed, waits]), 0.1)
        name = "memtenant_expiry_pass_timestamp_seconds"
        shown = metrics.registry.get_sample_value(name, {"store": "eu"})
        assert shown == (began + timedelta(hours=ahead)).timestamp()


def test_names_carry_their_unit() -> None:
    metrics = Metrics()
    metrics.failed(Kind.TENANT, StoreUnavailable("away"), 0.2, retried=True)
    metrics.reconciled(Kind.TENANT, Outcome(changed=True), 0.2)
    own = [
        family
        for family in metrics.registry.collect()
        if not family.name.startswith(("process_", "python_"))
    ]
    assert own
    for family in own:
        assert family.name.startswith("memtenant_")
        assert family.documentation.endswith(".")
        if "duration" in family.name or "age" in family.name or "timestamp" in family.name:
            assert family.name.endswith("_seconds")
    assert metrics.registry.get_sample_value(
        "memtenant_reconciliations_failed_total",
        {"kind": "MemoryTenant", "reason": "StoreUnavailable"},
    )


async def test_a_page_of_many_tenants_lets_others_in_between() -> None:
    mirror = Mirror()
    for number in range(1000):
        key = ObjectKey.tenant("support", f"t{number}")
        mirror.put(declared(key, conditions=[condition("Ready", "True")]))
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(other_work())
    await declared_series(mirror, tenant_limit=1000)
    other.cancel()
    assert turns >= 5
