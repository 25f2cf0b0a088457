"""What has passed its period is not shown any more, and under a hold everything is."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from memtenant.errors import TenantHeld
from memtenant.memory._async.tenant import Tenant
from memtenant.memory.messages import Message
from memtenant.memory.source import BindingSource
from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from tests.reconcile.conftest import Ground

pytestmark = pytest.mark.redis
LIMITS = "mt:{support.acme}:o:limits"


def cut_off(ground: Ground, field: str = "cutoff_content") -> int:
    with ground.server.admin() as admin:
        return int(admin.hget(LIMITS, field) or 0)


def server_ms(ground: Ground) -> int:
    with ground.server.admin() as admin:
        seconds, microseconds = admin.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def mount(data: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir()
    for name, content in data.items():
        (folder / name).write_bytes(content)


async def opened(ground: Ground, folder: Path) -> Tenant:
    """The tenant by its binding, as a kubelet would mount it."""
    stored = await ground.resources.get_secret("support", "acme-default")
    assert stored is not None
    mount(stored.data, folder)
    return Tenant(BindingSource(folder))


async def test_the_tenants_choice_reaches_the_functions(ground: Ground, tmp_path: Path) -> None:
    ground.tenant("acme", retention={"content": "2h"})
    await ground.settle()
    assert abs(server_ms(ground) - 7_200_000 - cut_off(ground)) < 7_200_000 // 30 + 10_000
    async with await opened(ground, tmp_path / "binding") as tenant:
        chat = tenant.conversation("s", user="u")
        await chat.append(Message.human("soon forgotten"))
        assert await chat.count() == 1
        with ground.server.admin() as admin:
            # Two hours later, as a reader sees it.
            admin.hset(LIMITS, "cutoff_content", server_ms(ground) + 1)
        assert await chat.messages() == []
        assert await chat.count() == 0


async def test_a_changed_policy_moves_the_cut_off_at_once(ground: Ground) -> None:
    ground.tenant("acme")
    await ground.settle()
    before = cut_off(ground)
    ground.policy(retention={"content": {"default": "10d"}})
    await ground.settle()
    assert cut_off(ground) - before > 19 * 86_400_000


async def test_under_a_hold_nothing_expires(ground: Ground) -> None:
    ground.tenant("acme")
    await ground.settle()
    assert cut_off(ground)
    ground.policy(
        legalHolds=[{"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": {}}]
    )
    await ground.settle()
    assert not cut_off(ground)
    ground.policy()
    await ground.settle()
    assert cut_off(ground)


async def test_a_hold_stops_expiry_of_a_tenant_that_is_refused(ground: Ground) -> None:
    ground.tenant("acme")
    await ground.settle()
    ground.tenant("acme", retention={"content": "900y"}, quota={"memory": "1Gi"})
    ground.policy(
        retention={"content": {"max": "30d"}},
        legalHolds=[{"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": {}}],
    )
    happened = await ground.settle()
    assert happened[ObjectKey.tenant("support", "acme")].error is None
    assert (await ground.tenant_status("acme")).conditions
    assert not cut_off(ground)


def make_old(ground: Ground, *, hours: int) -> int:
    """Every record of every tenant that much older, as the test itself reads the bytes; how many
    there are."""
    seen = 0
    with ground.server.admin() as admin:
        for key in admin.scan_iter("mt:{*}:r:*:l"):
            for place, entry in enumerate(admin.lrange(key, 0, -1)):
                then = int.from_bytes(entry[6:12], "big") - hours * 3_600_000
                admin.lset(key, place, entry[:6] + then.to_bytes(6, "big") + entry[12:])
                seen += 1
    return seen


def make_due(ground: Ground) -> None:
    """Every conversation at once, as the tenants' own lists tell it."""
    with ground.server.admin() as admin:
        for key in admin.scan_iter("mt:{*}:x"):
            admin.zadd(key, dict.fromkeys(admin.zrange(key, 0, -1), 1))


def records(ground: Ground) -> int:
    """How many there are, by a count of the test's own."""
    with ground.server.admin() as admin:
        return sum(admin.llen(key) for key in admin.scan_iter("mt:{*}:r:*:l"))


async def test_what_nobody_reads_or_appends_to_goes_by_itself(
    ground: Ground, tmp_path: Path
) -> None:
    ground.tenant("acme", retention={"content": "2h"})
    await ground.settle()
    async with await opened(ground, tmp_path / "binding") as tenant:
        await tenant.conversation("s", user="u", title="about her").append(Message.human("old"))
        make_old(ground, hours=3)
        chat = tenant.conversation("t", user="u")
        await chat.append(Message.human("young"))
        happened = await ground.settle()
        assert records(ground) == 1
        assert [one.text for one in await chat.messages()] == ["young"]
        assert [one.count for one in (await tenant.conversations("u")).items] == [1]
        usage = await tenant.usage()
        assert (usage.messages, usage.conversations) == (1, 1)
    (did,) = happened[ObjectKey.store("shared")].did
    assert "(tenants: 1, records: 1)" in did
    events = (tmp_path / "state" / "events.log").read_text()
    assert '"Expired"' in events
    assert not (await ground.settle())[ObjectKey.store("shared")].did


async def test_whose_records_bore_a_time_that_they_cannot_have_is_told(
    ground: Ground, tmp_path: Path
) -> None:
    ground.tenant("acme")
    await ground.settle()
    async with await opened(ground, tmp_path / "binding") as tenant:
        await tenant.conversation("s", user="u").append(Message.human("for ever"))
    make_old(ground, hours=-48)
    (did,) = (await ground.settle())[ObjectKey.store("shared")].did
    assert did.startswith(
        "Records that bore a time which they cannot have, and were dated back: 1."
    )
    assert did.endswith("They are in support.acme")
    assert records(ground) == 1


async def test_a_content_minimum_keeps_until_it_has_passed_and_then_only_the_operator_removes(
    ground: Ground, tmp_path: Path
) -> None:
    ground.policy(retention={"content": {"min": "4h", "default": "4h"}})
    ground.tenant("acme")
    await ground.settle()
    async with await opened(ground, tmp_path / "binding") as tenant:
        await tenant.conversation("s", user="u").append(Message.human("one"))
        make_old(ground, hours=3)
        await ground.settle()
        assert records(ground) == 1
        with pytest.raises(TenantHeld):
            await tenant.conversation("s", user="u").clear()
        make_old(ground, hours=2)
        await ground.settle()
        assert records(ground) == 0


async def test_an_operator_that_just_started_removes_nothing_of_a_tenant_it_has_not_looked_at(
    ground: Ground, tmp_path: Path
) -> None:
    """A hold that was declared while no operator ran is not on the store yet."""
    ground.tenant("acme", retention={"content": "2h"})
    await ground.settle()
    async with await opened(ground, tmp_path / "binding") as tenant:
        await tenant.conversation("s", user="u").append(Message.human("evidence"))
    make_old(ground, hours=3)
    store = ObjectKey.store("shared")
    async with local_world(ground.resources) as world:
        reconciler = WorldReconciler(world)
        await reconciler.reconcile(store, "first")
        await reconciler.expire(store)
        assert records(ground) == 1
    await ground.settle()
    assert records(ground) == 0


@pytest.mark.parametrize("why", ["a hold that is declared", "a mirror in doubt"])
async def test_what_may_be_held_stays_until_the_tenant_was_looked_at(
    ground: Ground, tmp_path: Path, why: str
) -> None:
    """The store says what the last reconcile knew."""
    ground.tenant("acme", retention={"content": "2h"})
    policy, store = ObjectKey.policy("standard"), ObjectKey.store("shared")
    async with local_world(ground.resources) as world:
        await settle(world)
        world.timing = replace(world.timing, expiry_pass=timedelta())
        reconciler = WorldReconciler(world)
        async with await opened(ground, tmp_path / "binding") as tenant:
            await tenant.conversation("s", user="u").append(Message.human("evidence"))
        make_old(ground, hours=3)
        if why == "a mirror in doubt":
            world.mirror.doubted = True
        else:
            hold = {"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": {}}
            ground.policy(legalHolds=[hold])
            declared = await ground.resources.get(policy)
            assert declared is not None
            world.mirror.put(declared)
        for _ in range(2):
            await reconciler.expire(store)
            assert records(ground) == 1
            make_due(ground)
        world.mirror.doubted = False
        ground.policy()
        declared = await ground.resources.get(policy)
        assert declared is not None
        world.mirror.put(declared)
        await reconciler.reconcile(ObjectKey.tenant("support", "acme"), "changed")
        await reconciler.expire(store)
        assert records(ground) == 0


async def test_under_a_hold_what_has_expired_stays_and_goes_when_it_ends(
    ground: Ground, tmp_path: Path
) -> None:
    ground.tenant("acme", retention={"content": "2h"})
    hold = [{"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": {}}]
    ground.policy(legalHolds=hold)
    await ground.settle()
    async with await opened(ground, tmp_path / "binding") as tenant:
        chat = tenant.conversation("s", user="u")
        await chat.append(Message.human("evidence"))
        make_old(ground, hours=3)
        await ground.settle()
        assert [one.text for one in await chat.messages()] == ["evidence"]
        ground.policy()
        await ground.settle()
        assert records(ground) == 0
