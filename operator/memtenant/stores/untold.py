"""What was removed of tenants that are audited and is not told yet: ``o:untold``.

Each step that removes counts here, in its own transaction; who tells the count takes it away in the
same transaction. So wherever the operator is cut off, every removal is told, and once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.refusals import required, required_all
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["CALLS", "KEYS", "StoreUntold", "Untold"]

CALLS: Final = "calls"
"""Counts the steps that wrote here: whoever tells relies on it."""

KEYS: Final = "keys"
"""Keys that a purge removed."""

_EXPIRED: Final = ("messages", "summaries", "values", "checkpoints")
_BEFORE: Final = ("content", "derived")
_TENANTS: Final = 500


@dataclass(frozen=True, slots=True)
class Untold:
    """Of one tenant: ``keys`` that a purge removed; ``expired`` records by kind, and ``before``,
    the latest cut-offs that said so (milliseconds since 1970). ``calls`` names this state of it."""

    calls: bytes
    keys: int
    expired: Mapping[str, int]
    before: Mapping[str, int]


class StoreUntold:
    """That of one store, on the primary."""

    def __init__(self, primary: Keyspace, term: Callable[[], Term]) -> None:
        self._primary = primary
        self._term = term

    async def read(self, tenants: Collection[TenantId]) -> dict[TenantId, Untold]:
        """Of those tenants of which something was removed and is not told."""
        found: dict[TenantId, Untold] = {}
        for batch in batches(tenants, _TENANTS):
            replies = await self._primary.run([("HGETALL", keys.untold(one)) for one in batch])
            for tenant, reply in zip(batch, replies, strict=True):
                untold = _read(self._primary, reply)
                if untold is not None:
                    found[tenant] = untold
        return found

    async def tell(self, tenant: TenantId, untold: Untold, events: Sequence[bytes]) -> bool:
        """Take it away and append the events that tell it; False, and nothing is written, where it
        is another by now."""
        name = keys.untold(tenant)
        commands: list[Command] = [("UNLINK", name)]
        if events:
            commands.append(("RPUSH", keys.audit_queue(tenant), *events))
        relied_on = [(name, CALLS, untold.calls)] * len(commands)
        replies = await run_fenced(
            self._primary, self._term(), commands, patience=0, unchanged=relied_on
        )
        required_all(replies, self._primary.address)
        return replies[0] is not None


def _read(node: Keyspace, reply: Reply) -> Untold | None:
    required(reply, node.address)
    words: list[bytes] = reply if isinstance(reply, list) else []
    fields = dict(zip(words[::2], words[1::2], strict=True))
    calls = fields.get(CALLS.encode())
    if calls is None:
        return None
    counts = {name.decode("utf-8", "replace"): int(value) for name, value in fields.items()}
    return Untold(
        calls,
        counts.get(KEYS, 0),
        {name: counts[name] for name in _EXPIRED if counts.get(name)},
        {name: counts[name] for name in _BEFORE if counts.get(name)},
    )
