"""A tenant that is audited, its agent, and what stands in for the sealer."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memtenant import Tenant
from memtenant.audit import OPERATOR, Entry, Event, Operation, is_authentic
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key, audit_root
from memtenant.crypto.primitives import SecretKey
from memtenant.memory.source import BindingSource
from memtenant.reconcile.once import local_world
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import TenantId
from tests.memory.bindings import PATIENT, mount
from tests.reconcile.conftest import Ground
from tests.stores.operators import OPERATOR as OPERATOR_USER
from tests.stores.operators import OPERATOR_PASSWORD, make_operator

ACME = TenantId("support", "acme")
REQUIRED: dict[str, Any] = {"audit": {"mode": "Required"}}


class Scene:
    """One tenant, its agent, and what stands in for the sealer."""

    def __init__(self, ground: Ground, folder: Path, opened: AsyncExitStack) -> None:
        self.ground, self._folder, self._opened = ground, folder, opened
        self.server = ground.server

    async def agent(self) -> Tenant:
        stored = await self.ground.resources.get_secret("support", "acme-default")
        assert stored is not None
        folder = mount(self._folder, Binding.from_mapping(stored.data))
        return await self._opened.enter_async_context(
            Tenant(BindingSource(folder), options=PATIENT)
        )

    def beat(self, *, live: bool = True) -> None:
        now = int(datetime.now(UTC).timestamp() * 1000) if live else 0
        with self.server.admin() as admin:
            admin.hset(keys.limits(ACME), "audit_heartbeat", str(now))

    def limits(self) -> dict[str, str]:
        with self.server.admin() as admin:
            return {k.decode(): v.decode() for k, v in admin.hgetall(keys.limits(ACME)).items()}

    def entry(self) -> Audited | None:
        with self.server.admin() as admin:
            found = admin.hget(keys.STORE_AUDITED, str(ACME))
        return None if found is None else Audited.from_json(found)

    async def drained(self, log: str = str(ACME)) -> list[Event]:
        """The queue, whose every MAC is that of the agent and binding that it names."""
        queue = keys.INSTALLATION_QUEUE if log == INSTALLATION_LOG else keys.audit_queue(ACME)
        with self.server.admin() as admin:
            raw = [bytes(one) for one in admin.lrange(queue, 0, -1)]
            admin.delete(queue)
        async with local_world(self.ground.resources) as world:
            root = audit_root(await world.installation_root())
        return [_authentic(root, log, one) for one in raw]

    async def deeds(self, log: str = str(ACME)) -> list[tuple[Operation, dict[str, Any]]]:
        """What the operator told since the queue was drained last."""
        told = [one for one in await self.drained(log) if one.agent == OPERATOR]
        return [(one.operation, json.loads(one.detail or b"{}")) for one in told]

    async def by_agents(self) -> list[Operation]:
        return [one.operation for one in await self.drained() if one.agent != OPERATOR]


async def made(ground: Ground, tmp_path: Path) -> AsyncIterator[Scene]:
    make_operator(ground.server)  # what writes events is no superuser
    ground.open()
    ground.policy(**REQUIRED)
    ground.store(adminUsername=OPERATOR_USER)
    password = {"password": OPERATOR_PASSWORD.encode()}
    ground.resources.declare_secret(ground.resources.home, "admin", password)
    ground.tenant("acme")
    with ground.server.admin() as admin:  # a sealer was here once: queues wait for it
        now = int(datetime.now(UTC).timestamp() * 1000)
        admin.hset(keys.STORE_SEALER, mapping={"sealed_at": str(now), "window": "1"})
    await ground.settle()
    async with AsyncExitStack() as opened:
        yield Scene(ground, tmp_path / "binding", opened)
    ground.close()


def _authentic(root: SecretKey, log: str, one: bytes) -> Event:
    entry = Entry.parse(one)
    event = Event.parse(entry.event)
    assert is_authentic(audit_mac_key(root, log, event.agent, event.binding_version), entry.event)
    return event
