"""How far changes have come: what is on a primary alone is lost with it, and what was removed there
alone is back after a failover."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from memtenant.errors import StoreUnavailable
from memtenant.stores.connection import NodeClient
from memtenant.stores.inspection import info_of

__all__ = ["replication_of", "require_replicated"]

_POLL = 0.1


async def replication_of(node: NodeClient) -> dict[str, str]:
    """The node's own word on replication."""
    return info_of(node, await node.call("INFO", "replication"))


async def require_replicated(primaries: Iterable[NodeClient], *, patience: float) -> None:
    """Return when every replica that follows one of the primaries has acknowledged all that is
    there now, which replicas do once a second.

    By INFO and not by WAIT, which counts for the connection that wrote. A replica that is silent
    follows until the server's own `repl-timeout` gives it up. Raises `StoreUnavailable`
    (``ReplicasBehind``) after ``patience`` seconds.
    """
    await asyncio.gather(*(_acknowledged(primary, patience) for primary in primaries))


async def _acknowledged(primary: NodeClient, patience: float) -> None:
    deadline = asyncio.get_running_loop().time() + patience
    told = await replication_of(primary)
    offset = int(told["master_repl_offset"])
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
    found = []
    for number in range(int(told.get("connected_slaves", "0"))):
        entry = told.get(f"slave{number}", "")
        fields = dict(part.partition("=")[::2] for part in entry.split(","))
        if fields.get("state") == "online" and int(fields.get("offset", "0")) < offset:
            found.append(f"{fields.get('ip')}:{fields.get('port')}")
    return found
