"""What the operator keeps about a tenant in its store: ``o:limits``, ``o:access``, and the tenant's
entry in the hash of those that are audited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.refusals import required, required_all
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["StateChange", "TenantState", "read_states", "remove_states", "write_states"]

_BATCH = 250


@dataclass(frozen=True, slots=True)
class TenantState:
    """A tenant's two hashes and its entry; empty where the store has none."""

    limits: Mapping[str, str] = field(default_factory=dict)
    access: Mapping[str, str] = field(default_factory=dict)
    audited: str = ""


@dataclass(frozen=True, slots=True)
class StateChange:
    """Fields to set, or to remove (None); fields that are not named stay as they are.

    ``audited`` is the entry as it shall be (empty: none; None: as it is). ``events`` are entries to
    append to the tenant's audit queue: what they tell is written with them, or not at all.
    """

    limits: Mapping[str, str | None] = field(default_factory=dict)
    access: Mapping[str, str | None] = field(default_factory=dict)
    audited: str | None = None
    events: Sequence[bytes] = field(default=(), repr=False)


async def read_states(node: Keyspace, tenants: Collection[TenantId]) -> dict[TenantId, TenantState]:
    """The states of all the tenants."""
    states: dict[TenantId, TenantState] = {}
    for batch in batches(tenants, _BATCH):
        replies = await node.run(
            [
                ("HGETALL", name)
                for tenant in batch
                for name in (keys.limits(tenant), keys.access(tenant))
            ]
            + [("HMGET", keys.STORE_AUDITED, *map(str, batch))]
        )
        *hashes, entries = replies
        found = [_fields(node, reply) for reply in hashes]
        for tenant, limits, access, entry in zip(
            batch, found[::2], found[1::2], _list(node, entries), strict=True
        ):
            states[tenant] = TenantState(limits, access, (entry or b"").decode("utf-8", "replace"))
    return states


async def write_states(
    primary: Keyspace, term: Term, changes: Iterable[tuple[TenantId, StateChange]]
) -> None:
    """Apply the changes in their order, fenced, each of them atomically."""
    for batch in batches(changes, _BATCH):
        commands = [command for tenant, change in batch for command in _commands(tenant, change)]
        await _fenced(primary, term, commands)


async def remove_states(primary: Keyspace, term: Term, tenants: Collection[TenantId]) -> None:
    """Remove both hashes of the tenants, fenced."""
    for batch in batches(tenants, _BATCH):
        await _fenced(
            primary,
            term,
            [("DEL", keys.limits(tenant), keys.access(tenant)) for tenant in batch],
        )


async def _fenced(primary: Keyspace, term: Term, commands: list[Command]) -> None:
    required_all(await run_fenced(primary, term, commands, patience=0), primary.address)


def _commands(tenant: TenantId, change: StateChange) -> Iterator[Command]:
    # Who drains the queue is told before the Functions are told to fill it.
    if change.audited is not None:
        yield from _changes(keys.STORE_AUDITED, {str(tenant): change.audited or None})
    yield from _changes(keys.limits(tenant), change.limits)
    yield from _changes(keys.access(tenant), change.access)
    if change.events:
        yield ("RPUSH", keys.audit_queue(tenant), *change.events)


def _changes(key: str, fields: Mapping[str, str | None]) -> Iterator[Command]:
    written = {name: value for name, value in fields.items() if value is not None}
    if written:
        yield ("HSET", key, *(part for item in sorted(written.items()) for part in item))
    if removed := sorted(fields.keys() - written.keys()):
        yield ("HDEL", key, *removed)


def _fields(node: Keyspace, reply: Reply) -> dict[str, str]:
    texts = [item.decode("utf-8", "replace") for item in _list(node, reply)]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _list(node: Keyspace, reply: Reply) -> list[Any]:
    required(reply, node.address)
    return reply if isinstance(reply, list) else []
