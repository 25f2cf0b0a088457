"""The queue of what is about no tenant, and what of it was told already: ``mt:store:q`` and
``mt:store:told``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memtenant.stores.connection import Command
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.refusals import required_all
from memtenant.tenancy.keys import INSTALLATION_QUEUE, STORE_AUDITED, STORE_TOLD

__all__ = ["InstallationLog", "tell"]


class InstallationLog:
    """What one store holds of it."""

    def __init__(self, primary: Keyspace) -> None:
        self._primary = primary

    async def is_drained(self) -> bool:
        """Whether a sealer is expected here: no queue fills that nobody empties."""
        return bool(await self._primary.call("HLEN", STORE_AUDITED))

    async def told(self, name: str) -> str:
        """What was told last under the name; empty where nothing was."""
        reply = await self._primary.call("HGET", STORE_TOLD, name)
        return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""

    async def names(self) -> list[str]:
        """Everything of which something was told."""
        reply = await self._primary.call("HKEYS", STORE_TOLD)
        names = reply if isinstance(reply, list) else []
        return sorted(name.decode("utf-8", "replace") for name in names)


async def tell(
    primary: Keyspace, term: Term, entries: Sequence[bytes], told: Mapping[str, str | None]
) -> None:
    """Append the entries, and enter (None: strike) under each name what they tell, fenced and in
    one transaction. In a Cluster it is two: what was told before a crash between them is told
    again."""
    commands: list[Command] = [("RPUSH", INSTALLATION_QUEUE, *entries)]
    for name, mark in sorted(told.items()):
        commands.append(
            ("HDEL", STORE_TOLD, name) if mark is None else ("HSET", STORE_TOLD, name, mark)
        )
    required_all(await run_fenced(primary, term, commands, patience=0), primary.address)
