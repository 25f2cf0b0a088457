"""May a tenant be as it is declared? What no rule allows ends the reconcile, with the reason."""

from __future__ import annotations

from memtenant.api.tenant import MemoryTenantSpec
from memtenant.errors import InvalidResource, MemtenantError
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.current import Current
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.store import store_specs
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared
from memtenant.rules.adoption import adoption_refusal
from memtenant.rules.placement import Applicant, Refusal, StoreView, place
from memtenant.rules.policy import Matters, PolicyFacts
from memtenant.stores import TenantState
from memtenant.tenancy.identity import TenantId

__all__ = ["Stop", "check_adoption", "check_data", "check_hold", "placed_on", "sums_are_known"]


class Stop(MemtenantError):
    """The tenant cannot go on now: ``refusal`` says why (reason, field, message)."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, reason=refusal.reason)
        self.refusal = refusal
        self.retryable = refusal.retryable


def placed_on(world: World, applicant: Applicant, policy: PolicyFacts, placed: str) -> StoreView:
    """The tenant's store; the tenant is entered in the ledger."""
    ledger = world.committed_ledger()
    views = [StoreView(name, spec, ledger.committed(name)) for name, spec in store_specs(world)]
    placement = place(applicant, policy.view, views, placed)
    if placement.refusal is not None:
        raise Stop(placement.refusal)
    assert placement.store is not None  # noqa: S101 - a placement has a store or a refusal
    ledger.enter(placement.store.name, applicant.tenant, applicant.spec.quota.memory.bytes)
    return placement.store


def sums_are_known(world: World, applicant: Applicant) -> bool:
    """Whether it is known what others were promised, as far as the tenant's place depends on it:
    who takes over may not have seen yet what was placed last."""
    if not world.mirror.doubted:
        return True
    granted = world.committed_ledger().entry(applicant.tenant)
    if granted is not None and applicant.spec.quota.memory.bytes <= granted[1]:
        return True
    specs = [spec for _, spec in store_specs(world)]
    return all(
        spec.capacity.memory is None and spec.tenant_policy.max_memory_per_namespace is None
        for spec in specs
    )


def check_adoption(
    declared: Declared, spec: MemoryTenantSpec, current: Current, namespace_uid: str
) -> None:
    """What was kept under this name is taken over only by whom it belongs to."""
    record, stored = current.record, current.stored_record
    if record is None or stored is None:
        if declared.status.get("keyVersion"):
            raise Stop(
                Refusal(
                    "RecordLost",
                    "",
                    "The tenant's record in the home namespace is gone, and its keys with it: "
                    "restore the Secret from a backup. No new keys are made in their place",
                )
            )
        return
    refusal = adoption_refusal(
        record,
        uid=declared.uid,
        namespace_uid=namespace_uid,
        isolation=spec.isolation.value,
        encryption=spec.encryption.mode.value,
        release=stored.annotations,
        home=stored.namespace,
    )
    if refusal is not None:
        raise Stop(refusal)


def check_data(state: TenantState, incarnation: str, tenant: TenantId, link: StoreLink) -> None:
    """What is on the store is of no other tenant that had the name before."""
    found = state.access.get("incarnation", incarnation)
    if found != incarnation:
        raise Stop(
            Refusal(
                "ForeignData",
                "",
                f"Store {link.store} holds data of another tenant {tenant} whose record is gone: "
                "restore that record, or have the platform admin purge the data",
            )
        )


def check_hold(world: World, policy: PolicyFacts, state: TenantState, matters: Matters) -> None:
    """A tenant does not leave a hold, or a minimum of its content, by naming another policy."""
    former = state.access.get("policy", policy.name)
    if former == policy.name:
        return
    try:
        in_force = read_policy(world, former)
    except InvalidResource:
        return
    standing = in_force.still_holds(matters)
    minimum = in_force.content_minimum
    if minimum is not None and (policy.content_minimum is None or policy.content_minimum < minimum):
        raise Stop(
            Refusal(
                "RetentionMinimum",
                "spec.retentionPolicyRef.name",
                f"RetentionPolicy {former!r} keeps this tenant's content for at least {minimum}, "
                f"RetentionPolicy {policy.name!r} does not: put the former name back, or name a "
                "policy with as long a minimum",
            )
        )
    if standing:
        raise Stop(
            Refusal(
                "LegalHold",
                "spec.retentionPolicyRef.name",
                f"RetentionPolicy {former!r} holds this tenant ({', '.join(standing)}): put that "
                "policy's name back; counsel releases the hold there",
            )
        )
