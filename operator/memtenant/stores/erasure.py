"""Erasure on one store: the queues of requests, the receipts, tombstones and data keys.

Everything that is written goes through the fence, and a receipt is written in the same transaction
as what it tells of: an operator that is killed at any point goes on from what the receipt says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from memtenant.errors import RecordMalformed
from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, Reply
from memtenant.stores.erasure_calls import Events, TenantCalls
from memtenant.stores.erasure_search import Finding, Sought, find_left
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.refusals import required_all
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasureReceipt
from memtenant.tenancy.identity import AgentName, TenantId

__all__ = ["StoreErasure"]

MOST_REQUESTS = 100
"""Of one tenant's queue that are read at a time."""

_TENANTS = 500
"""Of which one pipeline asks."""


class StoreErasure:
    """What the operator does on one store's primary for the erasure of persons."""

    def __init__(self, primary: Keyspace, term: Callable[[], Term], pace: Pace) -> None:
        self._primary = primary
        self._term = term
        self._pace = pace

    def calls(self, agent: AgentName, events: Events) -> TenantCalls:
        """The calls that erase what an agent asked for."""
        return TenantCalls(self._primary, self._term, agent, events, self._pace)

    async def waiting(self, tenants: Collection[TenantId]) -> list[TenantId]:
        """Those in whose queue something stands."""
        return await self._that_have(tenants, "LLEN", keys.erasure_requests)

    async def with_receipts(self, tenants: Collection[TenantId]) -> list[TenantId]:
        """Those that have receipts, whatever they say."""
        return await self._that_have(tenants, "HLEN", keys.erasure_receipts)

    async def _that_have(
        self, tenants: Collection[TenantId], count: str, name: Callable[[TenantId], str]
    ) -> list[TenantId]:
        found: list[TenantId] = []
        for part in batches(tuple(tenants), _TENANTS):  # tenants come meanwhile
            sizes = await self._read([(count, name(one)) for one in part])
            found += [one for one, size in zip(part, sizes, strict=True) if size]
        return found

    async def requests(self, tenant: TenantId) -> list[bytes]:
        """The first requests of the queue, as they stand there."""
        name = keys.erasure_requests(tenant)
        (found,) = await self._read([("LRANGE", name, "0", MOST_REQUESTS - 1)])
        return _octets(found)

    async def receipts(self, tenant: TenantId) -> dict[str, ErasureReceipt]:
        """By id. One that cannot be read is left out."""
        (found,) = await self._read([("HGETALL", keys.erasure_receipts(tenant))])
        receipts = {}
        for document in _octets(found)[1::2]:
            try:
                receipt = ErasureReceipt.from_json(document)
            except RecordMalformed:
                continue
            receipts[receipt.id] = receipt
        return receipts

    async def marks(self, tenant: TenantId, subjects: Sequence[str]) -> dict[str, bytes]:
        """The tombstones of the subjects that have one."""
        found = await self._read([("HGET", keys.dek(tenant, one), "erased") for one in subjects])
        return {
            one: mark for one, mark in zip(subjects, found, strict=True) if isinstance(mark, bytes)
        }

    async def enter(
        self,
        tenant: TenantId,
        taken: int,
        receipts: Iterable[ErasureReceipt],
        marks: Mapping[str, bytes | None],
        gone: Sequence[str],
    ) -> None:
        """Take requests off the queue, with their receipts; set each subject's tombstone, or take
        it away (None); drop old receipts."""
        commands: list[Command] = [_saved(tenant, receipt) for receipt in receipts]
        for subject, mark in marks.items():
            name = keys.dek(tenant, subject)
            if mark is None:
                commands.append(("HDEL", name, "erased"))
            else:  # that of an earlier erasure of the same person may be about to go
                commands += [("HSET", name, "erased", mark), ("PERSIST", name)]
        if gone:
            commands.append(("HDEL", keys.erasure_receipts(tenant), *gone))
        if taken:
            commands.append(("LTRIM", keys.erasure_requests(tenant), taken, "-1"))
        await self._write(commands)

    async def save(self, tenant: TenantId, receipt: ErasureReceipt) -> None:
        """Tell how far it is."""
        await self._write([_saved(tenant, receipt)])

    async def owners(self, tenant: TenantId) -> set[AgentName]:
        """The agents that have a data key or an index of anybody, where each has its own (Strict
        isolation): also those that are not declared any more."""
        found: set[AgentName] = set()
        prefix = keys.prefix(tenant).encode()
        async for batch in scan_tenant_keys(self._primary, ScanPosition(), self._pace.begin()):
            for key in batch:
                kind, _, alias = key.removeprefix(prefix).partition(b":")
                if key.startswith(prefix) and kind in (b"k", b"i"):
                    found.add(keys.owner_of(alias.decode("utf-8", "replace")))
        return found - {""}

    async def forget_index(
        self, tenant: TenantId, receipt: ErasureReceipt, subjects: Iterable[str]
    ) -> None:
        """What the indexes named is gone: so are they."""
        indexes = [keys.subject_index(tenant, one) for one in subjects]
        await self._write([("UNLINK", *indexes), _saved(tenant, receipt)])

    async def data_key(self, tenant: TenantId, subject: str) -> bytes | None:
        """The subject's data key as it is stored."""
        (found,) = await self._read([("HGET", keys.dek(tenant, subject), "dek")])
        return found if isinstance(found, bytes) else None

    async def unmark(self, tenant: TenantId, subject: str, false: bytes) -> None:
        """Take a false tombstone away, if it is still the one that was judged."""
        if (await self.marks(tenant, [subject])).get(subject) == false:
            await self._write([("HDEL", keys.dek(tenant, subject), "erased")])

    async def drop_keys(
        self, tenant: TenantId, receipt: ErasureReceipt, subjects: Iterable[str]
    ) -> None:
        """Delete the person's data keys; the tombstones stay."""
        drops: list[Command] = [("HDEL", keys.dek(tenant, one), "dek") for one in subjects]
        await self._write([*drops, _saved(tenant, receipt)])

    async def let_go(
        self, tenant: TenantId, receipt: ErasureReceipt, subjects: Iterable[str], seconds: int
    ) -> None:
        """The tombstones go after a while: the person may come back as somebody new."""
        ends: list[Command] = [("EXPIRE", keys.dek(tenant, one), seconds) for one in subjects]
        await self._write([*ends, _saved(tenant, receipt)])

    async def rescan(self, sought: Sequence[Sought]) -> dict[str, list[Finding]]:
        """What is left of the persons anywhere on the store, by the receipt's id."""
        return await find_left(self._primary, sought, self._pace)

    async def _read(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self._primary.run(commands) if commands else []
        return required_all(replies, self._primary.address)

    async def _write(self, commands: Sequence[Command]) -> None:
        replies = await run_fenced(self._primary, self._term(), commands, patience=0)
        required_all(replies, self._primary.address)


def _saved(tenant: TenantId, receipt: ErasureReceipt) -> Command:
    return ("HSET", keys.erasure_receipts(tenant), receipt.id, receipt.to_json())


def _octets(reply: Reply) -> list[bytes]:
    return [one for one in reply if isinstance(one, bytes)] if isinstance(reply, list) else []
