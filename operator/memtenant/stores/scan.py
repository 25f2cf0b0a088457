"""One paced pass over a store's keys, shared by everything that must see them all.

SCAN may return a key twice while the server's hash table shrinks; each key is seen once here.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from memtenant.errors import StoreUnavailable
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import PacedPass

__all__ = ["ScanPosition", "scan_tenant_keys"]

_SCAN_COUNT = 50
"""Keys that one SCAN looks at. In a pass, where other work stood in the server's caches meanwhile,
25 take it 33 µs and 100 190 (measured)."""

# Keys outside memtenant are filtered by the server; `{` is no glob character.
_PATTERN = "mt:{*"


class _Seen:
    """A set of 64-bit digests in 8 to 16 bytes each: a million keys are no burden."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __contains__(self, key: bytes) -> bool:
        return bool(self._slots[self._place(_digest(key))])

    def add(self, key: bytes) -> None:
        """Remember the key."""
        if self._count * 2 >= len(self._slots):
            self._grow()
        digest = _digest(key)
        at = self._place(digest)
        self._count += not self._slots[at]
        self._slots[at] = digest

    def _place(self, digest: int) -> int:
        """Where the digest is, or would be."""
        slots, mask = self._slots, len(self._slots) - 1
        at = digest & mask
        while slots[at] and slots[at] != digest:
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for digest in old:
            if digest:
                self._slots[self._place(digest)] = digest


def _digest(key: bytes) -> int:
    return hash(key) & 0xFFFF_FFFF_FFFF_FFFF or 1


@dataclass(slots=True)
class ScanPosition:
    """Where a pass stands: in which shard, at which cursor, under which layout of the slots; hand
    it in again to go on after an interruption."""

    cursor: bytes = b"0"
    shard: int = 0
    layout: str | None = None
    done: bool = False
    _seen: _Seen = field(default_factory=_Seen, repr=False)

    def unseen(self, keys: list[bytes]) -> list[bytes]:
        """The keys that the pass has not handled before."""
        return [key for key in dict.fromkeys(keys) if key not in self._seen]

    def handled(self, keys: list[bytes]) -> None:
        """The consumer is done with them: an interruption before that brings them again."""
        for key in keys:
            self._seen.add(key)


async def scan_tenant_keys(
    where: Keyspace, position: ScanPosition, paced: PacedPass
) -> AsyncIterator[list[bytes]]:
    """Batches of keys of all tenants from ``position`` on, shard by shard. The position moves on
    when the next batch is asked for.

    Raises `StoreUnavailable` (``SlotsMoving``) where keys moved from shard to shard meanwhile.
    """
    await _same_layout(where, position)
    shards = where.shards
    while not position.done:
        node = shards[position.shard]
        reply = await node.call("SCAN", position.cursor, "MATCH", _PATTERN, "COUNT", _SCAN_COUNT)
        if not isinstance(reply, list) or len(reply) != 2:
            raise StoreUnavailable(f"{node.address} answered SCAN in a way that is not understood")
        cursor, keys = reply
        await paced.rest()
        fresh = position.unseen(keys)
        if fresh:
            yield fresh
            position.handled(fresh)
        position.cursor = cursor
        if cursor == b"0":
            if position.shard == len(shards) - 1:
                await _same_layout(where, position)
                position.done = True
                return
            position.shard += 1


async def _same_layout(where: Keyspace, position: ScanPosition) -> None:
    layout = await where.steady()
    if position.layout not in (None, layout):
        raise StoreUnavailable(
            f"Slots of the Cluster of {where.address} moved during a pass over all keys: it begins "
            "anew",
            reason="SlotsMoving",
        )
    position.layout = layout
