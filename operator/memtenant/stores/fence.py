"""One writer per node: the term of the leading operator, kept in the store itself.

A leader's Lease can move while the old leader stands still (SIGSTOP, a long pause of the machine)
between its last look at the Lease and its write. So every batch of writes goes

    WATCH epoch; GET epoch; compare; MULTI; …; EXEC

on one connection, and runs only where the node itself holds exactly the writer's own term.
Replicas take part: they accept ACL SETUSER in MULTI, and a replicated SET aborts an EXEC that
watched. A replica may lag behind its primary, so the compare is for equality: a new leader, whose
higher term has not arrived there yet, waits; from the moment it may write, the old one may not.
At no moment can two terms write to one node.

In a Cluster a transaction holds the keys of one slot, and the term is in many slots
(`stores.slots`), of which each node has some. One that was just added has none: there the term is
looked up on another node a moment before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from redis.exceptions import ResponseError

from memtenant.errors import FencedOut, StoreRefused, StoreUnavailable
from memtenant.functions.fcall import fcall
from memtenant.stores.connection import Command, EpochPlace, NodeClient, Reply, Session
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.owner import check_owner
from memtenant.stores.refusals import required_all
from memtenant.tenancy.keys import STORE_EPOCH, STORE_OWNER

__all__ = [
    "Term",
    "Unchanged",
    "raise_epoch",
    "raise_epochs",
    "require_leading",
    "run_fenced",
    "stored_term",
]

Unchanged = tuple[str, str, bytes]
"""A hash, a field of it, and the value that a command relies on."""

_POLL = 0.02
_TRIES = 20


class _Order(Enum):
    BEHIND = "behind"
    EQUAL = "equal"
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True)
class Term:
    """One leadership: ``number`` grows with every change of leader within an installation."""

    number: int
    installation: str

    def __str__(self) -> str:
        return f"{self.number} {self.installation}"

    @classmethod
    def parse(cls, stored: Reply) -> Term | None:
        """The term that a store holds, or None where there is none."""
        if not isinstance(stored, bytes):
            return None
        number, _, installation = stored.decode("utf-8", "replace").partition(" ")
        return cls(int(number), installation) if number.isdecimal() else None

    def _order_of(self, stored: Term | None) -> _Order:
        """Where the stored term stands; another installation's counts as ahead."""
        if stored is None:
            return _Order.BEHIND
        if stored.installation != self.installation or stored.number > self.number:
            return _Order.AHEAD
        return _Order.EQUAL if stored.number == self.number else _Order.BEHIND

    def fenced_out_by(self, stored: Term | None) -> bool:
        """Whether the stored term forbids this one to write, now and later."""
        return self._order_of(stored) is _Order.AHEAD

    def holds(self, stored: Term | None) -> bool:
        """Whether this term may write where ``stored`` is the epoch."""
        return self._order_of(stored) is _Order.EQUAL


async def stored_term(node: NodeClient) -> Term | None:
    """The term that the node holds now."""
    return Term.parse(await node.call("GET", node.epoch.key))


async def require_leading(node: NodeClient, term: Term) -> None:
    """Before what no transaction holds (CONFIG SET): raises `FencedOut` where a later term of this
    installation leads."""
    stored = await stored_term(node)
    own = stored is not None and stored.installation == term.installation
    if own and term.fenced_out_by(stored):
        raise _fenced_out(node, term, stored)


async def raise_epoch(primary: NodeClient, term: Term) -> None:
    """Make ``term`` the one that may write; a no-op where it already is.

    Raises `FencedOut` where a later term of this installation leads, and `StoreRefused`
    (``StoreOwnedElsewhere``) where the store belongs to another installation.
    """
    writing = _Writing(STORE_EPOCH, term)
    async with primary.session() as session:
        for _ in range(_TRIES):
            replies = await _all(
                session,
                [
                    ("WATCH", STORE_EPOCH, STORE_OWNER),
                    ("GET", STORE_EPOCH),
                    ("HGETALL", STORE_OWNER),
                ],
            )
            check_owner(replies[2], term.installation, str(session.address))
            stored = Term.parse(replies[1])
            if term.holds(stored):
                await _all(session, [("UNWATCH",)])
                return
            # A term that an earlier owner of the store left behind fences nobody.
            own = stored is not None and stored.installation == term.installation
            if own and term.fenced_out_by(stored):
                raise _fenced_out(session, term, stored)
            if await writing.tried(session):
                return
    raise _unsettled(primary)


async def raise_epochs(where: Keyspace, term: Term, keys: Sequence[str]) -> None:
    """`raise_epoch` in a Cluster, for each of the keys."""
    stored = await where.run([("GET", key) for key in keys])
    behind = [("GET", key) for key, one in zip(keys, stored, strict=True) if not _holds(term, one)]
    for part in where.parts(behind):
        for place in part.places:
            await _raise(part.node, term, behind[place][1])


class _Writing:
    """The write of a term: by SET, and from where a full server refused that, by the Function that
    may write there. Else nothing could be removed from a full store under a new leader."""

    def __init__(self, key: str, term: Term) -> None:
        self._set: Command = ("SET", key, str(term))
        self._lead: Command = fcall("FCALL", "lead", (key.encode(),), (str(term),))
        self._refused: StoreRefused | None = None

    async def tried(self, session: Session) -> bool:
        """Whether it is written; no, where a watched key changed or another way is to be tried.

        Raises `StoreRefused` (``StoreFull``) where the server is full and lacks the Function.
        """
        if self._refused is None:
            try:
                return await _transaction(session, [self._set]) is not None
            except StoreRefused as error:
                if error.reason != "StoreFull":
                    raise
                self._refused = error
                return False
        outcome = await _transaction(session, [self._lead])
        if outcome is not None and isinstance(outcome[0], ResponseError):
            raise self._refused
        return outcome is not None


def _holds(term: Term, stored: Reply) -> bool:
    return term.holds(Term.parse(stored))


async def _raise(primary: NodeClient, term: Term, key: str) -> None:
    writing = _Writing(key, term)
    async with primary.session() as session:
        for _ in range(_TRIES):
            replies = await _all(session, [("WATCH", key), ("GET", key)])
            stored = Term.parse(replies[1])
            own = stored is not None and stored.installation == term.installation
            if own and term.fenced_out_by(stored):
                raise _fenced_out(session, term, stored)
            if await writing.tried(session):
                return
    raise _unsettled(primary)


async def run_fenced(
    where: Keyspace,
    term: Term,
    commands: Sequence[Command],
    *,
    patience: float = 2.0,
    unchanged: Sequence[Unchanged] = (),
) -> list[Reply]:
    """Run the commands in one transaction (in a Cluster: in one for each slot), if ``term`` is the
    node's; the replies of EXEC.

    A command that fails in the transaction has its `ResponseError` as reply; one that the server
    refuses to queue fails the whole batch (`StoreRefused`) and nothing is written. ``patience`` is
    how long, in seconds, a replica may take to learn of the term. With ``unchanged``, one for each
    command, a command is left out, and its reply is None, where its field has another value now.
    Raises `FencedOut` where another term leads.
    """
    replies: list[Reply] = [None] * len(commands)
    for part in where.parts(commands) if commands else ():
        places = list(part.places)
        relied_on = [unchanged[place] for place in places] if unchanged else []
        if relied_on and not _together(where, [*(commands[place] for place in places)], relied_on):
            # In another slot, and so in no transaction with these: looked at a moment before.
            places = [
                place
                for place, (name, field, value) in zip(places, relied_on, strict=True)
                if await where.call("HGET", name, field) == value
            ]
            relied_on = []
        found = await _run_on(
            part.node, term, [commands[place] for place in places], patience, relied_on
        )
        for place, reply in zip(places, found, strict=True):
            replies[place] = reply
    return replies


def _together(where: Keyspace, commands: Sequence[Command], unchanged: Sequence[Unchanged]) -> bool:
    """Whether what the commands rely on can be watched where they run."""
    fields: list[Command] = [("HGET", name, field) for name, field, _ in unchanged]
    return len(where.parts([*commands, *fields])) == 1


async def _run_on(
    node: NodeClient,
    term: Term,
    commands: Sequence[Command],
    patience: float,
    unchanged: Sequence[Unchanged],
) -> list[Reply]:
    if not commands:
        return []
    deadline = asyncio.get_running_loop().time() + patience
    aborted = 0
    async with node.session() as session:
        while aborted < _TRIES:
            stored, found = await _watched(session, node.epoch, unchanged)
            if term.fenced_out_by(stored):
                raise _fenced_out(session, term, stored)
            if term.holds(stored):
                outcome = await _still_good(session, commands, unchanged, found)
                if outcome is not None:
                    return outcome
                aborted += 1
                continue
            if asyncio.get_running_loop().time() > deadline:
                raise StoreUnavailable(
                    f"{node.address} does not hold the operator's term yet: replication to it "
                    "lags or is interrupted, or the store lost its data",
                    reason="EpochBehind",
                )
            await _all(session, [("UNWATCH",)])
            await asyncio.sleep(_POLL)
    raise _unsettled(node)


async def _watched(
    session: Session, epoch: EpochPlace, unchanged: Sequence[Unchanged]
) -> tuple[Term | None, list[Reply]]:
    """The term that leads the node, and the fields that the commands rely on; all of it is watched
    from here on."""
    # Each by itself: in a Cluster they are in other slots.
    watched = [("WATCH", name) for name in dict.fromkeys(name for name, _, _ in unchanged)]
    fields = [("HGET", name, field) for name, field, _ in unchanged]
    if epoch.elsewhere is not None:  # a node without slots, which may have got some since
        there = await stored_term(epoch.elsewhere)
        found = await _all(session, [*watched, *fields]) if fields else []
        return there, found[len(watched) :]
    replies = await _all(
        session,
        [
            *([("READONLY",)] if epoch.follower else ()),
            ("WATCH", epoch.key),
            *watched,
            ("GET", epoch.key),
            *fields,
        ],
    )
    found = replies[len(replies) - len(unchanged) :]
    return Term.parse(replies[len(replies) - len(unchanged) - 1]), found


async def _still_good(
    session: Session,
    commands: Sequence[Command],
    unchanged: Sequence[Unchanged],
    found: Sequence[Reply],
) -> list[Reply] | None:
    """The transaction of the commands whose fields are as they were."""
    if not unchanged:
        return await _transaction(session, commands)
    good = [found[at] == value for at, (_, _, value) in enumerate(unchanged)]
    chosen = [command for command, is_good in zip(commands, good, strict=True) if is_good]
    if not chosen:
        await _all(session, [("UNWATCH",)])
        return [None] * len(commands)
    outcome = await _transaction(session, chosen)
    if outcome is None:
        return None
    replies = iter(outcome)
    return [next(replies) if is_good else None for is_good in good]


def _unsettled(node: NodeClient) -> StoreUnavailable:
    return StoreUnavailable(
        f"{node.address}: the store's epoch changes all the time", reason="EpochUnsettled"
    )


def _fenced_out(where: Session | NodeClient, term: Term, stored: Term | None) -> FencedOut:
    return FencedOut(
        f"{where.address}: term {stored} leads this store, not {term}; nothing was written"
    )


async def _transaction(session: Session, commands: Sequence[Command]) -> list[Reply] | None:
    """EXEC's replies, or None where a watched key changed."""
    replies = await session.run([("MULTI",), *commands, ("EXEC",)])
    outcome = replies[-1]
    if outcome is None:
        return None
    if isinstance(outcome, list):
        return outcome
    required_all(replies, session.address)
    raise StoreRefused(f"{session.address} answered EXEC in a way that is not understood")


async def _all(session: Session, commands: Sequence[Command]) -> list[Reply]:
    replies = await session.run(commands)
    required_all(replies, session.address)
    return replies
