"""Remove tenants' keys, and look at their youngest records, in one shared pass each."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from memtenant.stores.batches import batches
from memtenant.stores.connection import Address, Command, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.refusals import required, required_all
from memtenant.stores.replication import require_replicated
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.stores.sealed import is_kept
from memtenant.stores.untold import CALLS, KEYS
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

PATIENCE = 10.0
"""Seconds for replicas to have what was removed."""

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
    patience: float = PATIENCE,
    replaceable: Collection[Address] = (),
) -> dict[TenantId, int]:
    """Remove every key of the tenants; how many keys were removed of each. The audit queue of one
    that is audited stays until the sealer has drained it (`memtenant.stores.sealed`), and so does
    the count of what was removed, until it is told (`memtenant.stores.untold`).

    In fenced batches, by UNLINK: the server frees the memory in the
    background. ``progress`` is called after each batch. Revoke the tenants' users first: what they
    write meanwhile may stay. It ends when the replicas that follow have it too, else a failover
    would bring a tenant's keys back without their tenant; raises `StoreUnavailable`
    (``ReplicasBehind``) if they do not within ``patience`` seconds, or if none follows one of the
    ``replaceable`` primaries (`require_replicated`): purge again.
    """
    removed: Counter[TenantId] = Counter(dict.fromkeys(tenants, 0))
    kept = await is_kept(primary, sorted(tenants))
    paced = (pace or Pace()).begin()
    async for batch in scan_tenant_keys(primary, ScanPosition(), paced):
        owned = _owned(batch)
        doomed = [(tenant, key) for key, tenant in owned if tenant in removed and key not in kept]
        for piece in batches(doomed, _UNLINKED):
            for tenant, many in (await _unlink(primary, term, piece, kept)).items():
                removed[tenant] += many
            await paced.rest()
        if doomed and progress is not None:
            progress(dict(removed))
    await require_replicated(primary.shards, patience=patience, replaceable=replaceable)
    return dict(removed)


async def _unlink(
    primary: Keyspace,
    term: Term,
    doomed: Sequence[tuple[TenantId, bytes]],
    kept: Collection[bytes],
) -> Mapping[TenantId, int]:
    """Remove the keys; how many of each tenant. What is to be told is counted with it."""
    told = Counter(tenant for tenant, _ in doomed if keys.untold(tenant).encode() in kept)
    commands: list[Command] = [("UNLINK", key) for _, key in doomed]
    replies = await _run(primary, term, [*commands, *_counting(told)])
    removed: Counter[TenantId] = Counter()
    for (tenant, _), reply in zip(doomed, replies, strict=False):
        removed[tenant] += reply if isinstance(reply, int) else 0
    # A pass may see a key twice, and some go by themselves.
    spare = {one: removed[one] - many for one, many in told.items() if removed[one] < many}
    await _run(primary, term, _counting(spare))
    return removed


def _counting(told: Mapping[TenantId, int]) -> list[Command]:
    return [
        ("HINCRBY", keys.untold(tenant), field, by)
        for tenant, many in told.items()
        for field, by in ((KEYS, many), (CALLS, 1))
    ]


async def _run(primary: Keyspace, term: Term, commands: Sequence[Command]) -> list[Reply]:
    replies = await run_fenced(primary, term, commands, patience=0)
    required_all(replies, primary.address)
    return replies


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
            required(reply, primary.address)
            if isinstance(reply, list) and len(reply) == 2:
                yield LatestRecord(tenant, *reply)


def _owned(batch: Sequence[bytes]) -> list[tuple[bytes, TenantId]]:
    tenants = ((key, keys.tenant_of(key)) for key in batch)
    return [(key, tenant) for key, tenant in tenants if tenant is not None]


def _is_record_list(tenant: TenantId, key: bytes) -> bool:
    return key.startswith(keys.records(tenant).encode()) and key.endswith(b":l")
