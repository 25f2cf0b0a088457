"""Remove tenants' keys, and look at their youngest records, in one shared pass each."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from memtenant.stores.batches import batches
from memtenant.stores.connection import Command
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.refusals import translated
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.stores.sealed import is_kept
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["LatestRecord", "latest_records", "purge"]

HEADER_BYTES = 64
"""How much of a record is read: its clear header is shorter, and a record may be huge."""

# The newest element's first bytes and the list's length; other types and vanished keys are nil.
_LATEST = (
    "if redis.call('TYPE', KEYS[1]).ok ~= 'list' then return false end "
    "return {string.sub(redis.call('LINDEX', KEYS[1], -1), 1, tonumber(ARGV[1])), "
    "redis.call('LLEN', KEYS[1])}"
)

_UNLINKED = 50
_SCRIPTS = 20
"""What one piece does at once."""

Progress = Callable[[Mapping[TenantId, int]], None]


@dataclass(frozen=True, slots=True)
class LatestRecord:
    """The start of the last record of one conversation, and how many records it has."""

    tenant: TenantId
    header: bytes = field(repr=False)
    records: int


async def purge(
    primary: Keyspace,
    term: Term,
    tenants: Collection[TenantId],
    *,
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> dict[TenantId, int]:
    """Remove every key of the tenants; how many keys were removed of each. The audit queue of one
    that is audited stays until the sealer has drained it (`memtenant.stores.sealed`).

    In fenced batches, by UNLINK: the server frees the memory in the
    background. ``progress`` is called after each batch. Revoke the tenants' users first: what they
    write meanwhile may stay.
    """
    removed: Counter[TenantId] = Counter(dict.fromkeys(tenants, 0))
    kept = await is_kept(primary, sorted(tenants))
    paced = (pace or Pace()).begin()
    async for batch in scan_tenant_keys(primary, ScanPosition(), paced):
        owned = _owned(batch)
        doomed = [(tenant, key) for key, tenant in owned if tenant in removed and key not in kept]
        for piece in batches(doomed, _UNLINKED):
            commands: list[Command] = [("UNLINK", key) for _, key in piece]
            replies = await run_fenced(primary, term, commands, patience=0)
            for (tenant, _), reply in zip(piece, replies, strict=True):
                if isinstance(reply, ResponseError):
                    raise translated(reply, str(primary.address))
                removed[tenant] += reply if isinstance(reply, int) else 0
            await paced.rest()
        if doomed and progress is not None:
            progress(dict(removed))
    return dict(removed)


async def latest_records(
    primary: Keyspace, tenants: Collection[TenantId], *, pace: Pace | None = None
) -> AsyncIterator[LatestRecord]:
    """The last record of each conversation of the tenants: when they were last written to."""
    wanted = frozenset(tenants)
    paced = (pace or Pace()).begin()
    async for batch in scan_tenant_keys(primary, ScanPosition(), paced):
        lists = [(tenant, key) for key, tenant in _owned(batch) if tenant in wanted]
        lists = [(tenant, key) for tenant, key in lists if _is_record_list(tenant, key)]
        scripts: list[Command] = [("EVAL_RO", _LATEST, "1", key, HEADER_BYTES) for _, key in lists]
        replies = await paced.run(primary, scripts, at_once=_SCRIPTS)
        for (tenant, _), reply in zip(lists, replies, strict=True):
            if isinstance(reply, ResponseError):
                raise translated(reply, str(primary.address))
            if isinstance(reply, list) and len(reply) == 2:
                yield LatestRecord(tenant, *reply)


def _owned(batch: Sequence[bytes]) -> list[tuple[bytes, TenantId]]:
    tenants = ((key, keys.tenant_of(key)) for key in batch)
    return [(key, tenant) for key, tenant in tenants if tenant is not None]


def _is_record_list(tenant: TenantId, key: bytes) -> bool:
    return key.startswith(keys.records(tenant).encode()) and key.endswith(b":l")
