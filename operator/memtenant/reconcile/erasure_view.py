"""What an erasure sees of its tenant: whether it may be, who the person is there, by which keys."""

from __future__ import annotations

from collections.abc import Iterator

from memtenant.api.tenant import MemoryTenantSpec
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.datakey import kek_version, unwrap_data_key
from memtenant.crypto.keyring import keyring_of
from memtenant.crypto.keyring_record import Keyring
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import KeyUnavailable, RecordMalformed, ResourceNotFound
from memtenant.jobs.link import StoreLink
from memtenant.memory.subjects import Subject
from memtenant.reconcile.current import read_bindings, read_record
from memtenant.reconcile.declared import tenant_spec
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared, ObjectKey, StoredSecret
from memtenant.rules.desired import SHARED_PRINCIPAL
from memtenant.rules.erasure import Ground
from memtenant.rules.keymaterial import operator_made_root
from memtenant.rules.policy import PolicyFacts, hold_labels, matters_from
from memtenant.rules.record import TenantRecord
from memtenant.stores import TenantState
from memtenant.tenancy.erasure import ErasureReceipt
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.policy import Isolation

__all__ = ["ErasureView", "live_versions"]


class ErasureView:
    """That of one tenant in one round: the keys are read once."""

    def __init__(self, world: World, link: StoreLink, tenant: TenantId) -> None:
        self._world = world
        self._link = link
        self._store = link.admin.erasure
        self._tenant = tenant
        self._keys: AgentKeyring | None = None
        self._live: frozenset[int] = frozenset()
        self._owners: tuple[AgentName, ...] | None = None

    async def ground(self) -> Ground:
        """What requests are judged on."""
        state = (await self._link.admin.read_states([self._tenant]))[self._tenant]
        spec, policy = self.spec(), self._policy(state)
        _, record = await read_record(self._world, self._tenant)
        reason, keeps = self._obstacle(state, policy)
        return Ground(
            tenant=self._tenant,
            isolation=Isolation(spec.isolation.value),
            rights=policy.rights,
            accesses={agent.name: agent.access for agent in spec.agents_or_default()},
            versions=dict(_versions(spec, record)),
            installation_root=await self._world.installation_root(),
            obstacle=reason,
            keeps=keeps,
        )

    def _policy(self, state: TenantState) -> PolicyFacts:
        """The one in force, as the store remembers, whatever the tenant names now."""
        name = state.access.get("policy") or self.spec().retention_policy_ref.name
        return read_policy(self._world, name)

    def _obstacle(self, state: TenantState, policy: PolicyFacts) -> tuple[str, str]:
        """A hold counts from when it is declared, and until the store has forgotten it."""
        namespace = self._world.mirror.namespace(self._tenant.namespace)
        labels = hold_labels(
            self._tenant, self.declared().labels, namespace.labels if namespace else {}
        )
        before = matters_from(state.access.get("matters", ""))
        matters = policy.matters_of(labels, before, self._world.clock.now()).keys() | before.keys()
        if matters:
            return "LegalHold", f"A legal hold stands: {', '.join(sorted(matters))}"
        if policy.content_minimum is not None or state.access.get("minimum") == "1":
            return "RetentionMinimum", "Content is to be kept for a minimum of time"
        return "", ""

    async def subjects(self, receipt: ErasureReceipt) -> list[Subject]:
        """The person; under Strict isolation at each agent, also at those that are gone."""
        isolation = Isolation(self.spec().isolation.value)
        tag = bytes.fromhex(receipt.tag)
        owners: tuple[AgentName, ...] = ("",)
        if isolation is Isolation.STRICT:
            owners = self._owners = self._owners or await self._find_owners()
        return [Subject(self._tenant, isolation, receipt.subject, tag, owner) for owner in owners]

    async def _find_owners(self) -> tuple[AgentName, ...]:
        declared = {agent.name for agent in self.spec().agents_or_default()}
        return tuple(sorted(declared | await self._store.owners(self._tenant)))

    async def data_key(self, subject: Subject) -> SecretKey | None:
        """The person's own key, which tells its records; None where there is none."""
        if subject.isolation is Isolation.MINIMAL:
            return None
        stored = await self._store.data_key(self._tenant, subject.named)
        if stored is None:
            return None
        keyring = await self._keyring(subject.owner)
        if kek_version(stored) not in self._live:
            raise RecordMalformed(
                "The data key is under a version that was destroyed, or never was"
            )
        return unwrap_data_key(keyring, subject.named, stored)

    async def _keyring(self, owner: AgentName) -> AgentKeyring:
        """The keys of an agent of the tenant; without one, those that all its agents have."""
        keyring = await self._any_keyring()
        if not keyring.parents:
            return keyring
        _, record = await self.record()
        root = await self._world.installation_root()
        return keyring_of(keyring, owner, operator_made_root(root, record.incarnation))

    async def _any_keyring(self) -> AgentKeyring:
        if self._keys is None:
            stored, record = await self.record()
            agents = [agent.name for agent in self.spec().agents_or_default()]
            found = await read_bindings(
                self._world, self._tenant, stored, record, agents, bound=True
            )
            keyrings = found.keyrings()
            if not keyrings:
                raise KeyUnavailable(f"No binding of tenant {self._tenant} is there with its keys")
            self._live = live_versions(Keyring.from_json(record.keyring, self._tenant))
            self._keys = max(keyrings, key=lambda one: one.keks[-1].version)
        return self._keys

    async def record(self) -> tuple[StoredSecret | None, TenantRecord]:
        """With the Secret that it is in."""
        stored, record = await read_record(self._world, self._tenant)
        if record is None:
            raise KeyUnavailable(f"The record of tenant {self._tenant} is gone: restore it")
        return stored, record

    def spec(self) -> MemoryTenantSpec:
        """What is declared now."""
        return tenant_spec(self.declared())

    def declared(self) -> Declared:
        """The MemoryTenant as it is now."""
        key = ObjectKey.tenant(self._tenant.namespace, self._tenant.name)
        declared = self._world.mirror.get(key)
        if declared is None:
            raise ResourceNotFound(f"MemoryTenant {self._tenant} is gone")
        return declared


def live_versions(keyring: Keyring) -> frozenset[int]:
    """Those of its keys that were not destroyed."""
    return frozenset(kek.version for kek in keyring.keks)


def _versions(
    spec: MemoryTenantSpec, record: TenantRecord | None
) -> Iterator[tuple[AgentName, frozenset[int]]]:
    minimal = spec.isolation.value == Isolation.MINIMAL.value
    for agent in spec.agents_or_default():
        name = SHARED_PRINCIPAL if minimal else agent.name
        principal = record.principals.get(name) if record else None
        slots = principal.slots.values() if principal else ()
        yield agent.name, frozenset(credential.version for credential in slots)
