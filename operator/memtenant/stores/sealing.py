"""One store as the sealer's user sees it: queues to read and shorten, and two hashes to write.

One instance belongs to one task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import InvalidResource
from memtenant.memory.wire import ErrorReply
from memtenant.stores.batches import batches
from memtenant.stores.sealerconnections import Command, SealerConnections, TooMuch
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.storesfile import CLUSTER, StoreAccess

__all__ = ["Heartbeat", "Page", "Queue", "Roster", "SealingStore", "queue_of"]

_FEWER = 20
"""How many times fewer entries are asked for where so many are too large."""

_LONGEST_NUMBER = 18
_BATCH = 100
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that is to be drained."""

    log: str
    length: int
    audited: Audited | None = None


@dataclass(frozen=True, slots=True)
class Roster:
    """What is to be drained on a store; ``unreadable`` are entries that no version wrote."""

    queues: tuple[Queue, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Entries as they were read. ``cut``: one that is too large, of which there is the beginning of
    the server's answer, which tells its size."""

    entries: tuple[bytes, ...] = ()
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """When a tenant's queue was last said to be drained (milliseconds of the server, 0: never), and
    whether its agents go on without events when that is long ago."""

    at: int
    drops: bool


def queue_of(log: str) -> str:
    """The key of the queue whose entries belong to a log."""
    if log == INSTALLATION_LOG:
        return keys.INSTALLATION_QUEUE
    return keys.audit_queue(TenantId.parse(log))


class SealingStore:
    """The queues of a store, over `SealerConnections`.

    Every method raises `StoreUnavailable`, `LoginRefused` or `StoreRefused`.
    """

    def __init__(
        self,
        access: Callable[[], StoreAccess],
        *,
        connect_timeout: float = 3.0,
        timeout: float = 10.0,
    ) -> None:
        self._access = access
        self._nodes = SealerConnections(access, connect_timeout=connect_timeout, timeout=timeout)
        self._entries: dict[bytes, tuple[bytes, Audited | None]] = {}

    async def close(self) -> None:
        """Close the connections; what is on its way is lost."""
        await self._nodes.close()

    async def roster(self) -> Roster:
        """Whose queues there are, and how long they are."""
        found = (await self._nodes.run([("HGETALL", keys.STORE_AUDITED)]))[0]
        entries = {name: (value, self._entry(name, value)) for name, value in _pairs(found)}
        self._entries = entries
        audited = {_text(name): one for name, (_, one) in entries.items() if one is not None}
        logs = [*sorted(audited), INSTALLATION_LOG]
        lengths = await self._nodes.run([("LLEN", queue_of(log)) for log in logs])
        return Roster(
            tuple(
                Queue(log, _number(length), audited.get(log))
                for log, length in zip(logs, lengths, strict=True)
            ),
            tuple(_text(name) for name, (_, one) in entries.items() if one is None),
        )

    def _entry(self, name: bytes, value: bytes) -> Audited | None:
        """What an entry of the roster says, None for nonsense; as it is known, if it is the same:
        it is read every second, of thousands of tenants."""
        known = self._entries.get(name)
        if known is not None and known[0] == value:
            return known[1]
        try:
            TenantId.parse(_text(name))
            return Audited.from_json(value)
        except InvalidResource:
            return None

    async def dropped(self, tenants: Sequence[TenantId]) -> dict[TenantId, int]:
        """How many events of the tenants the server counted and did not write, while nobody drained
        and they were to go on. An agent may put anything in the place of that count, or of the
        hash: that is 0, and no other tenant's trouble."""
        asked = [("HGET", keys.usage(tenant), "dropped") for tenant in tenants]
        try:
            found = await self._nodes.replies(asked)
        except TooMuch:
            if len(tenants) == 1:
                return {tenants[0]: 0}
            half = len(tenants) // 2
            return await self.dropped(tenants[:half]) | await self.dropped(tenants[half:])
        await self._nodes.refuse(reply for reply in found if not _is_wrong_type(reply))
        return {tenant: _number(count) for tenant, count in zip(tenants, found, strict=True)}

    async def writes_per_second(self, tenants: Sequence[TenantId]) -> list[int]:
        """What each tenant's agents may make together, as the operator wrote it; 0 if it did
        not."""
        asked = [("HGET", keys.limits(tenant), "writes_per_second") for tenant in tenants]
        return [_number(one) for one in await self._nodes.run(asked)]

    async def pages(self, logs: Sequence[str], most: int) -> list[Page] | None:
        """The oldest entries of each queue, at most so many; None where those of several are too
        large to be read together.

        An agent may push what it likes, and one entry of hundreds of megabytes must not take the
        sealer of all tenants down: of one that is too large to be read its first bytes are taken.
        """
        try:
            replies = await self._nodes.run(
                [("LRANGE", queue_of(log), 0, most - 1) for log in logs]
            )
        except TooMuch as much:
            if len(logs) > 1:
                return None
            if most > 1:
                return await self.pages(logs, max(most // _FEWER, 1))
            return [Page((much.beginning,), cut=True)]
        found = [reply if isinstance(reply, list) else [] for reply in replies]
        return [Page(tuple(one for one in page if isinstance(one, bytes))) for page in found]

    async def trim(self, read: Mapping[str, Page]) -> dict[str, bool]:
        """Remove the entries that were read, of each queue in which they still are where they were
        read; in which they were.

        Nobody but the sealer shortens a queue. A server that lost or got back entries meanwhile (a
        restore, a failover) is read anew; what was taken already is recognised then.
        """
        asked = [(log, page) for log, page in read.items() if not page.cut]
        ends: list[Command] = []
        for log, page in asked:
            last = len(page.entries) - 1
            ends += [("LRANGE", queue_of(log), 0, 0), ("LRANGE", queue_of(log), last, last)]
        replies = await self._nodes.run(ends)
        stays = dict.fromkeys(read, True)
        for (log, page), first, end in zip(asked, replies[::2], replies[1::2], strict=True):
            stays[log] = first == [page.entries[0]] and end == [page.entries[-1]]
        await self._nodes.run(
            [("LTRIM", queue_of(log), len(read[log].entries), -1) for log in read if stays[log]]
        )
        return stays

    async def heartbeats(self, tenants: Sequence[TenantId]) -> dict[TenantId, Heartbeat]:
        """The last one of each tenant. Its agents may not write there."""
        asked = ("audit_heartbeat", "audit", "on_failure")
        replies = await self._nodes.run(
            [("HMGET", keys.limits(tenant), *asked) for tenant in tenants]
        )
        found = (reply if isinstance(reply, list) else [None] * 3 for reply in replies)
        return {
            tenant: Heartbeat(_number(at), audit == b"1" and on_failure == b"Open")
            for tenant, (at, audit, on_failure) in zip(tenants, found, strict=True)
        }

    async def time(self) -> int:
        """The server's clock, in milliseconds."""
        return _milliseconds((await self._nodes.run([("TIME",)]))[0])

    async def beat(self, tenants: Sequence[TenantId]) -> int:
        """Say to the Functions that the tenants' queues are drained, by the server's clock: its
        milliseconds. A tenant whose limits are gone gets none back by this."""
        now = await self.time()
        # A transaction of a Cluster holds one tenant's keys.
        for batch in batches(tenants, 1 if self._access().flavour == CLUSTER else _BATCH):
            names = [keys.limits(tenant) for tenant in batch]
            for _ in range(_TRIES):
                replies = await self._nodes.run(
                    [("WATCH", *names), *(("HGET", name, "format") for name in names)], at=names[0]
                )
                there = [name for name, one in zip(names, replies[1:], strict=True) if one]
                beats = [("HSET", name, "audit_heartbeat", now) for name in there]
                replies = await self._nodes.run([("MULTI",), *beats, ("EXEC",)], at=names[0])
                if replies[-1] is not None:
                    break
        return now

    async def told(self, names: Sequence[str]) -> list[dict[str, str]]:
        """What was told under each key before."""
        return [
            {name.decode(): value.decode("utf-8", "replace") for name, value in _pairs(reply)}
            for reply in await self._nodes.run([("HGETALL", name) for name in names])
        ]

    async def tell(self, hashes: Mapping[str, Mapping[str, str]]) -> None:
        """Write what the operator shows: key → fields."""
        for batch in batches(hashes.items(), _BATCH):
            await self._nodes.run(
                [
                    ("HSET", name, *(word for pair in sorted(fields.items()) for word in pair))
                    for name, fields in batch
                ]
            )


def _is_wrong_type(reply: object) -> bool:
    return isinstance(reply, ErrorReply) and reply.code == "WRONGTYPE"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _pairs(reply: object) -> list[tuple[bytes, bytes]]:
    items = reply if isinstance(reply, list) else []
    return list(zip(items[::2], items[1::2], strict=True))


def _number(reply: object) -> int:
    if isinstance(reply, int):
        return reply
    # Python refuses to read a number of thousands of digits.
    if not isinstance(reply, bytes) or not reply.isdigit() or len(reply) > _LONGEST_NUMBER:
        return 0
    return int(reply)


def _milliseconds(reply: object) -> int:
    assert isinstance(reply, list)  # noqa: S101 - TIME has no other answer
    return int(reply[0]) * 1000 + int(reply[1]) // 1000
