"""What is left of persons who are forgotten, anywhere on a store: one paced pass that all share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from memtenant.crypto.header import peek_header
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import key_ids, peek_key_id
from memtenant.memory.places import ConversationPlace, listed_place
from memtenant.memory.subjects import Subject
from memtenant.stores.connection import Command
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace, PacedPass
from memtenant.stores.refusals import required_all
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasureReceipt
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import Isolation

__all__ = ["Finding", "Sought", "find_left"]

_SCRIPTS = 10
"""In one piece of a pass."""

_PEEKED = 64
_ENTRIES = 128
"""Entries of a list whose headers are looked at in one script, which keeps the server busy."""

_PARTS = (b"l", b"s", b"h", b"g")

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


async def find_left(
    primary: Keyspace, sought: Sequence[Sought], pace: Pace
) -> dict[str, list[Finding]]:
    """By the receipt's id: by the key that a place's newest record names, or by the tags of
    headers."""
    wanted: dict[TenantId, list[Sought]] = defaultdict(list)
    for one in sought:
        wanted[one.subject.tenant].append(one)
    found: dict[str, list[Finding]] = {one.receipt.id: [] for one in sought}
    paced = pace.begin()
    async for batch in scan_tenant_keys(primary, ScanPosition(), paced):
        by_key: list[tuple[bytes, list[Sought]]] = []
        for key in batch:
            tenant = keys.tenant_of(key)
            if tenant is None or tenant not in wanted:
                continue
            if _part(key) is None:
                continue
            if wanted[tenant][0].subject.isolation is Isolation.MINIMAL:
                if key.endswith(b":l"):
                    await _by_tag(primary, key, wanted[tenant], found, paced)
            else:
                with_keys = [one for one in wanted[tenant] if one.data_key]
                by_key += [(key, with_keys)] if with_keys else []
        await _by_key_id(primary, by_key, found, paced)
    return found


async def _by_key_id(
    primary: Keyspace,
    looked_at: list[tuple[bytes, list[Sought]]],
    found: dict[str, list[Finding]],
    paced: PacedPass,
) -> None:
    scripts: list[Command] = [("EVAL_RO", _NEWEST, "1", key, _PEEKED) for key, _ in looked_at]
    replies = required_all(await paced.run(primary, scripts, at_once=_SCRIPTS), primary.address)
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
    primary: Keyspace,
    key: bytes,
    sought: list[Sought],
    found: dict[str, list[Finding]],
    paced: PacedPass,
) -> None:
    tags = {one.subject.tag: one for one in sought}
    sequences: dict[bytes, list[int]] = defaultdict(list)
    length = await primary.call("LLEN", key)
    for start in range(0, length if isinstance(length, int) else 0, _ENTRIES):
        stop = start + _ENTRIES - 1
        headers = await primary.call("EVAL_RO", _TAGGED, "1", key, start, stop, *tags)
        await paced.rest()
        for entry in headers if isinstance(headers, list) else ():
            header = peek_header(entry)
            if header.subject_tag is not None:
                sequences[header.subject_tag].append(header.sequence)
    for tag, places in sequences.items():
        place = _place(key, tags[tag].subject)
        if place is not None:
            found[tags[tag].receipt.id].append(Finding(place, tuple(places)))


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
