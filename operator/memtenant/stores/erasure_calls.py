"""The calls that erase a person's records, fenced and paced, on the operator's connection."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from redis.exceptions import ResponseError

from memtenant.errors import AuditEventRequired, DataError, HistoryDamaged, MemtenantError
from memtenant.functions.calls import Clear
from memtenant.functions.fcall import Audited, Words
from memtenant.functions.keyspace import ContextKeys
from memtenant.functions.refusals import refusal
from memtenant.stores.connection import Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.pace import Pace
from memtenant.stores.refusals import translated
from memtenant.tenancy.identity import AgentName

__all__ = ["Events", "TenantCalls"]

R = TypeVar("R")

_log = logging.getLogger(__name__)

_ASKED = 50
"""Reads in one piece of a pass."""


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


def _meant(error: ResponseError, node: Keyspace) -> MemtenantError:
    return refusal(str(error)) or translated(error, str(node.address))
