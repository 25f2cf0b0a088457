"""Fifty agents write while the primary is killed and a replica promoted behind the same address.

A few seconds here; with ``MEMTENANT_THOROUGH=30``, half a minute on each side of the failover.
"""

import asyncio
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from memtenant import Conversation, Message, Options, Tenant
from memtenant.errors import HistoryRewound, NotDurable, StoreUnavailable
from memtenant.tenancy.policy import Durability
from tests.conftest import StartServer
from tests.memory.bindings import Provisioned, policy
from tests.memory.thorough import thoroughness
from tests.support import processes
from tests.support.relay import Proxy
from tests.support.servers import Flavour, Server
from tests.support.servers import Options as ServerOptions

AGENTS = 50
CONVERSATIONS = 5
SECONDS = float(thoroughness())
PATIENT = Options(connect_timeout=2, timeout=3, retry_budget=20, connections=1)


@dataclass
class Writer:
    """One agent, and what it was told."""

    name: str
    tenant: Tenant
    chat: Conversation
    acknowledged: list[str] = field(default_factory=list)
    rewound: int = 0
    done: int = 0

    async def write(self, stop: asyncio.Event) -> None:
        """Append until it is stopped; what is not sure is repeated with the same key."""
        while not stop.is_set():
            text = f"{self.name}:{self.done}"
            try:
                await self.chat.append(Message.human(text), idempotency_key=text)
            except HistoryRewound as told:
                self.rewound += 1
                if told.stored is None:
                    continue
            except (NotDurable, StoreUnavailable):
                continue
            self.acknowledged.append(text)
            self.done += 1
            await asyncio.sleep(0.05)


@dataclass
class Scene:
    """A primary, its replica, and the address under which agents know either."""

    primary: Server
    replica: Server
    proxy: Proxy
    writers: list[Writer]

    async def written(self, more: int) -> None:
        """Wait until every agent was acknowledged so many more."""
        goal = {one.name: one.done + more for one in self.writers}

        def reached() -> bool:
            return all(one.done >= goal[one.name] for one in self.writers)

        await asyncio.to_thread(processes.wait_until, reached, what="all writers", timeout=240)

    async def stored(self) -> list[str]:
        """Everything that is there, read by somebody who remembers nothing."""
        found: list[str] = []
        for number in range(CONVERSATIONS):
            reader = self.writers[number].tenant
            fresh = Tenant(reader._source, options=PATIENT)
            messages = await fresh.conversation(f"s{number}", user="ada").messages()
            found += [one.text for one in messages]
            await fresh.aclose()
        return found


def scene(start_server: StartServer, root: Path, stack: ExitStack, durability: Durability) -> Scene:
    """Fifty agents of one tenant, ten on each of five conversations, each as a process has it: a
    binding, a connection and a memory of its own."""
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    acme = Provisioned(primary, root, policy=policy(durability=durability), replicas=(replica,))
    names = [f"agent-{number}" for number in range(AGENTS)]
    acme.provision(*names)
    proxy = stack.enter_context(Proxy.to(primary.host, primary.port))
    writers = []
    for number, name in enumerate(names):
        tenant = Tenant(acme.source(name, port=proxy.port), options=PATIENT)
        chat = tenant.conversation(f"s{number % CONVERSATIONS}", user="ada")
        writers.append(Writer(name, tenant, chat))
    return Scene(primary, replica, proxy, writers)


async def test_replicated_agents_lose_nothing_in_a_failover(
    start_server: StartServer, tmp_path: Path, stack: ExitStack
) -> None:
    here = scene(start_server, tmp_path, stack, Durability.REPLICATED)
    stop = asyncio.Event()
    writing = [asyncio.create_task(one.write(stop)) for one in here.writers]
    await here.written(3)
    await asyncio.sleep(SECONDS)
    here.primary.kill9()
    here.replica.promote()
    here.proxy.point_to(here.replica.host, here.replica.port)
    await asyncio.sleep(1.0)  # what was acknowledged before is told
    # As long as nobody follows the new primary, nothing is acknowledged.
    before = {one.name: one.done for one in here.writers}
    await asyncio.sleep(0.6)
    assert {one.name: one.done for one in here.writers} == before
    await asyncio.to_thread(start_server, Flavour.VALKEY_9, replica_of=here.replica)
    await here.written(3)
    await asyncio.sleep(SECONDS)
    stop.set()
    await asyncio.gather(*writing)
    stored = Counter(await here.stored())
    assert max(stored.values()) == 1
    for one in here.writers:
        assert set(one.acknowledged) <= stored.keys()
        assert one.rewound == 0
        await one.tenant.aclose()


async def test_async_agents_are_told_of_everything_that_a_failover_lost(
    start_server: StartServer, tmp_path: Path, stack: ExitStack
) -> None:
    here = scene(start_server, tmp_path, stack, Durability.ASYNC)
    stop = asyncio.Event()
    writing = [asyncio.create_task(one.write(stop)) for one in here.writers]
    await here.written(3)
    await asyncio.sleep(SECONDS)
    here.replica.promote()
    await here.written(2)  # acknowledged by one that nobody follows any more
    here.primary.kill9()
    here.proxy.point_to(here.replica.host, here.replica.port)
    await here.written(3)
    await asyncio.sleep(SECONDS)
    stop.set()
    await asyncio.gather(*writing)
    stored = Counter(await here.stored())
    assert max(stored.values()) == 1
    lost = {text for one in here.writers for text in one.acknowledged} - stored.keys()
    assert len(lost) >= AGENTS
    for one in here.writers:
        # Whoever lost something was told; an agent that goes on writing without reading may not
        # have been told of others' losses, but never was its own hidden.
        assert one.rewound or not lost & set(one.acknowledged)
        await one.tenant.aclose()


async def test_a_store_that_loads_its_data_is_waited_for(
    start_server: StartServer, tmp_path: Path, flavour: Flavour
) -> None:
    slow = {"loading-process-events-interval-bytes": "1024"}
    server = start_server(flavour, ServerOptions(appendonly=True, aclfile=True, config=slow))
    acme = Provisioned(server, tmp_path)
    acme.provision()
    async with Tenant(acme.source(), options=PATIENT) as tenant:
        chat = tenant.conversation("s", user="ada")
        await chat.append(Message.human("one"))
        with server.admin() as admin:
            admin.execute_command("ACL", "SAVE")
            for number in range(150):
                admin.set(f"other:{number}", "x" * 2000)
            admin.execute_command("BGREWRITEAOF")
            processes.wait_until(
                lambda: not admin.info("persistence")["aof_rewrite_in_progress"], what="a rewrite"
            )
        server.stop()
        server.options.config["key-load-delay"] = "30000"  # type: ignore[index]
        starting = threading.Thread(target=server.start)
        starting.start()
        try:
            assert await _seen_loading(server)
            pending = asyncio.create_task(chat.append(Message.human("two")))
            await asyncio.sleep(0.2)
            assert not pending.done()
            await asyncio.to_thread(_load_at_once, server)
            assert (await pending).sequence == 2
        finally:
            await asyncio.to_thread(starting.join)
        assert [one.text for one in await chat.messages()] == ["one", "two"]


def _load_at_once(server: Server) -> None:
    with server.admin() as admin:
        admin.config_set("key-load-delay", 0)


async def _seen_loading(server: Server) -> bool:
    """Wait for the server to answer, and tell whether it says that it loads."""
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await asyncio.open_connection(server.host, server.port)
                writer.write(
                    f"AUTH {server.admin_user} {server.admin_password}\r\nGET x\r\n".encode()
                )
                await reader.readline()
                line = await reader.readline()
                writer.close()
            except OSError:
                await asyncio.sleep(0.01)
            else:
                return line.startswith(b"-LOADING")
