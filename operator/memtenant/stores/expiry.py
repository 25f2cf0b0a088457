"""What has passed its period, found and removed: by the tenants' own lists, and by shared passes.

``x`` says when a conversation or context is due, and any agent may write it. So it is the quick way
only; a pass over all keys finds what it does not tell. Looking never writes and is not fenced; what
is found is removed by calls that judge again on the server, so an append meanwhile is safe.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from redis.exceptions import NoPermissionError, ResponseError

from memtenant.errors import (
    AccessDenied,
    AccessReadOnly,
    HistoryDamaged,
    StoreRefused,
    TenantUnprovisioned,
)
from memtenant.functions.expiry_calls import (
    MAX_COMPACT,
    CompactIndex,
    Expire,
    ExpireContext,
    Expired,
    Expiring,
    ExpiringContext,
    Part,
)
from memtenant.functions.keyspace import ContextKeys, ConversationKeys, TenantKeys
from memtenant.functions.refusals import refusal
from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, NodeClient, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.refusals import translated
from memtenant.stores.scan import Pace, ScanPosition, scan_tenant_keys
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = [
    "CutOffs",
    "ExpiryScan",
    "Tally",
    "count_expiring",
    "expire_due",
    "expire_scanned",
]

_LOOK = 500
"""Entries that one call looks at: under a millisecond of the server."""

_LOOKS_AT_ONCE = 50
_REMOVALS_AT_ONCE = 8
"""Calls in one transaction, which nobody else gets a word in between."""

_TENANTS_AT_ONCE = 250
_TURN = 50
"""Conversations of one tenant before the next has its turn."""

_INDEX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class CutOffs:
    """Milliseconds since 1970 before which content, and what is derived from it, has expired."""

    content: int
    derived: int


@dataclass(slots=True)
class Tally:
    """What went, or would go, of one tenant; what stays, and how old the oldest of it is.

    messages, summaries, values, checkpoints (all that graphs keep): records. conversations,
    contexts: those of which nothing stays. size: bytes, as quotas count them. redated: records
    that bore a time to come and got the server's. undated: entries and keys that tell no time,
    which stay. oldest: milliseconds since 1970, 0 where nothing is left.
    """

    messages: int = 0
    summaries: int = 0
    values: int = 0
    checkpoints: int = 0
    conversations: int = 0
    contexts: int = 0
    size: int = 0
    redated: int = 0
    undated: int = 0
    kept: int = 0
    oldest: int = 0

    @property
    def records(self) -> int:
        """All of them together."""
        return self.messages + self.summaries + self.values + self.checkpoints

    def add(self, other: Tally) -> None:
        """Count the other's too."""
        for name in self.__slots__:
            if name != "oldest":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        known = [time for time in (self.oldest, other.oldest) if time]
        self.oldest = min(known, default=0)


@dataclass(frozen=True, slots=True)
class _Conversation:
    """One part of a conversation."""

    tenant: TenantId
    keys: ConversationKeys
    part: Part = Part.MESSAGES

    def looking(self, cut_offs: CutOffs | None) -> Expiring:
        if cut_offs is None:
            return Expiring(self.keys, self.part, most=_LOOK)
        return Expiring(
            self.keys, self.part, content=cut_offs.content, derived=cut_offs.derived, most=_LOOK
        )

    def removing(self) -> Expire:
        return Expire(self.keys, self.part, most=_LOOK)

    def tally(self, answer: Expired) -> Tally:
        counted = Tally(size=answer.size, redated=answer.redated, undated=answer.undated)
        if self.part is Part.SUMMARIES:
            counted.summaries = answer.live
        elif self.part is Part.GRAPH:
            counted.checkpoints = answer.live
        else:
            counted.messages, counted.conversations = answer.live, int(answer.ends)
            counted.summaries = answer.summaries
        counted.kept, counted.oldest = answer.kept, answer.oldest
        return counted


@dataclass(frozen=True, slots=True)
class _Context:
    """A shared context."""

    tenant: TenantId
    keys: ContextKeys

    def looking(self, cut_offs: CutOffs | None) -> ExpiringContext:
        return ExpiringContext(self.keys, content=cut_offs.content if cut_offs else None)

    def removing(self) -> ExpireContext:
        return ExpireContext(self.keys)

    def tally(self, answer: Expired) -> Tally:
        return Tally(
            values=answer.live,
            contexts=int(answer.ends),
            size=answer.size,
            redated=answer.redated,
            undated=answer.undated,
            kept=answer.kept,
            oldest=answer.oldest,
        )


_Place = _Conversation | _Context
_Call = Expiring | Expire | ExpiringContext | ExpireContext


@dataclass(slots=True)
class ExpiryScan:
    """A pass under way; one that was cut off goes on where it stood when handed in again.

    removed: what the pass took away since it was last asked (`take`), by tenant. left: what it
    looked at and that stays.
    """

    position: ScanPosition = field(default_factory=ScanPosition)
    removed: dict[TenantId, Tally] = field(default_factory=dict)
    left: dict[TenantId, Tally] = field(default_factory=dict)

    def take(self) -> dict[TenantId, Tally]:
        """What was removed since the last time."""
        removed, self.removed = self.removed, {}
        return removed


# --- by x --------------------------------------------------------------------------------------


async def expire_due(
    primary: NodeClient, term: Term, tenants: Collection[TenantId], *, most: int, pace: Pace
) -> dict[TenantId, Tally]:
    """Remove what ``x`` says is due, at most so many conversations and contexts, the tenants in
    turns; what went, by tenant. The next call goes on."""
    removed: dict[TenantId, Tally] = defaultdict(Tally)
    tried: set[tuple[TenantId, bytes]] = set()
    waiting = list(tenants)
    while waiting and len(tried) < most:
        found: list[TenantId] = []
        for batch in batches(waiting, _TENANTS_AT_ONCE):
            started = pace.clock.monotonic()
            due = await _due(primary, batch)
            await pace.rest(pace.clock.monotonic() - started)
            for tenant, members in due.items():
                new = [one for one in members if (tenant, one) not in tried]
                if not new or len(tried) >= most:
                    continue
                tried.update((tenant, one) for one in new)
                found.append(tenant)
                await _expire_members(primary, term, tenant, new, removed, pace)
        waiting = found
    return dict(removed)


async def _due(node: NodeClient, tenants: Sequence[TenantId]) -> dict[TenantId, list[bytes]]:
    """The members of ``x`` whose oldest record has expired, of each tenant that has some."""
    cut_offs = await node.run(
        [("HGET", keys.limits(tenant), "cutoff_content") for tenant in tenants]
    )
    expiring = [
        (tenant, cut_off)
        for tenant, cut_off in zip(tenants, cut_offs, strict=True)
        if isinstance(cut_off, bytes) and cut_off.isdigit()
    ]
    commands: list[Command] = [
        ("ZRANGEBYSCORE", keys.conversations(tenant), "-inf", b"(" + cut_off, "LIMIT", 0, _TURN)
        for tenant, cut_off in expiring
    ]
    due: dict[TenantId, list[bytes]] = {}
    for (tenant, _), reply in zip(expiring, await node.run(commands), strict=True):
        _raise_denied(reply, node)
        if isinstance(reply, list) and reply:
            due[tenant] = reply
    return due


async def _expire_members(
    primary: NodeClient,
    term: Term,
    tenant: TenantId,
    members: Iterable[bytes],
    removed: dict[TenantId, Tally],
    pace: Pace,
) -> None:
    places: list[_Place] = []
    strange: list[bytes] = []
    for member in members:
        found = _places_of_member(tenant, member)
        places += found
        if not found:
            strange.append(member)
    await _remove(primary, term, places, removed, pace)
    if strange:
        # Names of nothing: they would stand in the way of the others for ever.
        command: Command = ("ZREM", keys.conversations(tenant), *strange)
        for reply in await run_fenced(primary, term, [command], patience=0):
            _raise_denied(reply, primary)


def _places_of_member(tenant: TenantId, member: bytes) -> list[_Place]:
    scope, _, name = member.decode("utf-8", "replace").partition(":")
    if not scope or not name or ":" in name:
        return []
    if scope == "c":
        return [_Context(tenant, ContextKeys.of(tenant, name))]
    conversation = ConversationKeys.of(tenant, scope, name)
    return [_Conversation(tenant, conversation, part) for part in Part]


# --- by a pass over all keys -------------------------------------------------------------------


async def expire_scanned(
    primary: NodeClient,
    term: Term,
    scan: ExpiryScan,
    *,
    most: int,
    spares: Callable[[TenantId], bool],
    pace: Pace,
) -> bool:
    """Look at about ``most`` more keys and remove what has expired of them; whether that was all.

    Tenants whom it ``spares`` are left alone: what is declared of them may not be in force yet.
    Also takes the entries of subjects' indexes that lead to nothing any more.
    """
    looked = 0
    # The work is paced here, call by call; the scan itself is little of it.
    async for batch in scan_tenant_keys(primary, scan.position, replace(pace, duty=1.0)):
        if looked >= most:
            break  # this batch is the first of the next time
        names = [one for one in _named(batch) if not spares(one.tenant)]
        found = await _look(primary, await _places(primary, names), {}, pace)
        expired = [one for one, seen in found if seen.changes]
        await _remove(primary, term, expired, scan.removed, pace)
        for place, seen in found:
            left = Tally(undated=seen.undated, kept=seen.kept, oldest=seen.oldest)
            scan.left.setdefault(place.tenant, Tally()).add(left)
        for name in names:
            if name.is_strange:
                scan.left.setdefault(name.tenant, Tally()).undated += 1
            elif name.is_index:
                await _compact(primary, term, name, pace)
        looked += len(batch)
    return scan.position.done


async def count_expiring(
    node: NodeClient,
    cut_offs: Mapping[TenantId, CutOffs] | None,
    *,
    pace: Pace,
    progress: Callable[[int], None] = lambda _keys: None,
) -> dict[TenantId, Tally]:
    """What a pass would remove of these tenants at these cut-offs (None: of all tenants, at those
    in force), by tenant; what stays is counted too. Nothing is written. ``progress`` is told how
    many keys were looked at."""
    tallies: dict[TenantId, Tally] = defaultdict(Tally)
    looked = 0
    async for batch in scan_tenant_keys(node, ScanPosition(), replace(pace, duty=1.0)):
        names = [one for one in _named(batch) if cut_offs is None or one.tenant in cut_offs]
        for place, seen in await _look(node, await _places(node, names), cut_offs or {}, pace):
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
            rest = key[len(keys.prefix(tenant)) :].decode("utf-8", "backslashreplace")
            names.append(_Name(tenant, key, tuple(rest.split(":"))))
    return names


async def _places(node: NodeClient, names: Iterable[_Name]) -> list[_Place]:
    """What the keys belong to, each once: by the list, or by another key where there is none."""
    conversations: dict[tuple[TenantId, str, str], set[str]] = defaultdict(set)
    contexts: dict[tuple[TenantId, str], set[str]] = defaultdict(set)
    for name in names:
        if name.is_conversation and name.words[1] and name.words[2]:
            conversations[name.tenant, name.words[1], name.words[2]].add(name.words[3])
        elif name.is_context and name.words[2]:
            contexts[name.tenant, name.words[2]].add(name.words[-1])
    places: list[_Place] = []
    doubtful: list[tuple[bytes, _Place]] = []
    for (tenant, scope, alias), parts in conversations.items():
        talk = ConversationKeys.of(tenant, scope, alias)
        places += [
            _Conversation(tenant, talk, part)
            for part in (Part.GRAPH, Part.SUMMARIES)
            if part.value in parts
        ]
        messages = _Conversation(tenant, talk)
        if "l" in parts:
            places.append(messages)
        else:
            doubtful.append((talk.list, messages))
    for (tenant, alias), parts in contexts.items():
        context = ContextKeys.of(tenant, alias)
        if "v" in parts:
            places.append(_Context(tenant, context))
        else:
            doubtful.append((context.versions, _Context(tenant, context)))
    answers = await node.run([("EXISTS", key) for key, _ in doubtful])
    for (_, place), answer in zip(doubtful, answers, strict=True):
        _raise_denied(answer, node)
        if answer == 0:
            places.append(place)
    return places


# --- calls -------------------------------------------------------------------------------------

_NOTHING = Expired(None, 0, 0, 0, False, 0, 0, 0, 0, 0, 0)


async def _look(
    node: NodeClient,
    places: Sequence[_Place],
    cut_offs: Mapping[TenantId, CutOffs],
    pace: Pace,
) -> list[tuple[_Place, Expired]]:
    """What would go of each place, at the cut-offs in force where none is given; of a tenant
    without limits nothing is known."""
    found: dict[_Place, Expired] = {}
    waiting: list[tuple[_Place, _Call]] = [
        (place, place.looking(cut_offs.get(place.tenant))) for place in places
    ]
    while waiting:
        batch, waiting = waiting[:_LOOKS_AT_ONCE], waiting[_LOOKS_AT_ONCE:]
        started = pace.clock.monotonic()
        replies = await node.run([call.words for _, call in batch])
        for (place, call), reply in zip(batch, replies, strict=True):
            seen = _answer(call, reply, node)
            if seen is None:
                continue
            found[place] = _together(found.get(place, _NOTHING), seen)
            if seen.next is not None:
                waiting.append((place, replace(call, start=seen.next)))  # type: ignore[arg-type]
        await pace.rest(pace.clock.monotonic() - started)
    return list(found.items())


def _together(before: Expired, page: Expired) -> Expired:
    """A place of several pages as one; it ends where no page keeps anything."""
    kept = before.kept + page.kept
    entries = before.entries + page.entries
    return Expired(
        next=page.next,
        live=before.live + page.live,
        entries=entries,
        size=before.size + page.size,
        ends=page.ends or (page.next is None and not kept and before.entries > 0),
        redated=before.redated + page.redated,
        undated=before.undated + page.undated,
        kept=kept,
        oldest=min(filter(None, (before.oldest, page.oldest)), default=0),
        time=page.time,
        summaries=before.summaries + page.summaries,
    )


async def _remove(
    primary: NodeClient,
    term: Term,
    places: Iterable[_Place],
    removed: dict[TenantId, Tally],
    pace: Pace,
) -> None:
    waiting: list[tuple[_Place, _Call]] = [(place, place.removing()) for place in places]
    while waiting:
        batch, waiting = waiting[:_REMOVALS_AT_ONCE], waiting[_REMOVALS_AT_ONCE:]
        started = pace.clock.monotonic()
        commands: list[Command] = [call.words for _, call in batch]
        replies = await run_fenced(primary, term, commands, patience=0)
        for (place, call), reply in zip(batch, replies, strict=True):
            seen = _answer(call, reply, primary)
            if seen is None:
                continue
            went = place.tally(seen)
            went.kept = went.oldest = went.undated = 0
            removed.setdefault(place.tenant, Tally()).add(went)
            if seen.next is not None:
                waiting.append((place, replace(call, start=seen.next)))  # type: ignore[arg-type]
        await pace.rest(pace.clock.monotonic() - started)


def _answer(call: _Call, reply: Reply, node: NodeClient) -> Expired | None:
    """What a call told; None of a tenant that is not provisioned. A key that holds what memtenant
    did not write counts as one without a time."""
    if not isinstance(reply, ResponseError):
        return call.read(reply)
    _raise_denied(reply, node)
    error = refusal(str(reply))
    if isinstance(error, TenantUnprovisioned):
        return None
    if isinstance(error, HistoryDamaged):
        return replace(_NOTHING, undated=1, kept=1)
    raise _refused(reply, node) if error is None or _is_denial(error) else error


def _is_denial(error: Exception) -> bool:
    return isinstance(error, (AccessDenied, AccessReadOnly))


def _raise_denied(reply: Reply, node: NodeClient) -> None:
    if isinstance(reply, NoPermissionError):
        raise translated(reply, str(node.address))


def _refused(reply: ResponseError, node: NodeClient) -> Exception:
    """A Function asks the server before it writes, and so tells of a missing permission itself."""
    if str(reply).startswith("MT_"):
        return StoreRefused(
            f"{node.address}: the operator's user may not do all that removing what has expired "
            "takes: `memtenant store acl` prints what it needs",
            reason="StorePermissionMissing",
        )
    return translated(reply, str(node.address))


async def _compact(primary: NodeClient, term: Term, index: _Name, pace: Pace) -> None:
    """Take the entries of one index that lead to nothing, and all but one of the same."""
    limits = TenantKeys.of(index.tenant).limits
    start = 0
    while True:
        started = pace.clock.monotonic()
        reply = await primary.call("LRANGE", index.key, start, start + _INDEX_PAGE - 1)
        page: list[bytes] = reply if isinstance(reply, list) else []
        idle = await _idle(primary, index.tenant, Counter(page))
        removed = 0
        for batch in batches(idle, MAX_COMPACT):
            call = CompactIndex(index.key, limits, tuple(batch))
            for answer in await run_fenced(primary, term, [call.words], patience=0):
                if isinstance(answer, ResponseError):
                    _raise_denied(answer, primary)
                    return  # not provisioned, or no index at all
                removed += call.read(answer)
        if len(page) < _INDEX_PAGE:
            return
        start += len(page) - removed
        await pace.rest(pace.clock.monotonic() - started)


async def _idle(
    node: NodeClient, tenant: TenantId, entries: Mapping[bytes, int]
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
    replies = iter(await node.run([command for _, commands in asked for command in commands]))
    idle = []
    for entry, commands in asked:
        answers = list(islice(replies, len(commands)))
        for answer in answers:
            _raise_denied(answer, node)
        if all(answer == 0 for answer in answers) or entries[entry] > 1:
            idle.append((entry, entries[entry] - 1))
    return idle
