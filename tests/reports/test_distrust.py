"""What a report takes for granted from nobody: clocks, whole scans, times without an audit."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import pytest

from memtenant import Message
from memtenant.reports import looking
from memtenant.reports.checks import CHECKS, Status
from memtenant.reports.evidence import Missing, TenantEvents, TenantFacts
from memtenant.resources.port import ObjectKey
from memtenant.rules.controls import Parameters
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys
from tests.reports.breaking import POLICIES, content, held
from tests.reports.conftest import ACME, Scene, words
from tests.reports.test_checks import ALL, at_work, declare


async def test_a_record_that_bears_a_time_before_the_tenants_first_day_has_no_event(
    scene: Scene,
) -> None:
    """The log is there from that day on: what was dated before was written around it."""
    await at_work(scene)
    with scene.server.admin() as admin:
        entry = bytes(admin.lindex(content(admin), 0))
        month = 30 * 86_400
        time = int.from_bytes(entry[6:12], "big") - month * 1000
        writer = int.from_bytes(entry[33:37], "big") - month
        dated = entry[:6] + time.to_bytes(6, "big") + entry[12:33]
        admin.rpush(content(admin), dated + writer.to_bytes(4, "big") + entry[37:])
    result = await scene.judged("AuditCovers")
    assert result.judgement.status is Status.FAIL
    assert "records without an event: 1/" in words(result)


async def test_a_run_whose_clock_is_behind_says_nothing_of_ages(scene: Scene) -> None:
    await at_work(scene)
    scene.ahead = -timedelta(days=300)
    for check, says in (
        ("KeptWithinPeriod", "nothing can be said of ages"),
        ("KeysRotated", "nothing can be said of ages"),
        ("CredentialsRotated", "still to come by this clock"),
        ("SealerLive", "the last seal is of"),
    ):
        result = await scene.judged(check)
        assert (result.judgement.status, says in words(result)) == (Status.ERROR, True), check


async def test_a_key_that_is_still_to_be_made_has_no_age(scene: Scene) -> None:
    """As after an operator whose clock was ahead."""
    await at_work(scene)
    (tenant,) = (await scene.evidence()).tenants
    assert isinstance(tenant.facts, TenantFacts)
    made = scene.now() + timedelta(days=300)
    status = tenant.facts.status.model_copy(update={"key_made_at": made})
    found = replace(tenant, facts=replace(tenant.facts, status=status))
    result = await scene.judged("KeysRotated", tenants=(found,))
    assert result.judgement.status is Status.ERROR
    assert "still to come by this clock" in words(result)


async def test_a_drain_that_is_still_to_come_is_none(scene: Scene) -> None:
    await at_work(scene)
    with scene.server.admin() as admin:
        beat = int((scene.now() + timedelta(days=300)).timestamp() * 1000)
        admin.hset(keys.limits(ACME), "audit_heartbeat", beat)
    result = await scene.judged("SealerLive")
    assert result.judgement.status is Status.ERROR
    assert "the last drain is of" in words(result)


async def test_what_comes_while_a_long_run_reads_is_not_still_to_come(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at_work(scene)
    later = scene.now() + timedelta(minutes=25)
    with scene.server.admin() as admin:
        admin.hset(keys.limits(ACME), "audit_heartbeat", int(later.timestamp() * 1000))
    await scene.seal(now=later)
    monkeypatch.setattr(looking, "monotonic", lambda: monotonic() + 1800)
    assert (await scene.judged("SealerLive")).judgement.status is Status.PASS


async def test_a_report_that_a_clock_ahead_made_leaves_no_time_out(scene: Scene) -> None:
    await at_work(scene)
    first = await scene.keep()
    scene.ahead = timedelta(days=300)
    await scene.keep()
    scene.ahead = timedelta(seconds=2)
    last = (await scene.keep()).report
    assert last.period.since == first.report.period.until


async def test_the_log_of_a_tenant_that_is_gone_is_looked_at_too(scene: Scene) -> None:
    """No policy has it, so each report does."""
    scene.frameworks = ("SOX",)
    await scene.declare("acme", "gone", deletionPolicy="Delete")
    await scene.seal("acme", "gone")
    scene.ground.resources.delete(ObjectKey.tenant("support", "gone"))
    await scene.ground.settle()
    await scene.seal("acme", "gone")
    assert (await scene.judged("LogVerifies")).judgement.status is Status.PASS
    shutil.rmtree(scene.archive / "logs" / "support.gone")
    result = await scene.judged("LogVerifies")
    assert result.judgement.status is Status.FAIL
    assert "support.gone" in words(result)


async def test_what_went_while_nothing_was_audited_is_not_known(scene: Scene) -> None:
    scene.frameworks = ("GDPR",)
    loose = {"legalBasis": "contract", **POLICIES["minimum"], **held()}
    await scene.declare(policy=loose)
    await scene.seal()
    declare(scene, **loose, audit={"mode": "Optional"})
    await scene.ground.settle()
    await scene.seal()
    for back in (False, True):
        if back:
            declare(scene, **loose)
            await scene.ground.settle()
            await scene.seal()
        evidence = await scene.evidence()
        for name in ("NothingRemovedUnderMinimum", "NothingDeletedUnderHold"):
            judged = CHECKS[name](evidence, Parameters())
            assert judged.status is Status.ERROR, name
            assert any("the audit was off" in one.words for one in judged.findings), name


async def test_what_was_stored_before_the_audit_began_is_not_known_to_be_there(
    scene: Scene,
) -> None:
    """However long ago: it is held, or under the minimum, all the same."""
    scene.frameworks = ("GDPR",)
    loose = {"legalBasis": "contract", **POLICIES["minimum"], **held()}
    scene.ahead = -timedelta(days=100)
    await scene.declare(policy={**loose, "audit": {"mode": "Optional"}})
    declare(scene, **loose)
    await scene.ground.settle()
    await scene.seal()
    scene.ahead = timedelta(days=100)
    evidence = await scene.evidence()
    for name in ("NothingRemovedUnderMinimum", "NothingDeletedUnderHold"):
        judged = CHECKS[name](evidence, Parameters())
        assert judged.status is Status.ERROR, judged
        assert "when it was not audited" in judged.findings[0].words, judged


async def test_what_is_held_from_before_the_log_begins_is_not_known_to_be_there(
    scene: Scene,
) -> None:
    await at_work(scene, held() | {"retention": {"content": {"default": "365d"}}})
    evidence = await scene.evidence()
    assert not isinstance(evidence.log, Missing)
    # Held since 2026, when what was stored in 2025 had not expired.
    for days, status in ((300, Status.ERROR), (900, Status.PASS)):
        pruned = {str(ACME): evidence.now - timedelta(days=days)}
        log = replace(evidence.log, pruned=pruned)
        result = await scene.judged("NothingDeletedUnderHold", log=log)
        assert result.judgement.status is status, (days, words(result))


async def test_what_went_with_events_that_were_dropped_is_not_known(scene: Scene) -> None:
    scene.frameworks = ("GDPR",)
    await scene.declare(policy={"legalBasis": "contract", **POLICIES["minimum"], **held()})
    await scene.seal()
    evidence = await scene.evidence()
    (tenant,) = evidence.tenants
    assert isinstance(tenant.events, TenantEvents)
    for dropped, status in ((0, Status.PASS), (1, Status.ERROR)):
        told = replace(tenant, events=replace(tenant.events, dropped=dropped))
        for name in ("NothingRemovedUnderMinimum", "NothingDeletedUnderHold"):
            judged = CHECKS[name](replace(evidence, tenants=(told,)), Parameters())
            assert judged.status is status, judged


async def test_what_was_read_while_another_server_led_is_not_all_of_it(scene: Scene) -> None:
    """As after a failover and back: the keys are those of another history."""
    await at_work(scene)
    turned = False

    def turn(_done: int, _due: int) -> None:
        nonlocal turned
        if not turned:
            turned = True
            with scene.server.admin() as admin:
                admin.execute_command("REPLICAOF", "127.0.0.1", "1")
                admin.execute_command("REPLICAOF", "NO", "ONE")

    evidence = await scene.evidence(turn)
    (tenant,) = evidence.tenants
    assert isinstance(tenant.records, Missing)
    assert "while it was read" in tenant.records.why


async def test_what_is_drained_while_a_queue_is_read_hides_nothing_else(scene: Scene) -> None:
    await scene.declare()
    (login,) = await scene.sources().stores()
    assert not isinstance(login.settings, Missing)
    witness = StoreWitness(login.settings)
    name, read = keys.audit_queue(ACME), []
    with scene.server.admin() as admin:
        admin.delete(name)
        admin.rpush(name, *(f"{number:04}" for number in range(2500)))
        async for page in witness.queued(name):
            read[:0] = page
            admin.ltrim(name, 700, -1)
            admin.rpush(name, *(f"later {number}" for number in range(10)))
    await witness.close()
    assert {f"{number:04}".encode() for number in range(1400, 2500)} <= set(read)
    numbered = [one for one in dict.fromkeys(read) if not one.startswith(b"later")]
    assert numbered == sorted(numbered)


async def test_of_a_tenant_without_a_record_nothing_is_shown_about_records(scene: Scene) -> None:
    scene.frameworks = ALL
    await scene.declare(policy={"legalBasis": "contract"})
    await scene.seal()
    scene.decrypt = True
    for check in ("Encrypted", "RecordsAuthentic", "NoForbiddenData", "PersonalDataMasked"):
        result = await scene.judged(check)
        assert result.judgement.status is Status.SKIP, check
        assert words(result).endswith(": no records are stored"), check


async def test_what_is_stored_and_sealed_while_a_run_reads_is_not_missed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents go on working: the log tells it, and its conversation was read before."""
    await at_work(scene, POLICIES["minimum"] | held())
    queued = StoreWitness.queued

    async def later(self: StoreWitness, key: str) -> AsyncIterator[list[bytes]]:
        await scene.agent().conversation("s", user="ada").append(Message.human("meanwhile"))
        await scene.seal()
        async for page in queued(self, key):
            yield page

    monkeypatch.setattr(StoreWitness, "queued", later)
    report = await scene.report()
    for check in ("AuditCovers", "NothingDeletedUnderHold", "NothingRemovedUnderMinimum"):
        result = next(one for one in report.results() if one.control.check == check)
        assert result.judgement.status is Status.PASS, words(result)


async def test_what_expires_while_a_run_reads_is_not_missed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator moves the cut-off once a day, as at the hour of many a report."""
    short = {"legalBasis": "contract", "retention": {"content": {"default": "1d"}}}
    scene.frameworks = ("SOX",)
    await scene.declare(policy=short)
    await scene.agent().conversation("s", user="ada").append(Message.human("hello"))
    await scene.seal()
    scene.ahead = timedelta(hours=36)
    queued = StoreWitness.queued

    async def later(self: StoreWitness, key: str) -> AsyncIterator[list[bytes]]:
        with scene.server.admin() as admin:
            cut_off = int((scene.now() - timedelta(days=1)).timestamp() * 1000)
            admin.hset(keys.limits(ACME), "cutoff_content", cut_off)
        async for page in queued(self, key):
            yield page

    with scene.server.admin() as admin:
        admin.delete(content(admin))  # as the first append after it would
    assert (await scene.judged("AuditCovers")).judgement.status is Status.FAIL
    monkeypatch.setattr(StoreWitness, "queued", later)
    result = await scene.judged("AuditCovers")
    assert "that are gone" not in words(result)


async def test_a_time_to_come_does_not_excuse_that_a_record_is_gone(scene: Scene) -> None:
    """Whoever administers the store can write any; but not when the event was sealed."""
    scene.ahead = -timedelta(hours=1)
    await at_work(scene)
    await scene.agent().conversation("t", user="ada").append(Message.human("hello"))
    with scene.server.admin() as admin:
        queue = keys.audit_queue(ACME)
        entry = bytes(admin.lindex(queue, -1))
        later = int.from_bytes(entry[-11:-5], "big") + 86_400_000
        admin.lset(queue, -1, entry[:-11] + later.to_bytes(6, "big") + entry[-5:])
        await scene.seal()
        talks = [one for one in admin.scan_iter(f"{keys.records(ACME)}*:l") if admin.llen(one) == 1]
        admin.delete(*talks)
    scene.ahead = timedelta()
    result = await scene.judged("AuditCovers")
    assert result.judgement.status is Status.FAIL
    assert "that are gone" in words(result)
