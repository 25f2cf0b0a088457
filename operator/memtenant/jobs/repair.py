"""Put back what drifted on any node of a store: users lost, edited, or left over.

Whoever looks at the nodes also notices that a replica came or went, and tells the tenants' limits;
and that somebody set them otherwise, which the store's own reconcile judges.

A node that restarted without an aclfile, a new replica, a promoted one, and a user that somebody
deleted by hand are one case: the node lacks a user that should be there. Names are compared on
every pass (one cheap command a node); rules and password hashes in slices, so that a pass over
10,000 users costs the servers little each time. On a node that came or restarted all are compared
at once: it may have passwords that were revoked long ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from memtenant.errors import StoreRefused
from memtenant.jobs.link import StoreLink
from memtenant.jobs.rewrite import notice_cut_off
from memtenant.rules.acl import parse_user
from memtenant.stores import Address, StateChange, StoreFacts, UsersSet

__all__ = ["Repair", "repair"]

SLICE = 500
"""Users whose rules are compared in one pass."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What one pass did: usernames put back, removed, and whether the nodes changed, or what they
    are set to.

    ``look_again``: each tenant is to be reconciled, because the primary is another process, which
    may lack the operator's hashes, or because a replica that kept tenants waiting is back.
    ``failed_over``: the primary is another node, which was a replica before and has all that.
    ``whole`` is False while a replica does not answer or is still being filled: it has not got its
    users yet.
    """

    restored: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    nodes_changed: bool = False
    look_again: bool = False
    failed_over: bool = False
    whole: bool = True


@dataclass(frozen=True, slots=True)
class _Mended:
    """Usernames put back and removed. ``failed`` are nodes on which they could not be; ``left_out``
    tells that a reconcile works on some of the damaged."""

    restored: tuple[str, ...]
    removed: tuple[str, ...]
    failed: frozenset[Address]
    left_out: bool


async def repair(link: StoreLink, is_stranger: Callable[[str], bool]) -> Repair:
    """One pass over all nodes.

    ``is_stranger`` says of a username of ours that no live tenant has whether it may go. Raises
    `StoreUnavailable` where the primary does not answer.
    """
    before = link.repaired or link.facts
    served = link.served or before
    facts = await link.admin.refresh()
    changed = before is None or _shape(before) != _shape(facts)
    set_otherwise = before is None or _settings(before) != _settings(facts)
    look_again = served is not None and (
        not facts.processes <= served.processes
        or bool(served.unreachable.keys() - facts.unreachable.keys())
    )
    link.facts = facts
    notice_cut_off(link)
    if changed:
        await link.admin.lead()
        await link.admin.load_functions()
    await link.admin.admit_agents()
    names = await link.admin.users.names()
    wanted = {user.name for user in link.users()}
    lost = {name for there in names.results.values() for name in wanted - there}
    drifted = await _drifted(link, sorted(wanted - lost))
    behind = (link.behind | _new_nodes(before, facts)) & {node.address for node in facts.nodes}
    brought, not_compared = await _brought_along(link, wanted - lost, behind)
    present: frozenset[str] = frozenset().union(*names.results.values())
    mended = await _mend(link, lost | drifted | brought, present, is_stranger)
    link.behind = behind if mended.left_out else behind & (not_compared | mended.failed)
    await _tell_replicas(link)
    if link.unsaved:
        link.unsaved = False  # what changes while the nodes write is the next pass's to save
        await link.admin.users.save()
    whole = not facts.unreachable and not facts.syncing
    failed_over = served is not None and facts.failed_over_from(served)
    link.repaired = link.served = facts
    return Repair(
        mended.restored,
        mended.removed,
        changed or set_otherwise,
        look_again,
        failed_over,
        whole,
    )


async def _tell_replicas(link: StoreLink) -> None:
    """Agents that wait for replicas wait for as many as there are: written when that changes."""
    async with link.mending:
        counts = {tenant: link.replicas_of(tenant) for tenant in link.tenants.keys() - link.working}
        untold = {
            tenant: count
            for tenant, count in counts.items()
            if link.told_replicas.get(tenant) != count
        }
        for tenant in untold:  # what a write that fails left there is not known
            link.told_replicas.pop(tenant, None)
        await link.admin.write_states(
            {
                tenant: StateChange(limits={"replicas": str(count)})
                for tenant, count in untold.items()
            }
        )
        link.told_replicas |= untold


async def _mend(
    link: StoreLink,
    damaged: set[str],
    present: frozenset[str],
    is_stranger: Callable[[str], bool],
) -> _Mended:
    """Set the damaged users that should still be, drop those present that should not.

    Reconciles went on while the nodes were read. So who should be is asked again here, where no
    reconcile begins to change users until all is written; those of one that works now are its own.
    """
    async with link.mending:
        wanted = {user.name: user for user in link.users()}
        restored = sorted(name for name in damaged & wanted.keys() if not _worked_on(link, name))
        left_out = len(restored) < len(damaged & wanted.keys())
        failed: frozenset[Address] = frozenset()
        if restored:
            link.repairing = frozenset(node.address for node in link.admin.facts.nodes)
            results = await link.admin.users.set([wanted[name] for name in restored])
            link.unsaved = True
            failed = frozenset(results.failures)
            _raise_refusal(results.results)
            link.repairing = frozenset()
        # Tenants with nothing to do may have come to be known while the server was written to.
        strangers = sorted(
            name
            for name in present - {user.name for user in link.users()}
            if not _worked_on(link, name) and is_stranger(name)
        )
        if strangers:
            await link.admin.users.drop(strangers)
            link.unsaved = True
    return _Mended(tuple(restored), tuple(strangers), failed, left_out)


def _worked_on(link: StoreLink, name: str) -> bool:
    owner = parse_user(name)
    return owner is not None and owner.tenant in link.working


async def _drifted(link: StoreLink, names: list[str]) -> set[str]:
    """The next slice of users whose rules or passwords are not as they should be on some node."""
    if not names:
        return set()
    start = link.compared % len(names)
    part = (names[start:] + names[:start])[:SLICE]
    link.compared = start + len(part)
    wanted = {user.name: user for user in link.users()}
    found = await link.admin.users.differing([wanted[name] for name in part if name in wanted])
    return {name for by_name in found.results.values() for name in by_name}


async def _brought_along(
    link: StoreLink, names: set[str], nodes: frozenset[Address]
) -> tuple[set[str], frozenset[Address]]:
    """Users that are not as they should be on nodes that came; those that did not answer."""
    if not nodes:
        return set(), nodes
    users = [user for user in link.users() if user.name in names]
    found = await link.admin.users.differing_on(nodes, users)
    differing = {name for by_name in found.results.values() for name in by_name}
    return differing, frozenset(found.failures)


def _new_nodes(before: StoreFacts | None, facts: StoreFacts) -> frozenset[Address]:
    """Where there is another process than before; at first each tenant's reconcile looks itself."""
    if before is None:
        return frozenset()
    known = {(node.address, node.run_id) for node in before.nodes}
    return frozenset(
        node.address for node in facts.nodes if (node.address, node.run_id) not in known
    )


def _shape(facts: StoreFacts) -> tuple[object, ...]:
    """What must not change unnoticed: which processes, in which roles, at which addresses."""
    return tuple((node.address, node.role, node.run_id) for node in facts.nodes)


def _settings(facts: StoreFacts) -> tuple[object, ...]:
    """What a store is judged by, and changes while it runs: by anybody who may run CONFIG SET, and
    by a disk that is full."""
    return tuple(
        (
            node.append_only,
            node.file.writable,
            node.file.fsync,
            node.evicts,
            node.maxmemory,
            node.default_user_open,
            node.users_persist,
        )
        for node in facts.nodes
    )


def _raise_refusal(results: Mapping[Address, UsersSet]) -> None:
    for address, outcome in results.items():
        for user, words in outcome.refused.items():
            raise StoreRefused(f"{address} refused to set ACL user {user}: {words}")
