"""Which installation of memtenant provisions a store: the first that claimed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from memtenant.clock import rfc3339
from memtenant.errors import StoreRefused
from memtenant.stores.connection import NodeClient, Reply
from memtenant.stores.refusals import required, required_all
from memtenant.tenancy.keys import STORE_EPOCH, STORE_OWNER

__all__ = ["StoreOwner", "check_owner", "claim", "owner_of", "release"]


@dataclass(frozen=True, slots=True)
class StoreOwner:
    """Who owns a store: an installation's id, and since when (RFC 3339)."""

    installation: str
    since: str


async def owner_of(primary: NodeClient) -> StoreOwner | None:
    """The owner record, or None for a store that nobody claimed."""
    return _parse(await primary.call("HGETALL", STORE_OWNER))


async def claim(primary: NodeClient, installation: str, now: datetime) -> StoreOwner:
    """Make the installation the owner of a store that has none; its record either way.

    Raises `StoreRefused` (``StoreOwnedElsewhere``) where another installation owns it. Nothing is
    written where it is owned: a server that is full refuses that.
    """
    record = await primary.call("HGETALL", STORE_OWNER)
    if record:
        return check_owner(record, installation, str(primary.address))
    replies = await primary.run(
        [
            ("MULTI",),
            ("HSETNX", STORE_OWNER, "installation", installation),
            ("HSETNX", STORE_OWNER, "since", rfc3339(now)),
            ("HGETALL", STORE_OWNER),
            ("EXEC",),
        ]
    )
    required_all(replies, primary.address)
    outcome = replies[-1]
    assert isinstance(outcome, list)  # noqa: S101 - nothing is watched, so EXEC answers a list
    return check_owner(outcome[-1], installation, str(primary.address))


async def release(
    primary: NodeClient, installation: str, *, with_it: tuple[str, ...] = (STORE_EPOCH,)
) -> bool:
    """Give the store up, with its epoch; whether the installation owned it."""
    async with primary.session() as session:
        await session.run([("WATCH", STORE_OWNER)])
        reply = (await session.run([("HGETALL", STORE_OWNER)]))[0]
        required(reply, primary.address)
        owner = _parse(reply)
        if owner is None or owner.installation != installation:
            await session.run([("UNWATCH",)])
            return False
        replies = await session.run([("MULTI",), ("DEL", STORE_OWNER, *with_it), ("EXEC",)])
        required(replies[-1], primary.address)
        return replies[-1] is not None


def check_owner(record: Reply, installation: str, node: str) -> StoreOwner:
    """The owner in HGETALL's answer; `StoreRefused` unless it is the installation."""
    owner = _parse(record)
    if owner is None:
        raise StoreRefused(
            f"{node} has no owner record: claim the store first", reason="StoreNotOwned"
        )
    if owner.installation != installation:
        raise StoreRefused(
            f"{node} is provisioned by another installation of memtenant, {owner.installation}, "
            f"since {owner.since}: use another store, or let that installation release it. If it "
            f"no longer exists, delete the key {STORE_OWNER}",
            reason="StoreOwnedElsewhere",
        )
    return owner


def _parse(record: Reply) -> StoreOwner | None:
    if not isinstance(record, list) or not record:
        return None
    fields: Mapping[bytes, bytes] = dict(zip(record[::2], record[1::2], strict=True))
    return StoreOwner(
        fields.get(b"installation", b"unknown").decode("utf-8", "replace"),
        fields.get(b"since", b"an unknown time").decode("utf-8", "replace"),
    )
