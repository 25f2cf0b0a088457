"""What every tenant uses, by one shared pass over the store.

MEMORY USAGE counts each key exactly (``SAMPLES 0``): with samples, a tenant could put small
elements where they are looked at and large ones behind them. A conversation is a record list
(``r:…:l``). The queues of audit events and of erasure requests are drained by the operator, so they
count by themselves and not as memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from memtenant.rules.quota import Usage
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["UsageScan", "UsageSums", "measure"]

_AT_ONCE = 50
"""Keys of which one piece asks."""


@dataclass(slots=True)
class UsageSums:
    """One tenant's, key by key."""

    memory: int = 0
    conversations: int = 0
    queue: int = 0
    index: int = 0
    keys: int = 0
    heads: int = 0

    def add(self, part: bytes, size: int) -> None:
        """Count a key by what follows the tenant's prefix."""
        if part.startswith(b"o:"):
            return
        if part in (b"q", b"e"):
            self.queue += size
            return
        self.memory += size
        if part.startswith(b"i:"):
            self.index += size
        elif part.startswith(b"k:"):
            self.keys += size
        elif part.startswith(b"r:") and part.endswith(b":l"):
            self.conversations += 1
        elif part in (b"x", b"u") or (part.startswith(b"r:") and part.endswith(b":h")):
            self.heads += size

    def result(self) -> Usage:
        """What all keys come to."""
        return Usage(self.memory, self.conversations, self.queue, self.index, self.keys, self.heads)


@dataclass(slots=True)
class UsageScan:
    """A pass under way. One that was cut off goes on where it stood when handed in again. ``marks``
    are the tombstones of erased persons that it saw."""

    position: ScanPosition = field(default_factory=ScanPosition)
    marks: dict[TenantId, dict[str, bytes]] = field(default_factory=dict)
    _sums: dict[TenantId, UsageSums] = field(default_factory=dict)
    _by_prefix: dict[bytes, UsageSums] = field(default_factory=dict)

    def count(self, sizes: dict[bytes, int]) -> None:
        """Add keys with their bytes."""
        for key, size in sizes.items():
            prefix, closed, part = key.partition(b"}:")
            sums = self._by_prefix.get(prefix) if closed else None
            if sums is None:
                tenant = keys.tenant_of(key)
                if tenant is None:
                    continue
                sums = self._sums.setdefault(tenant, UsageSums())
                self._by_prefix[prefix] = sums
            sums.add(part, size)

    def note(self, key: bytes, mark: bytes) -> None:
        """A tombstone beside a person's data key."""
        tenant = keys.tenant_of(key)
        if tenant is not None:
            subject = key.partition(b"}:k:")[2].decode("utf-8", "replace")
            self.marks.setdefault(tenant, {})[subject] = mark

    def result(self) -> dict[TenantId, Usage]:
        """What was counted so far, of every tenant that has a key."""
        return {tenant: sums.result() for tenant, sums in self._sums.items()}


async def measure(
    node: Keyspace, scan: UsageScan | None = None, pace: Pace | None = None
) -> dict[TenantId, Usage]:
    """Bytes and conversations of all tenants that have a key on the node."""
    scan, paced = scan or UsageScan(), (pace or Pace()).begin()
    async for batch in scan_tenant_keys(node, scan.position, paced):
        subjects = [key for key in batch if b"}:k:" in key]
        replies = await paced.run(
            node,
            [
                *(("MEMORY", "USAGE", key, "SAMPLES", "0") for key in batch),
                *(("HGET", key, "erased") for key in subjects),
            ],
            at_once=_AT_ONCE,
        )
        scan.count(
            {
                key: size
                for key, size in zip(batch, replies, strict=False)
                # None: the key went away since SCAN saw it.
                if isinstance(size, int)
            }
        )
        for key, mark in zip(subjects, replies[len(batch) :], strict=True):
            if isinstance(mark, bytes):
                scan.note(key, mark)
    return scan.result()
