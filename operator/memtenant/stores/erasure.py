"""Erasure on one store: the queues of requests, receipts, what finds a person, what deletes it.

Everything that is written goes through the fence, and a receipt is written in the same transaction
as what it tells of: an operator that is killed at any point goes on from what the receipt says.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from redis.exceptions import ResponseError

from memtenant.crypto.header import peek_header
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import key_ids, peek_key_id
from memtenant.errors import (
    AuditEventRequired,
    DataError,
    HistoryDamaged,
    MemtenantError,
    RecordMalformed,
)
from memtenant.functions.calls import Clear
from memtenant.functions.fcall import Audited, Words
from memtenant.functions.keyspace import ContextKeys
from memtenant.functions.refusals import refusal
from memtenant.memory.places import ConversationPlace, listed_place
from memtenant.memory.subjects import Subject
from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace, PacedPass
from memtenant.stores.refusals import translated
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasureReceipt
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.policy import Isolation

__all__ = ["Events", "Finding", "Sought", "StoreErasure", "TenantCalls"]

R = TypeVar("R")

_log = logging.getLogger(__name__)

MOST_REQUESTS = 100
"""Of one tenant's queue that are read at a time."""

_TENANTS = 500
"""Of which one pipeline asks."""

_ASKED, _SCRIPTS = 50, 10
"""Reads and scripts in one piece of a pass."""

_PEEKED = 64
_ENTRIES = 128
"""Entries of a list whose headers are looked at in one script, which keeps the server busy."""

# The start of the newest record of a list that is not a tombstone, of a head's title, or of one of
# the values that a graph kept.
_NEWEST = """
local function record(entry)
  local first = string.byte(entry)
  if first == 16 then
    return string.sub(entry, 16, 15 + tonumber(ARGV[1]))
  elseif first == 17 then
    return string.sub(entry, 24, 23 + tonumber(ARGV[1]))
  end
end
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'hash' then
  local meta = redis.call('HGET', KEYS[1], 'meta')
  if meta then
    return string.sub(meta, 1, tonumber(ARGV[1]))
  elseif string.sub(KEYS[1], -2) == ':g' then
    for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
      local found = (string.sub(name, 1, 1) == 'e' or string.sub(name, 1, 1) == 'w')
        and record(redis.call('HGET', KEYS[1], name))
      if found then
        return found
      end
    end
  end
elseif kind == 'list' then
  for place = 1, math.min(redis.call('LLEN', KEYS[1]), 512) do
    local found = record(redis.call('LINDEX', KEYS[1], -place))
    if found then
      return found
    end
  end
end
return false
"""
# The headers, among a part of a list, that carry one of the tags.
_TAGGED = """
local found = {}
if redis.call('TYPE', KEYS[1]).ok == 'list' then
  for _, entry in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])) do
    if string.byte(entry) == 17 then
      local tag = string.sub(entry, 16, 23)
      for place = 3, #ARGV do
        if ARGV[place] == tag then
          found[#found + 1] = string.sub(entry, 1, 23)
        end
      end
    end
  end
end
return found
"""


@dataclass(frozen=True, slots=True)
class Sought:
    """A person whose records a pass looks for; under Strict, at one agent. ``data_key`` is None
    where there is none, or where one key serves the whole tenant: then the tag in the headers
    tells."""

    receipt: ErasureReceipt
    subject: Subject
    data_key: SecretKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """A conversation of the person; ``sequences`` are its messages in one that others share."""

    place: ConversationPlace
    sequences: tuple[int, ...] = ()


class Events(Protocol):
    """Where the next event comes from."""

    def __call__(self) -> bytes:
        """It."""

    def renew(self) -> None:
        """The last one may not have arrived."""


class TenantCalls:
    """The calls that erase, on the operator's connection: `memory._async.erasure` says which.

    ``agent`` is who asked; ``events`` are the operator's, for tenants that are audited.
    """

    def __init__(
        self,
        primary: Keyspace,
        term: Callable[[], Term],
        agent: AgentName,
        events: Events,
        pace: Pace,
    ) -> None:
        self._primary = primary
        self._term = term
        self._agent = agent
        self._events = events
        self._pace = pace
        self._audited = False

    async def read(self, *commands: Words) -> list[object]:
        """The replies. An error reply is raised."""
        replies = await self._pace.begin().run(self._primary, commands, at_once=_ASKED)
        return [self._checked(reply) for reply in replies]

    async def ask(self, call: Audited[R]) -> R:
        """The answer of a reading call."""
        try:
            return call.read((await self.read(call.words))[0])
        except AuditEventRequired:
            return await self._with_event(call)

    async def write(self, call: Audited[R]) -> R:
        """The answer of a writing call, fenced. A conversation that no Function can delete, because
        something else wrote there, goes all the same."""
        try:
            return await self._write(call)
        except HistoryDamaged:
            known: object = call
            if not isinstance(known, Clear):
                raise
            talk = known.conversation
            await self._fenced(("UNLINK", talk.list, talk.head, talk.summaries, talk.checkpoints))
            return await self._write(call)

    async def cut_out(
        self, context: ContextKeys, names: tuple[str, ...], refused: DataError
    ) -> None:
        """The values and their versions, fenced: what is planted keeps nobody from being erased."""
        _log.warning("values of a context are removed around the Functions: %s", refused)
        await self._fenced(("HDEL", context.values, *names), ("HDEL", context.versions, *names))

    async def _write(self, call: Audited[R]) -> R:
        if not self._audited:
            try:
                return call.read(await self._fenced(call.words))
            except AuditEventRequired:
                self._audited = True
        return await self._with_event(call)

    async def _with_event(self, call: Audited[R]) -> R:
        told = call.with_event(self._agent, self._events())
        try:
            return call.read(await self._fenced(told.words))
        except MemtenantError:
            self._events.renew()
            raise

    async def _fenced(self, *commands: Words) -> Reply:
        paced = self._pace.begin()
        replies = await run_fenced(self._primary, self._term(), commands, patience=0)
        await paced.rest(removed=True)
        first, *_ = [self._checked(reply) for reply in replies]
        return first

    def _checked(self, reply: Reply) -> Reply:
        if isinstance(reply, ResponseError):
            raise _meant(reply, self._primary)
        return reply


class StoreErasure:
    """What the operator does on one store's primary for the erasure of persons."""

    def __init__(self, primary: Keyspace, term: Callable[[], Term], pace: Pace) -> None:
        self._primary = primary
        self._term = term
        self._pace = pace

    def calls(self, agent: AgentName, events: Events) -> TenantCalls:
        """The calls that erase what an agent asked for."""
        return TenantCalls(self._primary, self._term, agent, events, self._pace)

    async def waiting(self, tenants: Collection[TenantId]) -> list[TenantId]:
        """Those in whose queue something stands."""
        return await self._that_have(tenants, "LLEN", keys.erasure_requests)

    async def with_receipts(self, tenants: Collection[TenantId]) -> list[TenantId]:
        """Those that have receipts, whatever they say."""
        return await self._that_have(tenants, "HLEN", keys.erasure_receipts)

    async def _that_have(
        self, tenants: Collection[TenantId], count: str, name: Callable[[TenantId], str]
    ) -> list[TenantId]:
        found: list[TenantId] = []
        for part in batches(tuple(tenants), _TENANTS):  # tenants come meanwhile
            sizes = await self._read([(count, name(one)) for one in part])
            found += [one for one, size in zip(part, sizes, strict=True) if size]
        return found

    async def requests(self, tenant: TenantId) -> list[bytes]:
        """The first requests of the queue, as they stand there."""
        name = keys.erasure_requests(tenant)
        (found,) = await self._read([("LRANGE", name, "0", MOST_REQUESTS - 1)])
        return _octets(found)

    async def receipts(self, tenant: TenantId) -> dict[str, ErasureReceipt]:
        """By id. One that cannot be read is left out."""
        (found,) = await self._read([("HGETALL", keys.erasure_receipts(tenant))])
        receipts = {}
        for document in _octets(found)[1::2]:
            try:
                receipt = ErasureReceipt.from_json(document)
            except RecordMalformed:
                continue
            receipts[receipt.id] = receipt
        return receipts

    async def marks(self, tenant: TenantId, subjects: Sequence[str]) -> dict[str, bytes]:
        """The tombstones of the subjects that have one."""
        found = await self._read([("HGET", keys.dek(tenant, one), "erased") for one in subjects])
        return {
            one: mark for one, mark in zip(subjects, found, strict=True) if isinstance(mark, bytes)
        }

    async def enter(
        self,
        tenant: TenantId,
        taken: int,
        receipts: Iterable[ErasureReceipt],
        marks: Mapping[str, bytes | None],
        gone: Sequence[str],
    ) -> None:
        """Take requests off the queue, with their receipts; set each subject's tombstone, or take
        it away (None); drop old receipts."""
        commands: list[Command] = [_saved(tenant, receipt) for receipt in receipts]
        for subject, mark in marks.items():
            name = keys.dek(tenant, subject)
            if mark is None:
                commands.append(("HDEL", name, "erased"))
            else:  # that of an earlier erasure of the same person may be about to go
                commands += [("HSET", name, "erased", mark), ("PERSIST", name)]
        if gone:
            commands.append(("HDEL", keys.erasure_receipts(tenant), *gone))
        if taken:
            commands.append(("LTRIM", keys.erasure_requests(tenant), taken, "-1"))
        await self._write(commands)

    async def save(self, tenant: TenantId, receipt: ErasureReceipt) -> None:
        """Tell how far it is."""
        await self._write([_saved(tenant, receipt)])

    async def owners(self, tenant: TenantId) -> set[AgentName]:
        """The agents that have a data key or an index of anybody, where each has its own (Strict
        isolation): also those that are not declared any more."""
        found: set[AgentName] = set()
        prefix = keys.prefix(tenant).encode()
        async for batch in scan_tenant_keys(self._primary, ScanPosition(), self._pace.begin()):
            for key in batch:
                kind, _, alias = key.removeprefix(prefix).partition(b":")
                if key.startswith(prefix) and kind in (b"k", b"i"):
                    found.add(keys.owner_of(alias.decode("utf-8", "replace")))
        return found - {""}

    async def forget_index(
        self, tenant: TenantId, receipt: ErasureReceipt, subjects: Iterable[str]
    ) -> None:
        """What the indexes named is gone: so are they."""
        indexes = [keys.subject_index(tenant, one) for one in subjects]
        await self._write([("UNLINK", *indexes), _saved(tenant, receipt)])

    async def data_key(self, tenant: TenantId, subject: str) -> bytes | None:
        """The subject's data key as it is stored."""
        (found,) = await self._read([("HGET", keys.dek(tenant, subject), "dek")])
        return found if isinstance(found, bytes) else None

    async def unmark(self, tenant: TenantId, subject: str, false: bytes) -> None:
        """Take a false tombstone away, if it is still the one that was judged."""
        if (await self.marks(tenant, [subject])).get(subject) == false:
            await self._write([("HDEL", keys.dek(tenant, subject), "erased")])

    async def drop_keys(
        self, tenant: TenantId, receipt: ErasureReceipt, subjects: Iterable[str]
    ) -> None:
        """Delete the person's data keys; the tombstones stay."""
        drops: list[Command] = [("HDEL", keys.dek(tenant, one), "dek") for one in subjects]
        await self._write([*drops, _saved(tenant, receipt)])

    async def let_go(
        self, tenant: TenantId, receipt: ErasureReceipt, subjects: Iterable[str], seconds: int
    ) -> None:
        """The tombstones go after a while: the person may come back as somebody new."""
        ends: list[Command] = [("EXPIRE", keys.dek(tenant, one), seconds) for one in subjects]
        await self._write([*ends, _saved(tenant, receipt)])

    async def rescan(self, sought: Sequence[Sought]) -> dict[str, list[Finding]]:
        """What is left of the persons anywhere on the store, by the receipt's id, in one paced pass
        that all share: by the key that a place's newest record names, or by the tags of headers."""
        wanted: dict[TenantId, list[Sought]] = defaultdict(list)
        for one in sought:
            wanted[one.subject.tenant].append(one)
        found: dict[str, list[Finding]] = {one.receipt.id: [] for one in sought}
        paced = self._pace.begin()
        async for batch in scan_tenant_keys(self._primary, ScanPosition(), paced):
            by_key: list[tuple[bytes, list[Sought]]] = []
            for key in batch:
                tenant = keys.tenant_of(key)
                if tenant is None or tenant not in wanted:
                    continue
                if _part(key) is None:
                    continue
                if wanted[tenant][0].subject.isolation is Isolation.MINIMAL:
                    if key.endswith(b":l"):
                        await self._by_tag(key, wanted[tenant], found, paced)
                else:
                    with_keys = [one for one in wanted[tenant] if one.data_key]
                    by_key += [(key, with_keys)] if with_keys else []
            await self._by_key_id(by_key, found, paced)
        return found

    async def _by_key_id(
        self,
        looked_at: list[tuple[bytes, list[Sought]]],
        found: dict[str, list[Finding]],
        paced: PacedPass,
    ) -> None:
        scripts: list[Command] = [("EVAL_RO", _NEWEST, "1", key, _PEEKED) for key, _ in looked_at]
        replies = self._good(await paced.run(self._primary, scripts, at_once=_SCRIPTS))
        for (key, sought), record in zip(looked_at, replies, strict=True):
            named = peek_key_id(record) if isinstance(record, bytes) else None
            if named is None:
                continue
            for one in sought:
                place = _place(key, one.subject)
                if place is None or one.data_key is None:
                    continue
                known = found[one.receipt.id]
                if named in key_ids(one.data_key, place.place) and all(
                    finding.place != place for finding in known
                ):
                    known.append(Finding(place))

    async def _by_tag(
        self,
        key: bytes,
        sought: list[Sought],
        found: dict[str, list[Finding]],
        paced: PacedPass,
    ) -> None:
        tags = {one.subject.tag: one for one in sought}
        sequences: dict[bytes, list[int]] = defaultdict(list)
        (length,) = await self._read([("LLEN", key)])
        for start in range(0, length if isinstance(length, int) else 0, _ENTRIES):
            stop = start + _ENTRIES - 1
            (headers,) = await self._read([("EVAL_RO", _TAGGED, "1", key, start, stop, *tags)])
            await paced.rest()
            for entry in _octets(headers):
                header = peek_header(entry)
                if header.subject_tag is not None:
                    sequences[header.subject_tag].append(header.sequence)
        for tag, places in sequences.items():
            place = _place(key, tags[tag].subject)
            if place is not None:
                found[tags[tag].receipt.id].append(Finding(place, tuple(places)))

    async def _read(self, commands: Sequence[Command]) -> list[Reply]:
        return self._good(await self._primary.run(commands) if commands else [])

    def _good(self, replies: list[Reply]) -> list[Reply]:
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise translated(reply, str(self._primary.address))
        return replies

    async def _write(self, commands: Sequence[Command]) -> None:
        for reply in await run_fenced(self._primary, self._term(), commands, patience=0):
            if isinstance(reply, ResponseError):
                raise translated(reply, str(self._primary.address))


def _saved(tenant: TenantId, receipt: ErasureReceipt) -> Command:
    return ("HSET", keys.erasure_receipts(tenant), receipt.id, receipt.to_json())


_PARTS = (b"l", b"s", b"h", b"g")


def _part(key: bytes) -> bytes | None:
    """Which part of a conversation a key is; None for other keys."""
    _, found, rest = key.partition(b"}:r:")
    pieces = rest.split(b":")
    known = found and len(pieces) == 3 and pieces[0] != b"c" and pieces[2] in _PARTS
    return pieces[2] if known else None


def _place(key: bytes, subject: Subject) -> ConversationPlace | None:
    where = key.partition(b"}:r:")[2].rpartition(b":")[0]
    name = where.decode("utf-8", "surrogateescape")
    return listed_place(subject.tenant, subject.isolation, subject.named, name, subject.owner)


def _octets(reply: Reply) -> list[bytes]:
    return [one for one in reply if isinstance(one, bytes)] if isinstance(reply, list) else []


def _meant(error: ResponseError, node: Keyspace) -> MemtenantError:
    return refusal(str(error)) or translated(error, str(node.address))
