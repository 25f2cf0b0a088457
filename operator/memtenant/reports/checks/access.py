"""Who gets in, with which rights, and over which wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from memtenant.api.tenant import BindingStatus
from memtenant.clock import rfc3339
from memtenant.reports.checks.judging import Judge, Judgement
from memtenant.reports.evidence import (
    Evidence,
    Missing,
    RecordEvidence,
    StoreEvidence,
    TenantFacts,
)
from memtenant.rules.controls import Parameters
from memtenant.rules.quota import Limits
from memtenant.rules.quota import judge as decide
from memtenant.tenancy.policy import Isolation

__all__ = [
    "credentials_rotated",
    "default_user_off",
    "least_privilege",
    "transport_encrypted",
    "unique_users",
]

_GROSS: Final = 1.1
"""So much of a quota nobody uses between two measurements."""


def default_user_off(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """No node lets anybody in without a password."""
    judge = Judge(evidence)
    for store in _stores(judge):
        for node in store.open_nodes:
            judge.fail(store.name, f"{node} lets anybody in: this user is on, without a password")
    return judge.judgement("ACL users of every node", of="stores")


def transport_encrypted(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Stores are reached by TLS, unless nothing leaves the machine."""
    judge = Judge(evidence)
    for store in _stores(judge):
        if not store.tls and not store.loopback:
            judge.fail(store.name, f"{store.address} is reached without TLS")
    return judge.judgement("connections", of="stores")


def unique_users(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Each agent has a user of its own, and no node has one for anybody."""
    judge = Judge(evidence)
    for store in _stores(judge):
        for node in store.open_nodes:
            judge.fail(store.name, f"{node} is a user for anybody: without a password")
    for facts, _ in judge.declared(lambda one: one.facts):
        agents = facts.spec.agents_or_default()
        if facts.spec.isolation.value == Isolation.MINIMAL.value:
            judge.fail(
                str(facts.tenant),
                f"isolation Minimal: {len(agents)} agents share one user of the store",
            )
        users = [one.username for one in facts.status.bindings]
        if not users:
            judge.missing(
                str(facts.tenant), Missing("users", "its status names no binding: it is not Ready")
            )
        elif len(set(users)) != len(users) and facts.spec.isolation.value != "Minimal":
            judge.fail(str(facts.tenant), "two agents have the same user")
    return judge.judgement("declared agents and ACL users", of="stores and tenants")


def least_privilege(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Every user of a tenant is as the operator renders it, on every node; none is unknown."""
    judge = Judge(evidence)
    compared = 0
    for store in _stores(judge):
        compared += store.checked
        for drift in store.drift:
            judge.fail(
                store.name, f"{drift.user} on {drift.node}: {'; '.join(drift.differences[:4])}"
            )
        for stranger in store.strangers:
            judge.warn(store.name, f"user {stranger} was not made by memtenant")
    for one in evidence.tenants:
        if isinstance(one.facts, Missing):
            continue
        if isinstance(one.records, Missing):
            judge.missing(one.name, one.records)
        else:
            _within_quota(judge, one.facts, one.records)
    return judge.judgement(f"{compared} ACL users against their rules", of="stores")


def _within_quota(judge: Judge, facts: TenantFacts, records: RecordEvidence) -> None:
    """The users' rights follow what the store says of the quota: that has to follow from what is
    declared, and from what is there. The operator measures each minute: what was just passed, the
    next report tells."""
    if facts.gone or not facts.accepted:
        return
    name, quota, usage, said = str(facts.tenant), facts.spec.quota, records.usage, records.quota
    allowed = {"memory": quota.memory.bytes, "conversations": quota.conversations}
    used = {"memory": usage.memory, "conversations": usage.conversations}
    for what, limit in allowed.items():
        if records.limits and records.limits.get(what) != str(limit):
            judge.fail(name, f"the store allows it another {what} than its quota of {limit}")
    limits = Limits(quota.memory.bytes, quota.conversations)
    should = decide(said, usage, limits, judge.evidence.now)
    for what in should.over:
        if what not in said.over:
            words = f"its users may write, and {used[what]} of {allowed[what]} {what} are used"
            gross = used[what] >= _GROSS * allowed[what]
            (judge.fail if gross else judge.warn)(name, words)
    for what in said.over:
        if what not in should.over:
            judge.warn(name, f"its users may not write, and {what} is within its quota")
    if should.flooded and not said.flooded:
        judge.warn(name, "its users are on, and its queues, indexes or keys are beyond the limit")
    if said.flooded and not should.flooded and not usage.largest_bookkeeping:
        judge.warn(name, "its users are off, and nothing floods the store")


def credentials_rotated(evidence: Evidence, parameters: Parameters) -> Judgement:
    """No agent's credential is older than the period."""
    judge = Judge(evidence)
    period = parameters.needed_period("period")
    for facts, _ in judge.declared(lambda one: one.facts):
        if not facts.status.bindings:
            judge.missing(str(facts.tenant), Missing("credentials", "its status names no binding"))
        for one in facts.status.bindings:
            if evidence.is_to_come(one.rotated_at):
                why = f"it was made at {rfc3339(one.rotated_at)}, still to come by this clock"
                judge.missing(str(facts.tenant), Missing(f"credential of {one.agent}", why))
            if period.after(one.rotated_at) < evidence.now:
                judge.fail(str(facts.tenant), _too_old(one, str(period)))
    return judge.judgement("credentials by their age")


def _too_old(one: BindingStatus, period: str) -> str:
    return f"the credential of agent {one.agent} is of {rfc3339(one.rotated_at)}: over {period} old"


def _stores(judge: Judge) -> Iterator[StoreEvidence]:
    """Each store that could be read; of the others, of nodes that did not answer, and of what a
    tenant is on of which nothing is known, that it is missing."""
    stores = judge.evidence.stores
    judge.expect(len(stores))
    for one in judge.evidence.tenants:
        if isinstance(one.facts, Missing):
            judge.expect(1)
            judge.missing(f"the store of {one.name}", one.facts)
    for name, store in sorted(stores.items()):
        if isinstance(store, Missing):
            judge.missing(name, store)
            continue
        judge.saw(store.at)
        for node in store.unreachable:
            judge.missing(name, Missing("node", node))
        yield store
