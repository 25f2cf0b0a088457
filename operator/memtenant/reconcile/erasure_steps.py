"""One tenant's part of a round of erasures: each step takes its receipts a phase further."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from memtenant.crypto.datakey import kek_version
from memtenant.crypto.erasure import Tombstone
from memtenant.crypto.keyring_record import Keyring
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import (
    FencedOut,
    MemtenantError,
    RecordInvalid,
    RecordMalformed,
    ResourceNotFound,
    StoreUnavailable,
)
from memtenant.functions.calls import Clear, Remove
from memtenant.functions.checkpoint_calls import DeleteCheckpoints
from memtenant.jobs.link import StoreLink
from memtenant.memory._async.erasure import erase, read_places
from memtenant.memory.subjects import Subject
from memtenant.reconcile.current import read_record, record_draft
from memtenant.reconcile.erasure_view import ErasureView, live_versions
from memtenant.reconcile.world import World
from memtenant.resources.port import Declared, EventType, StoredSecret
from memtenant.rules.erasure import (
    Ground,
    OperatorEvents,
    is_true_mark,
    judge_request,
    operator_mark,
    outdated,
    residuals,
)
from memtenant.rules.record import TenantRecord
from memtenant.stores import Finding, Sought, TenantCalls
from memtenant.tenancy.erasure import ErasurePhase, ErasureReceipt
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import Isolation

__all__ = ["TenantErasures"]

_AT_ONCE = 25
"""Sequences that one call removes: others on the store wait for it."""

_UNREADABLE = (
    "The data key did not open (somebody changed it): conversations that no index names may be "
    "left, which nobody can read"
)

_log = logging.getLogger(__name__)


class TenantErasures:
    """One tenant's erasures in one round."""

    def __init__(self, world: World, link: StoreLink, tenant: TenantId) -> None:
        self.tenant = tenant
        self.did: list[str] = []
        self.sought: list[Sought] = []
        self._world = world
        self._link = link
        self._on = link.processes
        self._store = link.admin.erasure
        self._receipts: dict[str, ErasureReceipt] = {}
        self._view = ErasureView(world, link, tenant)
        self._events: OperatorEvents | None = None

    async def attempt(self, step: Awaitable[None]) -> bool:
        """Whether the step went well; what concerns one tenant alone does not stop the others."""
        try:
            await step
        except (StoreUnavailable, FencedOut):
            raise
        except MemtenantError as error:
            _log.warning("erasure in %s waits: %s (%s)", self.tenant, error, error.reason)
            return False
        return True

    def unfinished(self) -> list[ErasureReceipt]:
        """What is still to be done."""
        return [one for one in self._receipts.values() if not one.settled]

    def in_phase(self, phase: ErasurePhase) -> list[ErasureReceipt]:
        """The unfinished ones that came so far and no further."""
        return [one for one in self.unfinished() if one.phase is phase]

    async def begin(self, waiting: bool) -> None:
        """Enter what is asked, and delete what indexes name."""
        self._receipts = await self._store.receipts(self.tenant)
        if not waiting and not self.in_phase(ErasurePhase.REQUESTED):
            return
        ground = await self._ground()
        if waiting:
            await self._enter(ground)
        for receipt in self.in_phase(ErasurePhase.REQUESTED):
            if not ground.obstacle:
                # What cannot be deleted of one person holds up no other.
                await self.attempt(self._delete_named(receipt))

    async def _enter(self, ground: Ground) -> None:
        raw = await self._store.requests(self.tenant)
        now = self._world.clock.now()
        entered: dict[str, ErasureReceipt] = {}
        for one in raw:
            verdict = judge_request(one, ground, now)
            if verdict.receipt is None:
                words = f"{verdict.complaint} was dropped from the queue of erasures"
                await self.emit(
                    self._view.declared(), EventType.WARNING, "ErasureRequestForged", words
                )
            elif verdict.receipt.id not in self._receipts:
                entered[verdict.receipt.id] = verdict.receipt
        marks = await self._marks(entered.values(), ground)
        gone = outdated(self._receipts, len(entered))
        self._require_there()
        await self._store.enter(self.tenant, len(raw), entered.values(), marks, gone)
        for receipt in entered.values():
            self._receipts[receipt.id] = receipt
            if receipt.refusal:
                words = f"The erasure {receipt.id[:8]} is refused: {receipt.why}"
                await self.emit(self._view.declared(), EventType.WARNING, "ErasureRefused", words)

    async def _marks(
        self, entered: Collection[ErasureReceipt], ground: Ground
    ) -> dict[str, bytes | None]:
        """The tombstones to set; None: one that was set for a request that is refused goes."""
        refused = {
            subject.named: one.id
            for one in entered
            if one.refusal
            for subject in await self._view.subjects(one)
        }
        standing = await self._store.marks(self.tenant, list(refused))
        marks: dict[str, bytes | None] = {
            subject: None
            for subject, mark in standing.items()
            if _request_of(mark) == refused[subject]
        }
        honoured = [one for one in entered if not one.refusal]
        return marks | {
            subject.named: operator_mark(one, ground, subject.named)
            for one in honoured
            for subject in await self._view.subjects(one)
        }

    async def _delete_named(self, receipt: ErasureReceipt) -> None:
        calls = self._calls(receipt)
        conversations, values = 0, set[tuple[str, str]]()
        subjects = await self._view.subjects(receipt)
        for subject in subjects:
            where = await read_places(calls, subject)
            await erase(calls, where, receipt.agent)
            conversations += len(where.conversations)
            values |= {(at.alias, name) for at, names in where.values.items() for name in names}
        after = replace(
            receipt,
            phase=ErasurePhase.INDEXED,
            conversations=conversations,
            values=len(values),
            deleted_at=self._now(),
        )
        self._require_there()
        await self._store.forget_index(self.tenant, after, [one.named for one in subjects])
        self._receipts[receipt.id] = after

    async def judge_marks(self, marks: Mapping[str, bytes]) -> None:
        """Take false tombstones away, which shut persons out. A Steward's own stays: its request is
        on its way."""
        self._receipts = await self._store.receipts(self.tenant)
        known = self._link.true_marks
        spent = {subject for subject, mark in marks.items() if self._is_spent(mark)}
        true = {
            subject: mark
            for subject, mark in marks.items()
            if subject not in spent and (self.tenant, subject, mark) in known
        }
        if len(true) < len(marks):
            ground = await self._ground()
            for subject in marks.keys() - true.keys():
                mark = marks[subject]
                if subject not in spent and is_true_mark(mark, subject, ground):
                    known.add((self.tenant, subject, mark))
                    true[subject] = mark
                    continue
                await self._store.unmark(self.tenant, subject, mark)
                words = "A mark of an erased person that no Steward set for now was taken away"
                await self.emit(self._view.declared(), EventType.WARNING, "FalseErasureMark", words)
        await self._drop_keys_beside(true)

    def _is_spent(self, mark: bytes) -> bool:
        """Whether its erasure was refused, or is so long over that the person may be back: an agent
        that has kept the mark can set it again."""
        receipt = self._behind(mark)
        if receipt is None or receipt.purged_at is None:
            return receipt is not None and receipt.phase is ErasurePhase.REFUSED
        return self._now() > receipt.purged_at + self._world.timing.tombstone

    def _behind(self, mark: bytes) -> ErasureReceipt | None:
        return self._receipts.get(_request_of(mark))

    async def _drop_keys_beside(self, marks: Mapping[str, bytes]) -> None:
        """A data key that an agent put back beside the tombstone of an erasure that is past it."""
        for subject, mark in marks.items():
            erased = self._behind(mark)
            if erased is None or erased.remaining != 0 or not _is_of(subject, erased):
                continue
            if await self._store.data_key(self.tenant, subject) is not None:
                await self._store.drop_keys(self.tenant, erased, [subject])

    async def seek(self) -> None:
        """Who is looked for in the next pass over the store."""
        self.sought = []
        indexed = self.in_phase(ErasurePhase.INDEXED)
        if not indexed or (await self._ground()).obstacle:
            return
        for receipt in indexed:
            found: list[tuple[Subject, SecretKey | None]] = []
            for subject in await self._view.subjects(receipt):
                try:
                    key = await self._view.data_key(subject)
                except RecordInvalid:
                    # Nobody can read what is under it; what no index names cannot be told by it
                    # either.
                    key, receipt = None, replace(receipt, residuals=(_UNREADABLE,))
                found.append((subject, key))
            self.sought += [Sought(receipt, subject, key) for subject, key in found]

    async def rescanned(self, found: dict[str, list[Finding]]) -> None:
        """Delete what the pass found; where it found nothing, the data key goes. The pass may have
        taken long: a hold may stand now."""
        if not self.sought or self._is_over() or (await self._ground()).obstacle:
            return
        for receipt in {one.receipt.id: one.receipt for one in self.sought}.values():
            await self.attempt(self._go_on(receipt, found.get(receipt.id, [])))

    async def _go_on(self, receipt: ErasureReceipt, left: list[Finding]) -> None:
        for finding in left:
            await self._delete_found(finding, receipt)
        if not left:
            await self._drop_keys(receipt)
            return
        after = replace(receipt, unindexed=receipt.unindexed + len(left))
        self._require_there()
        await self._store.save(self.tenant, after)
        self._receipts[after.id] = after

    async def _delete_found(self, finding: Finding, receipt: ErasureReceipt) -> None:
        calls, keys, agent = self._calls(receipt), finding.place.keys, receipt.agent
        if not finding.sequences:
            await calls.write(Clear(keys, agent, delete=True))
            return
        await calls.write(DeleteCheckpoints(keys, agent))
        for first in range(0, len(finding.sequences), _AT_ONCE):
            part = finding.sequences[first : first + _AT_ONCE]
            await calls.write(Remove(keys, part, agent))

    async def _drop_keys(self, receipt: ErasureReceipt) -> None:
        receipt = replace(receipt, phase=ErasurePhase.RESCANNED, remaining=0)
        subjects = await self._view.subjects(receipt)
        for subject in subjects:
            stored = await self._store.data_key(self.tenant, subject.named)
            if subject.isolation is not Isolation.MINIMAL and stored is not None:
                # The record first: without it, a key that is gone from the store is never shredded.
                version = max(receipt.key_version, await self._ask_to_shred(stored))
                receipt = replace(receipt, key_version=version)
        self._require_there()
        await self._store.drop_keys(self.tenant, receipt, [one.named for one in subjects])
        self._receipts[receipt.id] = receipt

    async def _ask_to_shred(self, data_key: bytes) -> int:
        """Have every key version destroyed under which the data key may have been wrapped."""
        stored, record = await self._view.record()
        keyring = Keyring.from_json(record.keyring, self.tenant)
        under = _wrapped_under(data_key)
        # An agent may have made the version up: none that never was would ever be destroyed.
        known = under if under in live_versions(keyring) else 0
        through = max(keyring.active.version, known)
        await self._shred_through(through, stored, record)
        return through

    async def _shred_through(
        self, through: int, stored: StoredSecret | None, record: TenantRecord
    ) -> None:
        due = (self._now() + self._world.timing.shred_epoch).replace(microsecond=0)
        asked = replace(
            record,
            shred_through=max(record.shred_through, through),
            shred_due=due if record.shred_due is None else min(record.shred_due, due),
        )
        await self._world.resources.apply_secret(record_draft(self._world, asked), current=stored)

    async def purged(self, receipts: list[str], left: tuple[str, ...]) -> None:
        """The files are written anew, as far as they are."""
        if self._is_over():
            return
        spec = self._view.spec()
        for receipt in (self._receipts[one] for one in receipts):
            after = replace(
                receipt,
                phase=ErasurePhase.PURGED,
                purged_at=self._now(),
                residuals=(*receipt.residuals, *left[:8], *residuals(receipt, spec)),
            )
            keep = self._world.timing.tombstone
            subjects = [one.named for one in await self._view.subjects(after)]
            seconds = int(keep / timedelta(seconds=1))
            await self._store.let_go(self.tenant, after, subjects, seconds)
            self._receipts[after.id] = after
            words = f"The erasure {after.id[:8]} is done on the store"
            await self.emit(self._view.declared(), EventType.NORMAL, "PersonErased", words)

    async def look_at_keys(self) -> None:
        """Whether the keys are destroyed that erasures wait for."""
        purged = self.in_phase(ErasurePhase.PURGED)
        if not purged or self._is_over():
            return
        stored, record = await read_record(self._world, self.tenant)
        if record is None:
            return
        live = live_versions(Keyring.from_json(record.keyring, self.tenant))
        forgotten = {one.key_version for one in purged} & live
        if forgotten and max(forgotten) > record.shred_through:
            # The record is of a backup, or an operator wrote it that knew nothing of erasures.
            await self._shred_through(max(forgotten), stored, record)
        state = (await self._link.admin.read_states([self.tenant]))[self.tenant]
        least = state.limits.get("least_kek", "0")
        for receipt in purged:
            if least.isdecimal() and receipt.key_version < min(int(least), min(live)):
                after = replace(
                    receipt, phase=ErasurePhase.CRYPTO_ERASED, crypto_erased_at=self._now()
                )
                await self._store.save(self.tenant, after)
                self._receipts[after.id] = after
                words = f"The erasure {after.id[:8]}: the keys are destroyed"
                await self.emit(self._view.declared(), EventType.NORMAL, "PersonErased", words)

    def _is_over(self) -> bool:
        """Whether the tenant is being deleted meanwhile, and what is written now would be left; or
        another process is primary since, which may lack what the receipts tell."""
        return self.tenant not in self._link.tenants or self._link.processes != self._on

    def _require_there(self) -> None:
        """Before a receipt is written at the end of what takes time. Raises `ResourceNotFound`."""
        if self._is_over():
            raise ResourceNotFound(f"MemoryTenant {self.tenant} or its primary went meanwhile")

    async def _ground(self) -> Ground:
        ground = await self._view.ground()
        self._events = self._events or OperatorEvents(ground, self._world.clock.now())
        return ground

    def _calls(self, receipt: ErasureReceipt) -> TenantCalls:
        assert self._events is not None  # noqa: S101 - nothing is deleted before it was judged
        return self._store.calls(receipt.agent, self._events)

    async def emit(self, on: Declared, kind: EventType, reason: str, words: str) -> None:
        """Tell it as an Event, and as what the round did."""
        self.did.append(f"{self.tenant}: {words}")
        await self._world.resources.emit_event(on, kind, reason, words)

    def _now(self) -> datetime:
        return self._world.clock.now().replace(microsecond=0)


def _wrapped_under(data_key: bytes) -> int:
    try:
        return kek_version(data_key)
    except RecordMalformed:
        return 0


def _is_of(named: str, receipt: ErasureReceipt) -> bool:
    """Whether a data key with this alias is the person's, at whichever agent."""
    return receipt.subject in (named, named.partition("_")[2])


def _request_of(mark: bytes) -> str:
    """Which request a tombstone is of; empty where it is none."""
    try:
        return Tombstone.parse(mark).id.hex()
    except RecordMalformed:
        return ""
