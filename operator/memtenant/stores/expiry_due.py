"""What the tenants' own lists say is due, removed.

``x`` says when a conversation or context is due, and any agent may write it. So it is the quick way
only; a pass over all keys (`expiry_pass`) finds what it does not tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from memtenant.functions.expiry_calls import Part
from memtenant.functions.keyspace import ContextKeys, ConversationKeys
from memtenant.stores.batches import batches
from memtenant.stores.connection import Command
from memtenant.stores.expiry import (
    ConversationPart,
    Place,
    Tally,
    WholeContext,
    raise_denied,
    remove,
)
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace, PacedPass
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["expire_due"]

_TENANTS_AT_ONCE = 250
_ASKED_AT_ONCE = 50
_TURN = 50
"""Conversations of one tenant before the next has its turn."""


async def expire_due(
    primary: Keyspace, term: Term, tenants: Collection[TenantId], *, most: int, pace: Pace
) -> dict[TenantId, Tally]:
    """Remove what ``x`` says is due, at most so many conversations and contexts, the tenants in
    turns; what went, by tenant. The next call goes on."""
    paced = pace.begin()
    removed: dict[TenantId, Tally] = defaultdict(Tally)
    tried: set[tuple[TenantId, bytes]] = set()
    waiting = list(tenants)
    while waiting and len(tried) < most:
        found: list[TenantId] = []
        for batch in batches(waiting, _TENANTS_AT_ONCE):
            due = await _due(primary, batch, paced)
            for tenant, members in due.items():
                new = [one for one in members if (tenant, one) not in tried]
                if not new or len(tried) >= most:
                    continue
                tried.update((tenant, one) for one in new)
                found.append(tenant)
                await _expire_members(primary, term, tenant, new, removed, paced)
        waiting = found
    return dict(removed)


async def _due(
    node: Keyspace, tenants: Sequence[TenantId], paced: PacedPass
) -> dict[TenantId, list[bytes]]:
    """The members of ``x`` whose oldest record has expired, of each tenant that has some."""
    asked: list[Command] = [("HGET", keys.limits(tenant), "cutoff_content") for tenant in tenants]
    cut_offs = await paced.run(node, asked, at_once=_ASKED_AT_ONCE)
    expiring = [
        (tenant, cut_off)
        for tenant, cut_off in zip(tenants, cut_offs, strict=True)
        if isinstance(cut_off, bytes) and cut_off.isdigit()
    ]
    commands: list[Command] = [
        ("ZRANGEBYSCORE", keys.conversations(tenant), "-inf", b"(" + cut_off, "LIMIT", 0, _TURN)
        for tenant, cut_off in expiring
    ]
    replies = await paced.run(node, commands, at_once=_ASKED_AT_ONCE)
    due: dict[TenantId, list[bytes]] = {}
    for (tenant, _), reply in zip(expiring, replies, strict=True):
        raise_denied(reply, node)
        if isinstance(reply, list) and reply:
            due[tenant] = reply
    return due


async def _expire_members(
    primary: Keyspace,
    term: Term,
    tenant: TenantId,
    members: Iterable[bytes],
    removed: dict[TenantId, Tally],
    paced: PacedPass,
) -> None:
    found = {member: _places_of_member(tenant, member) for member in members}
    # A removal is the dearest piece of all: none of what is not there.
    beside = [key for named in found.values() for _, key in named if key]
    asked: list[Command] = [("EXISTS", key) for key in beside]
    replies = await paced.run(primary, asked, at_once=_ASKED_AT_ONCE)
    for reply in replies:
        raise_denied(reply, primary)
    missing = {key for key, reply in zip(beside, replies, strict=True) if reply == 0}
    places = [one for named in found.values() for one, key in named if key not in missing]
    strange = [member for member, named in found.items() if not named]
    await remove(primary, term, places, removed, paced)
    if strange:
        # Names of nothing: they would stand in the way of the others for ever.
        command: Command = ("ZREM", keys.conversations(tenant), *strange)
        for reply in await run_fenced(primary, term, [command], patience=0):
            raise_denied(reply, primary)


def _places_of_member(tenant: TenantId, member: bytes) -> list[tuple[Place, bytes]]:
    """In the order in which they go, each with the key without which there is nothing of it to
    remove; none of the last one, which takes the name away where nothing else is there."""
    scope, _, name = member.decode("utf-8", "surrogateescape").partition(":")
    if not scope or not name or ":" in name:
        return []
    if scope == "c":
        return [(WholeContext(tenant, ContextKeys.of(tenant, name)), b"")]
    talk = ConversationKeys.of(tenant, scope, name)
    return [
        (ConversationPart(tenant, talk, Part.GRAPH), talk.checkpoints),
        (ConversationPart(tenant, talk, Part.SUMMARIES), talk.summaries),
        (ConversationPart(tenant, talk, Part.MESSAGES), b""),
    ]
