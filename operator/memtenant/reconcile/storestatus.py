"""What the status of a usable MemoryStore says of its servers and of what lies on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding
from memtenant.api.quantity import quantity_of_bytes
from memtenant.api.store_status import (
    AclState,
    Durable,
    IsolationProof,
    MemoryStoreStatus,
    NodeRole,
    NodeStatus,
    Orphan,
    StoreFlavour,
    UserPersistence,
)
from memtenant.errors import ResourceConflict
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.records import FoundRecord
from memtenant.reconcile.sealing import last_seal
from memtenant.reconcile.world import World
from memtenant.stores import Address, Role, StoreFacts

__all__ = ["counted", "foreign_findings", "usable_findings", "usable_status"]

_SHOWN_ORPHANS = 100
_SHOWN_NODES = 64


def usable_status(
    world: World,
    before: MemoryStoreStatus,
    link: StoreLink,
    orphans: Sequence[FoundRecord],
    users: Mapping[Address, int],
) -> MemoryStoreStatus:
    """The status of a store whose link was just taken. ``users`` are counted on each node."""
    facts, proof = link.facts, link.proof
    assert facts is not None and proof is not None  # noqa: S101, PT018 - the link was just taken
    return before.model_copy(
        update={
            "flavour": _flavour(link),
            "server": str(facts.primary.flavour),
            "version": facts.primary.version,
            "owner": world.installation,
            "nodes": _nodes(link, facts, users),
            "durable": Durable(
                aof=all(node.append_only for node in facts.primaries),
                noeviction=not any(node.evicts for node in facts.primaries),
                aclfile=facts.users_persist,
            ),
            "user_persistence": UserPersistence.ACL_FILE
            if facts.users_persist
            else UserPersistence.REPROVISIONED,
            **counted(world, link.name, orphans),
            "last_seal": last_seal(before, link),
            "isolation": _proof(before.isolation, link, facts, world.clock.now()),
        }
    )


def counted(world: World, store: str, orphans: Sequence[FoundRecord]) -> dict[str, object]:
    """What lies on the store: tenants, what they were promised, and what tenants left behind."""
    committed = world.committed_ledger().committed(store)
    return {
        "tenants": len(committed),
        "committed_memory": quantity_of_bytes(committed.total),
        "orphan_count": len(orphans),
        "orphans": tuple(
            Orphan(
                tenant_id=str(record.tenant),
                namespace_uid=record.namespace_uid,
                since=record.since,
                retention_policy=record.policy,
            )
            for _, record in orphans[:_SHOWN_ORPHANS]
        ),
    }


def _flavour(link: StoreLink) -> StoreFlavour:
    if link.cluster is not None:
        return StoreFlavour.CLUSTER
    return StoreFlavour.STANDALONE if link.sentinel is None else StoreFlavour.SENTINEL


def _proof(
    before: IsolationProof | None, link: StoreLink, facts: StoreFacts, now: datetime
) -> IsolationProof:
    assert link.proof is not None  # noqa: S101 - the link was just taken
    found = IsolationProof(
        server_version=link.proof.server[:64],
        rule_template=link.proof.template,
        commands=len(facts.commands),
        verified_at=now.replace(microsecond=0),
    )
    same = before is not None and (before.server_version, before.rule_template) == (
        found.server_version,
        found.rule_template,
    )
    return before if before is not None and same else found


def _nodes(
    link: StoreLink, facts: StoreFacts, users: Mapping[Address, int]
) -> tuple[NodeStatus, ...]:
    reached = [
        NodeStatus(
            address=str(node.address),
            role=NodeRole.PRIMARY if node.role is Role.PRIMARY else NodeRole.REPLICA,
            acl=AclState.REPAIRING if node.address in link.repairing else AclState.IN_SYNC,
            users=users.get(node.address, 0),
            acl_file=bool(node.users_persist),
        )
        for node in facts.nodes
    ]
    lost = [
        NodeStatus(address=str(address), role=NodeRole.REPLICA, acl=AclState.UNREACHABLE)
        for address in facts.unreachable
    ]
    return tuple(sorted((*reached, *lost), key=lambda node: node.address))[:_SHOWN_NODES]


def foreign_findings(error: ResourceConflict) -> tuple[Finding, ...]:
    """What is told of a Secret of the home namespace that lost the labels which say whose it is."""
    return (
        Finding(ConditionType.READY, ConditionStatus.FALSE, error.reason, str(error)),
        Finding(ConditionType.STALLED, ConditionStatus.TRUE, error.reason, str(error)),
    )


def usable_findings(link: StoreLink) -> tuple[Finding, ...]:
    """The conditions of a store whose link was just taken."""
    facts = link.facts
    assert facts is not None  # noqa: S101 - the link was just taken
    true, false = ConditionStatus.TRUE, ConditionStatus.FALSE
    lost = ", ".join(str(address) for address in sorted(facts.unreachable))
    return (
        Finding(ConditionType.READY, true, "Usable", "Tenants can be placed and repaired"),
        Finding(ConditionType.REACHABLE, true, "Answers", ""),
        Finding(ConditionType.OWNED, true, "Owned", "This installation provisions the store"),
        Finding(ConditionType.STALLED, false, "Usable"),
        Finding(
            ConditionType.RECONCILING,
            true if lost else false,
            "ReplicaUnreachable" if lost else "Usable",
            f"Replica {lost} does not answer: it is provisioned when it does" if lost else "",
        ),
        _durable(facts),
    )


def _durable(facts: StoreFacts) -> Finding:
    if facts.durable:
        return Finding(
            ConditionType.DURABLE, ConditionStatus.TRUE, "Durable", "AOF is on, nothing is evicted"
        )
    if all(node.append_only for node in facts.primaries):
        return Finding(
            ConditionType.DURABLE,
            ConditionStatus.FALSE,
            "AppendOnlyFileUnread",
            "A restart loses what was written: Redis reads its append-only file by the rules of "
            "the user default. ACL SETUSER default off ~* &* +@all lets nobody in, and everything "
            "be read; save it",
        )
    return Finding(
        ConditionType.DURABLE,
        ConditionStatus.FALSE,
        "NoAppendOnlyFile",
        "A restart may lose the latest writes: set appendonly yes",
    )
