"""How far changes have come: what is on a primary alone is lost with it, and what was removed there
alone is back after a failover."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from memtenant.errors import StoreUnavailable
from memtenant.stores.connection import Address, NodeClient
from memtenant.stores.inspection import info_of

__all__ = ["replication_of", "require_replicated"]

_POLL = 0.1


async def replication_of(node: NodeClient) -> dict[str, str]:
    """The node's own word on replication."""
    return info_of(node, await node.call("INFO", "replication"))


async def require_replicated(
    primaries: Iterable[NodeClient], *, patience: float, replaceable: Collection[Address] = ()
) -> None:
    """Return when every replica that follows one of the primaries has acknowledged all that is
    there now, which replicas do once a second.

    By INFO and not by WAIT, which counts for the connection that wrote. A replica that is silent
    follows until the server's own `repl-timeout` gives it up. One of the ``replaceable``, for which
    others choose a replica when they do not reach it, is followed by one at least: else it may be
    cut off from all that will be the store soon. Raises `StoreUnavailable` (``ReplicasBehind``)
    where it is not, and after ``patience`` seconds.
    """
    await asyncio.gather(
        *(_acknowledged(one, patience, one.address in replaceable) for one in primaries)
    )


async def _acknowledged(primary: NodeClient, patience: float, replaceable: bool) -> None:
    deadline = asyncio.get_running_loop().time() + patience
    told = await replication_of(primary)
    offset = int(told["master_repl_offset"])
    if replaceable and not _following(told):
        raise StoreUnavailable(
            f"{primary.address}: what was removed there is on no replica, and one of them may take "
            "its place and bring it back: none follows at the moment",
            reason="ReplicasBehind",
        )
    while behind := _behind(told, offset):
        if asyncio.get_running_loop().time() > deadline:
            raise StoreUnavailable(
                f"{primary.address}: what was removed there has not reached {', '.join(behind)}, "
                "from where a failover would bring it back",
                reason="ReplicasBehind",
            )
        await asyncio.sleep(_POLL)
        told = await replication_of(primary)


def _behind(told: Mapping[str, str], offset: int) -> list[str]:
    """The replicas that follow and have less. One that is still given everything gets this too."""
    return [
        f"{fields.get('ip')}:{fields.get('port')}"
        for fields in _following(told)
        if int(fields.get("offset", "0")) < offset
    ]


def _following(told: Mapping[str, str]) -> list[dict[str, str]]:
    entries = [
        told.get(f"slave{number}", "") for number in range(int(told.get("connected_slaves", "0")))
    ]
    fields = [dict(part.partition("=")[::2] for part in entry.split(",")) for entry in entries]
    return [one for one in fields if one.get("state") == "online"]
