"""What keeps a tenant's data from being deleted: holds and minimums.

Where the store does not answer, what may stand is told from the record and the mirror alone.
"""

from __future__ import annotations

from datetime import datetime

from memtenant.api.fields import DeletionPolicy
from memtenant.crypto.header import peek_header
from memtenant.errors import MemtenantError, RecordInvalid
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared
from memtenant.rules.deletion import Content, Obstacle, obstacle_to_deletion
from memtenant.rules.policy import PolicyFacts, hold_labels, matters_from
from memtenant.rules.record import Phase, TenantRecord
from memtenant.tenancy.identity import TenantId

__all__ = ["may_be_held", "may_be_kept", "obstacle_to"]


async def obstacle_to(
    world: World,
    record: TenantRecord,
    policy: DeletionPolicy,
    link: StoreLink,
    declared: Declared | None = None,
) -> Obstacle | None:
    """What keeps the data: the RetentionPolicy that was in force, as the store remembers, and the
    one that the tenant names now. A name that was never in force frees nothing.
    """
    if policy is DeletionPolicy.RETAIN or record.phase is Phase.DELETING:
        return None
    tenant = record.tenant
    access = (await link.admin.read_states([tenant]))[tenant].access
    named = _policy_named(declared)
    in_force = access.get("policy", named)
    before = matters_from(access.get("matters", ""))
    for name in dict.fromkeys((in_force, named)):
        if not name:
            continue
        try:
            facts = read_policy(world, name)
        except MemtenantError as error:
            if name != in_force:
                continue
            return Obstacle(
                "RetentionPolicyNotFound",
                f"Deletion policy {policy} waits: whether a hold or a minimum stands is not "
                f"known. {error}",
            )
        matters = facts.matters_of(_labels(world, tenant, declared), before, world.clock.now())
        content = Content()
        if facts.content_minimum is not None and not matters:
            content = await _content(link, tenant)
        obstacle = obstacle_to_deletion(
            policy, matters, facts.content_minimum, content, world.clock.now()
        )
        if obstacle is not None:
            return obstacle
    return None


def may_be_kept(world: World, declared: Declared, record: TenantRecord) -> bool:
    """Whether a hold or a minimum may stand, as far as that is known without the store."""
    policies = _policies(world, declared, record)
    minimum = any(facts.content_minimum is not None for facts in policies or ())
    return minimum or may_be_held(world, declared, record)


def may_be_held(world: World, declared: Declared, record: TenantRecord) -> bool:
    """Whether a hold may stand, as far as that is known without the store."""
    policies = _policies(world, declared, record)
    if policies is None:
        return True
    labels = _labels(world, record.tenant, declared)
    before = matters_from(record.matters)
    return any(facts.matters_of(labels, before, world.clock.now()) for facts in policies)


def _policies(
    world: World, declared: Declared, record: TenantRecord
) -> tuple[PolicyFacts, ...] | None:
    """The policy in force, as the record remembers, and the one that the tenant names now; None
    where one cannot be read."""
    names = dict.fromkeys((record.policy, _policy_named(declared)))
    try:
        return tuple(read_policy(world, name) for name in names)
    except MemtenantError:
        return None


def _policy_named(declared: Declared | None) -> str:
    ref = declared.spec.get("retentionPolicyRef") if declared else None
    name = ref.get("name") if isinstance(ref, dict) else None
    return name if isinstance(name, str) else ""


def _labels(world: World, tenant: TenantId, declared: Declared | None) -> dict[str, str]:
    namespace = world.mirror.namespace(tenant.namespace)
    return hold_labels(
        tenant, declared.labels if declared else {}, namespace.labels if namespace else {}
    )


async def _content(link: StoreLink, tenant: TenantId) -> Content:
    """How many records there are and how young, by the clear header of each conversation's last."""
    records = undated = 0
    youngest: datetime | None = None
    async for latest in link.admin.latest_records([tenant]):
        records += latest.records
        try:
            written = peek_header(latest.header).written
        except RecordInvalid:
            undated += latest.records
            continue
        youngest = written if youngest is None else max(youngest, written)
    return Content(records, youngest, undated)
