"""Agents at work: the SDK with a mounted binding and nothing else. Each remembers all that it was
promised, and what it was told when something was refused."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from memtenant import Conversation, Message, Options, Tenant
from memtenant.errors import (
    AccessReadOnly,
    AuditUnavailable,
    BindingInvalid,
    FunctionsUnavailable,
    HistoryRewound,
    KeyInvalid,
    KeyRetired,
    KeyUnavailable,
    LoginRefused,
    MemtenantError,
    NotDurable,
    QuotaExceeded,
    StoreRefused,
    StoreUnavailable,
    SubjectErased,
    TenantHeld,
    TenantUnprovisioned,
)
from memtenant.memory.source import BindingSource
from memtenant.tenancy.erasure import ErasurePhase
from tests.support.loop import LoopThread

__all__ = ["Agent", "Agents", "Refusal"]

PATIENT = Options(connect_timeout=1.0, timeout=2.0, retry_budget=4.0, connections=2)

_REFUSALS = (
    AccessReadOnly,  # held, and over its quota
    AuditUnavailable,
    BindingInvalid,
    FunctionsUnavailable,
    KeyInvalid,
    KeyRetired,
    KeyUnavailable,
    LoginRefused,
    NotDurable,
    QuotaExceeded,
    StoreRefused,
    StoreUnavailable,
    TenantHeld,
    TenantUnprovisioned,
)
"""What an agent may be told while things are broken. Anything else is a violation."""

_UNDER_WAY = (ErasurePhase.REQUESTED, ErasurePhase.INDEXED)
_PACE = 0.1
_LIFE = 150
"""Calls after which an agent's process ends and another takes its place."""

_LOOK_BACK = 20
_VISIT_EVERY = 25
"""Calls of a Steward between two persons who come once and want to be forgotten."""

_LEFT_BEHIND = 5
"""Messages of a guest."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """When an agent was told what."""

    at: float
    reason: str


@dataclass
class Agent:
    """One agent. Times are of the monotonic clock; ``served`` are those at which calls began that
    came to a good end, ``wrote`` and ``read`` the last of these of each kind. Where it is
    ``durable``, nothing is lost that was acknowledged; while it is ``unsure``, what it appends now
    may be there, and be lost. ``forgotten`` is what was lost, of what a process was promised that
    ended before it could be told: the next one remembers nothing. ``erased`` are persons whom it
    was told to be forgotten, and the request of each."""

    tenant: tuple[str, str]
    name: str
    folder: Path
    durable: bool
    audited: bool
    steward: bool = False
    acknowledged: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    wrote: float = 0.0
    read: float = 0.0
    violations: list[str] = field(default_factory=list)
    rewound: int = 0
    unsure: bool = False
    forgotten: set[str] = field(default_factory=set)
    erased: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{'.'.join(self.tenant)}/{self.name}"

    async def work(self, stop: asyncio.Event) -> None:
        """Append and read until it is stopped."""
        while not stop.is_set():
            try:
                await self._live(stop)
            except MemtenantError as refused:
                self.told(refused)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer to an agent
                self._violated(f"was answered by {type(error).__name__}: {error}")
            await asyncio.sleep(_PACE)

    async def stored(self) -> list[str]:
        """Everything that is there, read by a process that remembers nothing."""
        async with Tenant(BindingSource(self.folder), options=PATIENT) as tenant:
            return [one.text for one in await self._chat(tenant).messages()]

    async def remembered(self) -> list[str]:
        """What is wrong with the erasures that were promised: of persons of whom there is
        something, or who are still looked for."""
        found = []
        async with Tenant(BindingSource(self.folder), options=PATIENT) as tenant:
            for person, request in self.erased.items():
                with suppress(SubjectErased):
                    if await _visit_of(tenant, person).messages():
                        found.append(f"{person} is remembered")
                receipt = await tenant.erasure(request)
                if receipt is None or receipt.phase in _UNDER_WAY:
                    found.append(f"{request} is {receipt and receipt.phase}")
                elif receipt.remaining:
                    found.append(f"{request} left {receipt.remaining}")
        return found

    async def _live(self, stop: asyncio.Event) -> None:
        async with Tenant(BindingSource(self.folder), options=PATIENT) as tenant:
            chat = self._chat(tenant)
            there = {one.text for one in await chat.messages()}
            self.forgotten.update(text for text in self.acknowledged if text not in there)
            for call in range(_LIFE):
                if stop.is_set():
                    return
                begun = time.monotonic()
                try:
                    await self._call(call, tenant, chat)
                    self.served.append(begun)
                except _REFUSALS as refused:
                    self.told(refused)
                await asyncio.sleep(_PACE)

    async def _call(self, number: int, tenant: Tenant, chat: Conversation) -> None:
        if self.steward and number % _VISIT_EVERY == _VISIT_EVERY - 1:
            await self._visit(tenant)
        elif number % 4 == 3:
            await self._look_back(chat)
        else:
            await self._append(chat)

    async def _visit(self, tenant: Tenant) -> None:
        """A person says something and is forgotten; whoever could not be is at the next visit."""
        person = f"{len(self.erased)}@example.org"
        with suppress(SubjectErased):  # the visit before was not told that it had come so far
            await _visit_of(tenant, person).append(Message.human("forget me"))
        self.erased[person] = (await tenant.forget(person)).id

    def _chat(self, tenant: Tenant) -> Conversation:
        return tenant.conversation(f"of {self.name}", user="ada@example.org")

    async def _append(self, chat: Conversation) -> None:
        """The same key until it is acknowledged, so it is stored once."""
        begun, text = time.monotonic(), f"{self.name}:{len(self.acknowledged)}"
        try:
            await chat.append(Message.human(text), idempotency_key=text)
        except HistoryRewound as told:
            if told.stored is None:
                raise
            self.told(told)
        except MemtenantError:
            self.unsure = True
            raise
        self.unsure = False
        self.acknowledged.append(text)
        self.wrote = begun

    async def _look_back(self, chat: Conversation) -> None:
        begun, wanted = time.monotonic(), self.acknowledged[-_LOOK_BACK:]
        seen = {one.text for one in await chat.latest(_LOOK_BACK + 2)}
        missing = [text for text in wanted if text not in seen]
        if missing and self.durable:
            self._violated(f"reads {len(missing)} messages less than were acknowledged: {missing}")
        self.read = begun

    def told(self, refused: MemtenantError) -> None:
        """Remember what it was told; it is a violation if nobody may be told so."""
        self.refusals.append(Refusal(time.monotonic(), refused.reason))
        if isinstance(refused, HistoryRewound):
            self.rewound += 1
            if self.durable and not self.unsure:
                self._violated(f"lost what was acknowledged: {refused}")
        elif not isinstance(refused, _REFUSALS):
            self._violated(f"was told {refused.reason}: {refused}")

    def _violated(self, what: str) -> None:
        if len(self.violations) < 5:
            self.violations.append(f"{self} {what}")


def _visit_of(tenant: Tenant, person: str) -> Conversation:
    return tenant.conversation("visit", user=person)


@dataclass
class Agents:
    """All agents, in one event loop of a thread of its own. ``surprises`` are what guests were
    answered that is no answer to an agent."""

    all: list[Agent] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    _loop: LoopThread = field(default_factory=lambda: LoopThread("agents"))
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _working: list["asyncio.Task[None]"] = field(default_factory=list)
    _guests: set["asyncio.Task[None]"] = field(default_factory=set)

    def start(self) -> None:
        """Begin to work."""

        def begin() -> None:
            self._working = [asyncio.create_task(one.work(self._stop)) for one in self.all]

        self._loop.call(begin)

    def visit(self, folder: Path) -> None:
        """A guest leaves something in a tenant that may be gone before it ends, and is promised
        nothing. It is not waited for."""

        def begin() -> None:
            guest = asyncio.create_task(self._leave_something(folder))
            self._guests.add(guest)
            guest.add_done_callback(self._guests.discard)

        self._loop.call(begin)

    async def _leave_something(self, folder: Path) -> None:
        try:
            async with Tenant(BindingSource(folder), options=PATIENT) as tenant:
                chat = tenant.conversation("of a guest", user="eve@example.org")
                for number in range(_LEFT_BEHIND):
                    await chat.append(Message.human(str(number)))
        except MemtenantError:
            pass  # whatever it is: nothing of it was promised to be there
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer to an agent
            self.surprises.append(f"a guest was answered by {type(error).__name__}: {error}")

    def stop(self) -> None:
        """End, each after the call that it makes, and guests when they have said all."""

        async def end() -> None:
            self._stop.set()
            await asyncio.gather(*self._working, *self._guests)

        self._loop.run(end())

    def stored(self, agent: Agent) -> list[str]:
        """What there is of an agent."""
        return self._loop.run(agent.stored())

    def remembered(self, agent: Agent) -> list[str]:
        """What is wrong with the erasures of an agent."""
        return self._loop.run(agent.remembered())

    def close(self) -> None:
        """End whatever still runs."""
        self._loop.close()

    def unserved_since(self, moment: float) -> list[Agent]:
        """Those that did not both write and read later."""
        return [one for one in self.all if min(one.wrote, one.read) <= moment]

    def whole_after(self, moment: float) -> float | None:
        """Seconds from the moment until every agent had begun a call that came to a good end."""
        firsts = [next((t for t in one.served if t >= moment), None) for one in self.all]
        found = [first for first in firsts if first is not None]
        return max(found, default=moment) - moment if len(found) == len(firsts) else None

    def refusals(self, since: float, until: float) -> Iterator[Refusal]:
        """What all were told in a span of time."""
        for one in self.all:
            yield from (refusal for refusal in one.refusals if since <= refusal.at <= until)
