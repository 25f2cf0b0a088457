"""What tenants have in a store, read from end to end in one paced pass, by reads alone.

No Function is called and nothing is written: the user of a report may do neither. A page holds at
most some hundred kilobytes, or one entry, whatever a tenant put into one key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from redis.exceptions import ResponseError

from memtenant.errors import StoreUnavailable
from memtenant.stores.connection import Command, Reply
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.refusals import required, translated
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["Held", "queued", "survey"]

_PAGE_BYTES = 256 * 1024
_PAGE_ENTRIES = 1000
_ASKED_AT_ONCE = 50
_SMALL = 64 * 1024
"""Keys up to this size are read whole and many at once."""


@dataclass(frozen=True, slots=True)
class Held:
    """A page of what one key holds. ``part`` is the key after the tenant's prefix, ``kind`` its
    type as TYPE tells it. ``size`` is what MEMORY USAGE says of the whole key, with its first page;
    0 with the others. Entries of a hash have their field's name as ``name``, others none."""

    tenant: TenantId
    part: bytes
    kind: str
    size: int
    entries: tuple[tuple[bytes, bytes], ...]


async def survey(
    node: Keyspace,
    *,
    wanted: Callable[[TenantId, bytes], bool],
    pace: Pace,
    progress: Callable[[int], None] = lambda _keys: None,
) -> AsyncIterator[Held]:
    """Every key that is wanted, by its tenant and the rest of its name, page by page. ``progress``
    is told how many keys of the store were looked at. Queues are left out: `queued` reads one."""
    looked, paced = 0, pace.begin()
    async for batch in scan_tenant_keys(node, ScanPosition(), paced):
        named = [
            (tenant, key, part)
            for key in batch
            if (tenant := keys.tenant_of(key)) is not None
            and wanted(tenant, part := key[len(keys.prefix(tenant)) :])
        ]
        questions: list[Command] = [
            command
            for _, key, _ in named
            for command in (("TYPE", key), ("MEMORY", "USAGE", key, "SAMPLES", "0"))
        ]
        asked = await paced.run(node, questions, at_once=_ASKED_AT_ONCE)
        small: list[tuple[TenantId, bytes, bytes, str, int]] = []
        total = 0
        for (tenant, key, part), kind, size in zip(named, asked[::2], asked[1::2], strict=True):
            what, bytes_ = _text(node, kind), _size(node, size)
            if what == "none" or part == b"q":
                continue
            if bytes_ > _SMALL:
                async for page in _paged(node, tenant, key, part, what, bytes_):
                    await paced.rest()
                    yield page
                continue
            small.append((tenant, key, part, what, bytes_))
            total += bytes_
            if total > _PAGE_BYTES:
                for page in await _whole(node, small):
                    yield page
                await paced.rest()
                small, total = [], 0
        for page in await _whole(node, small):
            yield page
        await paced.rest()
        looked += len(batch)
        progress(looked)


async def queued(node: Keyspace, key: str) -> AsyncIterator[list[bytes]]:
    """What stands in a queue, page by page, each in its order, and the newest first: counted from
    the end, nothing moves when the oldest are drained, and they are with whoever drained them. What
    is added meanwhile has some told twice."""
    end = -1
    while True:
        reply = await node.call("LRANGE", key, end - _PAGE_ENTRIES + 1, end)
        page = [one for one in reply if isinstance(one, bytes)] if isinstance(reply, list) else []
        if page:
            yield page
        if len(page) < _PAGE_ENTRIES:
            return
        end -= len(page)


async def _whole(
    node: Keyspace, named: list[tuple[TenantId, bytes, bytes, str, int]]
) -> list[Held]:
    replies = await node.run(_read_all(kind, key) for _, key, _, kind, _ in named)
    pages: list[Held] = []
    for (tenant, _, part, kind, size), reply in zip(named, replies, strict=True):
        if isinstance(reply, ResponseError):
            if str(reply).startswith("WRONGTYPE"):
                continue  # it became another key since TYPE was asked
            raise translated(reply, str(node.address))
        pages.append(Held(tenant, part, kind, size, tuple(_entries(kind, reply))))
    return pages


async def _paged(
    node: Keyspace, tenant: TenantId, key: bytes, part: bytes, kind: str, size: int
) -> AsyncIterator[Held]:
    told = size
    if kind == "list":
        async for entries in _of_list(node, key, size):
            yield Held(tenant, part, kind, told, tuple(_entries(kind, entries)))
            told = 0
        return
    if kind not in _SCANS:
        reply = await node.call(*_read_all(kind, key))
        yield Held(tenant, part, kind, size, tuple(_entries(kind, reply)))
        return
    cursor = b"0"
    while True:
        reply = await node.call(_SCANS[kind], key, cursor, "COUNT", 100)
        if not isinstance(reply, list) or len(reply) != 2:
            raise StoreUnavailable(f"{node.address} answered a scan in a way not understood")
        cursor, page = reply
        if kind == "zset" and isinstance(page, list):
            page = page[::2]  # its members: each is followed by its score
        yield Held(tenant, part, kind, told, tuple(_entries(kind, page)))
        told = 0
        if cursor == b"0":
            return


async def _of_list(node: Keyspace, key: bytes, size: int) -> AsyncIterator[list[Reply]]:
    """The entries of a list that were there at first, page by page. When the oldest go meanwhile,
    as an append trims them, the others move up: so a page begins with the last entry that was read,
    which is looked for further ahead where it is not there."""
    length = await node.call("LLEN", key)
    left = length if isinstance(length, int) and length else 1
    step = max(1, min(_PAGE_ENTRIES, _PAGE_BYTES * left // max(size, 1)))
    start, last, looks = 0, None, left // step + 1
    while left > 0:
        begin = max(start - 1, 0)
        reply = await node.call("LRANGE", key, begin, begin + step)
        page = reply if isinstance(reply, list) else []
        if last in page:
            known = page.index(last) + 1
            begin, page = begin + known, page[known:]
        elif begin and looks:
            start, looks = max(start - step, 0), looks - 1
            continue
        elif begin:  # somebody moves them about on purpose
            begin, page = start, page[1:]
        if not page:
            return
        yield page
        start, last, left = begin + len(page), page[-1], left - len(page)


_SCANS = {"hash": "HSCAN", "set": "SSCAN", "zset": "ZSCAN"}
_FIRST_BYTES = str(1024 * 1024)


def _read_all(kind: str, key: bytes) -> Command:
    match kind:
        case "list":
            return ("LRANGE", key, 0, -1)
        case "hash":
            return ("HGETALL", key)
        case "set":
            return ("SMEMBERS", key)
        case "zset":
            return ("ZRANGE", key, 0, -1)
        case "string":
            return ("GETRANGE", key, 0, _FIRST_BYTES)
        case _:
            return ("TYPE", key)


def _entries(kind: str, reply: Reply) -> Iterator[tuple[bytes, bytes]]:
    items = reply if isinstance(reply, list) else [reply]
    if kind == "hash":
        yield from zip(items[::2], items[1::2], strict=True)
        return
    for one in items:
        yield b"", one if isinstance(one, bytes) else b""


def _text(node: Keyspace, reply: Reply) -> str:
    required(reply, node.address)
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else "none"


def _size(node: Keyspace, reply: Reply) -> int:
    required(reply, node.address)
    return reply if isinstance(reply, int) else 0
