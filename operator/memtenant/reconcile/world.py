"""What all reconciles share: the port to declared objects, the mirror, the stores, and time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from memtenant.api.conditions import Finding
from memtenant.api.quantity import Quantity
from memtenant.api.reporting import LastReport
from memtenant.api.store import MemoryStoreSpec
from memtenant.audit import OPERATOR, Voice
from memtenant.clock import Clock, system_clock
from memtenant.crypto.audit_keys import audit_mac_key, audit_root
from memtenant.crypto.primitives import KEY_BYTES, SecretKey
from memtenant.errors import InvalidResource, KeyUnavailable, ResourceConflict
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.ledger import Ledger
from memtenant.reconcile.records import count_records
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import (
    Declared,
    Kind,
    ObjectKey,
    Resources,
    SecretDraft,
    StoredSecret,
)
from memtenant.resources.secretsahead import SecretsAhead
from memtenant.rules.instance import Instance, Sighting
from memtenant.rules.policy import PolicyFacts
from memtenant.stores import Fence, MatrixProof, Pace
from memtenant.tenancy.erasure import TOMBSTONE_KEPT
from memtenant.tenancy.identity import TenantId

__all__ = [
    "DOUBT_AGAIN",
    "FINALIZER",
    "ROOT_SECRET",
    "InstanceHost",
    "Reported",
    "Timing",
    "World",
    "mint_password",
]

FINALIZER = "memtenant.dev/cleanup"
"""Ours on every declared kind: a tenant's deletion waits for its cleanup, a store's and a policy's
until no tenant uses them."""

DOUBT_AGAIN = 1.0
"""Seconds until it is looked at again what may wait for a list (`Mirror.doubted`)."""

ROOT_SECRET = "memtenant-root"  # noqa: S105 - a Secret's name
"""In the home namespace: the installation's root key, made once."""

COUNT_EVERY = 5.0
"""Seconds between two writes of a status for the sake of a count."""

_FEW = 10
"""Tenants whose count costs nothing."""

_ROOT_KEY = "root"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the operator waits for what.

    ``agent_look`` is how long an agent may go on with a binding that changed under it.
    """

    kubelet_lag: timedelta = timedelta(minutes=3)
    agent_look: timedelta = timedelta(seconds=3)
    credential_grace: timedelta = timedelta(days=1)
    store_gone_grace: timedelta = timedelta(minutes=10)
    key_grace: timedelta = timedelta(minutes=5)
    shred_epoch: timedelta = timedelta(days=1)
    files_pause: timedelta = timedelta(minutes=5)
    tombstone: timedelta = TOMBSTONE_KEPT
    expiry_pass: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Reported:
    """What the tenants under a policy say of its reports: the newest, whether one is missing."""

    last: LastReport | None
    stale: Finding


class InstanceHost(Protocol):
    """Where instances of Strict tenants run: a cluster, or this machine. No method connects to one;
    each may be repeated, and changes nothing where nothing is to be changed."""

    @property
    def tls(self) -> bool:
        """Whether an instance can speak TLS there."""
        ...

    async def changes(self, wanted: Instance) -> tuple[str, ...]:
        """What `make` would do, in words. Writes nothing."""
        ...

    async def make(self, wanted: Instance, password: str) -> Sighting:
        """Make what the instance consists of, and say whether it runs. Its admin's password is in a
        Secret of the instance's name already."""
        ...

    async def look(self, wanted: Instance) -> Sighting:
        """Whether it runs. Writes nothing."""
        ...

    async def restart(self, wanted: Instance, seen: Sighting) -> None:
        """End the process that was seen, so that the next one is as it should be."""
        ...

    async def remove(
        self, tenant: TenantId, *, keep_data: bool, still: Callable[[], Awaitable[None]]
    ) -> None:
        """End it, and remove what it consists of; with ``keep_data`` all but its data.

        Only what was there before ``still`` was asked goes. It raises where the tenant is not the
        one any more whose end this is.
        """
        ...


@dataclass(slots=True)
class World:
    """One leadership's shared state. It is rebuilt from the API server and the stores at each
    start; losing it loses nothing.

    ``fence`` tells the term of this leadership; ``settled`` holds the tenants that were reconciled
    since the start, so that a user without a tenant is told from one not looked at yet; each with
    the policy as it was then, None where it could not be read.
    ``service_account`` is the operator's own, in the home namespace; ``secret_namespaces`` are
    those in which it is known to be allowed to touch Secrets, ``ahead`` what a list brought of
    them before they were asked for. ``writing_system`` is held while the Secrets of the sealer and
    the reporter are written. ``report_job`` is the jobTemplate of the
    CronJobs that make reports; ``reported`` is what each policy's tenants say of its reports.
    ``changed_by_stamped``: the API server stamps who changed a spec, and nobody else can;
    ``told_specs`` is what each store's queue was told, on which primaries.
    ``links`` are by the name of the store, and, of instances, by tenant: no store's name holds a
    dot. ``instances`` is where they run; None where no Strict tenant can be served. ``restarting``
    is whose turn it is, of each template's instances, to restart with another image;
    ``instance_proofs`` are what was proven of the server versions that instances run.
    """

    resources: Resources
    mirror: Mirror
    installation: str
    fence: Fence
    clock: Clock = system_clock
    timing: Timing = field(default_factory=Timing)
    pace: Callable[[], Pace] = Pace
    instances: InstanceHost | None = None
    restarting: dict[str, TenantId] = field(default_factory=dict)
    instance_proofs: dict[tuple[str, str], MatrixProof] = field(default_factory=dict)
    links: dict[str, StoreLink] = field(default_factory=dict)
    stores_seen: dict[str, tuple[tuple[str, int], MemoryStoreSpec]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    settled: dict[TenantId, PolicyFacts | None] = field(default_factory=dict)
    ahead: SecretsAhead | None = None
    service_account: str = "memtenant"
    secret_namespaces: set[str] = field(default_factory=set)
    policies: dict[str, tuple[tuple[str, int], PolicyFacts]] = field(default_factory=dict)
    counted_at: dict[ObjectKey, float] = field(default_factory=dict)
    looked_at: dict[ObjectKey, float] = field(default_factory=dict)
    writing_system: asyncio.Lock = field(default_factory=asyncio.Lock)
    report_job: Mapping[str, Any] | None = None
    reported: dict[str, Reported] = field(default_factory=dict)
    changed_by_stamped: bool = False
    told_specs: dict[tuple[str, ObjectKey], tuple[frozenset[str], str]] = field(
        default_factory=dict
    )
    _voices: dict[tuple[str, str], Voice] = field(default_factory=dict)
    _root: SecretKey | None = None
    _reading_root: asyncio.Lock = field(default_factory=asyncio.Lock)
    _counted: bool = False
    _counted_in_doubt: bool = False

    async def close(self) -> None:
        """Close every connection to a store."""
        links, self.links = self.links, {}
        for link in links.values():
            await link.admin.close()

    @property
    def host(self) -> InstanceHost:
        """Where instances run."""
        if self.instances is None:
            raise InvalidResource(
                "isolation Strict needs an instance of the tenant's own, which cannot be made here",
                field="spec.isolation",
            )
        return self.instances

    async def secret(self, namespace: str, name: str) -> StoredSecret | None:
        """A tenant's record or binding."""
        if self.ahead is None:
            return await self.resources.get_secret(namespace, name)
        return await self.ahead.get(namespace, name)

    def link_of(self, store: str, tenant: TenantId) -> StoreLink | None:
        """Where a tenant's memory lies: its instance, or the store itself."""
        return self.links.get(str(tenant)) or self.links.get(store)

    def links_of(self, store: str) -> list[StoreLink]:
        """The store's own link, or those of all instances that were made of it."""
        return [link for _, link in sorted(self.links.items()) if link.store == store]

    def committed_ledger(self) -> Ledger:
        """The ledger, filled from the mirror at its first use, and completed when there is no doubt
        any more: who was placed last may not have been looked at yet."""
        if not self._counted or (self._counted_in_doubt and not self.mirror.doubted):
            for key in self.mirror.keys(Kind.TENANT):
                self._count(key)
            self._counted, self._counted_in_doubt = True, self.mirror.doubted
        return self.ledger

    def _count(self, key: ObjectKey) -> None:
        declared = self.mirror.get(key)
        store = declared.status.get("store") if declared else None
        if declared is None or not store:
            return
        try:
            tenant, memory = (
                TenantId(key.namespace, key.name),
                Quantity.parse(_granted(declared)).bytes,
            )
            entered = self.ledger.entry(tenant)
            if entered is None or entered[1] < memory:
                self.ledger.enter(store, tenant, memory)
        except (InvalidResource, AttributeError):
            return

    def declared_stores(self) -> Iterator[Declared]:
        """Every MemoryStore as last seen, by name."""
        for key in sorted(self.mirror.keys(Kind.STORE)):
            declared = self.mirror.get(key)
            if declared is not None:
                yield declared

    def waiting_for_room(self, store: str | None) -> tuple[ObjectKey, ...]:
        """The tenants that have no store yet, and name none or this one: room that became free
        there may be theirs.
        """
        waiting = self.mirror.unplaced_tenants()
        if store is not None:
            waiting |= self.mirror.tenants_asking_for(store)
        return tuple(sorted(waiting))

    def make_room(self, tenant: TenantId) -> tuple[ObjectKey, ...]:
        """What the tenant was promised is promised no more, though it may never have been served;
        who waits for that."""
        store = self.ledger.store_of(tenant)
        self.ledger.strike(tenant)
        return self.waiting_for_room(store) if store else ()

    def counts_wait(self, key: ObjectKey, before: int, now: int) -> float | None:
        """Seconds until a mere count in a status may be written again; None: write it now.

        A thousand new tenants would write the status of their policy and store a thousand times.
        The first tenant and the last one count at once: admission reads whether there are any.
        """
        moment = self.looked_at[key] = self.clock.monotonic()
        if before == now:
            return None
        ready_at = self.counted_at.get(key, moment) + COUNT_EVERY
        if bool(before) is bool(now) and key in self.counted_at and moment < ready_at:
            return ready_at - moment
        self.counted_at[key] = moment
        return None

    def recounts_in(self, key: ObjectKey) -> float:
        """Seconds until it is worth a look for the sake of a count: what looks earlier would look
        at everything, and then wait (`counts_wait`) or find the same. A few are counted at once.
        """
        now = self.clock.monotonic()
        tenants = (
            self.mirror.count_of_policy(key.name)
            if key.kind is Kind.POLICY
            else len(self.ledger.committed(key.name))
        )
        if tenants <= _FEW:
            return 0.0
        return max(0.0, self.looked_at.get(key, now - COUNT_EVERY) + COUNT_EVERY - now)

    async def voice(self, store: str, log: str) -> Voice:
        """The operator's voice in the queue of that log on that store."""
        voice = self._voices.get((store, log))
        if voice is None:
            root = audit_root(await self.installation_root())
            voice = Voice(audit_mac_key(root, log, OPERATOR, 0))
            self._voices[store, log] = voice
        return voice

    async def installation_root(self) -> SecretKey:
        """The installation's root key, made when there is none and nothing depends on one.

        Raises `KeyUnavailable` where it is gone although tenants were made under it.
        """
        if self._root is None:
            async with self._reading_root:
                self._root = self._root or await self._read_root() or await self._make_root()
        return self._root

    async def _read_root(self) -> SecretKey | None:
        home = self.resources.home
        stored = await self.resources.get_secret(home, ROOT_SECRET)
        if stored is None:
            return None
        data = stored.data.get(_ROOT_KEY, b"")
        if len(data) != KEY_BYTES:
            raise KeyUnavailable(
                f"Secret {home}/{ROOT_SECRET} does not hold {KEY_BYTES} bytes under {_ROOT_KEY}: "
                "restore it from a backup",
                reason="RootKeyDamaged",
            )
        return SecretKey(data)

    async def _make_root(self) -> SecretKey:
        home = self.resources.home
        records = await count_records(self.resources)
        if records:
            # Another replica may have made it, and a tenant under it, since it was looked for.
            root = await self._read_root()
            if root is not None:
                return root
            raise KeyUnavailable(
                f"Secret {home}/{ROOT_SECRET} is gone, and keys of tenants are under it "
                f"({records}): restore it from a backup. No new one is made in its place",
                reason="RootKeyLost",
            )
        draft = SecretDraft(
            namespace=home,
            name=ROOT_SECRET,
            owner="installation-root",
            data={_ROOT_KEY: secrets.token_bytes(KEY_BYTES)},
        )
        try:
            stored = await self.resources.create_secret(draft)
        except ResourceConflict:
            root = await self._read_root()
            if root is None:
                raise
            return root
        return SecretKey(stored.data[_ROOT_KEY])


def _granted(declared: Declared) -> str:
    """The memory that the tenant was granted last, as far as its status tells. What a spec asks for
    beyond that is a wish: counted, it would take the whole store from its neighbours.
    """
    status = declared.status
    shown = status.get("usage", {}).get("memoryLimit")
    if isinstance(shown, str):
        return shown
    conditions = status.get("conditions", ())
    refused = any(
        one.get("type") == "Stalled" and one.get("status") == "True" for one in conditions
    )
    if refused or status.get("observedGeneration") != declared.generation:
        return "0"
    return str(declared.spec.get("quota", {}).get("memory", "256Mi"))


def mint_password() -> str:
    """A new ACL password: 256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)
