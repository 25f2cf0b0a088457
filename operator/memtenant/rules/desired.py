"""What should exist of a tenant, computed from what is declared and what was found.

Pure: the same situation gives the same users, hashes, bindings and record. Access is a function of
(access, over quota, held, flooded) alone, so that repair, rotation and a new node render the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from memtenant.api.fields import Isolation
from memtenant.api.tenant import AgentAccess, MemoryTenantSpec
from memtenant.audit import Deed
from memtenant.crypto.audit_keys import audit_mac_key
from memtenant.crypto.keyring import agent_keyring
from memtenant.crypto.primitives import SecretKey
from memtenant.rules.acl import AccessState, AclUser, render_user
from memtenant.rules.audit import AuditTerms
from memtenant.rules.credentials import Advance, Principal, RotationRules, advance
from memtenant.rules.keymotion import KeyAdvance
from memtenant.rules.policy import Matters, chosen_by, chosen_to, matters_to
from memtenant.rules.quota import QuotaState
from memtenant.rules.record import Phase, TenantRecord
from memtenant.rules.told import TOLD, Actors, Told, deeds
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.cluster import ClusterAccess
from memtenant.tenancy.identity import AgentName, Slot, TenantId, agent_user
from memtenant.tenancy.masking import MaskingPolicy
from memtenant.tenancy.policy import Isolation as BoundIsolation
from memtenant.tenancy.policy import Quota, SubjectRights, TenantPolicy
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = [
    "SHARED_PRINCIPAL",
    "Desired",
    "Endpoint",
    "Identity",
    "Situation",
    "accesses_from",
    "declared_accesses",
    "desired",
    "render_principals",
]

SHARED_PRINCIPAL = "shared"
"""The one principal of a tenant under Minimal isolation."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which MemoryTenant this is, among all that ever had or will have its name, and which of its
    declarations."""

    tenant: TenantId
    uid: str
    namespace_uid: str
    generation: int = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The store as agents reach it, the commands that all its nodes know, how many replicas follow
    its primary, and who tells where that is, if Sentinels or the nodes of a Cluster do."""

    store: str
    host: str
    port: int
    commands: frozenset[str]
    tls: bool = False
    ca_crt: str = ""
    replicas: int = 0
    sentinel: SentinelAccess | None = None
    cluster: ClusterAccess | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that decides what should be.

    ``matters`` are the legal holds that stand, ``content_minimum`` whether content is under one;
    ``cut_offs`` are fields of ``o:limits`` (`memtenant.rules.expiry`); ``audited`` is the entry in
    ``mt:store:audited`` as it should be (`memtenant.rules.audit`); ``told`` is what the audit knows
    of the tenant, ``new`` that its store knows nothing of it;
    ``escrow`` wraps what the keys in bindings were derived from, where each agent has its own;
    ``shown`` and ``idle`` as in `memtenant.rules.credentials.advance`; ``rotate_token`` is the
    rotation that was last asked for.
    """

    identity: Identity
    spec: MemoryTenantSpec
    endpoint: Endpoint
    record: TenantRecord | None
    keys: KeyAdvance
    keyring: bytes = field(repr=False)
    audit_root: SecretKey = field(repr=False)
    quota_state: QuotaState
    policy: str
    matters: Matters
    content_minimum: bool
    cut_offs: Mapping[str, str]
    audit: AuditTerms
    audited: str
    told: Told | None
    new: bool
    actors: Actors
    rights: SubjectRights
    masking: MaskingPolicy
    rotation: RotationRules
    rotate_token: str
    shown: Mapping[AgentName, Slot | None]
    idle: frozenset[str]
    escrow: SecretKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be. ``bindings`` are by agent, ``users`` those of every live credential;
    ``audited`` is the tenant's entry among those whose queues are drained, empty for none;
    ``deeds`` are what the audit is told of it."""

    record: TenantRecord
    users: tuple[AclUser, ...]
    revoke: tuple[str, ...]
    limits: Mapping[str, str]
    access: Mapping[str, str]
    audited: str
    bindings: Mapping[AgentName, Binding]
    state: AccessState
    advance: Advance
    deeds: tuple[Deed, ...] = ()


def desired(situation: Situation, now: datetime, mint: Callable[[], str]) -> Desired:
    """The whole of what should be; ``mint`` makes a password where a new one is due."""
    spec, tenant = situation.spec, situation.identity.tenant
    agents = spec.agents_or_default()
    principals = declared_accesses(spec)
    record = situation.record
    step = advance(
        tenant,
        record.principals if record else {},
        tuple(principals),
        situation.rotation,
        now=now,
        rotate=_rotation_asked(situation),
        shown=situation.shown,
        idle=situation.idle,
        last_version=record.last_version if record else 0,
        mint=mint,
    )
    state = AccessState(
        over_quota=bool(situation.quota_state.over),
        held=bool(situation.matters) or situation.content_minimum,
        off=situation.quota_state.flooded,
    )
    after = _record(situation, step, now)
    told = _told(situation, step, state, principals)
    return Desired(
        record=after,
        users=render_principals(
            tenant,
            {name: step.principals[name] for name in principals},
            principals,
            state,
            situation.endpoint.commands,
            own_keys=spec.isolation is Isolation.STRICT,
        ),
        revoke=step.revoke,
        limits=_limits(situation, state),
        access=_access(situation, after, principals) | ({TOLD: told.to_text()} if told else {}),
        audited=situation.audited,
        bindings={
            agent.name: _binding(
                situation, agent.name, step.principals[_principal(spec, agent.name)]
            )
            for agent in agents
        },
        state=state,
        advance=step,
        deeds=deeds(tenant, situation.told, told, new=situation.new, actors=situation.actors),
    )


def render_principals(
    tenant: TenantId,
    principals: Mapping[AgentName, Principal],
    accesses: Mapping[AgentName, AgentAccess],
    state: AccessState,
    commands: frozenset[str],
    *,
    own_keys: bool = False,
) -> tuple[AclUser, ...]:
    """The users of every credential. A principal whose access is not known may only read."""
    return tuple(
        render_user(
            tenant,
            name,
            slot,
            access=accesses.get(name, AgentAccess.READ_ONLY),
            state=state,
            password_hashes=(hashlib.sha256(credential.password.encode()).hexdigest(),),
            commands=commands,
            own_keys=own_keys,
        )
        for name, principal in principals.items()
        for slot, credential in sorted(principal.slots.items())
    )


def accesses_from(text: str) -> dict[AgentName, AgentAccess]:
    """The access of each principal as the access hash keeps it; what cannot be read is left out."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    known = {access.value for access in AgentAccess}
    listed = found.items() if isinstance(found, dict) else ()
    return {str(name): AgentAccess(access) for name, access in listed if str(access) in known}


def _rotation_asked(situation: Situation) -> bool:
    """A token that is not the one that was honoured last."""
    record, token = situation.record, situation.rotate_token
    return record is not None and bool(token) and token != record.rotate_token


def declared_accesses(spec: MemoryTenantSpec) -> dict[AgentName, AgentAccess]:
    """Who logs in, and with which access. Minimal has one access for all (a rule of the API)."""
    agents = spec.agents_or_default()
    if spec.isolation is Isolation.MINIMAL:
        return {SHARED_PRINCIPAL: agents[0].access}
    return {agent.name: agent.access for agent in agents}


def _accesses(spec: MemoryTenantSpec) -> dict[AgentName, AgentAccess]:
    return {agent.name: agent.access for agent in spec.agents_or_default()}


def _principal(spec: MemoryTenantSpec, agent: AgentName) -> AgentName:
    return SHARED_PRINCIPAL if spec.isolation is Isolation.MINIMAL else agent


def _record(situation: Situation, step: Advance, now: datetime) -> TenantRecord:
    identity, spec, before = situation.identity, situation.spec, situation.record
    active = before is not None and before.phase is Phase.ACTIVE
    honoured = before is None or step.honoured
    return TenantRecord(
        tenant=identity.tenant,
        uid=identity.uid,
        incarnation=before.incarnation if before else identity.uid,
        namespace_uid=identity.namespace_uid,
        store=situation.endpoint.store,
        phase=Phase.ACTIVE,
        since=before.since if before and active else now.replace(microsecond=0),
        principals=step.principals,
        keyring=situation.keyring,
        agents=tuple(agent.name for agent in spec.agents_or_default()),
        last_version=max(
            before.last_version if before else 0,
            *(c.version for p in step.principals.values() for c in p.slots.values()),
        ),
        rotate_token=situation.rotate_token
        if honoured
        else (before.rotate_token if before else ""),
        policy=situation.policy,
        matters=matters_to(situation.matters),
        deletion_policy=spec.deletion_policy.value,
        isolation=spec.isolation.value,
        encryption=spec.encryption.mode.value,
        quota_bytes=spec.quota.memory.bytes,
        motion=situation.keys.motion,
        shred_through=situation.keys.shred_through,
        shred_due=situation.keys.shred_due,
    )


def _limits(situation: Situation, state: AccessState) -> dict[str, str]:
    """What agents may read of their own limits (DATA.md, ``o:limits``)."""
    quota = situation.spec.quota
    return {
        "format": "1",
        "memory": str(quota.memory.bytes),
        "conversations": str(quota.conversations),
        "writes_per_second": str(quota.writes_per_second),
        "held": "1" if state.held else "0",
        "least_kek": str(situation.keys.least),
        "replicas": str(situation.endpoint.replicas),
        **situation.cut_offs,
        **situation.audit.to_fields(),
    }


def _told(
    situation: Situation,
    step: Advance,
    state: AccessState,
    principals: Mapping[AgentName, AgentAccess],
) -> Told | None:
    """What the audit is to know of the tenant; None where it is not audited."""
    identity, audit = situation.identity, situation.audit
    if not audit.enabled:
        return None
    return Told(
        uid=identity.uid,
        namespace=identity.namespace_uid,
        generation=identity.generation,
        policy=situation.policy,
        mode=state.mode.value,
        reads=audit.reads,
        on_failure=audit.on_failure.value,
        agents={name: access.value for name, access in sorted(principals.items())},
        versions={
            name: max(credential.version for credential in step.principals[name].slots.values())
            for name in sorted(principals)
        },
        keys=tuple(kek.version for kek in situation.keys.opened.keyring.keks),
        matters=tuple(sorted(situation.matters)),
        retention={one.value: str(period) for one, period in chosen_by(situation.spec).items()},
    )


def _access(
    situation: Situation, record: TenantRecord, principals: Mapping[AgentName, AgentAccess]
) -> dict[str, str]:
    accesses = {name: access.value for name, access in sorted(principals.items())}
    return {
        "agents": json.dumps(accesses, separators=(",", ":")),
        "incarnation": record.incarnation,
        "policy": situation.policy,
        "matters": matters_to(situation.matters),
        "minimum": "1" if situation.content_minimum else "0",
        "retention": chosen_to(chosen_by(situation.spec)),
        **situation.quota_state.to_fields(),
    }


def _binding(situation: Situation, agent: AgentName, principal: Principal) -> Binding:
    identity, spec, endpoint = situation.identity, situation.spec, situation.endpoint
    credential = principal.slots[principal.shown]
    name = SHARED_PRINCIPAL if spec.isolation is Isolation.MINIMAL else agent
    audit_key = audit_mac_key(situation.audit_root, str(identity.tenant), agent, credential.version)
    return Binding(
        tenant=identity.tenant,
        agent=agent,
        version=credential.version,
        host=endpoint.host,
        port=endpoint.port,
        username=agent_user(identity.tenant, name, principal.shown),
        password=credential.password,
        keyring=agent_keyring(situation.keys.opened, agent, audit_key, situation.escrow).to_json(),
        policy=TenantPolicy(
            isolation=BoundIsolation(spec.isolation.value),
            encryption=spec.encryption.mode,
            durability=spec.durability,
            quota=Quota(
                memory=spec.quota.memory.bytes,
                conversations=spec.quota.conversations,
                writes_per_second=spec.quota.writes_per_second,
            ),
            agents=tuple(sorted(one.name for one in spec.agents_or_default())),
            access=_accesses(spec)[agent],
            rights=situation.rights,
            masking=situation.masking,
        ),
        tls=endpoint.tls,
        ca_crt=endpoint.ca_crt,
        sentinel=endpoint.sentinel,
        cluster=endpoint.cluster,
    )
