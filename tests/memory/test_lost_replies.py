"""A conversation against a model, while connections are cut at any moment and processes crash.

An append that was acknowledged is there once and stays; one that failed is there once or not at
all, and every change that was acknowledged is made. Where the tenant is audited, the queue tells of
every record that is there, and nothing that was done is told twice.
"""

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from memtenant import Conversation, Head, Message, Options, Receipt, Tenant
from memtenant.errors import StoreUnavailable, VersionConflict
from tests.memory.machines import DELAYS, WHICH, TwoProcesses, run_on
from tests.memory.queue import Left, covered, stored
from tests.support.servers import Server

PLACES = st.integers(0, 20)


class Conversations(TwoProcesses):
    """One conversation, and what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.model: list[str] = []
        self.kept: dict[str, tuple[list[Message], Receipt]] = {}

    def chat(self, which: int) -> Conversation:
        return self.tenants[which].conversation("s", user="ada")

    def check_coverage(self, left: list[Left]) -> None:
        assert stored(self.server) <= covered(left)

    def new(self, count: int) -> list[str]:
        return [next(self.texts) for _ in range(count)]

    @rule(which=WHICH, count=st.integers(1, 5))
    def append(self, which: int, count: int) -> None:
        texts = self.new(count)

        async def work() -> None:
            await asyncio.gather(*(self.chat(which).append(Message.human(t)) for t in texts))

        self.run(work())
        self.model += texts

    @rule(which=WHICH, count=st.integers(1, 4))
    def extend_with_a_key(self, which: int, count: int) -> None:
        messages = [Message.human(text) for text in self.new(count)]
        key = messages[0].text
        receipt = self.run(self.chat(which).extend(messages, idempotency_key=key))
        assert not receipt.duplicate
        assert receipt.last - receipt.first == count - 1
        self.kept[key] = messages, receipt
        self.model += [one.text for one in messages]

    @rule(which=WHICH, place=PLACES)
    def extend_with_a_known_key(self, which: int, place: int) -> None:
        if not self.kept:
            return
        key = sorted(self.kept)[place % len(self.kept)]
        messages, first = self.kept[key]
        again = self.run(self.chat(which).extend(messages, idempotency_key=key))
        assert again.duplicate
        assert (again.first, again.last) == (first.first, first.last)

    @rule(which=WHICH, late=st.booleans())
    def append_with_an_expectation(self, which: int, late: bool) -> None:
        (text,) = self.new(1)

        async def work() -> bool:
            await self.chat(which).messages()
            expected = self.chat(which).version
            if late:
                expected = Head(expected.epoch, expected.last + 1)
            try:
                await self.chat(which).append(Message.human(text), expected=expected)
            except VersionConflict:
                return False
            return True

        if self.run(work()):
            assert not late
            self.model.append(text)
        else:
            assert late or not self.model

    @rule(count=st.integers(1, 5), cuts=st.lists(DELAYS, min_size=1, max_size=3), slow=DELAYS)
    def append_while_connections_are_cut(self, count: int, cuts: list[float], slow: float) -> None:
        texts = self.new(count)

        async def work() -> None:
            tasks = [
                asyncio.create_task(self.chat(0).append(Message.human(t), idempotency_key=t))
                for t in texts
            ]
            for delay in cuts:
                await asyncio.sleep(delay)
                await asyncio.to_thread(self.proxy.cut)
            await asyncio.gather(*tasks)

        self.run(work(), slow)
        self.model += texts

    @rule(delay=DELAYS, slow=DELAYS)
    def append_that_is_cancelled(self, delay: float, slow: float) -> None:
        (text,) = self.new(1)

        async def work() -> list[str]:
            task = asyncio.create_task(self.chat(0).append(Message.human(text)))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.arrived()
            return [one.text for one in await self.chat(1).messages()]

        if self.run(work(), slow)[-1:] == [text]:
            self.model.append(text)

    @rule(count=st.integers(1, 4), delay=DELAYS, slow=DELAYS)
    def crash_while_appending(self, count: int, delay: float, slow: float) -> None:
        """The process ends with calls in flight; another begins, which remembers nothing."""
        texts = self.new(count)
        acknowledged = []

        async def one(text: str) -> None:
            await self.chat(0).append(Message.human(text))
            acknowledged.append(text)

        async def work() -> list[str]:
            tasks = [asyncio.create_task(one(text)) for text in texts]
            await asyncio.sleep(delay)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.tenants[0].aclose()
            await self.arrived()
            self.tenants[0] = self.opened(0)
            return [one.text for one in await self.chat(1).messages()]

        found = self.run(work(), slow)
        new = found[len(self.model) :]
        assert set(acknowledged) <= set(new) <= set(texts)
        self.model += new

    @rule(which=WHICH)
    def pop(self, which: int) -> None:
        popped = self.run(self.chat(which).pop())
        expected = self.model.pop() if self.model else None
        assert (popped.text if popped else None) == expected

    @rule(cut=DELAYS, slow=DELAYS)
    def pop_while_the_connection_is_cut(self, cut: float, slow: float) -> None:
        async def work() -> str | None:
            popped = await self.while_cut(self.chat(0).pop(), True, cut)
            return popped.text if popped else None

        assert self.run(work(), slow) == (self.model.pop() if self.model else None)

    @rule(which=WHICH, place=PLACES, cut=st.booleans())
    def update(self, which: int, place: int, cut: bool) -> None:
        if not self.model:
            return
        place %= len(self.model)
        (text,) = self.new(1)

        async def work() -> None:
            stored = await self.chat(which).messages()
            changing = self.chat(which).update_message(stored[place].sequence, Message.ai(text))
            await self.while_cut(changing, cut)

        self.run(work())
        self.model[place] = text

    @rule(which=WHICH, place=PLACES, count=st.integers(1, 3), cut=st.booleans())
    def remove(self, which: int, place: int, count: int, cut: bool) -> None:
        if not self.model:
            return
        place %= len(self.model)
        there = self.model[place : place + count]

        async def work() -> int:
            stored = (await self.chat(which).messages())[place : place + count]
            removing = self.chat(which).remove(*(one.sequence for one in stored), 10**9)
            return await self.while_cut(removing, cut)

        assert self.run(work()) == len(there)
        del self.model[place : place + count]

    @rule(which=WHICH, delete=st.booleans(), cut=st.booleans())
    def empty(self, which: int, delete: bool, cut: bool) -> None:
        async def work() -> int:
            chat = self.chat(which)
            return await self.while_cut(chat.delete() if delete else chat.clear(), cut)

        assert self.run(work()) == len(self.model)
        self.model.clear()

    @rule(which=WHICH, start=PLACES, length=st.integers(1, 20))
    def read_a_range(self, which: int, start: int, length: int) -> None:
        async def work() -> tuple[list[str], list[str]]:
            stored = (await self.chat(which).messages())[start : start + length]
            if not stored:
                return [], self.model[start : start + length]
            part = await self.chat(which).messages(stored[0].sequence, stored[-1].sequence)
            return [one.text for one in part], [one.text for one in stored]

        part, expected = self.run(work())
        assert part == expected == self.model[start : start + length]

    @rule(which=WHICH, tokens=st.integers(1, 200))
    def read_a_window(self, which: int, tokens: int) -> None:
        window = [one.text for one in self.run(self.chat(which).window(tokens))]
        assert window == self.model[len(self.model) - len(window) :]
        if tokens >= 20 * len(self.model):
            assert window == self.model

    @rule()
    def the_store_is_away_for_a_while(self) -> None:
        async def work() -> None:
            with pytest.raises(StoreUnavailable):
                await impatient.conversation("s", user="ada").messages()
            await impatient.aclose()

        source = self.tenants[0]._source
        impatient = Tenant(source, options=Options(retry_budget=0.05))
        self.proxy.refuse()
        self.run(work())
        self.proxy.accept()

    @invariant()
    def both_read_what_was_acknowledged(self) -> None:
        for which in (0, 1):
            chat = self.chat(which)
            stored = self.run(chat.messages())
            assert [one.text for one in stored] == self.model
            sequences = [one.sequence for one in stored]
            assert sequences == sorted(set(sequences))
            assert self.run(chat.count()) == len(self.model)


def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(redis_server: Server) -> None:
    run_on(Conversations, redis_server, examples=10)
