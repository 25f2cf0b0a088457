"""A conversation against a model, while connections are cut at any moment.

An append that was acknowledged is there once and stays; one that failed is there once or not at
all, and every change that was acknowledged is made.
"""

import asyncio
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from memtenant import Conversation, Message, Options, Tenant
from memtenant.errors import StoreUnavailable
from tests.memory.bindings import Provisioned
from tests.support.loop import LoopThread
from tests.support.relay import Proxy
from tests.support.servers import Server

_tenants = itertools.count(1)
DELAYS = st.sampled_from([0.0, 0.001, 0.003, 0.008])


class Conversations(RuleBasedStateMachine):
    """Two processes' worth of handles on one conversation, one of them behind a proxy."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.server.wipe()
        acme = Provisioned(self.server, Path(self.folder.name))
        acme.provision("default", "other")
        self.loop = LoopThread("conversations")
        self.proxy = Proxy.to(self.server.host, self.server.port)
        quick = Options(timeout=1.0, connect_timeout=1.0, retry_budget=4.0)
        self.tenants = [
            Tenant(acme.source(port=self.proxy.port), options=quick),
            Tenant(acme.source("other"), options=quick),
        ]
        self.texts = map(str, itertools.count())
        self.model: list[str] = []

    def teardown(self) -> None:
        for tenant in self.tenants:
            self.loop.run(tenant.aclose())
        self.proxy.close()
        self.loop.close()
        self.folder.cleanup()

    def chat(self, which: int) -> Conversation:
        return self.tenants[which].conversation("s", user="ada")

    @rule(which=st.integers(0, 1), count=st.integers(1, 5))
    def append(self, which: int, count: int) -> None:
        texts = [next(self.texts) for _ in range(count)]

        async def work() -> None:
            await asyncio.gather(*(self.chat(which).append(Message.human(t)) for t in texts))

        self.loop.run(work())
        self.model += texts

    @rule(count=st.integers(1, 5), cuts=st.lists(DELAYS, min_size=1, max_size=3), slow=DELAYS)
    def append_while_connections_are_cut(self, count: int, cuts: list[float], slow: float) -> None:
        texts = [next(self.texts) for _ in range(count)]

        async def work() -> None:
            tasks = [
                asyncio.create_task(self.chat(0).append(Message.human(t), idempotency_key=t))
                for t in texts
            ]
            for delay in cuts:
                await asyncio.sleep(delay)
                await asyncio.to_thread(self.proxy.cut)
            await asyncio.gather(*tasks)

        self.proxy.delay(slow)
        self.loop.run(work())
        self.proxy.delay(0)
        self.model += texts

    @rule(delay=DELAYS, slow=DELAYS)
    def append_that_is_cancelled(self, delay: float, slow: float) -> None:
        text = next(self.texts)

        async def work() -> list[str]:
            task = asyncio.create_task(self.chat(0).append(Message.human(text)))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(2 * slow + 0.005)  # what was sent arrives
            return [one.text for one in await self.chat(1).messages()]

        self.proxy.delay(slow)
        found = self.loop.run(work())
        self.proxy.delay(0)
        if found[-1:] == [text]:
            self.model.append(text)

    @rule(which=st.integers(0, 1))
    def pop(self, which: int) -> None:
        popped = self.loop.run(self.chat(which).pop())
        expected = self.model.pop() if self.model else None
        assert (popped.text if popped else None) == expected

    @rule(cut=DELAYS, slow=DELAYS)
    def pop_while_the_connection_is_cut(self, cut: float, slow: float) -> None:
        async def work() -> str | None:
            task = asyncio.create_task(self.chat(0).pop())
            await asyncio.sleep(cut)
            await asyncio.to_thread(self.proxy.cut)
            popped = await task
            return popped.text if popped else None

        self.proxy.delay(slow)
        popped = self.loop.run(work())
        self.proxy.delay(0)
        assert popped == (self.model.pop() if self.model else None)

    @rule(which=st.integers(0, 1), place=st.integers(0, 20))
    def update(self, which: int, place: int) -> None:
        if not self.model:
            return
        place %= len(self.model)
        text = next(self.texts)

        async def work() -> None:
            stored = await self.chat(which).messages()
            await self.chat(which).update_message(stored[place].sequence, Message.ai(text))

        self.loop.run(work())
        self.model[place] = text

    @rule(which=st.integers(0, 1), place=st.integers(0, 20))
    def remove(self, which: int, place: int) -> None:
        if not self.model:
            return
        place %= len(self.model)

        async def work() -> int:
            stored = await self.chat(which).messages()
            return await self.chat(which).remove(stored[place].sequence)

        assert self.loop.run(work()) == 1
        del self.model[place]

    @rule(which=st.integers(0, 1), delete=st.booleans(), cut=st.booleans())
    def empty(self, which: int, delete: bool, cut: bool) -> None:
        async def work() -> None:
            chat = self.chat(which)
            task = asyncio.create_task(chat.delete() if delete else chat.clear())
            if cut:
                await asyncio.sleep(0.001)
                await asyncio.to_thread(self.proxy.cut)
            await task

        self.loop.run(work())
        self.model.clear()

    @rule()
    def the_store_is_away_for_a_while(self) -> None:
        async def work() -> None:
            with pytest.raises(StoreUnavailable):
                await impatient.conversation("s", user="ada").messages()
            await impatient.aclose()

        source = self.tenants[0]._source
        impatient = Tenant(source, options=Options(retry_budget=0.05))
        self.proxy.refuse()
        self.loop.run(work())
        self.proxy.accept()

    @invariant()
    def both_read_what_was_acknowledged(self) -> None:
        for which in (0, 1):
            chat = self.chat(which)
            stored = self.loop.run(chat.messages())
            assert [one.text for one in stored] == self.model
            sequences = [one.sequence for one in stored]
            assert sequences == sorted(set(sequences))
            assert self.loop.run(chat.count()) == len(self.model)


def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(redis_server: Server) -> None:
    class OnThisServer(Conversations):
        server = redis_server

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=12,
            stateful_step_count=15,
            deadline=None,
            phases=(Phase.generate,),  # no shrinking: when a connection breaks is never the same
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
