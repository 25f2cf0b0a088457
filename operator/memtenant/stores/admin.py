"""`StoreAdmin`: everything that the operator does to one store, on the right nodes, fenced."""

from __future__ import annotations

from collections import Counter
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from types import TracebackType

from memtenant.clock import Clock, system_clock
from memtenant.functions.library import libraries
from memtenant.rules.acl import template_digest
from memtenant.rules.quota import Usage
from memtenant.rules.sealing import SealView
from memtenant.stores import (
    data_keys,
    expiry_due,
    expiry_pass,
    fence,
    files,
    functions,
    installation_log,
    owner,
    purge,
    sealed,
    tenant_state,
    usage,
)
from memtenant.stores.connection import NodeClient, StoreSettings
from memtenant.stores.data_keys import StoredDataKey
from memtenant.stores.erasure import StoreErasure
from memtenant.stores.expiry import CutOffs, Tally
from memtenant.stores.expiry_pass import ExpiryScan
from memtenant.stores.fence import Term
from memtenant.stores.functions import FunctionsState
from memtenant.stores.inspection import count_keys
from memtenant.stores.installation_log import InstallationLog
from memtenant.stores.matrix import MatrixProof, prove_matrix
from memtenant.stores.nodes import StoreFacts
from memtenant.stores.owner import StoreOwner
from memtenant.stores.pace import Pace
from memtenant.stores.purge import LatestRecord, Progress
from memtenant.stores.scan import ScanPosition
from memtenant.stores.sentinel import SentinelSettings, SentinelWatch
from memtenant.stores.slots import epoch_keys
from memtenant.stores.tenant_state import StateChange, TenantState
from memtenant.stores.together import Together
from memtenant.stores.topology import StoreNodes
from memtenant.stores.untold import StoreUntold
from memtenant.stores.usage import UsageScan
from memtenant.stores.users import StoreUsers
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.keys import STORE_OWNER, audit_queue

__all__ = ["Fence", "StoreAdmin"]

Fence = Callable[[], int]
"""The number of the current leadership; raises `FencedOut` where this process does not lead."""

REPLICATION_PATIENCE = 2.0
"""Seconds that a replica may take to learn of a new term before a write to it is given up."""


class StoreAdmin:
    """One store, as the operator's ACL user sees it.

        async with StoreAdmin(settings, installation="…", fence=lease.term) as store:
            facts = await store.discover()
            await store.lead()
            await store.users.set(users)

    Reading needs no lead. Every write is fenced by the term that ``fence`` tells at that moment:
    `FencedOut` means that another operator leads. After ``EpochBehind`` or a changed run id of
    the primary (it lost its data, or another node was promoted), `discover` and `lead` again.
    One instance belongs to one event loop; its methods may run concurrently. ``own_keys``: of a
    tenant's content an agent reaches only its own, which the proofs have to show.
    """

    def __init__(
        self,
        settings: StoreSettings,
        *,
        installation: str,
        fence: Fence,
        sentinels: SentinelSettings | None = None,
        clock: Clock = system_clock,
        pace: Pace | None = None,
        replication_patience: float = REPLICATION_PATIENCE,
        own_keys: bool = False,
        proofs: dict[tuple[str, str], MatrixProof] | None = None,
    ) -> None:
        """With ``sentinels`` these are asked where the primary is, at each `discover`. What
        ``proofs`` hold of server versions and rule templates is not proven again."""
        self._settings = settings
        watch = None if sentinels is None else SentinelWatch(settings, sentinels)
        self._nodes = StoreNodes(settings, watch)
        self._installation = installation
        self._fence = fence
        self._clock = clock
        self._pace = pace or Pace(clock=clock)
        self._own_keys = own_keys
        self._proofs = {} if proofs is None else proofs
        self._users = StoreUsers(
            settings, self._nodes, self._term, patience=replication_patience, own_keys=own_keys
        )
        # What every reconcile of a tenant asks, asked for all that run at the moment.
        self._reading = Together(self._read_states)
        self._writing = Together(self._write_states)

    async def __aenter__(self) -> StoreAdmin:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._nodes.close()

    @property
    def settings(self) -> StoreSettings:
        """How the store is reached."""
        return self._settings

    @property
    def users(self) -> StoreUsers:
        """The ACL users, on all nodes."""
        return self._users

    # --- nodes -----------------------------------------------------------------------------

    @property
    def facts(self) -> StoreFacts:
        """What `discover` found last; `StoreUnavailable` before the first time."""
        return self._nodes.facts

    async def discover(self) -> StoreFacts:
        """See `StoreNodes.discover`."""
        return await self._nodes.discover()

    async def refresh(self) -> StoreFacts:
        """See `StoreNodes.refresh`."""
        return await self._nodes.refresh()

    # --- leading ---------------------------------------------------------------------------

    def _term(self) -> Term:
        return Term(self._fence(), self._installation)

    @property
    def _owner_node(self) -> NodeClient:
        return self._nodes.keyspace.parts([("GET", STORE_OWNER)])[0].node

    async def owner(self) -> StoreOwner | None:
        """Which installation owns the store, if any."""
        return await owner.owner_of(self._owner_node)

    async def lead(self) -> StoreOwner:
        """Claim the store for this installation, and make the current term the one that writes.

        Raises `StoreRefused` (``StoreOwnedElsewhere``) or `FencedOut`; changes nothing then.
        """
        term = self._term()
        node = self._owner_node
        record = await owner.claim(node, self._installation, self._clock.now())
        cluster = self._nodes.cluster
        if cluster is None:
            await fence.raise_epoch(node, term)
        else:
            await fence.raise_epochs(cluster, term, tuple(epoch_keys().values()))
        return record

    async def stored_term(self) -> Term | None:
        """The term that may write now, as the primary holds it."""
        return await fence.stored_term(self._nodes.keyspace.shards[0])

    async def admit_agents(self) -> int:
        """Let agents ask the Sentinels for the primary; how many Sentinels did not know them."""
        self._term()
        return await self._nodes.admit_agents()

    async def release(self) -> bool:
        """Give the store up, for another installation to claim; whether it was ours."""
        self._term()
        cluster = self._nodes.cluster
        if cluster is None:
            return await owner.release(self._owner_node, self._installation)
        was_ours = await owner.release(self._owner_node, self._installation, with_it=())
        if was_ours:
            await cluster.run([("DEL", key) for key in epoch_keys().values()])
        return was_ours

    # --- server ----------------------------------------------------------------------------

    async def configure(self, settings: Mapping[str, str]) -> None:
        """CONFIG SET on the primary; only where the operator's user may say so. A file that is
        named anew is read anew."""
        await fence.require_leading(self._nodes.keyspace.shards[0], self._term())
        words = [word for name, value in settings.items() for word in (name, value)]
        await self._nodes.keyspace.call("CONFIG", "SET", *words)

    async def rewrite_append_only_file(self) -> None:
        """Have the primary begin to write its append-only file anew."""
        await fence.require_leading(self._nodes.keyspace.shards[0], self._term())
        await self._nodes.keyspace.call("BGREWRITEAOF")

    # --- proof -----------------------------------------------------------------------------

    async def prove_matrix(self) -> MatrixProof:
        """The full DRYRUN matrix on one node of each server version; see `stores.matrix`.

        The answer holds for a version and a rule template, so it is kept as long as both stay.
        """
        facts, term = self.facts, self._term()
        versions = {f"{node.flavour} {node.version}": node for node in facts.nodes}
        template = template_digest(facts.commands, own_keys=self._own_keys)
        proofs = []
        for version, node in sorted(versions.items()):
            proof = self._proofs.get((version, template)) or await prove_matrix(
                self._nodes.client(node.address),
                node,
                facts.commands,
                term,
                own_keys=self._own_keys,
            )
            if proof.holds:
                self._proofs[version, template] = proof
            proofs.append(proof)
        return MatrixProof.of_all(proofs)

    # --- functions -------------------------------------------------------------------------

    async def load_functions(self) -> FunctionsState:
        """Load this version of the Functions and the one before, where they differ or are missing;
        a no-op writes nothing. Replicas get them by replication."""
        found = [
            await functions.load_functions(
                self._nodes.client(node.address), self._term(), libraries()
            )
            for node in self.facts.primaries
        ]
        return FunctionsState(
            tuple(name for one in found for name in one.loaded),
            tuple(name for one in found for name in one.removed),
        )

    # --- tenants ---------------------------------------------------------------------------

    async def read_states(self, tenants: Collection[TenantId]) -> dict[TenantId, TenantState]:
        """``o:limits`` and ``o:access`` of the tenants."""
        states = await self._reading(tenants)
        return {tenant: states[tenant] for tenant in tenants}

    async def _read_states(self, tenants: list[TenantId]) -> dict[TenantId, TenantState]:
        return await tenant_state.read_states(self._nodes.keyspace, tenants)

    async def write_states(self, changes: Mapping[TenantId, StateChange]) -> None:
        """Change ``o:limits`` and ``o:access``, each tenant's atomically."""
        self._term()
        await self._writing(changes.items())

    async def _write_states(self, changes: list[tuple[TenantId, StateChange]]) -> None:
        await tenant_state.write_states(self._nodes.keyspace, self._term(), changes)

    async def remove_states(self, tenants: Collection[TenantId]) -> None:
        """Remove ``o:limits`` and ``o:access`` of the tenants."""
        await tenant_state.remove_states(self._nodes.keyspace, self._term(), tenants)

    @property
    def installation_log(self) -> InstallationLog:
        """What is kept on the primary about no tenant."""
        return InstallationLog(self._nodes.keyspace)

    async def tell_installation(
        self, entries: Sequence[bytes], told: Mapping[str, str | None]
    ) -> None:
        """Append entries to the installation's queue, and enter what they tell."""
        await installation_log.tell(self._nodes.keyspace, self._term(), entries, told)

    async def measure(self, scan: UsageScan | None = None) -> dict[TenantId, Usage]:
        """What every tenant uses, by one paced pass. Hand in the scan of a pass that was cut off
        to go on with it (while the primary's run id is the same)."""
        return await usage.measure(self._nodes.keyspace, scan, self._pace)

    async def purge(
        self, tenants: Collection[TenantId], *, progress: Progress | None = None
    ) -> dict[TenantId, int]:
        """Remove every key of the tenants in bounded batches; how many of each."""
        return await purge.purge(
            self._nodes.keyspace,
            self._term(),
            tenants,
            pace=self._pace,
            progress=progress,
            replaceable=self._nodes.replaceable,
        )

    def data_keys(
        self, wanted: Callable[[TenantId], bool], position: ScanPosition
    ) -> AsyncIterator[list[StoredDataKey]]:
        """The data keys of the wanted tenants, by one paced pass from ``position`` on."""
        return data_keys.data_keys(self._nodes.keyspace, wanted, position, self._pace)

    async def replace_data_keys(
        self, changes: Sequence[tuple[StoredDataKey, bytes]]
    ) -> Counter[TenantId]:
        """Replace each data key that is still what was read; how many of each tenant were."""
        return await data_keys.replace_data_keys(self._nodes.keyspace, self._term(), changes)

    def latest_records(self, tenants: Collection[TenantId]) -> AsyncIterator[LatestRecord]:
        """The start of the last record of each of the tenants' conversations."""
        return purge.latest_records(self._nodes.keyspace, tenants, pace=self._pace)

    # --- audit ---

    async def look_at_seals(self) -> SealView:
        """What the sealer says of itself and of each tenant's log."""
        return await sealed.look_at_seals(self._nodes.keyspace)

    async def queued_events(self, tenant: TenantId) -> int:
        """How many events are in the tenant's audit queue."""
        reply = await self._nodes.keyspace.call("LLEN", audit_queue(tenant))
        return reply if isinstance(reply, int) else 0

    async def finish_closed(self, *, sealed_before: bool) -> tuple[TenantId, ...]:
        """End the audit of deleted tenants whose queues are drained; whose ended."""
        return await sealed.finish_closed(self._nodes.keyspace, self._term(), sealed=sealed_before)

    @property
    def untold(self) -> StoreUntold:
        """What was removed of audited tenants and is not told yet, on the primary."""
        return StoreUntold(self._nodes.keyspace, self._term)

    # --- erasure ---------------------------------------------------------------------------

    @property
    def erasure(self) -> StoreErasure:
        """What erases persons, on the primary."""
        return StoreErasure(self._nodes.keyspace, self._term, self._pace)

    async def rewrite_files(self) -> tuple[str, ...]:
        """Write every node's files anew, one node after another, so that they hold nothing that is
        deleted; what could not be done, in words. Takes as long as the nodes need for it."""
        self._term()
        return await files.rewrite_all(self._nodes)

    # --- expiry ----------------------------------------------------------------------------

    async def expire_due(
        self, tenants: Collection[TenantId], *, most: int
    ) -> dict[TenantId, Tally]:
        """Remove what has passed its period, as far as the tenants' own lists tell; at most so
        many conversations. What went, by tenant."""
        return await expiry_due.expire_due(
            self._nodes.keyspace, self._term(), tenants, most=most, pace=self._pace
        )

    async def expire_scanned(
        self,
        scan: ExpiryScan,
        *,
        most: int,
        spares: Callable[[TenantId], bool] = lambda _tenant: False,
    ) -> bool:
        """Go on with a pass over all keys that removes what has passed its period, for about so
        many keys, but of no tenant whom it ``spares``; whether it is at its end. The scan is good
        while the primary's run id is."""
        return await expiry_pass.expire_scanned(
            self._nodes.keyspace, self._term(), scan, most=most, spares=spares, pace=self._pace
        )

    async def count_expiring(
        self,
        cut_offs: Mapping[TenantId, CutOffs] | None,
        *,
        progress: Callable[[int], None] = lambda _keys: None,
    ) -> dict[TenantId, Tally]:
        """What would go of these tenants at these cut-offs (None: of all, at those in force), and
        what stays, by tenant."""
        return await expiry_pass.count_expiring(
            self._nodes.keyspace, cut_offs, pace=self._pace, progress=progress
        )

    async def count_keys(self) -> int:
        """How many keys there are, of whomever: what a pass will look at, at most."""
        return await count_keys(self._nodes.keyspace.shards)
