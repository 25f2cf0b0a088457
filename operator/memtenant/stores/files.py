"""The files of a store's nodes, written anew: what was deleted stays in an append-only file, and in
the last snapshot, until then (measured)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from redis.exceptions import ResponseError

from memtenant.errors import MemtenantError, StoreUnavailable
from memtenant.stores.connection import NodeClient
from memtenant.stores.inspection import info_of
from memtenant.stores.refusals import shown
from memtenant.stores.replication import replication_of
from memtenant.stores.topology import StoreNodes

__all__ = ["rewrite_all"]

_POLL = 0.1
_PATIENCE = 120.0
"""Seconds for one file of one node."""


async def rewrite_all(nodes: StoreNodes) -> tuple[str, ...]:
    """Write every node's files anew, one node after another; what could not be done, in words."""
    offsets = {
        node.address: int((await replication_of(nodes.client(node.address)))["master_repl_offset"])
        for node in nodes.facts.primaries
    }
    source = {
        node.address: offsets.get(node.follows or node.address, max(offsets.values()))
        for node in nodes.facts.nodes
    }
    turn = asyncio.Lock()  # each forks for it, and may share a machine or a disk with another

    async def rewritten(node: NodeClient) -> tuple[str, ...]:
        async with turn:
            return await _rewrite(node, source[node.address])

    found = await nodes.everywhere(rewritten)
    away = (f"{at} did not answer: its files are as they were" for at in found.failures)
    return (*(words for left in found.results.values() for words in left), *away)


async def _rewrite(node: NodeClient, offset: int) -> tuple[str, ...]:
    """Write the node's append-only file and its snapshot anew, where it keeps them, once it has all
    that the primary had at ``offset``. Returns what of it could not be done, in words."""
    try:
        await _caught_up(node, offset)
        left: list[str] = []
        persistence = await _persistence(node)
        if persistence.get("aof_enabled") == "1":
            left += await _write(node, ("BGREWRITEAOF",), "aof_rewrites", "append-only file")
        if await _saves(node):
            left += await _write(node, ("BGSAVE", "SCHEDULE"), "rdb_saves", "snapshot")
    except MemtenantError as error:
        return (f"{node.address}: its files were not written anew ({error.reason})",)
    return tuple(left)


async def _caught_up(node: NodeClient, offset: int) -> None:
    async def is_there() -> bool:
        told = await replication_of(node)
        here = told.get("slave_repl_offset", told.get("master_repl_offset", "0"))
        return told.get("role") == "master" or int(here) >= offset

    await _until(node, is_there, "it has not got all deletions")


async def _write(
    node: NodeClient, command: tuple[str, ...], counter: str, what: str
) -> tuple[str, ...]:
    """One file: after any that is being written already, which may hold what was deleted."""

    async def is_idle() -> bool:
        return _idle(await _persistence(node))

    await _until(node, is_idle, f"another {what} is being written")
    before = int((await _persistence(node)).get(counter, "0"))
    reply = (await node.run([command]))[0]
    if isinstance(reply, ResponseError):
        return (f"{node.address}: its {what} was not written anew: {shown(reply)}",)

    async def is_done() -> bool:
        told = await _persistence(node)
        return _idle(told) and int(told.get(counter, "0")) > before

    await _until(node, is_done, f"its {what} takes long")
    return ()


def _idle(told: Mapping[str, str]) -> bool:
    return all(
        told.get(name, "0") == "0"
        for name in ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
    )


async def _persistence(node: NodeClient) -> dict[str, str]:
    return info_of(node, await node.call("INFO", "persistence"))


async def _saves(node: NodeClient) -> bool:
    """Whether the node keeps snapshots, as far as it may be asked."""
    reply = (await node.run([("CONFIG", "GET", "save")]))[0]
    if not isinstance(reply, list) or len(reply) != 2:
        return True
    return bool(reply[1])


async def _until(node: NodeClient, happened: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while not await happened():
        if asyncio.get_running_loop().time() > deadline:
            raise StoreUnavailable(f"{node.address}: {what}", reason="StoreTimeout")
        await asyncio.sleep(_POLL)
