import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from memtenant.api.conditions import find
from memtenant.api.store_status import MemoryStoreStatus
from memtenant.api.tenant import MemoryTenantStatus
from memtenant.clock import Clock, system_clock
from memtenant.reconcile.once import Happened, local_world, settle
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import ObjectKey
from memtenant.tenancy.binding import Binding
from tests.support.servers import Server

Condition = tuple[str, str, str]


@dataclass
class Ground:
    """Declared objects in a folder and a real server; `settle` is one start of the operator."""

    server: Server
    folder: Path
    resources: FolderResources = field(init=False)
    _opened: ExitStack = field(default_factory=ExitStack)

    def open(self) -> None:
        """Take the state folder, whose one writer this process is then."""
        self.resources = self._opened.enter_context(FolderResources.open(self.folder))

    def close(self) -> None:
        """Leave the state folder to another process, until it is opened again."""
        self._opened.close()

    def store(self, name: str = "shared", endpoint: str = "", **spec: Any) -> None:
        """Declare the server as a MemoryStore."""
        password = self.server.admin_password.encode()
        self.resources.declare_secret(self.resources.home, "admin", {"password": password})
        self.resources.declare(
            ObjectKey.store(name),
            {
                "standalone": {"endpoint": endpoint or self.server.endpoint},
                "adminUsername": self.server.admin_user,
                "adminSecretRef": {"name": "admin", "key": "password"},
                **spec,
            },
        )

    def policy(self, name: str = "standard", **spec: Any) -> None:
        """Declare a RetentionPolicy."""
        self.resources.declare(ObjectKey.policy(name), spec)

    def tenant(self, name: str, annotations: Mapping[str, str] | None = None, **spec: Any) -> None:
        """Declare a tenant of namespace ``support``, or change it."""
        declared = {"retentionPolicyRef": {"name": "standard"}, "storeRef": {"name": "shared"}}
        key = ObjectKey.tenant("support", name)
        self.resources.declare(key, {**declared, **spec}, annotations=annotations)

    def label(self, place: str, labels: Mapping[str, str]) -> Mapping[str, str]:
        """As `kubectl label secret` does, of the Secret ``namespace/name``; the former labels."""
        (file,) = self.folder.rglob(f"secrets/{place}.*")
        self.close()
        raw = json.loads(file.read_text())
        before = dict(raw["metadata"]["labels"])
        raw["metadata"]["labels"] = dict(labels)
        file.write_text(json.dumps(raw))
        self.open()
        return before

    async def settle(
        self, ahead: timedelta = timedelta(), *, agents_run: bool = False
    ) -> Mapping[ObjectKey, Happened]:
        """Everything reconciled, measured and repaired by an operator that knows nothing yet, and
        whose clock is so much ahead. It waits for agents only where some run."""
        clock = Clock(now=lambda: system_clock.now() + ahead)
        async with local_world(self.resources, clock=clock) as world:
            if not agents_run:
                world.timing = replace(world.timing, agent_look=timedelta())
            return {happened.key: happened for happened in await settle(world)}

    async def tenant_status(self, name: str) -> MemoryTenantStatus:
        """The tenant's status."""
        declared = await self.resources.get(ObjectKey.tenant("support", name))
        assert declared is not None
        return MemoryTenantStatus.model_validate(declared.status)

    async def store_status(self, name: str) -> MemoryStoreStatus:
        """The store's status."""
        declared = await self.resources.get(ObjectKey.store(name))
        assert declared is not None
        return MemoryStoreStatus.model_validate(declared.status)

    async def login(self, name: str, agent: str = "default") -> "redis.Redis":
        """A client with the credentials of the agent's binding."""
        stored = await self.resources.get_secret("support", f"{name}-{agent}")
        assert stored is not None
        binding = Binding.from_mapping(stored.data)
        return self.server.client(binding.username, binding.password)


def told(status: MemoryTenantStatus | MemoryStoreStatus, kind: str) -> Condition:
    """(status, reason, message) of a condition; empty words where there is none."""
    found = find(status.conditions, kind)
    return (str(found.status), found.reason, found.message) if found else ("", "", "")


@pytest.fixture(autouse=True)
def _proven_once(proven_once: None) -> None:
    """Each `settle` is an operator that knows nothing yet."""


@pytest.fixture
async def ground(valkey: Server, tmp_path: Path) -> AsyncIterator[Ground]:
    """A policy without bounds, a store, and no tenant."""
    made = Ground(valkey, tmp_path / "state")
    made.open()
    made.policy()
    made.store()
    yield made
    made.close()
