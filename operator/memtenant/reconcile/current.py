"""What exists of a tenant now: its record, its bindings, its key Secret, its state on the store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from memtenant.api.fields import Isolation
from memtenant.api.tenant import EncryptionMode, MemoryTenantSpec
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.keyring_record import Keyring
from memtenant.crypto.material import read_root_key
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import BindingInvalid, KeyInvalid
from memtenant.reconcile.records import RECORD_OWNER
from memtenant.reconcile.world import World
from memtenant.resources.port import SecretDraft, StoredSecret
from memtenant.rules.acl import parse_user
from memtenant.rules.desired import SHARED_PRINCIPAL
from memtenant.rules.keymaterial import Roots, operator_made_root
from memtenant.rules.keymotion import shows
from memtenant.rules.record import TenantRecord, record_labels, record_name
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import AgentName, Slot, TenantId, binding_name

__all__ = ["Current", "binding_owner", "read_bindings", "read_record", "read_roots", "record_draft"]


@dataclass(frozen=True, slots=True)
class Current:
    """The Secrets of a tenant as they are. ``bindings`` are by agent, only those that exist and
    are ours; ``foreign`` are declared agents whose binding's name is on somebody else's Secret."""

    stored_record: StoredSecret | None
    record: TenantRecord | None
    bindings: Mapping[AgentName, StoredSecret] = field(default_factory=dict)
    foreign: frozenset[AgentName] = frozenset()

    def shown(self, spec: MemoryTenantSpec) -> dict[AgentName, Slot | None]:
        """Which slot all bindings of each principal show; None where they differ or lack."""
        agents = spec.agents_or_default()
        if spec.isolation is Isolation.MINIMAL:
            return {SHARED_PRINCIPAL: _common(self._slot(agent.name) for agent in agents)}
        return {agent.name: self._slot(agent.name) for agent in agents}

    def lost_labels(self, record: TenantRecord) -> bool:
        """Whether the stored record, known as ours, lacks labels by which it is found."""
        stored = self.stored_record
        if stored is None or stored.owner != RECORD_OWNER:
            return False
        return not record_labels(record).items() <= stored.labels.items()

    def keyrings(self) -> list[AgentKeyring]:
        """The keyrings in the bindings that can be read."""
        found = []
        for stored in self.bindings.values():
            try:
                found.append(AgentKeyring.from_json(stored.data.get("keyring.json", b"")))
            except (BindingInvalid, KeyInvalid):
                continue
        return found

    def shows(self, spec: MemoryTenantSpec, keyring: Keyring) -> bool:
        """Whether every agent's binding has the keyring as it is."""
        shown = {held.agent for held in self.keyrings() if shows(held, keyring)}
        return all(agent.name in shown for agent in spec.agents_or_default())

    def _slot(self, agent: AgentName) -> Slot | None:
        stored = self.bindings.get(agent)
        if stored is None:
            return None
        try:
            user = parse_user(Binding.from_mapping(stored.data).username)
        except BindingInvalid:
            return None
        return user.slot if user else None


def _common(slots: Iterable[Slot | None]) -> Slot | None:
    distinct = set(slots)
    return distinct.pop() if len(distinct) == 1 else None


async def read_record(
    world: World, tenant: TenantId
) -> tuple[StoredSecret | None, TenantRecord | None]:
    """The tenant's record in the home namespace; `KeyUnavailable` where it is damaged."""
    stored = await world.secret(world.resources.home, record_name(tenant))
    if stored is None:
        return None, None
    return stored, TenantRecord.from_data(stored.data, stored.name)


async def read_bindings(
    world: World,
    tenant: TenantId,
    stored: StoredSecret | None,
    record: TenantRecord | None,
    agents: Iterable[AgentName],
    *,
    bound: bool,
) -> Current:
    """The bindings of these agents and of those that the record knows, with the record.

    A tenant without a record that never told of a binding (``bound``) has none to read: should a
    Secret of that name be there all the same, its creation is refused as a conflict.
    """
    if record is None and not bound:
        return Current(None, None)
    declared = frozenset(agents)
    names = sorted({*declared, *(record.agents if record else ())})
    secrets = await asyncio.gather(
        *(world.secret(tenant.namespace, binding_name(tenant, name)) for name in names)
    )
    bindings: dict[AgentName, StoredSecret] = {}
    foreign: set[AgentName] = set()
    for agent, secret in zip(names, secrets, strict=True):
        if secret is None:
            continue
        if secret.owner == binding_owner(tenant, agent):
            bindings[agent] = secret
        elif agent in declared:
            foreign.add(agent)
    return Current(stored, record, bindings, frozenset(foreign))


async def read_roots(
    world: World, tenant: TenantId, spec: MemoryTenantSpec, incarnation: str
) -> Roots:
    """The roots that the tenant's keys are, were or should be under.

    Raises `KeyInvalid` where the user's Secret is there and holds no root key.
    """
    operator_made = operator_made_root(await world.installation_root(), incarnation)
    ref = spec.encryption.key_secret_ref
    if ref is None or spec.encryption.mode is EncryptionMode.DISABLED:
        return Roots(operator_made, operator_made)
    what = f"Secret {tenant.namespace}/{ref.name}"
    secret = await world.resources.get_secret(tenant.namespace, ref.name)
    declared = _declared_root(secret, ref.key, what)
    return Roots(declared, operator_made, what)


def _declared_root(secret: StoredSecret | None, key: str, what: str) -> SecretKey | None:
    if secret is None:
        return None
    if key not in secret.data:
        raise KeyInvalid(
            f"{what} has no key {key!r}: add it, or correct spec.encryption.keySecretRef.key",
            reason="KeySecretInvalid",
        )
    try:
        return read_root_key(secret.data[key], f"{what}, key {key!r},")
    except KeyInvalid as error:
        raise KeyInvalid(str(error), reason="KeySecretInvalid") from None


def record_draft(world: World, record: TenantRecord) -> SecretDraft:
    """The record as a Secret of the home namespace."""
    return SecretDraft(
        namespace=world.resources.home,
        name=record_name(record.tenant),
        owner=RECORD_OWNER,
        data=record.to_data(),
        labels=record_labels(record),
    )


def binding_owner(tenant: TenantId, agent: AgentName) -> str:
    """Whose a binding Secret is: ``a`` with agent ``b-c`` and ``a-b`` with agent ``c`` would both
    name it ``a-b-c``, and the second must not take it over."""
    return "binding-" + hashlib.sha256(f"{tenant}/{agent}".encode()).hexdigest()[:32]
