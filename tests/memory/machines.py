"""What the state machines of conversations and contexts share: two processes' worth of handles, one
of them behind a proxy that cuts and slows, and the audit of all that they did."""

import asyncio
import itertools
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, run_state_machine_as_test

from memtenant import Tenant
from tests.memory.bindings import PATIENT, Provisioned
from tests.memory.queue import Left, audit, check_writers, drained
from tests.memory.thorough import thoroughness
from tests.support import processes
from tests.support.loop import LoopThread
from tests.support.relay import Proxy
from tests.support.servers import Server

__all__ = ["DELAYS", "WHICH", "TwoProcesses", "run_on"]

DELAYS = st.sampled_from([0.0, 0.001, 0.003, 0.008])
WHICH = st.integers(0, 1)
"""0 is the one behind the proxy."""

T = TypeVar("T")


class TwoProcesses(RuleBasedStateMachine):
    """A tenant on ``server`` and two SDKs that know nothing of each other."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.server.wipe()
        self.acme = Provisioned(self.server, Path(self.folder.name))
        self.acme.provision("default", "other")
        self.loop = LoopThread("machine")
        self.proxy = Proxy.to(self.server.host, self.server.port)
        self.tenants = [self.opened(0), self.opened(1)]
        self.texts = map(str, itertools.count())
        self.audited = False

    def opened(self, which: int) -> Tenant:
        """The SDK of a process that has just begun."""
        where: dict[str, object] = {} if which else {"port": self.proxy.port}
        return Tenant(self.acme.source("other" if which else "default", **where), options=PATIENT)

    def teardown(self) -> None:
        try:
            if self.audited:
                left = drained(self.server)
                check_writers(left)
                self.check_coverage(left)
        finally:
            for tenant in self.tenants:
                self.loop.run(tenant.aclose())
            self.proxy.close()
            self.loop.close()
            self.folder.cleanup()

    @initialize(writes=st.booleans(), reads=st.booleans())
    def is_audited(self, writes: bool, reads: bool) -> None:
        self.audited = writes
        if writes:
            audit(self.server, audit_reads=int(reads))

    def check_coverage(self, left: list[Left]) -> None:
        """Whether the events tell of everything that is there."""
        raise NotImplementedError

    def run(self, work: Coroutine[Any, Any, T], slow: float = 0.0) -> T:
        """What the work gives, while the proxy holds back every chunk for so long."""
        self.proxy.delay(slow)
        try:
            return self.loop.run(work)
        finally:
            self.proxy.delay(0)

    async def arrived(self) -> None:
        """Wait until what was sent and given up has reached the server: the proxy's connections
        are those alone that nobody gave up."""
        idle = len(self.tenants[0]._store._idle)
        await asyncio.to_thread(
            processes.wait_until,
            lambda: self.proxy.connections <= idle,
            what="the end of what was given up",
            timeout=60,
        )

    async def while_cut(self, work: Coroutine[Any, Any, T], cut: bool, delay: float = 0.001) -> T:
        """What the work gives, though connections are cut meanwhile."""
        task = asyncio.create_task(work)
        if cut:
            await asyncio.sleep(delay)
            await asyncio.to_thread(self.proxy.cut)
        return await task


def run_on(machine: type[TwoProcesses], on: Server, examples: int) -> None:
    """Run the machine on this server."""
    bound = type(machine.__name__, (machine,), {"server": on})
    run_state_machine_as_test(
        bound,
        settings=settings(
            max_examples=examples * thoroughness(),
            stateful_step_count=15,
            deadline=None,
            phases=(Phase.generate,),  # no shrinking: when a connection breaks is never the same
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
