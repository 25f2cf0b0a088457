"""The one reconciler of all kinds: what the workers call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial

from memtenant.api.conditions import ConditionStatus, ConditionType, Finding
from memtenant.api.policy import RetentionPolicyStatus
from memtenant.api.store_status import MemoryStoreStatus
from memtenant.errors import MemtenantError, NotProven, StoreRefused, StoreUnavailable
from memtenant.jobs.expire import expire
from memtenant.jobs.link import StoreLink
from memtenant.jobs.measure import measure
from memtenant.jobs.repair import Repair, repair
from memtenant.jobs.rewrap import rewrap
from memtenant.jobs.rewrite import rewrite_cut_off
from memtenant.reconcile.declared import save_status, status_before
from memtenant.reconcile.deletion import delete_tenant
from memtenant.reconcile.erasure import erase_persons
from memtenant.reconcile.expiry import tell_removal
from memtenant.reconcile.instance import let_go_of_instance
from memtenant.reconcile.instancetls import reload_certificate
from memtenant.reconcile.outcome import Lane, Measured, Outcome, merged
from memtenant.reconcile.policy import is_current, reconcile_policy
from memtenant.reconcile.sealing import look_at_seals
from memtenant.reconcile.standing import enforce_standing, status_as_enforced
from memtenant.reconcile.store import forget_store, reconcile_store
from memtenant.reconcile.telling import tell_expired
from memtenant.reconcile.tenant import reconcile_tenant
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared, EventType, Kind, ObjectKey
from memtenant.rules.acl import parse_user
from memtenant.rules.placement import Refusal
from memtenant.rules.status import refused, waiting, with_findings
from memtenant.tenancy.identity import TenantId

__all__ = ["WorldReconciler"]

_INSTANCES_AT_ONCE = 8
"""Of one store that a round looks at side by side."""

_log = logging.getLogger(__name__)


class WorldReconciler:
    """`memtenant.reconcile.outcome.Reconciler` over one `World`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def reconcile(self, key: ObjectKey, reconcile_id: str) -> Outcome:
        """Bring one object to what is declared."""
        declared = self.world.mirror.get(key)
        if declared is None:
            return await self._forget(key)
        match key.kind:
            case Kind.POLICY:
                return await reconcile_policy(self.world, declared)
            case Kind.STORE:
                return await reconcile_store(self.world, declared)
            case Kind.TENANT:
                return await self._reconcile_tenant(declared)
            case Kind.REPORT:
                return Outcome()  # its policy is what looks at it

    async def _reconcile_tenant(self, declared: Declared) -> Outcome:
        world, tenant = self.world, TenantId(declared.key.namespace, declared.key.name)
        before = world.committed_ledger().entry(tenant)
        if declared.deleting:
            outcome = await delete_tenant(self.world, declared)
            if outcome.requeue_after is not None:
                # A hold that is newer than the last reconcile binds the agents while this waits.
                await enforce_standing(self.world, declared, refused=False)
        else:
            outcome = await reconcile_tenant(self.world, declared)
        after = world.ledger.entry(tenant)
        if not outcome.changed and before == after:
            return outcome
        stores = {entry[0] for entry in (before, after) if entry is not None}
        return replace(outcome, recount=_counted_by(world, declared, stores))

    async def _forget(self, key: ObjectKey) -> Outcome:
        """The object is gone. A tenant whose finalizer was taken away by hand leaves its users to
        the next repair of its store, which removes users without a tenant.
        """
        if key.kind is Kind.STORE:
            await forget_store(self.world, key.name)
            # One that was refused because this one led to its server may serve now.
            return Outcome(enqueue=tuple(sorted(self.world.mirror.keys(Kind.STORE))))
        if key.kind is Kind.POLICY:
            self.world.policies.pop(key.name, None)
            self.world.reported.pop(key.name, None)
        else:
            tenant = TenantId(key.namespace, key.name)
            waiting = self.world.make_room(tenant)
            self.world.settled.pop(tenant, None)
            left = [link for link in self.world.links.values() if tenant in link.tenants]
            for link in left:
                # Else repair would go on putting back the users of a tenant that is gone.
                link.forget(tenant)
            await let_go_of_instance(self.world, tenant)
            stores = (ObjectKey.store(link.store) for link in left)
            return Outcome(enqueue=(*stores, *waiting))
        return Outcome()

    async def record_failure(self, key: ObjectKey, error: MemtenantError) -> None:
        """Say why the last reconcile failed. The text is the error's own: it is the same from try
        to try, so that a status is written once.
        """
        declared = self.world.mirror.get(key)
        if declared is None:
            return
        if key.kind is Kind.TENANT:
            await self._record_tenant_failure(declared, error)
        elif key.kind is Kind.POLICY:
            before = status_before(declared, RetentionPolicyStatus)
            await save_status(self.world, declared, before, _failure(error))
        elif not isinstance(error, StoreUnavailable):
            store = status_before(declared, MemoryStoreStatus)
            await save_status(self.world, declared, store, _failure(error))

    async def _record_tenant_failure(self, declared: Declared, error: MemtenantError) -> None:
        now, generation = self.world.clock.now(), declared.generation
        before = status_as_enforced(self.world, declared)
        if isinstance(error, NotProven):
            unproven = Finding(
                ConditionType.ISOLATION_VERIFIED, ConditionStatus.FALSE, error.reason, str(error)
            )
            before = with_findings(before, (unproven,), now=now, generation=generation)
        if error.retryable:
            status = waiting(before, error.reason, str(error), now=now, generation=generation)
        else:
            refusal = Refusal(error.reason, getattr(error, "field", ""), str(error))
            status = refused(before, refusal, now=now, generation=generation)
        changed = await save_status(self.world, declared, status)
        if changed and not error.retryable:
            await self.world.resources.emit_event(
                declared, EventType.WARNING, error.reason, str(error)
            )

    async def repair(self, store: ObjectKey) -> Outcome:
        """Find users that drifted on any node of the store and put them back."""
        return await self._everywhere(store, self._repair)

    async def _repair(self, link: StoreLink) -> Outcome:
        store = ObjectKey.store(link.store)
        try:
            found = await repair(link, partial(self._is_stranger, link))
        except StoreUnavailable as error:
            link.failure = error
            return Outcome(enqueue=(link.key,))
        await reload_certificate(self.world, link)
        did = await self._tell_repair(store, found) + await self._rewrite(link)
        enqueue = (link.key,) if found.nodes_changed or found.restored or found.removed else ()
        tenants = _tenants_of(link, self.world) if found.look_again else ()
        if found.failed_over:
            return Outcome(enqueue=enqueue, in_time=tenants, changed=bool(did), did=did)
        return Outcome(enqueue=(*enqueue, *tenants), changed=bool(did), did=did)

    async def _rewrite(self, link: StoreLink) -> tuple[str, ...]:
        if not await rewrite_cut_off(link, self.world.clock):
            return ()
        declared = self.world.mirror.get(link.key)
        message = "The instance's append-only file was written anew after its disk was full"
        if declared is not None:
            await self.world.resources.emit_event(
                declared, EventType.NORMAL, "FileRewritten", message
            )
        return (message,)

    async def _tell_repair(self, store: ObjectKey, found: Repair) -> tuple[str, ...]:
        declared = self.world.mirror.get(store)
        said = []
        for words, users in (("Restored", found.restored), ("Removed", found.removed)):
            if users:
                shown = ", ".join(users[:5]) + (" …" if len(users) > 5 else "")
                _log.info("%s ACL users on %s: %s", words.lower(), store.name, shown)
                message = f"{words} {len(users)} ACL users: {shown}"
                said.append(message)
                if declared is not None:
                    await self.world.resources.emit_event(
                        declared, EventType.WARNING, f"Users{words}", message
                    )
        return tuple(said)

    def _is_stranger(self, found_on: StoreLink, name: str) -> bool:
        """Whether a username of ours, which is not in the store's roster, belongs to nobody: its
        tenant is gone, or is in a roster without it (a node came back with users that were revoked
        meanwhile). A tenant that was not reconciled since the start may have users that no roster
        knows yet, and one in the roster of another store that leads to the same server has its
        users here.
        """
        owner = parse_user(name)
        if owner is None or not self.world.mirror.synced:
            return False
        key = ObjectKey.tenant(owner.tenant.namespace, owner.tenant.name)
        if self.world.mirror.sight(key) is None:
            return True
        return any(
            owner.tenant in link.tenants
            for link in self.world.links.values()
            if link is found_on or not link.shares_server_with(found_on)
        )

    async def measure(self, store: ObjectKey) -> Outcome:
        """Measure the memory of all tenants of the store in one paced scan."""
        return await self._everywhere(store, self._measure)

    async def _measure(self, link: StoreLink) -> Outcome:
        found = await measure(link, self.world.clock)
        keys = tuple(ObjectKey.tenant(t.namespace, t.name) for t in found.affected)
        return Outcome(enqueue=keys)

    async def rewrap(self, store: ObjectKey) -> Outcome:
        """Wrap the data keys anew of all tenants of the store whose key turned."""
        return await self._everywhere(store, self._rewrap)

    async def _rewrap(self, link: StoreLink) -> Outcome:
        found = await rewrap(link, self.world.clock)
        keys = tuple(ObjectKey.tenant(t.namespace, t.name) for t in found.affected)
        return Outcome(enqueue=keys, changed=bool(found.rewrapped))

    async def erase(self, store: ObjectKey) -> Outcome:
        """Go on with the erasure of persons on the store."""
        return await self._everywhere(store, self._erase)

    async def _erase(self, link: StoreLink) -> Outcome:
        return await erase_persons(self.world, link)

    async def expire(self, store: ObjectKey) -> Outcome:
        """Remove from the store what has passed its period."""
        return await self._everywhere(store, self._expire)

    async def _expire(self, link: StoreLink) -> Outcome:
        known, link.expiry.all_told = link.expiry.all_told, False
        removal = await expire(
            link,
            self.world.clock,
            pass_every=self.world.timing.expiry_pass,
            spares=self._is_unsettled,
        )
        others = () if known else link.tenants
        await tell_expired(self.world, link, {*removal.by_tenant, *others})
        link.expiry.all_told = True
        did = await tell_removal(self.world, link, removal)
        return Outcome(changed=bool(removal.total.size), did=did, removal=removal)

    async def audit(self, store: ObjectKey) -> Outcome:
        """Look at what the sealer does on the store."""
        return await self._everywhere(store, partial(look_at_seals, self.world))

    async def _everywhere(
        self, store: ObjectKey, step: Callable[[StoreLink], Awaitable[Outcome]]
    ) -> Outcome:
        """The step on the store, or on every instance that was made of it; one that fails does not
        keep the others from theirs."""
        at_once = asyncio.Semaphore(_INSTANCES_AT_ONCE)

        async def one(link: StoreLink) -> Outcome:
            async with at_once:
                try:
                    return await step(link)
                except MemtenantError as error:
                    if link.key == store:
                        raise
                    _log.warning("instance of %s: %s (%s)", link.name, error, error.reason)
                    # What it refuses the operator is for its tenant's status to say.
                    refused = isinstance(error, StoreRefused)
                    return Outcome(enqueue=(link.key,) if refused else ())

        ready = [link for link in self.world.links_of(store.name) if link.ready]
        if len(ready) == 1:
            found = [await one(ready[0])]
        else:
            found = await asyncio.gather(*(one(link) for link in ready))
        return merged(found)

    def _is_unsettled(self, tenant: TenantId) -> bool:
        """Whether a declared tenant was not reconciled since the start, nor since its policy
        changed: a hold on it that was declared meanwhile is not in force on the store yet. In doubt
        nobody knows what is."""
        settled, mirror = self.world.settled, self.world.mirror
        if mirror.doubted:
            return True
        if mirror.sight(ObjectKey.tenant(tenant.namespace, tenant.name)) is None:
            return False
        policy = settled.get(tenant)
        return tenant not in settled or (policy is not None and not is_current(self.world, policy))

    def measured(self) -> Iterator[Measured]:
        """The live figures of all tenants that were measured since the start."""
        for link in self.world.links.values():
            for tenant, live in link.tenants.items():
                usage = link.usage_of(tenant)
                if usage is not None:
                    yield Measured(
                        tenant,
                        usage.memory,
                        live.limits.memory,
                        usage.conversations,
                        live.limits.conversations,
                        left.oldest if (left := link.expiry.left.get(tenant)) else None,
                    )

    def lane(self, key: ObjectKey) -> Lane:
        """Deletions and what nobody has seen yet first, then what changed or does not work yet;
        refreshes last."""
        sight = self.world.mirror.sight(key)
        if sight is None or sight.deleting:
            return Lane.DELETION
        if not sight.told or key.kind is not Kind.TENANT:
            return Lane.FIRST
        return Lane.REFRESH if sight.current and sight.ready == "True" else Lane.CHANGE

    def store_of(self, key: ObjectKey) -> ObjectKey | None:
        """The store that the object's work goes to; None where that is not known yet."""
        if key.kind is Kind.STORE:
            return key
        if key.kind is Kind.POLICY:
            return None
        tenant = TenantId(key.namespace, key.name)
        if str(tenant) in self.world.links:
            return None  # an instance that is away keeps nobody else waiting
        name = self.world.committed_ledger().store_of(tenant)
        return ObjectKey.store(name) if name else None


def _tenants_of(link: StoreLink, world: World) -> tuple[ObjectKey, ...]:
    if link.key.kind is Kind.TENANT:
        return (link.key,)
    return tuple(sorted(world.mirror.tenants_of_store(link.name)))


def _failure(error: MemtenantError) -> tuple[Finding, ...]:
    text, false = str(error), ConditionStatus.FALSE
    trouble = ConditionType.RECONCILING if error.retryable else ConditionType.STALLED
    return (
        Finding(ConditionType.READY, false, error.reason, text),
        Finding(trouble, ConditionStatus.TRUE, error.reason, text),
    )


def _counted_by(
    world: World, declared: Declared, stores: set[str]
) -> tuple[tuple[ObjectKey, float], ...]:
    """Whose status counts this tenant, and in how many seconds it may be told."""
    keys = [ObjectKey.store(store) for store in sorted(stores)]
    ref = declared.spec.get("retentionPolicyRef")
    if isinstance(ref, dict) and isinstance(ref.get("name"), str):
        keys.append(ObjectKey.policy(ref["name"]))
    return tuple((key, world.recounts_in(key)) for key in keys)
