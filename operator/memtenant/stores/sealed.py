"""What lies on a store of the audit's making: who is to be drained, and what the sealer says."""

from __future__ import annotations

from memtenant.errors import InvalidResource
from memtenant.rules.sealing import LogReport, SealerReport, SealView
from memtenant.stores.batches import batches
from memtenant.stores.connection import Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId

__all__ = ["finish_closed", "is_kept", "look_at_seals"]

_BATCH = 200


async def look_at_seals(primary: Keyspace) -> SealView:
    """What the sealer says of itself and of each log."""
    time = await primary.call("TIME")
    sealer = _fields(await primary.call("HGETALL", keys.STORE_SEALER))
    names = await primary.call("HKEYS", keys.STORE_AUDITED)
    tenants = [tenant for name in _list(names) if (tenant := _tenant(name)) is not None]
    found: dict[TenantId, LogReport] = {}
    for batch in batches(sorted(tenants), _BATCH):
        replies = await primary.run(("HGETALL", keys.sealer_report(tenant)) for tenant in batch)
        for tenant, reply in zip(batch, replies, strict=True):
            found[tenant] = LogReport.from_fields(_fields(reply))
    seconds, microseconds = (int(part) for part in _list(time))
    return SealView(
        now=seconds * 1000 + microseconds // 1000,
        sealer=SealerReport.from_fields(sealer) if sealer else None,
        audited=found,
    )


async def is_kept(primary: Keyspace, tenants: list[TenantId]) -> frozenset[bytes]:
    """The keys that a purge of these tenants leaves: for the sealer, which takes what is in them,
    and what is to be told of the purge itself."""
    kept: set[bytes] = set()
    for batch in batches(tenants, _BATCH):
        replies = await primary.run(
            ("HEXISTS", keys.STORE_AUDITED, str(tenant)) for tenant in batch
        )
        for tenant, reply in zip(batch, replies, strict=True):
            if reply == 1:
                names = (keys.audit_queue, keys.sealer_report, keys.untold)
                kept.update(name(tenant).encode() for name in names)
    return frozenset(kept)


async def finish_closed(primary: Keyspace, term: Term, *, sealed: bool) -> tuple[TenantId, ...]:
    """End the audit of tenants that are gone, once their queues are drained; without a sealer ever
    (``sealed``), at once. Whose ended.

    A tenant of the same name that came meanwhile has another entry, and keeps it.
    """
    reply = _list(await primary.call("HGETALL", keys.STORE_AUDITED))
    closing = [
        (tenant, name, value)
        for name, value in zip(reply[::2], reply[1::2], strict=True)
        if (tenant := _tenant(name)) is not None and _is_closing(value)
    ]
    ended = []
    for tenant, name, value in closing:
        if sealed and await primary.call("LLEN", keys.audit_queue(tenant)):
            continue
        done = await run_fenced(
            primary,
            term,
            # In this order: in a Cluster it is two transactions.
            [
                ("DEL", keys.audit_queue(tenant), keys.sealer_report(tenant)),
                ("HDEL", keys.STORE_AUDITED, name),
            ],
            patience=0,
            unchanged=[(keys.STORE_AUDITED, str(tenant), value)] * 2,
        )
        if done[1] is not None:
            ended.append(tenant)
    return tuple(ended)


def _is_closing(value: bytes) -> bool:
    try:
        return Audited.from_json(value).closing
    except InvalidResource:
        return False


def _tenant(name: bytes) -> TenantId | None:
    try:
        return TenantId.parse(name.decode("utf-8", "replace"))
    except InvalidResource:
        return None


def _fields(reply: Reply) -> dict[str, str]:
    texts = [item.decode("utf-8", "replace") for item in _list(reply)]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _list(reply: Reply) -> list[bytes]:
    return reply if isinstance(reply, list) else []
