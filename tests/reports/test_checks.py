"""Every check passes on the real thing, fails when that is broken, and never passes unseen."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memtenant import Message
from memtenant.api.policy import RetentionPolicySpec
from memtenant.api.tenant import MemoryTenantSpec
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reports.access_view import look_at_store
from memtenant.reports.checks import CHECKS, Status
from memtenant.reports.collect import collect
from memtenant.reports.evidence import (
    Coverage,
    LogKeyReaders,
    Missing,
    Opened,
    RecordEvidence,
    StoreEvidence,
    TenantEvents,
    TenantFacts,
)
from memtenant.reports.incluster import admin_secrets
from memtenant.reports.report import Report
from memtenant.reports.scope import unseen_instances
from memtenant.reports.sources import Declarations
from memtenant.resources.port import Declared, ObjectKey
from memtenant.rules.acl import AccessState, render_user, setuser_args
from memtenant.rules.controls import Parameters
from memtenant.rules.instance import instance_name
from memtenant.rules.policy import policy_facts
from memtenant.stores.pace import Pace
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.policy import AgentAccess
from tests.reports.breaking import (
    BREAKS,
    POLICIES,
    UNSEEN,
    Act,
    a_plaintext_record,
    a_record_that_was_taken,
    a_tenant_of_which_nothing_is_known,
    an_old_record,
    content,
    held,
)
from tests.reports.conftest import ACME, Scene, without, words

ALL = ("GDPR", "HIPAA", "PCI_DSS", "SOX")


async def at_work(scene: Scene, policy: dict[str, Any] | None = None) -> None:
    """A tenant whose agent remembered something, all of it sealed."""
    scene.frameworks = ALL
    await scene.declare(
        policy={"legalBasis": "contract"} if policy is None else policy,
        agents=[{"name": "default", "access": "Steward"}],
    )
    tenant = scene.agent()
    await tenant.conversation("s", user="ada").extend([Message.human("hello"), Message.ai("hi")])
    if not {"legalHolds", "retention"} & (policy or {}).keys():
        await tenant.shared_context("case").create({"a": 1, "b": 2})
    await scene.seal()


def declare(scene: Scene, **policy: Any) -> None:
    """Another generation of the policy."""
    audit = {"mode": "Required", "reads": "Required"}
    scene.ground.policy(**{"frameworks": list(scene.frameworks), "audit": audit, **policy})


@pytest.fixture
def closed(scene: Scene) -> Iterator[Scene]:
    """The scene, whose server lets nobody in without a password afterwards."""
    yield scene
    with scene.server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "reset")
        admin.execute_command("ACL", "DELUSER", "guest")


async def test_what_is_as_it_should_be_passes_but_for_what_nobody_can_see(scene: Scene) -> None:
    await at_work(scene)
    await scene.keep()
    await scene.seal()
    await scene.agent().conversation("s", user="ada").append(Message.human("not sealed yet"))
    scene.decrypt = True
    report = await scene.report()
    found = {one.control.check: one for one in report.results()}
    told = {check: words(one) for check, one in found.items() if words(one)}
    assert found.keys() - {"Manual"} == CHECKS.keys()
    assert {check: one.judgement.status for check, one in found.items()} == {
        **dict.fromkeys(CHECKS, Status.PASS),
        # One account has the state folder.
        "LogKeySeparate": Status.WARN,
        "NothingRemovedUnderMinimum": Status.SKIP,
        "NothingDeletedUnderHold": Status.SKIP,
        # Without a cluster nothing tells who declared something.
        "ChangesRecorded": Status.WARN,
        "Manual": Status.MANUAL,
    }, told


async def test_nothing_is_said_of_what_was_not_decrypted(scene: Scene) -> None:
    await at_work(scene)
    for check in ("RecordsAuthentic", "NoForbiddenData", "PersonalDataMasked"):
        result = await scene.judged(check)
        assert result.judgement.status is Status.SKIP
        assert "not decrypted: " in words(result)


@pytest.mark.parametrize("where", sorted({one.scene for one in BREAKS}))
async def test_a_check_fails_when_the_real_thing_is_broken(closed: Scene, where: str) -> None:
    scene = closed
    if where == "kept":
        scene.ahead = -timedelta(days=800)
    await at_work(scene, POLICIES.get(where))
    scene.ahead = timedelta()
    acts: dict[Act, None] = {}
    expected = defaultdict(list)
    for one in BREAKS:
        if one.scene == where:
            acts[one.act] = None
            expected[one.check].append(one.says)
    for act in acts:
        await act(scene)
    report = await scene.report()
    for check, says in expected.items():
        results = [one for one in report.results() if one.control.check == check]
        assert Status.FAIL in {one.judgement.status for one in results}, check
        told = "\n".join(map(words, results))
        assert all(part in told for part in says), told


async def test_a_cut_off_that_passes_the_minimum_takes_too_much(scene: Scene) -> None:
    """Whoever administers the store moved it; the operator's sweep obeyed, and told so."""
    await at_work(scene, POLICIES["minimum"])
    passed = await scene.judged("NothingRemovedUnderMinimum")
    assert (passed.judgement.status, words(passed)) == (Status.PASS, "")
    assert "1 under a minimum, which is what it is since" in passed.judgement.looked
    async with local_world(scene.ground.resources) as world:
        await settle(world)
        with scene.server.admin() as admin:
            seconds, _ = admin.time()
            admin.hset(keys.limits(ACME), "cutoff_content", int(seconds) * 1000 + 5000)
        world.links["shared"].expiry.passed_at = None
        await WorldReconciler(world).expire(ObjectKey.store("shared"))
    await scene.seal()
    result = await scene.judged("NothingRemovedUnderMinimum")
    assert result.judgement.status is Status.FAIL
    assert "minimum of 1y (RetentionPolicy spec.retention.content.min): 2 (1 to 2" in words(result)
    assert ", expired at " in words(result)
    # Whoever changes the policy afterwards, and leaves the minimum, does not excuse it.
    declare(scene, **POLICIES["minimum"] | {"legalBasis": "another"})
    await scene.ground.settle()
    await scene.seal()
    result = await scene.judged("NothingRemovedUnderMinimum")
    assert (result.judgement.status, result.judgement.total) == (Status.FAIL, 1)


async def test_since_when_a_minimum_stands_is_the_logs_to_say(scene: Scene) -> None:
    await at_work(scene, POLICIES["minimum"])
    policy = {**POLICIES["minimum"], "retention": {"content": {"min": "2y"}}}
    scene.ground.policy(frameworks=list(scene.frameworks), **policy)  # nobody acted upon it
    result = await scene.judged("NothingRemovedUnderMinimum")
    assert result.judgement.status is Status.ERROR
    assert "since when" in words(result)


async def test_a_log_that_begins_later_than_a_minimum_does_not_tell_whether_all_is_there(
    scene: Scene,
) -> None:
    await at_work(scene, POLICIES["minimum"])
    evidence = await scene.evidence()
    assert not isinstance(evidence.log, Missing)
    for days, status in ((300, Status.ERROR), (400, Status.PASS)):
        pruned = {str(ACME): evidence.now - timedelta(days=days)}
        result = await scene.judged(
            "NothingRemovedUnderMinimum", log=replace(evidence.log, pruned=pruned)
        )
        assert result.judgement.status is status, days
        assert ("keep the log as long" in words(result)) is (status is Status.ERROR)


@pytest.mark.parametrize(
    "act",
    list(dict.fromkeys(act for acts in UNSEEN.values() for act in acts)),
    ids=lambda act: act.__name__,
)
async def test_a_check_whose_evidence_is_gone_is_an_error(scene: Scene, act: Act) -> None:
    await at_work(scene)
    await act(scene)
    report = await scene.report()
    for check in (one for one, acts in UNSEEN.items() if act in acts):
        results = [one for one in report.results() if one.control.check == check]
        assert {one.judgement.status for one in results} == {Status.ERROR}, check


async def test_a_store_that_only_an_unknown_tenant_is_on_was_not_looked_at(scene: Scene) -> None:
    await at_work(scene)
    await a_tenant_of_which_nothing_is_known(scene)
    report = await scene.report()
    for check in ("DefaultUserOff", "LeastPrivilege", "TransportEncrypted"):
        results = [one for one in report.results() if one.control.check == check]
        assert {one.judgement.status for one in results} == {Status.ERROR}, check


async def test_users_that_may_not_be_looked_at_are_missing(scene: Scene) -> None:
    await at_work(scene)
    with scene.server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "mt.reporter", "-acl|getuser")
    result = await scene.judged("DefaultUserOff")
    assert result.judgement.status is Status.ERROR


async def test_what_users_may_write_is_not_judged_without_what_is_there(scene: Scene) -> None:
    """A store that answered for its users, and then for nothing else."""
    await at_work(scene)
    unread = without(await scene.evidence(), "records")
    result = await scene.judged("LeastPrivilege", tenants=unread.tenants)
    assert result.judgement.status is Status.ERROR


async def test_a_replica_in_the_place_of_the_primary_is_not_the_store(scene: Scene) -> None:
    await at_work(scene)
    with scene.server.admin() as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            result = await scene.judged("DefaultUserOff")
        finally:
            admin.execute_command("REPLICAOF", "NO", "ONE")
    assert result.judgement.status is Status.ERROR
    assert "is a replica now" in words(result)


async def test_a_tenant_that_is_not_audited_has_no_sealer_at_work(scene: Scene) -> None:
    await at_work(scene)
    with scene.server.admin() as admin:
        admin.hset(keys.limits(ACME), "audit", "0")
        assert (await scene.judged("SealerLive")).judgement.status is Status.SKIP
        admin.delete(keys.limits(ACME))
    assert (await scene.judged("SealerLive")).judgement.status is Status.ERROR
    assert (await scene.judged("KeysRotated")).judgement.status is Status.ERROR


async def test_a_hold_counts_while_the_policy_has_it_and_not_by_the_stores_word(
    scene: Scene,
) -> None:
    await at_work(scene)
    await an_old_record(scene)
    with scene.server.admin() as admin:
        admin.hset(keys.access(ACME), "matters", '{"MADE-UP": "digest"}')
    result = await scene.judged("KeptWithinPeriod")
    assert result.judgement.status is Status.FAIL


async def test_what_is_wrong_in_the_installations_log_fails_too(scene: Scene) -> None:
    await at_work(scene)
    with scene.server.admin() as admin:
        admin.rpush(keys.INSTALLATION_QUEUE, b"no event")
    await scene.seal()
    result = await scene.judged("AuditCovers")
    assert result.judgement.status is Status.FAIL
    assert "installation: entries that are no events" in words(result)


async def test_a_record_with_a_false_time_is_as_old_as_its_event(scene: Scene) -> None:
    await at_work(scene)
    evidence = await scene.evidence()
    (tenant,) = evidence.tenants
    assert isinstance(tenant.events, TenantEvents)
    assert isinstance(tenant.events.coverage, Coverage)
    told = replace(tenant.events.coverage, oldest=scene.now() - timedelta(days=4000))
    found = replace(tenant, events=replace(tenant.events, coverage=told))
    result = await scene.judged("KeptWithinPeriod", tenants=(found,))
    assert result.judgement.status is Status.FAIL
    assert "with another time" in words(result)


async def test_a_report_of_which_the_log_was_not_told_proves_nothing(scene: Scene) -> None:
    await at_work(scene)
    made = await scene.keep()
    with scene.server.admin() as admin:
        admin.delete(keys.INSTALLATION_QUEUE)
    scene.ahead = timedelta(hours=2)
    await scene.seal()
    result = await scene.judged("ReportsKept")
    assert result.judgement.status is Status.WARN
    assert f"report {made.folder.name}: no leaf of the log names it" in words(result)


async def test_a_report_whose_leaf_is_on_its_way_is_not_no_report(scene: Scene) -> None:
    await at_work(scene)
    await scene.keep()
    result = await scene.judged("ReportsKept")
    assert (result.judgement.status, "one of the next seals" in words(result)) == (
        *(Status.SKIP, True),
    )


async def test_of_reports_that_the_log_does_not_tell_of_any_more_nothing_is_known(
    scene: Scene,
) -> None:
    """The files are kept for longer than the log."""
    scene.ahead = -timedelta(days=70)
    await at_work(scene)
    await scene.keep()
    await scene.seal()
    scene.ahead = timedelta()
    await scene.keep()
    await scene.seal(prune=[INSTALLATION_LOG])
    result = await scene.judged("ReportsKept")
    assert result.judgement.status is Status.WARN
    assert result.judgement.total == 1, words(result)
    assert "nothing is known" in words(result)


async def test_a_log_key_that_nobody_reads_was_not_found(scene: Scene) -> None:
    await at_work(scene)
    nobody = LogKeyReaders(scene.now(), (), ("system:serviceaccount:audit:sealer",))
    result = await scene.judged("LogKeySeparate", readers=nobody)
    assert result.judgement.status is Status.ERROR


def test_who_administers_a_strict_tenants_instance_administers_a_store() -> None:
    def declared(key: ObjectKey, **spec: object) -> Declared:
        return Declared(key, "uid", "1", 1, datetime.now(UTC), spec=spec)

    store = declared(ObjectKey.store("shared"), adminSecretRef={"name": "admin"})
    tenants = [
        declared(ObjectKey.tenant("support", name), isolation=isolation)
        for name, isolation in (("acme", "Moderate"), ("vault", "Strict"))
    ]
    instance = instance_name(TenantId("support", "vault"))
    assert admin_secrets([store], tenants) == {"admin", instance}


async def test_a_sample_of_nothing_proves_nothing(scene: Scene) -> None:
    await at_work(scene)
    scene.decrypt = True
    evidence = await scene.evidence()
    (tenant,) = evidence.tenants
    assert isinstance(tenant.records, RecordEvidence)
    for opened, status in (
        (Opened(0, 0, 0), Status.SKIP),
        # Keys from before a rotation say nothing of records.
        (Opened(0, 5, 5, {"KeyUnavailable": 5}), Status.ERROR),
        (Opened(4, 5, 5, {"KeyUnavailable": 1}), Status.ERROR),
        (Opened(4, 5, 5, {"RecordTampered": 1}), Status.FAIL),
    ):
        found = replace(tenant, records=replace(tenant.records, opened=opened))
        result = await scene.judged("RecordsAuthentic", tenants=(found,))
        assert result.judgement.status is status


async def test_who_is_not_declared_any_more_and_under_no_policy_was_not_looked_at(
    scene: Scene,
) -> None:
    await at_work(scene)
    with scene.server.admin() as admin:
        admin.set(f"{keys.records(TenantId('support', 'gone'))}_:x:l", "y")
        admin.rpush(keys.audit_queue(TenantId("support", "drained")), "y")
    for check in ("KeptWithinPeriod", "Encrypted", "AuditCovers", "ErasuresCompleted"):
        result = await scene.judged(check)
        assert result.judgement.status is Status.ERROR
        assert "support.gone: declaration: the tenant is not declared any more" in words(result)
        assert result.judgement.total == 1


async def test_who_was_retained_stays_in_the_report_of_the_policy_that_was_in_force(
    scene: Scene,
) -> None:
    scene.frameworks = ALL
    await scene.declare(policy={"legalBasis": "contract"})
    await scene.agent().conversation("s", user="ada").append(Message.human("hello"))
    await scene.seal()
    scene.ground.resources.delete(ObjectKey.tenant("support", "acme"))
    await scene.ground.settle()
    await scene.seal()
    kept = await scene.evidence()
    (tenant,) = kept.tenants
    assert isinstance(tenant.facts, TenantFacts)
    assert isinstance(tenant.records, RecordEvidence)
    assert (tenant.facts.gone, tenant.records.records) == (True, 2)
    statuses = {one.control.check: one.judgement.status for one in (await scene.report()).results()}
    for check in ("KeptWithinPeriod", "Encrypted", "AuditCovers", "LogKept", "LeastPrivilege"):
        assert statuses[check] is Status.PASS, check
    # Nobody works there any more; how old its keys are, nothing tells.
    assert {statuses[one] for one in ("UniqueUsers", "Audited")} == {Status.PASS, Status.SKIP}
    assert statuses["KeysRotated"] is Status.ERROR
    await an_old_record(scene)
    await a_plaintext_record(scene)
    for check in ("KeptWithinPeriod", "Encrypted"):
        result = await scene.judged(check)
        assert result.judgement.status is Status.FAIL
        assert "support.acme" in words(result)
    # It is in no other policy's.
    scene.ground.policy("other", frameworks=["GDPR"])
    other = await collect(
        scene.sources(), "other", kept.period, now=scene.now(), pace=Pace(duty=1.0)
    )
    assert other.tenants == ()


def test_whose_instance_is_stopped_was_not_looked_at() -> None:
    orphans = [
        {"tenantId": f"support.{name}", "since": "2026-11-01T00:00:00Z", "retentionPolicy": policy}
        for name, policy in (("a", "standard"), ("b", "other"), ("c", "removed"), ("d", ""))
    ]
    template = Declared(
        *(ObjectKey.store("vault"), "uid", "1", 1, datetime.now(UTC)),
        spec={"dedicated": {}},
        status={"orphanCount": 9, "orphans": orphans},
    )
    policies = tuple(
        Declared(ObjectKey.policy(name), "uid", "1", 1, datetime.now(UTC))
        for name in ("standard", "other")
    )
    declared = Declarations(policies=policies, stores=(template,))
    facts = policy_facts("standard", RetentionPolicySpec())
    unseen = dict(unseen_instances(declared, facts))
    assert unseen.keys() == {"support.a", "support.c", "support.d", "more of store vault"}
    assert "5 more tenants" in str(unseen["more of store vault"])


async def test_a_cut_off_that_the_policy_does_not_have_explains_nothing(scene: Scene) -> None:
    await at_work(scene)
    await a_record_that_was_taken(scene)
    with scene.server.admin() as admin:
        later = str(int(scene.now().timestamp() * 1000) + 1)
        admin.hset(keys.limits(ACME), "cutoff_content", later)
    assert (await scene.judged("AuditCovers")).judgement.status is Status.FAIL


async def test_of_a_tenant_without_events_nothing_is_known(scene: Scene) -> None:
    await at_work(scene, POLICIES["hold"])
    evidence = await scene.evidence()
    (tenant,) = evidence.tenants
    silent = (replace(tenant, events=TenantEvents(coverage=Coverage(0, 0, 0, 0, 0, 0, 0))),)
    held = await scene.judged("NothingDeletedUnderHold", tenants=silent)
    assert held.judgement.status is Status.ERROR
    covers = await scene.judged("AuditCovers", tenants=silent)
    assert covers.judgement.status is Status.SKIP


async def test_a_name_of_any_length_leaves_a_report_that_can_be_read(scene: Scene) -> None:
    await at_work(scene)
    evidence = await scene.evidence()
    store = evidence.stores["shared"]
    assert isinstance(store, StoreEvidence)
    report = await scene.report(stores={"shared": replace(store, strangers=("x" * 10_000,))})
    assert Report.parse(report.to_json()).to_json() == report.to_json()


async def test_what_the_store_says_of_an_agent_does_not_excuse_a_user_that_may_more(
    scene: Scene,
) -> None:
    """The store's administrator can change both."""
    await at_work(scene)
    (tenant,) = (await scene.evidence()).tenants
    facts = tenant.facts
    assert isinstance(facts, TenantFacts)
    agents = [{"name": "default", "access": "ReadOnly"}]
    spec = MemoryTenantSpec.model_validate(
        facts.spec.model_dump(by_alias=True, mode="json") | {"agents": agents}
    )
    (login,) = await scene.sources().stores()
    assert not isinstance(login.settings, Missing)
    witness = StoreWitness(login.settings)
    drift = {}
    for declared in (facts, replace(facts, spec=spec), replace(facts, spec=spec, generation=9)):
        found = await look_at_store(
            witness, login, {ACME: declared}, frozenset({ACME}), scene.now()
        )
        drift[declared.generation, declared.spec is spec] = {one.user for one in found.drift}
    await witness.close()
    assert drift == {
        (1, False): set(),
        (1, True): {"mt.support.acme.default.a"},
        # The operator does not act upon it: what it accepted is in force.
        (9, True): set(),
    }


async def test_another_way_in_is_seen_however_little_it_may(scene: Scene) -> None:
    """A user as memtenant renders those of agents, of an agent that nobody declared; and a second
    password."""
    await at_work(scene)
    (store,) = (await scene.evidence()).stores.values()
    assert isinstance(store, StoreEvidence)
    with scene.server.admin() as admin:
        commands = frozenset(one.decode().lower() for one in admin.execute_command("COMMAND LIST"))
        ghost = render_user(
            *(ACME, AgentName("ghost"), "a"),
            access=AgentAccess.READ_ONLY,
            state=AccessState(),
            password_hashes=("0" * 64,),
            commands=commands,
        )
        admin.execute_command("ACL", "SETUSER", *setuser_args(ghost))
        admin.execute_command("ACL", "SETUSER", "mt.support.acme.default.a", ">another")
    result = await scene.judged("LeastPrivilege")
    assert result.judgement.status is Status.FAIL
    assert "ghost.a on" in words(result)
    assert "1 password(s) that memtenant did not set" in words(result)


async def test_what_was_made_again_is_not_covered_by_the_generations_of_the_one_before(
    scene: Scene,
) -> None:
    await at_work(scene)
    evidence = await scene.evidence()
    (tenant,) = evidence.tenants
    assert isinstance(tenant.facts, TenantFacts)
    ((store, _),) = evidence.generations
    again = replace(tenant, facts=replace(tenant.facts, uid="again"))
    for parts, says in (
        ({"uid": "again"}, "RetentionPolicy/standard: no change of it is in the log"),
        ({"generations": {(store, "again"): 1}}, f"MemoryStore/{store}: no change of it"),
        ({"tenants": (again,)}, "support.acme: generation 1 of its spec is not in the log"),
    ):
        result = await scene.judged("ChangesRecorded", **parts)
        assert result.judgement.status is Status.FAIL
        assert says in words(result)


async def test_who_is_forgotten_has_a_request_and_then_a_receipt(scene: Scene) -> None:
    await at_work(scene)
    await scene.agent().forget("ada", consent_reference="letter")
    await scene.seal()
    scene.ahead = timedelta(minutes=2)
    for _ in range(2):
        (tenant,) = (await scene.evidence()).tenants
        assert isinstance(tenant.records, RecordEvidence)
        assert isinstance(tenant.events, TenantEvents)
        assert (tenant.records.erasures_known, tenant.events.erasures_asked) == (1, 1)
        assert (await scene.judged("ErasuresCompleted")).judgement.status is Status.PASS
        await scene.ground.settle()


async def test_who_shares_a_key_is_gone_where_no_record_from_before_bears_the_tag(
    scene: Scene,
) -> None:
    await scene.declare(isolation="Minimal", agents=[{"name": "default", "access": "Steward"}])
    chat = scene.agent(agent="default").conversation("s", user="ada")
    await chat.append(Message.human("hello"))
    with scene.server.admin() as admin:
        record = bytes(admin.lindex(content(admin), 0))
        # A receipt tells seconds.
        earlier = int.from_bytes(record[6:12], "big") - 1000
        record = record[:6] + earlier.to_bytes(6, "big") + record[12:]
        await scene.agent().forget("ada")
        for _ in range(3):
            await scene.ground.settle()
        await scene.seal()
        scene.ahead = timedelta(minutes=2)
        within = Parameters({"within": "1mo"})
        check = CHECKS["ErasuresCompleted"]
        assert check(await scene.evidence(), within).status is Status.PASS
        admin.rpush(content(admin), record)
        judged = check(await scene.evidence(), within)
    assert judged.status is Status.FAIL
    assert "that were left: 1 (mt:{support.acme}:r:" in judged.findings[0].words


async def test_without_a_log_nothing_tells_that_an_erased_persons_records_stay_away(
    scene: Scene,
) -> None:
    await at_work(scene)
    with scene.server.admin() as admin:
        admin.hset(keys.limits(ACME), "audit", "0")
    assert (await scene.judged("ErasuresCompleted")).judgement.status is Status.PASS
    await scene.agent().forget("ada", consent_reference="letter")
    result = await scene.judged("ErasuresCompleted")
    assert result.judgement.status is Status.SKIP
    assert "only the log could tell" in words(result)


async def test_a_hold_that_no_user_feels_is_a_difference(scene: Scene) -> None:
    await at_work(scene)
    scene.ground.policy(frameworks=list(ALL), legalBasis="contract", **held())
    result = await scene.judged("LeastPrivilege")
    assert result.judgement.status is Status.FAIL
    assert "mt.support.acme.default" in words(result)


async def test_what_had_expired_before_its_period_was_lengthened_is_not_missed(
    scene: Scene,
) -> None:
    """An agent's append trims what is past the cut-off, and no event tells of that."""
    short = {"legalBasis": "contract", "retention": {"content": {"default": "1d"}}}
    scene.frameworks = ("SOX",)
    await scene.declare(policy=short, agents=[{"name": "default", "access": "Steward"}])
    chat = scene.agent().conversation("s", user="ada")
    await chat.extend([Message.human("hello"), Message.ai("hi")])
    scene.ahead = timedelta(hours=36)
    with scene.server.admin() as admin:
        cut_off = int((scene.now() - timedelta(days=1)).timestamp() * 1000)
        admin.hset(keys.limits(ACME), "cutoff_content", cut_off)
        await chat.append(Message.human("trims"))
    declare(scene, legalBasis="contract", retention={"content": {"default": "8d"}})
    await scene.ground.settle(ahead=scene.ahead)
    await scene.seal()
    scene.ahead += timedelta(minutes=1)
    (tenant,) = (await scene.evidence()).tenants
    assert isinstance(tenant.events, TenantEvents)
    assert isinstance(tenant.events.coverage, Coverage)
    assert (tenant.events.coverage.explained, tenant.events.coverage.vanished) == (2, 0)


async def test_of_the_time_before_a_framework_was_added_a_report_says_neither_pass_nor_fail(
    scene: Scene,
) -> None:
    """What the log and the reports were let go of then, they were let go of by right."""
    scene.ahead = -timedelta(days=60)
    scene.frameworks = ("GDPR",)
    await scene.declare(policy={"retention": {"evidence": {"default": "30d"}}})
    await scene.agent().conversation("s", user="ada").append(Message.human("hello"))
    await scene.keep()
    await scene.seal()
    scene.ahead = timedelta()
    loose = {"retention": {"evidence": {"default": "30d"}}, "legalBasis": "contract"}
    declare(scene, **loose)
    await scene.ground.settle()
    removed = (await scene.keep()).pruned
    assert len(removed) == 1
    await scene.agent().conversation("s", user="ada").append(Message.human("later"))
    await scene.seal()
    declare(scene, frameworks=ALL, legalBasis="contract")
    await scene.ground.settle()
    await scene.seal()
    result = await scene.judged("ReportsKept")
    assert result.judgement.status is Status.WARN
    assert f"the period of evidence was shorter: 1 ({removed[0]})" in words(result)

    await scene.seal(prune=[str(ACME), INSTALLATION_LOG])
    for check, status, says in (
        ("LogKept", Status.WARN, "By the rule that was in force then, it might go"),
        ("RevisionsKept", Status.WARN, "what the policy said before was removed"),
        ("ChangesRecorded", Status.ERROR, "whether generation 1 was told then, nothing says"),
    ):
        result = await scene.judged(check)
        assert (result.judgement.status, says in words(result)) == (status, True), words(result)


async def test_an_audit_that_was_off_for_a_while_was_not_on_in_the_period(scene: Scene) -> None:
    scene.frameworks = ("GDPR",)
    await scene.declare()
    for audit in (
        {"mode": "Optional"},
        {"mode": "Required", "reads": "Optional"},
        {"mode": "Required", "reads": "Required"},
    ):
        declare(scene, audit=audit)
        await scene.ground.settle()
        await scene.seal()
    scene.beat("acme")
    check, evidence = CHECKS["Audited"], await scene.evidence()
    for reads, says in (
        (True, {"the audit was off: from 20", "reads left no event: from 20"}),
        (False, {"the audit was off: from 20"}),
    ):
        judged = check(evidence, Parameters({"reads": reads}))
        told = [one.words for one in judged.findings]
        assert (judged.status, len(told)) == (Status.FAIL, len(says)), told
        assert all(any(one.startswith(part) for one in told) for part in says), told


async def test_what_was_done_before_a_tenants_audit_began_nothing_tells(scene: Scene) -> None:
    scene.frameworks = ("GDPR",)
    await scene.declare(policy={"audit": {"mode": "Optional"}})
    declare(scene)
    await scene.ground.settle()
    await scene.seal()
    scene.beat("acme")
    judged = CHECKS["Audited"](await scene.evidence(), Parameters({"reads": True}))
    assert (judged.status, judged.total) == (Status.WARN, 1), judged.findings
    assert "its audit began at" in judged.findings[0].words


async def test_a_policy_that_is_too_long_for_an_event_is_told_by_its_digest(scene: Scene) -> None:
    scene.frameworks = ("HIPAA",)
    await scene.declare(policy={"legalBasis": "contract"})
    many = [
        {
            "matter": f"M-{n}",
            "since": "2026-01-01T00:00:00Z",
            "tenantSelector": {"matchLabels": {"a": "b"}},
        }
        for n in range(60)
    ]
    declare(scene, legalBasis="contract", legalHolds=many)
    await scene.ground.settle()
    await scene.seal()
    result = await scene.judged("RevisionsKept")
    assert result.judgement.status is Status.WARN, words(result)
    assert "of generation 2 of" in words(result)
    assert "2 generations that were in force, 1 word by word" in result.judgement.looked
