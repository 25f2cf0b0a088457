"""Data keys as they lie on the store: read in one shared pass, and replaced where still the same.

Agents may only add a data key (HSETNX), never change one; other jobs of the operator may remove
one. So a new wrap is written only over the very bytes that it was made from: WATCH, compare, MULTI.
What a subject's erasure removed does not come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from memtenant.stores.connection import Command, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.refusals import required_all, translated
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["StoredDataKey", "data_keys", "replace_data_keys"]

_FIELD = "dek"
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class StoredDataKey:
    """A subject's wrapped data key. ``value`` is empty where the key in Redis is no hash."""

    tenant: TenantId
    alias: str
    value: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The key in Redis."""
        return keys.dek(self.tenant, self.alias)


async def data_keys(
    primary: Keyspace,
    wanted: Callable[[TenantId], bool],
    position: ScanPosition,
    pace: Pace,
) -> AsyncIterator[list[StoredDataKey]]:
    """The data keys of the wanted tenants, in batches, in one pass for all of them. A subject that
    was erased has none."""
    paced = pace.begin()
    async for batch in scan_tenant_keys(primary, position, paced):
        places = [place for place in map(_place, batch) if place is not None and wanted(place[0])]
        if not places:
            continue
        asked: list[Command] = [("HGET", keys.dek(*place), _FIELD) for place in places]
        replies = await paced.run(primary, asked, at_once=_AT_ONCE)
        yield [
            StoredDataKey(tenant, alias, _value(primary, reply))
            for (tenant, alias), reply in zip(places, replies, strict=True)
            if reply is not None
        ]


async def replace_data_keys(
    primary: Keyspace, term: Term, changes: Sequence[tuple[StoredDataKey, bytes]]
) -> Counter[TenantId]:
    """Write each new wrap over the bytes that were read, fenced; how many of each tenant were
    still the same."""
    if not changes:
        return Counter()
    commands: list[Command] = [("HSET", one.name, _FIELD, value) for one, value in changes]
    unchanged = [(one.name, _FIELD, one.value) for one, _ in changes]
    replies = await run_fenced(primary, term, commands, patience=0, unchanged=unchanged)
    required_all(replies, primary.address)
    written = zip(changes, replies, strict=True)
    return Counter(one.tenant for (one, _), reply in written if reply is not None)


def _value(primary: Keyspace, reply: Reply) -> bytes:
    if isinstance(reply, bytes):
        return reply
    if isinstance(reply, ResponseError) and not str(reply).startswith("WRONGTYPE"):
        raise translated(reply, str(primary.address))
    return b""


def _place(key: bytes) -> tuple[TenantId, str] | None:
    """Whose data key it is; None for another key."""
    tenant = keys.tenant_of(key)
    if tenant is None:
        return None
    prefix = keys.dek(tenant, "").encode()
    if not key.startswith(prefix):
        return None
    return tenant, key[len(prefix) :].decode("utf-8", "replace")
