"""The reconcile of a RetentionPolicy, and the way that tenants look one up."""

from __future__ import annotations

from memtenant.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Finding,
    is_true,
)
from memtenant.api.policy import HeldMatter, RetentionPolicyStatus
from memtenant.api.reporting import Reporting
from memtenant.errors import InvalidResource
from memtenant.reconcile.declared import policy_spec, save_status, status_before
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.reporting import keep_reporting
from memtenant.reconcile.telling import tell_policy_gone, tell_spec
from memtenant.reconcile.world import DOUBT_AGAIN, FINALIZER, Reported, World
from memtenant.resources.port import Declared, EventType, ObjectKey
from memtenant.rules.policy import PolicyFacts, hold_labels, policy_facts, retention_findings
from memtenant.tenancy.identity import TenantId

__all__ = ["is_current", "read_policy", "reconcile_policy"]


def read_policy(world: World, name: str) -> PolicyFacts:
    """The policy's facts, resolved once per generation.

    Raises `InvalidResource` where there is no such policy or it cannot be resolved.
    """
    declared = world.mirror.get(ObjectKey.policy(name))
    if declared is None:
        raise InvalidResource(
            f"RetentionPolicy {name!r} does not exist: create it, or name one that exists",
            field="spec.retentionPolicyRef.name",
            reason="RetentionPolicyNotFound",
        )
    return _facts(world, declared)


def _facts(world: World, declared: Declared) -> PolicyFacts:
    name = declared.key.name
    known = world.policies.get(name)
    if known is None or known[0] != (declared.uid, declared.generation):
        facts = policy_facts(name, policy_spec(declared))
        known = ((declared.uid, declared.generation), facts)
        world.policies[name] = known
    return known[1]


def is_current(world: World, facts: PolicyFacts) -> bool:
    """Whether the policy is declared as it was when it came to this."""
    declared = world.mirror.get(ObjectKey.policy(facts.name))
    known = world.policies.get(facts.name)
    return (
        declared is not None
        and known is not None
        and known[0] == (declared.uid, declared.generation)
        and known[1] is facts
    )


async def reconcile_policy(world: World, declared: Declared) -> Outcome:
    """Resolve the policy, count its tenants, and say so; let it go when nobody uses it."""
    tenants = world.mirror.tenants_of_policy(declared.key.name)
    if declared.deleting:
        return await _delete(world, declared, len(tenants))
    if FINALIZER not in declared.finalizers:
        declared = await world.resources.add_finalizer(declared, FINALIZER)
        world.mirror.put(declared)
    before = status_before(declared, RetentionPolicyStatus)
    try:
        facts = _facts(world, declared)
    except InvalidResource as error:
        stalled = (
            Finding(ConditionType.READY, ConditionStatus.FALSE, error.reason, str(error)),
            Finding(ConditionType.STALLED, ConditionStatus.TRUE, error.reason, str(error)),
        )
        status = before.model_copy(update={"tenants": len(tenants)})
        return Outcome(changed=await save_status(world, declared, status, stalled))
    kept = await keep_reporting(world, declared, facts.spec.report)
    world.reported[declared.key.name] = kept.told
    status = before.model_copy(
        update={
            "conditions": _without_schedule(before, facts.spec.report),
            "tenants": len(tenants),
            "last_report": kept.told.last,
            "frameworks": facts.framework_versions(),
            "retention": facts.resolved_status(),
            "held_matters": _held(world, facts, tenants),
        }
    )
    findings = (
        Finding(
            ConditionType.READY,
            ConditionStatus.TRUE,
            "Resolved",
            "Tenants may be under this policy",
        ),
        Finding(ConditionType.STALLED, ConditionStatus.FALSE, "Resolved"),
        Finding(ConditionType.RECONCILING, ConditionStatus.FALSE, "Resolved"),
        *retention_findings(facts.resolution),
        kept.told.stale,
        *kept.findings,
    )
    retold = _tells_anew(before, kept.told)
    await tell_spec(world, declared)
    wait = world.counts_wait(declared.key, before.tenants, len(tenants))
    if wait and before.observed_generation == declared.generation and not retold:
        return Outcome(requeue_after=wait, changed=kept.changed)
    changed = await save_status(world, declared, status, findings)
    if retold and kept.told.stale.status is ConditionStatus.TRUE:
        emit, stale = world.resources.emit_event, kept.told.stale
        await emit(declared, EventType.WARNING, "ReportMissed", stale.message)
    return Outcome(
        requeue_after=kept.look_again,
        enqueue=tuple(sorted(tenants)) if retold else (),
        changed=changed or kept.changed,
    )


def _tells_anew(before: RetentionPolicyStatus, told: Reported) -> bool:
    """Whether there is a report, or a missing one, that the tenants have not told of yet."""
    was_stale = is_true(before.conditions, ConditionType.STALE)
    is_stale = told.stale.status is ConditionStatus.TRUE
    return was_stale is not is_stale or before.last_report != told.last


def _without_schedule(
    before: RetentionPolicyStatus, report: Reporting | None
) -> tuple[Condition, ...]:
    """The conditions, without one about a schedule that is no longer there."""
    kind = ConditionType.REPORT_SCHEDULED
    return tuple(one for one in before.conditions if report is not None or one.type != kind)


def _held(
    world: World, facts: PolicyFacts, tenants: frozenset[ObjectKey]
) -> tuple[HeldMatter, ...]:
    if not facts.spec.legal_holds:
        return ()
    counts = {hold.matter: 0 for hold in facts.spec.legal_holds}
    for key in tenants:
        declared = world.mirror.get(key)
        if declared is None:
            continue
        namespace = world.mirror.namespace(key.namespace)
        labels = hold_labels(
            TenantId(key.namespace, key.name),
            declared.labels,
            namespace.labels if namespace else {},
        )
        for matter in facts.matters_of(labels, {}, world.clock.now()):
            counts[matter] += 1
    return tuple(HeldMatter(matter=m, tenants=count) for m, count in sorted(counts.items()))


async def _delete(world: World, declared: Declared, tenants: int) -> Outcome:
    """The ValidatingAdmissionPolicy refuses this while tenants use it; this is the backstop."""
    if FINALIZER not in declared.finalizers:
        return Outcome()
    if not tenants and world.mirror.doubted:
        return Outcome(requeue_after=DOUBT_AGAIN)
    if tenants:
        message = (
            f"{tenants} MemoryTenants are under this policy: move them to another one, or delete "
            "them first"
        )
        status = status_before(declared, RetentionPolicyStatus).model_copy(
            update={"tenants": tenants}
        )
        finding = Finding(ConditionType.READY, ConditionStatus.FALSE, "InUse", message)
        blocked = Finding(ConditionType.DELETION_BLOCKED, ConditionStatus.TRUE, "InUse", message)
        return Outcome(changed=await save_status(world, declared, status, (finding, blocked)))
    await tell_policy_gone(world, declared.key)
    await world.resources.remove_finalizer(declared, FINALIZER)
    return Outcome(changed=True)
