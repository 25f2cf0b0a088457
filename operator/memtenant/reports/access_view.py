"""The users of a store's nodes against what the operator renders: who is not as they should be."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from memtenant.api.fields import Isolation
from memtenant.errors import MemtenantError
from memtenant.reports.evidence import StoreEvidence, TenantFacts, UserDrift
from memtenant.reports.sources import StoreLogin
from memtenant.rules.acl import AccessState, parse_user, render_user
from memtenant.rules.acl_drift import differences
from memtenant.rules.desired import accesses_from, declared_accesses
from memtenant.rules.policy import matters_from
from memtenant.rules.quota import QuotaState
from memtenant.rules.systemusers import SystemRole, render_system_user
from memtenant.stores.connection import Address
from memtenant.stores.witness import NodeView, StoreWitness
from memtenant.tenancy import keys
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.policy import AgentAccess

__all__ = ["look_at_store"]


@dataclass(frozen=True, slots=True)
class _Look:
    nodes: tuple[NodeView, ...]
    lost: Mapping[Address, MemtenantError]
    drift: tuple[UserDrift, ...]
    checked: int


async def look_at_store(
    witness: StoreWitness,
    login: StoreLogin,
    tenants: Mapping[TenantId, TenantFacts],
    declared: frozenset[TenantId],
    now: datetime,
    known: Sequence[Collection[str]] = (),
) -> StoreEvidence:
    """What the nodes of the store say; ``known`` are those that it had. What seems to drift is
    asked once more: the operator may have been changing it just then."""
    look = await _look(witness, tenants, known)
    if look.drift:
        look = await _look(witness, tenants, known)
    return StoreEvidence(
        name=login.name,
        at=now,
        address=str(witness.address),
        tls=witness.tls,
        loopback=all(
            _is_loopback(one.host)
            for one in (witness.address, *(node.address for node in look.nodes), *look.lost)
        ),
        nodes=tuple(str(node.address) for node in look.nodes),
        unreachable=tuple(f"{address}: {error}" for address, error in look.lost.items()),
        open_nodes=tuple(
            f"{name} on {node.address}" for node in look.nodes for name in _open_users(node)
        ),
        drift=look.drift,
        strangers=tuple(sorted(_strangers(look.nodes, login, declared))),
        checked=look.checked,
        durable=all(node.durable for node in look.nodes),
    )


async def _look(
    witness: StoreWitness,
    tenants: Mapping[TenantId, TenantFacts],
    known: Sequence[Collection[str]],
) -> _Look:
    nodes, lost = await witness.nodes(known)
    states = {one: await witness.hash(keys.access(one)) for one in tenants}
    drift, checked = [], 0
    for node in nodes:
        compared = [
            *_system_users(node),
            *(
                one
                for facts in tenants.values()
                for one in _users(node, facts, states[facts.tenant])
            ),
        ]
        checked += len(compared)
        drift += [UserDrift(str(node.address), user, found) for user, found in compared if found]
    return _Look(nodes, lost, tuple(drift), checked)


def _system_users(node: NodeView) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The sealer's and the reporter's own: each node has both."""
    for role in SystemRole:
        reply = node.users.get(role.user)
        rendered = render_system_user(role, password_hashes=_hashes(reply), commands=node.commands)
        yield role.user, tuple(_shortened(differences(rendered, reply, node.categories)))


def _users(
    node: NodeView, facts: TenantFacts, access: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each user of a tenant on a node that is in a binding or is there, and how it differs."""
    quota = QuotaState.from_fields(access)
    state = AccessState(
        over_quota=bool(quota.over),
        # A hold or minimum that is declared and that the users do not feel is a difference.
        held=bool(facts.matters or facts.resolution.content.floor)
        or bool(matters_from(access.get("matters", "")))
        or access.get("minimum") == "1",
        off=quota.flooded,
    )
    accesses = _accesses(facts, access)
    prefix = f"mt.{facts.tenant}."
    bound = {one.username for one in facts.status.bindings}
    for name in sorted(bound | {one for one in node.users if one.startswith(prefix)}):
        whose = parse_user(name)
        if whose is None:
            yield name, ("its name is none that memtenant gives",)
            continue
        reply = node.users.get(name)
        if whose.agent not in accesses and name not in bound:
            yield name, ("it is of no agent that is declared",)
            continue
        rendered = render_user(
            facts.tenant,
            whose.agent,
            whose.slot,
            access=accesses.get(whose.agent, AgentAccess.READ_ONLY),
            state=state,
            password_hashes=_hashes(reply)[:1],  # each user has one
            commands=node.commands,
            own_keys=facts.spec.isolation is Isolation.STRICT,
        )
        yield name, tuple(_shortened(differences(rendered, reply, node.categories)))


def _accesses(facts: TenantFacts, access: Mapping[str, str]) -> Mapping[AgentName, AgentAccess]:
    """As declared: what the store keeps, its administrator can change together with the users.
    Only where the operator does not act upon what is declared, what it accepted before counts."""
    if not facts.accepted:
        return accesses_from(access.get("agents", ""))
    return declared_accesses(facts.spec)


def _shortened(found: tuple[str, ...]) -> Iterator[str]:
    """Of a list of rules that was changed, only what is missing and what is more."""
    lacking = [one.partition(" missing: ")[2].split() for one in found if " missing: " in one]
    extra = [one.partition(" not wanted: ")[2].split() for one in found if " not wanted: " in one]
    less = sorted({rule for rules in lacking for rule in rules} - {r for two in extra for r in two})
    more = sorted({rule for rules in extra for rule in rules} - {r for two in lacking for r in two})
    yield from (one for one in found if " missing: " not in one and " not wanted: " not in one)
    if less:
        yield f"lacks {' '.join(less[:_SHOWN_RULES])}"
    if more:
        yield f"has {' '.join(more[:_SHOWN_RULES])}"
    if (lacking or extra) and not less and not more:
        yield "its rules are in other selectors than they should be"


_SHOWN_RULES = 12


def _hashes(reply: Mapping[object, object] | None) -> tuple[str, ...]:
    """Passwords are the operator's to compare: a report has none of them."""
    found = (reply or {}).get("passwords", ())
    hashes = found if isinstance(found, (list, tuple)) else ()
    return tuple(
        one.decode("ascii", "replace") if isinstance(one, bytes) else str(one) for one in hashes
    )


def _strangers(
    nodes: Iterable[NodeView], login: StoreLogin, declared: frozenset[TenantId]
) -> Iterator[str]:
    for name in {name for node in nodes for name, fields in node.users.items() if _is_on(fields)}:
        whose = parse_user(name)
        if name == "default" or name in login.administrators:
            continue
        if whose is None or whose.tenant not in declared:
            yield name


def _open_users(node: NodeView) -> list[str]:
    return sorted(
        name
        for name, fields in node.users.items()
        if _is_on(fields) and b"nopass" in _flags(fields)
    )


def _is_on(fields: Mapping[object, object]) -> bool:
    return b"on" in _flags(fields)


def _flags(fields: Mapping[object, object]) -> tuple[object, ...]:
    flags = fields.get("flags", ())
    return tuple(flags) if isinstance(flags, (list, tuple)) else ()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
