"""A pass over all keys of a store: what has passed its period removed, or counted.

It finds what the tenants' own lists (`expiry_due`) do not tell, closes the writers that were opened
a day before, and takes the entries of subjects' indexes that lead to nothing any more. At its end
it is written down of which tenants it saw all (`memtenant.functions.passes`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from redis.exceptions import ResponseError

from memtenant.errors import HistoryDamaged
from memtenant.functions.expiry_calls import MAX_COMPACT, CompactIndex, Part, Passed
from memtenant.functions.head import HEAD_STATE, HeadState
from memtenant.functions.keyspace import ContextKeys, ConversationKeys, TenantKeys
from memtenant.functions.passes import Passes
from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, Reply
from memtenant.stores.expiry import (
    ConversationPart,
    CutOffs,
    Place,
    Tally,
    WholeContext,
    look,
    raise_denied,
    remove,
)
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace, PacedPass
from memtenant.stores.scan import ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["ExpiryScan", "count_expiring", "expire_scanned"]

_INDEX_PAGE = 500
_ASKED_AT_ONCE = 50
_TENANTS_AT_ONCE = 250
_KEYS_A_REMOVAL = 5
"""As how many keys a removal counts, so that a round over 200,000 ends within half an hour also
where much goes: the tenants' lists wait for it."""

_TOLD_EVERY = 3_600_000
"""Milliseconds between two passes that a tenant is told of: a restart begins one, too."""


@dataclass(slots=True)
class ExpiryScan:
    """A pass under way; one that was cut off goes on where it stood when handed in again.

    removed: what the pass took away since it was last asked (`take`), by tenant. left: what it
    looked at and that stays. began: by the servers' clocks, in milliseconds. spared: tenants of
    which it passed something over.
    """

    position: ScanPosition = field(default_factory=ScanPosition)
    began: int = 0
    spared: set[TenantId] = field(default_factory=set)
    removed: dict[TenantId, Tally] = field(default_factory=dict)
    left: dict[TenantId, Tally] = field(default_factory=dict)

    def take(self) -> dict[TenantId, Tally]:
        """What was removed since the last time."""
        removed, self.removed = self.removed, {}
        return removed


async def expire_scanned(
    primary: Keyspace,
    term: Term,
    scan: ExpiryScan,
    *,
    most: int,
    spares: Callable[[TenantId], bool],
    pace: Pace,
) -> bool:
    """Look at about ``most`` more keys and remove what has expired of them; whether that was all.
    It ends earlier where much is removed, which takes longer than looking.

    Tenants whom it ``spares`` are left alone: what is declared of them may not be in force yet.
    Also takes the entries of subjects' indexes that lead to nothing any more; of an index that it
    sees before what it removes, the next pass does.
    """
    looked, paced = 0, pace.begin()
    scan.began = scan.began or min(await _clocks(primary))
    async for batch in scan_tenant_keys(primary, scan.position, paced):
        if looked >= most:
            break  # this batch is the first of the next time
        every = _named(batch)
        names = [one for one in every if not spares(one.tenant)]
        scan.spared.update({one.tenant for one in every} - {one.tenant for one in names})
        found = await look(primary, await _places(primary, names, scan.began), {}, paced)
        expired = [one for one, seen in found if seen.changes]
        await remove(primary, term, expired, scan.removed, paced)
        for place, seen in found:
            left = Tally(undated=seen.undated, kept=seen.kept, oldest=seen.oldest)
            scan.left.setdefault(place.tenant, Tally()).add(left)
        for name in names:
            if name.is_strange:
                scan.left.setdefault(name.tenant, Tally()).undated += 1
            elif name.is_index:
                await _compact(primary, term, name, paced)
        looked += len(batch) + _KEYS_A_REMOVAL * len(expired)
    if scan.position.done:
        await _tell_passed(primary, term, scan, paced)
    return scan.position.done


async def _tell_passed(primary: Keyspace, term: Term, scan: ExpiryScan, paced: PacedPass) -> None:
    """Of each tenant that has something and was not spared, that the pass saw all of it."""
    ended = max(await _clocks(primary))
    for batch in batches(sorted(scan.left.keys() - scan.spared, key=str), _TENANTS_AT_ONCE):
        replies = await paced.run(
            primary, [("GET", keys.passes(one)) for one in batch], at_once=_ASKED_AT_ONCE
        )
        for tenant, reply in zip(batch, replies, strict=True):
            raise_denied(reply, primary)
            before = Passes.parse(reply if isinstance(reply, bytes) else None)
            if scan.began - before.last >= _TOLD_EVERY:
                call = Passed(tenant, before.and_then(scan.began, ended))
                (answer,) = await run_fenced(primary, term, [call.words], patience=0)
                raise_denied(answer, primary)
                call.read(answer)
                await paced.rest()


async def _clocks(primary: Keyspace) -> list[int]:
    """What time it is on each server that holds keys, in milliseconds."""
    times = []
    for node in primary.shards:
        reply = await node.call("TIME")
        assert isinstance(reply, list)  # noqa: S101 - TIME has no other answer
        times.append(int(reply[0]) * 1000 + int(reply[1]) // 1000)
    return times


async def count_expiring(
    node: Keyspace,
    cut_offs: Mapping[TenantId, CutOffs] | None,
    *,
    pace: Pace,
    progress: Callable[[int], None] = lambda _keys: None,
) -> dict[TenantId, Tally]:
    """What a pass would remove of these tenants at these cut-offs (None: of all tenants, at those
    in force), by tenant; what stays is counted too. Nothing is written. ``progress`` is told how
    many keys were looked at."""
    tallies: dict[TenantId, Tally] = defaultdict(Tally)
    looked, paced = 0, pace.begin()
    async for batch in scan_tenant_keys(node, ScanPosition(), paced):
        names = [one for one in _named(batch) if cut_offs is None or one.tenant in cut_offs]
        for place, seen in await look(node, await _places(node, names, 0), cut_offs or {}, paced):
            tallies[place.tenant].add(place.tally(seen))
        looked += len(batch)
        progress(looked)
    return dict(tallies)


@dataclass(frozen=True, slots=True)
class _Name:
    """A tenant's key, taken apart."""

    tenant: TenantId
    key: bytes
    words: tuple[str, ...]

    @property
    def is_index(self) -> bool:
        return self.words[0] == "i"

    @property
    def is_context(self) -> bool:
        return self.words[:2] == ("r", "c") and (
            len(self.words) == 3 or (len(self.words) == 4 and self.words[3] in ("v", "log"))
        )

    @property
    def is_conversation(self) -> bool:
        words = self.words
        return words[0] == "r" and len(words) == 4 and words[1] != "c" and words[3] in tuple("lhsg")

    @property
    def is_strange(self) -> bool:
        """Whether it stands among the content and is none that memtenant writes."""
        return self.words[0] == "r" and not (self.is_context or self.is_conversation)


def _named(batch: Iterable[bytes]) -> list[_Name]:
    names = []
    for key in batch:
        tenant = keys.tenant_of(key)
        if tenant is not None:
            rest = key[len(keys.prefix(tenant)) :].decode("utf-8", "surrogateescape")
            names.append(_Name(tenant, key, tuple(rest.split(":"))))
    return names


async def _places(node: Keyspace, names: Iterable[_Name], began: int) -> list[Place]:
    """What the keys belong to, each once: by the list, or by another key where there is none. A
    list that began after the pass did was perhaps not there when the pass came by."""
    conversations: dict[tuple[TenantId, str, str], set[str]] = defaultdict(set)
    contexts: dict[tuple[TenantId, str], set[str]] = defaultdict(set)
    for name in names:
        if name.is_conversation and name.words[1] and name.words[2]:
            conversations[name.tenant, name.words[1], name.words[2]].add(name.words[3])
        elif name.is_context and name.words[2]:
            contexts[name.tenant, name.words[2]].add(name.words[-1])
    places: list[Place] = []
    doubtful: list[tuple[Place, bytes, bytes]] = []
    for (tenant, scope, alias), parts in conversations.items():
        talk = ConversationKeys.of(tenant, scope, alias)
        places += [
            ConversationPart(tenant, talk, part)
            for part in (Part.GRAPH, Part.SUMMARIES)
            if part.value in parts
        ]
        messages = ConversationPart(tenant, talk)
        if "l" in parts:
            places.append(messages)
        else:
            doubtful.append((messages, talk.list, talk.head))
    for (tenant, alias), parts in contexts.items():
        context = ContextKeys.of(tenant, alias)
        if "v" in parts:
            places.append(WholeContext(tenant, context))
        else:
            doubtful.append((WholeContext(tenant, context), context.versions, context.versions))
    answers = await node.run(
        command
        for _, found, head in doubtful
        for command in (("EXISTS", found), ("HGET", head, HEAD_STATE))
    )
    for (place, _, _), exists, state in zip(doubtful, answers[::2], answers[1::2], strict=True):
        raise_denied(exists, node)
        if exists == 0 or _began(state) > began:
            places.append(place)
    return places


def _began(state: Reply) -> int:
    """When the list of a conversation began, by its head; 0 where nothing tells."""
    try:
        return HeadState.parse(state).oldest if isinstance(state, bytes) else 0
    except HistoryDamaged:
        return 0


async def _compact(primary: Keyspace, term: Term, index: _Name, paced: PacedPass) -> None:
    """Take the entries of one index that lead to nothing, and all but one of the same."""
    limits = TenantKeys.of(index.tenant).limits
    start = 0
    while True:
        reply = await primary.call("LRANGE", index.key, start, start + _INDEX_PAGE - 1)
        page: list[bytes] = reply if isinstance(reply, list) else []
        await paced.rest()
        idle = await _idle(primary, index.tenant, Counter(page), paced)
        removed = 0
        for batch in batches(idle, MAX_COMPACT):
            call = CompactIndex(index.key, limits, tuple(batch))
            for answer in await run_fenced(primary, term, [call.words], patience=0):
                if isinstance(answer, ResponseError):
                    raise_denied(answer, primary)
                    return  # not provisioned, or no index at all
                removed += call.read(answer)
            await paced.rest()
        if len(page) < _INDEX_PAGE:
            return
        start += len(page) - removed


async def _idle(
    node: Keyspace, tenant: TenantId, entries: Mapping[bytes, int], paced: PacedPass
) -> list[tuple[bytes, int]]:
    """Those entries that lead to nothing or are there more than once, and how often beyond it."""
    records = keys.records(tenant).encode()
    asked: list[tuple[bytes, list[Command]]] = []
    for entry in entries:
        words = entry.split(b":")
        base = records + entry
        if len(words) == 3 and words[0] == b"c":
            asked.append((entry, [("HEXISTS", records + b":".join(words[:2]), words[2])]))
        elif len(words) == 2 and words[0] == b"c":
            asked.append((entry, [("EXISTS", base)]))
        elif len(words) == 2 and all(words):
            lists = (base + b":l", base + b":s", base + b":g")
            asked.append((entry, [("EXISTS", *lists), ("HEXISTS", base + b":h", "meta")]))
    every = [command for _, commands in asked for command in commands]
    replies = iter(await paced.run(node, every, at_once=_ASKED_AT_ONCE))
    idle = []
    for entry, commands in asked:
        answers = list(islice(replies, len(commands)))
        for answer in answers:
            raise_denied(answer, node)
        if all(answer == 0 for answer in answers) or entries[entry] > 1:
            idle.append((entry, entries[entry] - 1))
    return idle
