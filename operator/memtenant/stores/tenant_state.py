"""The hashes that the operator keeps about a tenant in its store: ``o:limits`` and ``o:access``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, NodeClient, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.refusals import translated
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["StateChange", "TenantState", "read_states", "remove_states", "write_states"]

_BATCH = 250


@dataclass(frozen=True, slots=True)
class TenantState:
    """A tenant's two hashes; empty where the store has none."""

    limits: Mapping[str, str] = field(default_factory=dict)
    access: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateChange:
    """Fields to set, or to remove (None); fields that are not named stay as they are."""

    limits: Mapping[str, str | None] = field(default_factory=dict)
    access: Mapping[str, str | None] = field(default_factory=dict)


async def read_states(
    node: NodeClient, tenants: Collection[TenantId]
) -> dict[TenantId, TenantState]:
    """The states of all the tenants."""
    states: dict[TenantId, TenantState] = {}
    for batch in batches(tenants, _BATCH):
        replies = await node.run(
            [
                ("HGETALL", name)
                for tenant in batch
                for name in (keys.limits(tenant), keys.access(tenant))
            ]
        )
        hashes = [_fields(node, reply) for reply in replies]
        for tenant, limits, access in zip(batch, hashes[::2], hashes[1::2], strict=True):
            states[tenant] = TenantState(limits, access)
    return states


async def write_states(
    primary: NodeClient, term: Term, changes: Iterable[tuple[TenantId, StateChange]]
) -> None:
    """Apply the changes in their order, fenced, each of them atomically."""
    for batch in batches(changes, _BATCH):
        commands = [
            command
            for tenant, change in batch
            for name, fields in (
                (keys.limits(tenant), change.limits),
                (keys.access(tenant), change.access),
            )
            for command in _changes(name, fields)
        ]
        await _fenced(primary, term, commands)


async def remove_states(primary: NodeClient, term: Term, tenants: Collection[TenantId]) -> None:
    """Remove both hashes of the tenants, fenced."""
    for batch in batches(tenants, _BATCH):
        await _fenced(
            primary,
            term,
            [("DEL", keys.limits(tenant), keys.access(tenant)) for tenant in batch],
        )


async def _fenced(primary: NodeClient, term: Term, commands: list[Command]) -> None:
    for reply in await run_fenced(primary, term, commands, patience=0):
        if isinstance(reply, ResponseError):
            raise translated(reply, str(primary.address))


def _changes(key: str, fields: Mapping[str, str | None]) -> Iterator[Command]:
    written = {name: value for name, value in fields.items() if value is not None}
    if written:
        yield ("HSET", key, *(part for item in sorted(written.items()) for part in item))
    if removed := sorted(fields.keys() - written.keys()):
        yield ("HDEL", key, *removed)


def _fields(node: NodeClient, reply: Reply) -> dict[str, str]:
    if isinstance(reply, ResponseError):
        raise translated(reply, str(node.address))
    if not isinstance(reply, list):
        return {}
    texts = [item.decode("utf-8", "replace") for item in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))
