"""The reconcile of a MemoryStore: reach it, own it, prove it, count what lies on it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding, is_true
from memtenant.api.quantity import quantity_of_bytes
from memtenant.api.store import (
    AclState,
    Durable,
    IsolationProof,
    MemoryStoreSpec,
    MemoryStoreStatus,
    NodeRole,
    NodeStatus,
    Orphan,
    StoreFlavour,
    StoreTls,
    UserPersistence,
)
from memtenant.errors import (
    InvalidResource,
    KeyUnavailable,
    MemtenantError,
    StoreRefused,
    StoreUnavailable,
)
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.declared import save_status, status_before, store_spec
from memtenant.reconcile.deletion import finish_orphan
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.world import FINALIZER, World
from memtenant.resources.port import Declared, EventType, ObjectKey, StoredSecret
from memtenant.rules.acl import template_digest
from memtenant.rules.record import (
    LABEL_PHASE,
    RECORD_COMPONENT,
    RECORD_LABEL,
    Phase,
    TenantRecord,
)
from memtenant.stores import (
    Address,
    MatrixProof,
    NodeFacts,
    Role,
    StoreAdmin,
    StoreFacts,
    StoreSettings,
)
from memtenant.stores import StoreTls as Tls

__all__ = ["forget_store", "look_at_store", "reconcile_store", "store_specs"]

_SHOWN_ORPHANS = 100
_LOOK_AGAIN = 15.0
"""Seconds until a store in deletion that could not be used is tried again."""

_log = logging.getLogger(__name__)
_READY, _STALLED = ConditionType.READY, ConditionType.STALLED


def store_specs(world: World) -> list[tuple[str, MemoryStoreSpec]]:
    """Every declared store that can be read and is not in deletion, parsed once per generation."""
    found = []
    for declared in world.declared_stores():
        mark = (declared.uid, declared.generation)
        known = world.stores_seen.get(declared.key.name)
        if known is None or known[0] != mark:
            try:
                known = (mark, store_spec(declared))
            except InvalidResource:
                continue
            world.stores_seen[declared.key.name] = known
        if not declared.deleting:
            found.append((declared.key.name, known[1]))
    return found


async def reconcile_store(world: World, declared: Declared) -> Outcome:
    """Make the store usable for tenants, or say why it is not."""
    key = declared.key
    if declared.deleting:
        return await _delete(world, declared)
    if FINALIZER not in declared.finalizers:
        declared = await world.resources.add_finalizer(declared, FINALIZER)
        world.mirror.put(declared)
    before = status_before(declared, MemoryStoreStatus)
    known = world.links.get(key.name)
    was_ready = _linked(world, key.name)
    try:
        link = await _link(world, declared, store_spec(declared))
        renewed = await _take(world, declared, link)
    except MemtenantError as error:
        if key.name in world.links:
            world.links[key.name].failure = error
        return await _not_usable(world, declared, before, error)
    link.failure = None
    orphans = await _orphans(world, link)
    wait = world.counts_wait(key, before.tenants, len(world.ledger.committed(key.name)))
    # Its tenants' bindings say how to reach it, and another server does not hold their hashes.
    was_ready = was_ready and not renewed and known is not None and known.way == link.way
    if wait and was_ready and before.observed_generation == declared.generation:
        return Outcome(requeue_after=wait)
    # Counted on the nodes: the roster in memory is not whole before every tenant was looked at.
    found = (await link.admin.user_names()).results
    users = {address: len(names) for address, names in found.items()}
    status = _usable(world, before, link, orphans, users)
    changed = await save_status(world, declared, status, _findings(link))
    if not is_true(before.conditions, _READY):
        await world.resources.emit_event(
            declared, EventType.NORMAL, "Ready", f"Tenants may be placed on {link.endpoint}"
        )
    waiting: tuple[ObjectKey, ...] = ()
    if not was_ready:
        waiting = (
            *sorted(world.mirror.tenants_of_store(key.name) | world.mirror.unplaced_tenants()),
            *(twin.key for twin in _on_the_same_server(world, link)),
        )
    return Outcome(enqueue=waiting, changed=changed)


def _linked(world: World, name: str) -> bool:
    link = world.links.get(name)
    return link is not None and link.ready


async def _link(world: World, declared: Declared, spec: MemoryStoreSpec) -> StoreLink:
    """The store's link, made anew when its declaration or one of its Secrets changed."""
    name = declared.key.name
    password = await _secret(world, spec.admin_secret_ref.name, spec.admin_secret_ref.key)
    tls = await _tls(world, spec.tls) if spec.tls else None
    assert spec.standalone is not None  # noqa: S101 - the API demands exactly one flavour
    endpoint = _address(spec.standalone.endpoint)
    parts = (str(endpoint), spec.admin_username, password, repr(spec.tls), str(hash(tls)))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    known = world.links.get(name)
    if known is not None and known.digest == digest:
        return known
    settings = StoreSettings(
        endpoint=endpoint,
        username=spec.admin_username,
        password=lambda: password,
        tls=tls,
        server_name=spec.tls.server_name if spec.tls else None,
    )
    admin = StoreAdmin(
        settings,
        installation=world.installation,
        fence=world.fence,
        clock=world.clock,
        pace=world.pace(),
    )
    link = StoreLink(name, digest, admin, endpoint, tls is not None, (tls.ca or "") if tls else "")
    if known is not None:
        link.tenants, link.usage, link.measured_at = known.tenants, known.usage, known.measured_at
        link.working, link.mending = known.working, known.mending
        await known.admin.close()
    world.links[name] = link
    return link


async def _tls(world: World, declared: StoreTls) -> Tls:
    ca = None
    if declared.ca_secret_ref is not None:
        ca = await _secret(world, declared.ca_secret_ref.name, declared.ca_secret_ref.key)
    client = declared.client_secret_ref
    if client is None:
        return Tls(ca=ca)
    return Tls(
        ca=ca,
        client_certificate=await _secret(world, client.name, client.key),
        client_key=await _secret(world, client.name, client.private_key),
    )


async def _secret(world: World, name: str, key: str) -> str:
    """One text of a Secret in the home namespace, without a newline at its end."""
    home = world.resources.home
    stored = await world.resources.get_secret(home, name)
    if stored is None or key not in stored.data:
        lacks = "does not exist" if stored is None else f"has no key {key!r}"
        raise StoreRefused(
            f"Secret {home}/{name} {lacks}: create it in the operator's namespace",
            reason="AdminSecretMissing",
        )
    try:
        return stored.data[key].decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise StoreRefused(
            f"Secret {home}/{name}, key {key!r}, is not text", reason="AdminSecretInvalid"
        ) from None


def _address(endpoint: str) -> Address:
    host, _, port = endpoint.rpartition(":")
    return Address(host.strip("[]"), int(port))


async def look_at_store(world: World, declared: Declared) -> StoreLink:
    """The store as it is, without a write: for a preview, which takes the proof on trust."""
    link = await _link(world, declared, store_spec(declared))
    link.facts = await _inspect(link)
    owner = await link.admin.owner()
    if owner is not None and owner.installation != world.installation:
        raise StoreRefused(
            f"{link.endpoint} is provisioned by another installation of memtenant, "
            f"{owner.installation}, since {owner.since}",
            reason="StoreOwnedElsewhere",
        )
    template = template_digest(link.facts.commands)
    link.proof = MatrixProof(link.facts.primary.version, template, checked=0, denied=0)
    return link


async def _take(world: World, declared: Declared, link: StoreLink) -> bool:
    """Look at the nodes, claim the store, lead it, and prove the rule template on it.

    Whether the primary is another process than when it was looked at last.
    """
    before = link.facts
    facts = await _inspect(link)
    link.facts = facts
    for elder in _on_the_same_server(world, link):
        if _age(elder) < _age(declared):
            raise StoreRefused(
                f"{link.endpoint} leads to the server of MemoryStore {elder.key.name!r}: declare "
                "each server once, and delete one of the two",
                reason="StoreDeclaredTwice",
            )
    await link.admin.lead()
    await link.admin.load_functions()
    proof = await link.admin.prove_matrix()
    if not proof.holds:
        worst = (*proof.leaks, *proof.not_proven)[0]
        raise StoreRefused(
            f"{link.endpoint} ({proof.server}) does not keep tenants apart: {worst}",
            reason="IsolationNotProven",
        )
    link.proof = proof
    return before is not None and before.primary.run_id != facts.primary.run_id


def _on_the_same_server(world: World, link: StoreLink) -> list[Declared]:
    """The other stores that are known to lead to the same server, under whatever address."""
    return [
        other
        for other in world.declared_stores()
        if other.key.name != link.name
        and (known := world.links.get(other.key.name)) is not None
        and known.shares_server_with(link)
    ]


def _age(declared: Declared) -> tuple[datetime, str]:
    """Of two stores on one server the one that was declared first serves."""
    return declared.creation_timestamp, declared.key.name


async def _inspect(link: StoreLink) -> StoreFacts:
    facts = await link.admin.discover()
    if facts.primary.evicts:
        raise StoreRefused(
            f"{link.endpoint} evicts keys when it is full (maxmemory-policy "
            f"{facts.primary.maxmemory_policy}): set noeviction, so that no memory is lost "
            "silently",
            reason="EvictionEnabled",
        )
    for node in facts.nodes:
        if node.default_user_open:
            raise StoreRefused(
                f"{node.address} lets anybody in without a password as the default user, which no "
                "ACL can keep a tenant from becoming (RESET): ACL SETUSER default off, and save it",
                reason="DefaultUserOpen",
            )
    return facts


async def _not_usable(
    world: World, declared: Declared, before: MemoryStoreStatus, error: MemtenantError
) -> Outcome:
    """Unreachable is retried by the queue; refused waits for a change (or the next resync)."""
    text = str(error)
    findings = [Finding(_READY, ConditionStatus.FALSE, error.reason, text)]
    reachable = isinstance(error, StoreUnavailable)
    findings.append(
        Finding(
            ConditionType.REACHABLE,
            ConditionStatus.FALSE if reachable else ConditionStatus.TRUE,
            error.reason if reachable else "Answers",
            text if reachable else "",
        )
    )
    stalled = ConditionStatus.FALSE if error.retryable else ConditionStatus.TRUE
    findings.append(Finding(_STALLED, stalled, error.reason, text))
    working = ConditionStatus.TRUE if error.retryable else ConditionStatus.FALSE
    findings.append(Finding(ConditionType.RECONCILING, working, error.reason, text))
    if error.reason == "StoreOwnedElsewhere":
        findings.append(Finding(ConditionType.OWNED, ConditionStatus.FALSE, error.reason, text))
    changed = await save_status(world, declared, before, findings)
    if changed:
        await world.resources.emit_event(declared, EventType.WARNING, error.reason, text)
    if error.retryable:
        raise error
    return Outcome(changed=changed)


def _usable(
    world: World,
    before: MemoryStoreStatus,
    link: StoreLink,
    orphans: list[tuple[StoredSecret, TenantRecord]],
    users: Mapping[Address, int],
) -> MemoryStoreStatus:
    facts, proof = link.facts, link.proof
    assert facts is not None and proof is not None  # noqa: S101, PT018 - the link was just taken
    committed = world.committed_ledger().committed(link.name)
    return before.model_copy(
        update={
            "flavour": StoreFlavour.STANDALONE,
            "server": str(facts.primary.flavour),
            "version": facts.primary.version,
            "owner": world.installation,
            "nodes": _nodes(link, facts, users),
            "durable": Durable(
                aof=facts.primary.append_only,
                noeviction=not facts.primary.evicts,
                aclfile=facts.users_persist,
            ),
            "user_persistence": UserPersistence.ACL_FILE
            if facts.users_persist
            else UserPersistence.REPROVISIONED,
            "tenants": len(committed),
            "committed_memory": quantity_of_bytes(sum(committed.values())),
            "orphan_count": len(orphans),
            "orphans": tuple(
                Orphan(
                    tenant_id=str(record.tenant),
                    namespace_uid=record.namespace_uid,
                    since=record.since,
                )
                for _, record in orphans[:_SHOWN_ORPHANS]
            ),
            "isolation": _proof(before.isolation, link, facts, world.clock.now()),
        }
    )


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
    return tuple(sorted((*reached, *lost), key=lambda node: node.address))


def _findings(link: StoreLink) -> tuple[Finding, ...]:
    facts = link.facts
    assert facts is not None  # noqa: S101 - the link was just taken
    true, false = ConditionStatus.TRUE, ConditionStatus.FALSE
    lost = ", ".join(str(address) for address in sorted(facts.unreachable))
    return (
        Finding(_READY, true, "Usable", "Tenants can be placed and repaired"),
        Finding(ConditionType.REACHABLE, true, "Answers", ""),
        Finding(ConditionType.OWNED, true, "Owned", "This installation provisions the store"),
        Finding(_STALLED, false, "Usable"),
        Finding(
            ConditionType.RECONCILING,
            true if lost else false,
            "ReplicaUnreachable" if lost else "Usable",
            f"Replica {lost} does not answer: it is provisioned when it does" if lost else "",
        ),
        _durable(facts.primary),
    )


def _durable(primary: NodeFacts) -> Finding:
    if primary.durable:
        return Finding(
            ConditionType.DURABLE, ConditionStatus.TRUE, "Durable", "AOF is on, nothing is evicted"
        )
    return Finding(
        ConditionType.DURABLE,
        ConditionStatus.FALSE,
        "NoAppendOnlyFile",
        "A restart may lose the latest writes: set appendonly yes",
    )


async def _orphans(world: World, link: StoreLink) -> list[tuple[StoredSecret, TenantRecord]]:
    """Records on this store without a tenant; what detached while it was away is finished now.

    A record that cannot be read is left for a backup to mend, and does not stop the others.
    """
    found = []
    for phase in (Phase.RETAINED, Phase.ORPHANED):
        labels = {RECORD_LABEL: RECORD_COMPONENT, LABEL_PHASE: phase.value}
        for stored in await world.resources.list_secrets(world.resources.home, labels):
            try:
                record = TenantRecord.from_data(stored.data, stored.name)
            except KeyUnavailable as damage:
                _log.error("%s", damage)
                continue
            if record.store != link.name:
                continue
            if phase is Phase.ORPHANED and await finish_orphan(world, link, stored, record):
                continue
            found.append((stored, record))
    return sorted(found, key=lambda item: item[1].tenant)


async def forget_store(world: World, name: str) -> None:
    """Close what was open to a store that is no longer declared."""
    link = world.links.pop(name, None)
    world.stores_seen.pop(name, None)
    if link is not None:
        await link.admin.close()


async def _delete(world: World, declared: Declared) -> Outcome:
    """The ValidatingAdmissionPolicy refuses this while tenants lie on it; this is the backstop."""
    if FINALIZER not in declared.finalizers:
        return Outcome()
    name = declared.key.name
    was_ready = _linked(world, name)
    link = await _last_link(world, declared)
    tenants = len(world.committed_ledger().committed(name))
    if tenants:
        message = f"{tenants} MemoryTenants lie on this store: delete them first"
        status = status_before(declared, MemoryStoreStatus).model_copy(update={"tenants": tenants})
        findings = (
            Finding(_READY, ConditionStatus.FALSE, "InUse", message),
            Finding(ConditionType.DELETION_BLOCKED, ConditionStatus.TRUE, "InUse", message),
        )
        changed = await save_status(world, declared, status, findings)
        if link is None:
            return Outcome(requeue_after=_LOOK_AGAIN, changed=changed)
        leaving = () if was_ready else tuple(sorted(world.mirror.tenants_of_store(name)))
        return Outcome(enqueue=leaving, changed=changed)
    if link is not None and not await _orphans(world, link):
        await link.admin.release()
    await forget_store(world, name)
    await world.resources.remove_finalizer(declared, FINALIZER)
    return Outcome(changed=True)


async def _last_link(world: World, declared: Declared) -> StoreLink | None:
    """The link to a store in deletion: its tenants leave through it, and it is released by it, also
    where the operator started only after the deletion was asked for. None: it cannot be used.
    """
    if _linked(world, declared.key.name):
        return world.links[declared.key.name]
    try:
        link = await _link(world, declared, store_spec(declared))
        await _take(world, declared, link)
    except MemtenantError as error:
        _log.info("%s, in deletion, cannot be used: %s", declared.key, error)
        return None
    link.failure = None
    return link
