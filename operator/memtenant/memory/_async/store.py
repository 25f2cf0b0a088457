"""The tenant's store as the SDK uses it: a few connections, one request a round trip.

Whatever is sent here may be sent again: reads by nature, writes because a Function knows its second
try. So a request is repeated for a bounded time while the store does not answer, over a fresh
connection each time and with the binding as it is then.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from memtenant.errors import BindingInvalid, MemtenantError, NotDurable
from memtenant.functions.fcall import Call, Words, spoken
from memtenant.functions.keyspace import TenantKeys
from memtenant.functions.replies import Marked
from memtenant.functions.versions import other_version
from memtenant.memory._async.link import Gate, Link, check_left, home, sleep
from memtenant.memory._async.opening import Opening
from memtenant.memory.answers import lacks_function, login_refused, passing, unavailable, value
from memtenant.memory.locks import ShortLock
from memtenant.memory.options import Options, full_jitter
from memtenant.memory.source import BindingSource, OpenBinding
from memtenant.memory.topology import Endpoint, Way, asking, redirected
from memtenant.memory.wire import LoginFailed
from memtenant.tenancy.policy import Durability

__all__ = ["Store", "Tries"]

R = TypeVar("R")

_WAIT_MS = 1000


@dataclass(slots=True)
class Tries:
    """How often a request was written to a socket: more than once, or once without an answer, and
    it may have been done although an error came. ``budget``: seconds for which it is tried, where
    that is not the store's."""

    sent: int = 0
    budget: float | None = None


class Store:
    """Safe for many tasks (or threads) at once; starts over after a fork, or a loop that ended."""

    def __init__(self, source: BindingSource, options: Options) -> None:
        self.source = source
        self._options = options
        self._home: object = None
        self._settling = ShortLock()
        self._gate = Gate(options.connections)
        self._idle: list[Link] = []
        self._left: list[Link] = []
        self._context: tuple[int, ssl.SSLContext] | None = None
        self._replicas = 0  # not known yet
        self._way = Way()
        self._once = TenantKeys.of(source.current().binding.tenant)

    async def read(self, *commands: Words) -> list[object]:
        """The replies, error replies among them (see `answers.value`). One round trip.

        Raises `StoreUnavailable` or `LoginRefused`.
        """
        return await self._run(lambda again: commands, Tries())

    async def ask(self, call: Call[R]) -> R:
        """The answer of one reading call."""
        replies = await self.read(call.words)
        return call.read(value(replies[0]))

    async def write(self, call: Call[R], tries: Tries | None = None) -> R:
        """The answer of a writing call that is the same in every try; see `write_made`."""
        return await self.write_made(lambda again: call, tries)

    async def write_made(self, call: Callable[[bool], Call[R]], tries: Tries | None = None) -> R:
        """The answer of a writing call. ``call`` is given whether it may have been done before.

        Where the tenant's durability is Replicated, the answer comes when every replica has the
        write: `NotDurable` if they do not within the retry budget.
        """
        tries = tries or Tries()
        if self.source.current().binding.policy.durability is not Durability.REPLICATED:
            replies = await self._run(lambda again: (call(again).words,), tries)
            return call(False).read(value(replies[0]))
        if not self._replicas:
            # Else the first write would wait for too few, and be repeated.
            found = await self.read(("HGET", self._once.limits, "replicas"))
            self._replicas = _replicas(value(found[0]))
        deadline = self._deadline(tries)
        attempt = 0
        while True:
            replies = await self._run(partial(self._replicated, call), tries)
            answer = call(False).read(value(replies[0]))
            expected, acknowledged = _replicas(value(replies[-2])), value(replies[-1])
            self._replicas = expected
            if isinstance(answer, Marked) and tries.sent == 1:
                continue  # stored by an earlier call: nothing was written that WAIT counts
            if isinstance(acknowledged, int) and acknowledged >= expected:
                return answer
            delay = full_jitter(attempt)
            attempt += 1
            if time.monotonic() + delay > deadline:
                raise NotDurable(
                    f"The write is on the primary, and {acknowledged} of {expected} replicas have "
                    "it: a failover now would lose it. Repeat it with the same idempotency key, or "
                    "have the replicas looked at",
                    acknowledged=int(str(acknowledged)),
                    expected=expected,
                )
            await sleep(delay)

    async def close(self) -> None:
        """Close the idle connections; those in use are closed by whoever ends with them."""
        self._settle()
        await self._forget_idle()

    def _replicated(self, call: Callable[[bool], Call[R]], again: bool) -> list[Words]:
        """The call, and how many replicas have it of how many that the operator counts now: one
        that came back may be the next primary."""
        commands: list[Words] = [call(again).words]
        if again:
            # WAIT counts from this connection's last write, and a repeated call writes nothing.
            commands.append(("HINCRBY", self._once.usage, "bytes", 0))
        commands.append(("HGET", self._once.limits, "replicas"))
        commands.append(("WAIT", self._replicas, _WAIT_MS))
        return commands

    async def _run(self, commands: Callable[[bool], Sequence[Words]], tries: Tries) -> list[object]:
        self._settle()
        deadline = self._deadline(tries)
        attempt = 0
        while True:
            generation = self.source.current().generation
            refused = False
            try:
                replies = await self._exchange(commands, tries, deadline)
            except (LoginFailed, OSError) as error:
                refused = isinstance(error, LoginFailed)
                problem = self._problem(error, tries)
                # Others to the same server are as dead as this one, or lead to a former primary.
                await self._forget_idle()
            else:
                busy = next((found for reply in replies if (found := passing(reply))), None)
                if busy is None:
                    return replies
                problem = busy
                await self._forget_idle()
            # New credentials may be there already: they are tried at once.
            fresh = refused and self.source.current(look=True).generation != generation
            delay = 0.0 if fresh else full_jitter(attempt, base=0.05)
            attempt += 1
            if time.monotonic() + delay >= deadline:
                raise problem
            await sleep(delay)

    def _deadline(self, tries: Tries) -> float:
        budget = self._options.retry_budget if tries.budget is None else tries.budget
        return time.monotonic() + budget

    async def _exchange(
        self, commands: Callable[[bool], Sequence[Words]], tries: Tries, deadline: float
    ) -> list[object]:
        gate = self._gate
        if not await gate.enter(deadline - time.monotonic()):
            raise TimeoutError("all connections of the process are in use")
        try:
            link = await self._link()
            try:
                asked = commands(tries.sent > 0)
                tries.sent += 1
                replies = await self._answers(link, asked)
                if any(lacks_function(reply) for reply in replies):
                    # Nothing was done by such a call, and the rest may be done again.
                    link.version = other_version(link.version)
                    replies = await self._answers(link, asked)
            except BaseException:
                # Half-sent or half-read: nobody may use it again.
                await link.drop()
                raise
            self._idle.append(link)
            return replies
        finally:
            gate.leave()

    async def _answers(self, link: Link, commands: Sequence[Words]) -> list[object]:
        batch = spoken(commands, link.version)
        return await self._redirected(link.where, batch, await link.exchange(batch))

    async def _link(self) -> Link:
        opened = self.source.current()
        while (link := self._taken()) is not None:
            if link.generation == opened.generation:
                return link
            await link.close()
        return await self._opening().primary()

    def _opening(self) -> Opening:
        opened = self.source.current(look=True)
        return Opening(
            opened.binding, self._options, self._tls(opened), opened.generation, self._way
        )

    async def _redirected(
        self, where: Endpoint, batch: Sequence[Words], replies: list[object]
    ) -> list[object]:
        """The replies, of which those come from another node whose keys are there already, while
        the tenant's slot is on its way to it."""
        found = redirected(replies, batch, where)
        if found is None:
            return replies
        there, places = found
        link = await self._opening().at(there)
        try:
            answers = await link.exchange(asking([batch[place] for place in places]))
        finally:
            await link.drop()
        for place, answer in zip(places, answers[1::2], strict=True):
            replies[place] = answer
        return replies

    async def _forget_idle(self) -> None:
        """After a change of role, connections lead to a server that is no primary."""
        while (link := self._taken()) is not None:
            await link.close()

    def _taken(self) -> Link | None:
        """An idle connection; other threads take them too, between a look and a pop."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _tls(self, opened: OpenBinding) -> ssl.SSLContext | None:
        if not opened.binding.tls:
            return None
        if self._context is None or self._context[0] != opened.generation:
            try:
                context = ssl.create_default_context(cadata=opened.binding.ca_crt or None)
            except ssl.SSLError:
                raise BindingInvalid(
                    "ca.crt of the binding is no usable PEM: mount the Secret unchanged"
                ) from None
            self._context = (opened.generation, context)
        return self._context[1]

    def _problem(self, error: Exception, tries: Tries) -> MemtenantError:
        if isinstance(error, LoginFailed):
            return login_refused(self.source.current().binding.username, self.source.frozen)
        return unavailable(error, tries.sent > 0)

    def _settle(self) -> None:
        """A forked child, or another event loop, must not touch what the first one opened."""
        here = home()
        if self._home != here:
            with self._settling:
                if self._home not in (None, here):
                    check_left(self._home)
                    # Never freed in a child, which would reach into its parent's loop.
                    self._left += [link for link in self._idle if not link.is_cut()]
                    self._idle = []
                    self._gate = Gate(self._options.connections)
                self._home = here


def _replicas(told: object) -> int:
    """How many replicas the operator counted; one where it did not say."""
    return max(int(told), 1) if isinstance(told, bytes) and told.isdigit() else 1
