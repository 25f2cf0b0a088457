"""Agents at work on a store whose nodes fail and move, and an operator that looks after it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import redis

from memtenant import Message, Options, Tenant
from memtenant.errors import MemtenantError, NotDurable, StoreUnavailable
from memtenant.memory.source import BindingSource
from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import World
from memtenant.resources.port import ObjectKey
from memtenant.sync import Tenant as SyncTenant
from tests.reconcile.conftest import Ground
from tests.support import processes
from tests.support.servers import Server

STORE = ObjectKey.store("shared")
PATIENT = Options(connect_timeout=2, timeout=3, retry_budget=30, connections=2)


@asynccontextmanager
async def operating(ground: Ground) -> AsyncIterator[World]:
    """An operator that repairs twice a second, and reconciles what a repair asks for."""
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler = WorldReconciler(world)

        async def go_on() -> None:
            while True:
                # What fails in the middle of a failover, the next round does.
                with suppress(MemtenantError):
                    outcome = await reconciler.repair(STORE)
                    if outcome.enqueue or outcome.in_time or not world.links[STORE.name].ready:
                        await settle(world)
                await asyncio.sleep(0.5)

        rounds = asyncio.create_task(go_on())
        try:
            yield world
        finally:
            rounds.cancel()
            with suppress(asyncio.CancelledError):
                await rounds


class Writer:
    """An agent that appends until it is stopped; what is not sure it repeats with the same key."""

    def __init__(self, ground: Ground, name: str, tenant: str = "acme") -> None:
        folder = ground.folder / "bindings" / "support" / f"{tenant}-{name}"
        self.name = f"{tenant}-{name}"
        self.folder = folder
        self.tenant = Tenant(BindingSource(folder), options=PATIENT)
        self.acknowledged: list[str] = []
        self.unsure: list[str] = []

    async def write(self, stop: asyncio.Event) -> None:
        chat = self.tenant.conversation(self.name, user="ada")
        while not stop.is_set():
            text = f"{self.name}:{len(self.acknowledged)}"
            try:
                await chat.append(Message.human(text), idempotency_key=text)
            except (NotDurable, StoreUnavailable) as error:
                self.unsure.append(str(error))
                continue
            self.acknowledged.append(text)
            await asyncio.sleep(0.02)


async def written(writers: list[Writer], more: int) -> None:
    """Wait until each writer was acknowledged so many more."""
    goals = {one.name: len(one.acknowledged) + more for one in writers}

    def reached() -> bool:
        return all(len(one.acknowledged) >= goals[one.name] for one in writers)

    try:
        await asyncio.to_thread(processes.wait_until, reached, what="all writers", timeout=240)
    except processes.StartFailed as error:
        behind = [one for one in writers if len(one.acknowledged) < goals[one.name]]
        for one in behind:
            error.add_note(f"{one.name}: {len(one.unsure)} unsure, the last: {one.unsure[-1:]}")
        raise


def users_of(node: Server) -> dict[str, object]:
    with node.admin() as admin:
        return {
            name: admin.acl_getuser(name)["passwords"]
            for name in map(str, admin.acl_users())
            if name.startswith("mt.support.")
        }


def has_users(node: Server, users: dict[str, object]) -> bool:
    """Whether these are on the node, as far as it answers."""
    try:
        return users_of(node) == users
    except redis.ConnectionError:
        return False


async def nothing_lost(writers: list[Writer]) -> None:
    """What was acknowledged is there, and nothing twice, for somebody who remembers nothing."""
    for one in writers:
        fresh = SyncTenant(BindingSource(one.folder), options=PATIENT)
        chat = fresh.conversation(one.name, user="ada")
        texts = Counter(message.text for message in await asyncio.to_thread(chat.messages))
        assert max(texts.values()) == 1
        assert set(one.acknowledged) <= texts.keys()
        fresh.close()
        await one.tenant.aclose()
