"""One store while the operator runs: its connections, what was found, who should be on it.

Nothing here is the truth of anything: it is rebuilt from the store, the declared objects and the
records after a restart. Password hashes and rules stay in memory so that a node that lost its
users is whole again without reading a single Secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from memtenant.api.tenant import AccessMode
from memtenant.errors import MemtenantError
from memtenant.resources.port import ObjectKey
from memtenant.rules.acl import AclUser
from memtenant.rules.keymotion import KeyScan, MovingKeys
from memtenant.rules.quota import Limits, QuotaState, Usage, percent
from memtenant.rules.sealing import SealView
from memtenant.stores import (
    Address,
    ExpiryScan,
    ScanPosition,
    StoreAdmin,
    StoreFacts,
    Tally,
)
from memtenant.stores.matrix import MatrixProof
from memtenant.tenancy.cluster import ClusterAccess
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = ["CutOff", "ExpiryState", "KeyPass", "LiveTenant", "StoreLink"]


@dataclass(frozen=True, slots=True)
class LiveTenant:
    """A tenant as its last reconcile left it on the store. ``access`` is what its users may do
    now, whatever the access of each; ``keys`` are those whose data keys are to be wrapped anew,
    ``keys_due`` is when its key's next step may be taken."""

    users: tuple[AclUser, ...]
    limits: Limits
    state: QuotaState
    shown_percent: int = 0
    access: AccessMode = AccessMode.READ_WRITE
    keys: MovingKeys | None = None
    keys_due: datetime | None = None


@dataclass(slots=True)
class KeyPass:
    """A pass over the data keys under way: what it has found so far of the tenants whose keys were
    in motion at its start. It belongs to one server process, ``run_id``."""

    started: datetime
    run_id: str
    found: dict[TenantId, KeyScan]
    position: ScanPosition = field(default_factory=ScanPosition)


@dataclass(slots=True)
class ExpiryState:
    """The pass over all keys that removes what has expired: the one under way, on which process of
    the primary; when the last one ended, and what it left of each tenant. ``began_at`` is when
    there was a first round. ``all_told``: the audit
    knows of all that earlier rounds removed; not so after a start, or where one was cut off."""

    scan: ExpiryScan | None = None
    run_id: str = ""
    began_at: datetime | None = None
    passed_at: datetime | None = None
    left: dict[TenantId, Tally] = field(default_factory=dict)
    all_told: bool = False


@dataclass(slots=True)
class CutOff:
    """A server process whose append-only file may be unreadable behind what it was cut off of.
    ``since`` is how often the file had been written anew when that was asked for, None while that
    is still to be; ``again_at`` is when it may be asked for again, in monotonic seconds."""

    run_id: str
    since: int | None = None
    tries: int = 0
    again_at: float = 0.0


@dataclass(slots=True)
class StoreLink:
    """The live side of one MemoryStore, or of a Strict tenant's instance.

    ``name`` is the store's, or the id of the instance's tenant; ``store`` the MemoryStore's, which
    is an instance's template; ``key`` the object whose reconcile connects to the server: the store,
    or the instance's tenant. ``endpoint`` is the declared one, ``sentinel`` or ``cluster``
    how agents ask where their primary is.
    ``digest`` tells whether the declaration or a Secret changed since it was made; ``failure`` is
    why the store cannot be used now; ``reload_until`` is how long an instance has its certificate
    read anew, because its pod may not have the new one yet, ``restarted_for_login`` that it ended
    once because it refused the operator's login; ``unsaved`` that users changed since the last ACL
    SAVE; ``cut_off`` that an instance's file is to be written anew.
    ``erasing`` are tenants with an erasure that is not finished, of those that were
    ``looked_for_receipts`` on the primaries ``looked_on``; ``files_written_at`` is when the nodes'
    files were last written anew;
    ``emptied_lately`` are tenants whose keys were removed since a measurement began;
    ``marks`` are the tombstones that the last measurement saw, ``true_marks`` those known as true.
    ``working`` are the tenants that a reconcile changes now, ``mending`` is held while a
    repair writes. ``key_scans`` are what the last pass found of the data keys of each tenant whose
    keys are in motion, ``scanned_on`` on which primaries; ``key_pass`` is one that was cut off.
    ``told_replicas`` is how many replicas the limits of each tenant tell of, as far as known: not
    while they are written. It changes with what was written, and not with what was seen, since
    several look at the nodes and each may see another number. ``served`` are the facts
    as of which all tenants were looked at last, ``repaired`` those of the last repair that came to
    its end: a look that is cut off after it saw another primary leaves both behind. ``behind`` are
    nodes that came, and on which not all users could be made what they should be. ``system`` are
    the users of the installation's own processes. ``seals`` is what the sealer said at the last
    look, ``seal_shown`` the time of the seal (ms) for which the status was last looked at.
    """

    name: str
    store: str
    key: ObjectKey
    digest: str
    admin: StoreAdmin
    endpoint: Address
    tls: bool = False
    ca_crt: str = ""
    sentinel: SentinelAccess | None = None
    cluster: ClusterAccess | None = None
    facts: StoreFacts | None = None
    proof: MatrixProof | None = None
    failure: MemtenantError | None = None
    tenants: dict[TenantId, LiveTenant] = field(default_factory=dict)
    usage: dict[TenantId, Usage] | None = None
    measured_at: datetime | None = None
    emptied_lately: set[TenantId] = field(default_factory=set)
    told_replicas: dict[TenantId, int] = field(default_factory=dict)
    served: StoreFacts | None = None
    repaired: StoreFacts | None = None
    system: tuple[AclUser, ...] = ()
    seals: SealView | None = None
    seal_shown: int = 0
    key_scans: dict[TenantId, KeyScan] = field(default_factory=dict)
    scanned_on: str = ""
    key_pass: KeyPass | None = None
    expiry: ExpiryState = field(default_factory=ExpiryState)
    unsaved: bool = False
    cut_off: CutOff | None = None
    reload_until: datetime | None = None
    restarted_for_login: bool = False
    compared: int = 0
    repairing: frozenset[Address] = frozenset()
    behind: frozenset[Address] = frozenset()
    working: set[TenantId] = field(default_factory=set)
    mending: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked_for_receipts: set[TenantId] = field(default_factory=set)
    looked_on: frozenset[str] = frozenset()
    erasing: set[TenantId] = field(default_factory=set)
    files_written_at: float | None = None
    marks: dict[TenantId, dict[str, bytes]] = field(default_factory=dict)
    true_marks: set[tuple[TenantId, str, bytes]] = field(default_factory=set)

    @asynccontextmanager
    async def changing(self, tenant: TenantId) -> AsyncIterator[None]:
        """While a reconcile changes the tenant, repair leaves it alone: what it read a moment ago
        would bring back a revoked user, an earlier password, or an earlier number of replicas."""
        async with self.mending:
            self.working.add(tenant)
        try:
            yield
        finally:
            self.working.discard(tenant)

    def forget(self, tenant: TenantId) -> None:
        """Nothing of the tenant is repaired here any more."""
        self.tenants.pop(tenant, None)
        self.told_replicas.pop(tenant, None)

    def emptied(self, tenant: TenantId) -> None:
        """All of it is removed: what was seen of it says nothing of a later one of its name."""
        if self.usage is not None:
            self.usage.pop(tenant, None)
        self.marks.pop(tenant, None)
        self.expiry.left.pop(tenant, None)
        if self.expiry.scan is not None:
            self.expiry.scan.left.pop(tenant, None)
        self.emptied_lately.add(tenant)

    @property
    def processes(self) -> frozenset[str]:
        """Those of the primaries as they were looked at last: what was told to one, or read there,
        another may not have."""
        return frozenset() if self.facts is None else self.facts.processes

    @property
    def primary(self) -> Address:
        """Where the primary was when it was looked at last; before that, and of a Cluster, which
        has several, the endpoint."""
        if self.facts is None or self.cluster is not None:
            return self.endpoint
        return self.facts.primary.address

    @property
    def way(self) -> tuple[object, ...]:
        """How agents reach the store: where, whether by TLS, and by which authority."""
        return self.primary, self.tls, self.ca_crt, self.sentinel, self.cluster

    def shares_server_with(self, other: StoreLink) -> bool:
        """Whether both were last found to lead to one and the same server process."""
        if self.facts is None or other.facts is None:
            return False
        return not self.facts.processes.isdisjoint(other.facts.processes)

    @property
    def ready(self) -> bool:
        """Whether tenants may be provisioned now."""
        return self.facts is not None and self.proof is not None and self.failure is None

    def key_scan(self, tenant: TenantId) -> KeyScan | None:
        """What the last pass found of the tenant's data keys; nothing where others are primaries
        since, which may lack the last that was wrapped anew: no key is destroyed upon that."""
        if self.facts is None or self.facts.run_id != self.scanned_on:
            return None
        return self.key_scans.get(tenant)

    def replicas_of(self, tenant: TenantId) -> int:
        """How many replicas follow the tenant's primary, as WAIT counts them."""
        return 0 if self.facts is None else self.facts.replicas_of(tenant)

    @property
    def whole(self) -> bool:
        """Whether every replica that is known follows its primary."""
        facts = self.facts
        return (
            facts is not None
            and not facts.unreachable
            and all(node.link_up and not node.syncing for node in facts.nodes)
        )

    def users(self) -> list[AclUser]:
        """Every user that should be on every node."""
        tenants = (user for tenant in self.tenants.values() for user in tenant.users)
        return [*self.system, *tenants]

    def usage_of(self, tenant: TenantId) -> Usage | None:
        """The last measurement; a measured store without a key of the tenant is zero."""
        return None if self.usage is None else self.usage.get(tenant, Usage())

    def moved(self, points: int) -> Iterable[tuple[TenantId, LiveTenant]]:
        """Tenants whose share of memory moved by at least that many points since it was shown."""
        for tenant, live in self.tenants.items():
            usage = self.usage_of(tenant)
            if usage is None:
                continue
            if abs(percent(usage.memory, live.limits.memory) - live.shown_percent) >= points:
                yield tenant, live
