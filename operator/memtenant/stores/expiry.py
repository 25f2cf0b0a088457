"""What has passed its period: where it stands, what would go of it, and taking it away.

Looking never writes and is not fenced; what is found is removed by calls that judge again on the
server, so an append meanwhile is safe. `expiry_due` and `expiry_pass` say where to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from redis.exceptions import NoPermissionError, ResponseError

from memtenant.errors import (
    AccessDenied,
    AccessReadOnly,
    HistoryDamaged,
    StoreRefused,
    TenantUnprovisioned,
)
from memtenant.functions.expiry_calls import (
    Expire,
    ExpireContext,
    Expired,
    Expiring,
    ExpiringContext,
    Part,
)
from memtenant.functions.keyspace import ContextKeys, ConversationKeys
from memtenant.functions.refusals import refusal
from memtenant.stores.connection import Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import PacedPass
from memtenant.stores.refusals import translated
from memtenant.tenancy.identity import TenantId

__all__ = [
    "ConversationPart",
    "CutOffs",
    "Place",
    "Tally",
    "WholeContext",
    "look",
    "raise_denied",
    "remove",
]

_FIRST, _FURTHER = 32, 128
"""Entries that one call looks at: a place's first ones, of several places in one piece, and those
behind them, a call by itself. A call costs the server 30 to 50 µs and 0.7 µs an entry (measured).
"""

_LOOKS_AT_ONCE = 1


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
    that bore a time which they cannot have and were dated back. undated: entries and keys that
    tell no time, which stay. oldest: milliseconds since 1970, 0 where nothing is left.
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
class ConversationPart:
    """One part of a conversation."""

    tenant: TenantId
    keys: ConversationKeys
    part: Part = Part.MESSAGES

    def looking(self, cut_offs: CutOffs | None) -> Expiring:
        """The call that looks, at these cut-offs; at those in force for None."""
        if cut_offs is None:
            return Expiring(self.keys, self.part, most=_FIRST)
        return Expiring(
            self.keys, self.part, content=cut_offs.content, derived=cut_offs.derived, most=_FIRST
        )

    def removing(self) -> Expire:
        """The call that removes."""
        return Expire(self.keys, self.part, most=_FURTHER)

    def tally(self, answer: Expired) -> Tally:
        """What the answer of one of them says of it."""
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
class WholeContext:
    """A shared context."""

    tenant: TenantId
    keys: ContextKeys

    def looking(self, cut_offs: CutOffs | None) -> ExpiringContext:
        """The call that looks, at these cut-offs; at those in force for None."""
        return ExpiringContext(self.keys, content=cut_offs.content if cut_offs else None)

    def removing(self) -> ExpireContext:
        """The call that removes."""
        return ExpireContext(self.keys)

    def tally(self, answer: Expired) -> Tally:
        """What the answer of one of them says of it."""
        return Tally(
            values=answer.live,
            contexts=int(answer.ends),
            size=answer.size,
            redated=answer.redated,
            undated=answer.undated,
            kept=answer.kept,
            oldest=answer.oldest,
        )


Place = ConversationPart | WholeContext
_Call = Expiring | Expire | ExpiringContext | ExpireContext

_NOTHING = Expired(None, 0, 0, 0, False, 0, 0, 0, 0, 0, 0, False)


async def look(
    node: Keyspace,
    places: Sequence[Place],
    cut_offs: Mapping[TenantId, CutOffs],
    paced: PacedPass,
) -> list[tuple[Place, Expired]]:
    """What would go of each place, at the cut-offs in force where none is given; of a tenant
    without limits nothing is known."""
    found: dict[Place, Expired] = {}
    waiting: list[tuple[Place, _Call]] = [
        (place, place.looking(cut_offs.get(place.tenant))) for place in places
    ]
    at_once = _LOOKS_AT_ONCE
    while waiting:
        replies = await paced.run(node, [call.words for _, call in waiting], at_once=at_once)
        asked, waiting, at_once = waiting, [], 1
        for (place, call), reply in zip(asked, replies, strict=True):
            seen = _answer(call, reply, node)
            if seen is None:
                continue
            found[place] = _together(found.get(place, _NOTHING), seen)
            if seen.next is not None:
                waiting.append((place, _further(call, seen.next)))
    return list(found.items())


def _further(call: _Call, start: int | bytes) -> _Call:
    """The call that goes on from there."""
    if isinstance(call, Expiring):
        return replace(call, start=start, most=_FURTHER)  # type: ignore[arg-type]
    return replace(call, start=start)  # type: ignore[arg-type]


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
        closes=before.closes or page.closes,
    )


async def remove(
    primary: Keyspace,
    term: Term,
    places: Iterable[Place],
    removed: dict[TenantId, Tally],
    paced: PacedPass,
) -> None:
    """Remove what has expired of each place; what went is counted into ``removed``. Each call is a
    transaction of its own, as nobody else gets a word in between those of one."""
    for place in places:
        call: _Call | None = place.removing()
        while call is not None:
            (reply,) = await run_fenced(primary, term, [call.words], patience=0)
            await paced.rest(removed=True)
            seen = _answer(call, reply, primary)
            if seen is None:
                break
            went = place.tally(seen)
            went.kept = went.oldest = went.undated = 0
            removed.setdefault(place.tenant, Tally()).add(went)
            call = None if seen.next is None else _further(call, seen.next)


def _answer(call: _Call, reply: Reply, node: Keyspace) -> Expired | None:
    """What a call told; None of a tenant that is not provisioned. A key that holds what memtenant
    did not write counts as one without a time."""
    if not isinstance(reply, ResponseError):
        return call.read(reply)
    raise_denied(reply, node)
    error = refusal(str(reply))
    if isinstance(error, TenantUnprovisioned):
        return None
    if isinstance(error, HistoryDamaged):
        return replace(_NOTHING, undated=1, kept=1)
    raise _refused(reply, node) if error is None or _is_denial(error) else error


def _is_denial(error: Exception) -> bool:
    return isinstance(error, (AccessDenied, AccessReadOnly))


def raise_denied(reply: Reply, node: Keyspace) -> None:
    """Raise what a refused command means: the operator's user may not do it."""
    if isinstance(reply, NoPermissionError):
        raise translated(reply, str(node.address))


def _refused(reply: ResponseError, node: Keyspace) -> Exception:
    """A Function asks the server before it writes, and so tells of a missing permission itself."""
    if str(reply).startswith("MT_"):
        return StoreRefused(
            f"{node.address}: the operator's user may not do all that removing what has expired "
            "takes: `memtenant store acl` prints what it needs",
            reason="StorePermissionMissing",
        )
    return translated(reply, str(node.address))
