"""What the operator shows of the sealer's work, and how the audit of a deleted tenant ends."""

import redis

from memtenant.resources.port import ObjectKey
from memtenant.rules.sealing import LogReport, SealerReport
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground, told

ACME = TenantId("support", "acme")


def audit(admin: "redis.Redis", entry: Audited) -> None:
    admin.hset(keys.STORE_AUDITED, str(ACME), entry.to_json())


def seal(admin: "redis.Redis", *, beat_ago: int = 0, **log: int) -> int:
    """What a sealer would write now; the time."""
    seconds, _ = admin.time()
    now = seconds * 1000
    sealer = SealerReport("memtenant.dev/x", 3, 9, "ab" * 32, now, now - beat_ago)
    admin.hset(keys.STORE_SEALER, mapping=sealer.to_fields())
    admin.hset(keys.sealer_report(ACME), mapping=LogReport(**log).to_fields())
    return now


async def test_a_store_and_its_tenants_tell_whether_their_audit_is_sealed(ground: Ground) -> None:
    ground.tenant("acme")
    await ground.settle()
    assert told(await ground.store_status("shared"), "AuditSealed") == ("", "", "")

    with ground.server.admin() as admin:
        ground.tenant("acme", audit={"mode": "Enabled"})
        await ground.settle()
        store, tenant = await ground.store_status("shared"), await ground.tenant_status("acme")
        assert told(store, "AuditSealed")[:2] == ("False", "SealerStale")
        assert told(tenant, "AuditSealed")[:2] == ("False", "SealerStale")

        now = seal(admin, size=5)
        await ground.settle()
        store, tenant = await ground.store_status("shared"), await ground.tenant_status("acme")
        assert told(store, "AuditSealed")[:2] == ("True", "Sealed")
        assert told(tenant, "AuditSealed")[:2] == ("True", "Sealed")
        assert store.last_seal is not None
        assert (store.last_seal.size, store.last_seal.root) == (9, "ab" * 32)

        seal(admin, size=5, gaps=1, irregular_at=now)
        await ground.settle()
        tenant = await ground.tenant_status("acme")
        assert told(tenant, "AuditSealed")[:2] == ("False", "AuditGaps")
        assert '"AuditGaps"' in (ground.folder / "events.log").read_text()

        ground.tenant("acme")
        await ground.settle()
        admin.delete(keys.audit_queue(ACME))  # as its drain does
        await ground.settle()
        await ground.settle()  # a look after the end of the log
    assert told(await ground.store_status("shared"), "AuditSealed") == ("", "", "")
    assert told(await ground.tenant_status("acme"), "AuditSealed") == ("", "", "")


async def test_the_queue_of_a_deleted_tenant_stays_until_it_is_drained(ground: Ground) -> None:
    ground.tenant("acme", deletionPolicy="Delete")
    await ground.settle()
    queue, report = keys.audit_queue(ACME), keys.sealer_report(ACME)
    with ground.server.admin() as admin:
        audit(admin, Audited(60))
        seal(admin)
        admin.rpush(queue, "an event")
        ground.resources.delete(ObjectKey.tenant("support", "acme"))
        await ground.settle()
        audit(admin, Audited(60, closing=True))
        await ground.settle()
        left = {key.decode() for key in admin.scan_iter(match=f"{keys.prefix(ACME)}*")}
        assert left == {queue, report}

        admin.delete(queue)  # as its drain does
        await ground.settle()
        assert not list(admin.scan_iter(match=f"{keys.prefix(ACME)}*"))
        assert not admin.hexists(keys.STORE_AUDITED, str(ACME))


async def test_where_there_never_was_a_sealer_nothing_waits_for_one(ground: Ground) -> None:
    ground.tenant("acme", deletionPolicy="Delete")
    await ground.settle()
    with ground.server.admin() as admin:
        audit(admin, Audited(60))
        admin.rpush(keys.audit_queue(ACME), "an event")
        ground.resources.delete(ObjectKey.tenant("support", "acme"))
        await ground.settle()
        audit(admin, Audited(60, closing=True))
        await ground.settle()
        assert not list(admin.scan_iter(match=f"{keys.prefix(ACME)}*"))
        assert not admin.exists(keys.STORE_AUDITED)
