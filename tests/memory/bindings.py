"""A provisioned tenant and the binding of its agents, as a mounted folder: what an agent gets.

The operator's half is made by `StoreAdmin`; the SDK then works as the tenant's own user.
"""

import asyncio
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from memtenant.clock import system_clock
from memtenant.crypto.keyring import OpenKeyring, agent_keyring, new_keyring
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.memory.options import Options
from memtenant.memory.source import BindingSource
from memtenant.rules.acl import AccessState, AgentAccess
from memtenant.stores import StateChange
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import DEFAULT_AGENT, TenantId, agent_user
from memtenant.tenancy.policy import (
    Durability,
    EncryptionMode,
    Isolation,
    Quota,
    TenantPolicy,
)
from tests.functions.tenants import LIMITS
from tests.stores.operators import ACME, PASSWORD, agent, leading
from tests.support.servers import Server

PATIENT = Options(connect_timeout=30.0, timeout=30.0, retry_budget=60.0)
"""For stores that are there, however busy the machine is: gives up where something hangs."""

AUDIT_KEY = b"a" * 32
"""Of every agent here: what authenticates its audit events."""


@dataclass(slots=True)
class Provisioned:
    """A tenant on a server. `bind` writes an agent's binding, again after a change."""

    server: Server
    root: Path
    tenant: TenantId = ACME
    policy: TenantPolicy = field(default_factory=TenantPolicy)
    limits: Mapping[str, str | None] = field(default_factory=dict)
    replicas: tuple[Server, ...] = ()
    keyring: OpenKeyring = field(init=False)

    def __post_init__(self) -> None:
        self.keyring = new_keyring(
            self.tenant, new_key(), now=system_clock.now(), per_agent=self.strict
        )

    @property
    def strict(self) -> bool:
        """Whether each agent has its own memory."""
        return self.policy.isolation is Isolation.STRICT

    def provision(
        self,
        *agents: str,
        access: AgentAccess = AgentAccess.READ_WRITE,
        state: AccessState | None = None,
        limits: Mapping[str, str | None] | None = None,
    ) -> None:
        """Functions, limits and users, as the operator makes them; may be repeated."""

        async def make() -> None:
            async with leading(self.server, *self.replicas, own_keys=self.strict) as store:
                await store.load_functions()
                users = [
                    agent(
                        store,
                        self.tenant,
                        name=name,
                        access=access,
                        state=state,
                        own_keys=self.strict,
                    )
                    for name in agents or (DEFAULT_AGENT,)
                ]
                (await store.users.set(users)).require_all()
                changed: dict[str, str | None] = {**LIMITS, **self.limits, **(limits or {})}
                if state is not None and state.held:
                    changed["held"] = "1"
                await store.write_states({self.tenant: StateChange(limits=changed)})

        # In a thread: tests that already run in an event loop change the tenant's state too.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, make()).result()

    def bind(
        self,
        name: str = DEFAULT_AGENT,
        *,
        port: int | None = None,
        host: str | None = None,
        ca: str = "",
        password: str = PASSWORD,
        version: int = 1,
    ) -> Path:
        """The folder of an agent's binding, as the kubelet mounts a Secret."""
        binding = Binding(
            tenant=self.tenant,
            agent=name,
            version=version,
            host=host or self.server.host,
            port=port or self.server.port,
            username=agent_user(self.tenant, name, "a"),
            password=password,
            keyring=agent_keyring(self.keyring, name, SecretKey(AUDIT_KEY)).to_json(),
            policy=self.policy,
            tls=bool(ca),
            ca_crt=ca,
        )
        return mount(self.root / f"{self.tenant.name}-{name}", binding)

    def calls(self, command: str) -> int:
        """How often the server did that command since it began."""
        with self.server.admin() as admin:
            told = admin.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
        return int(told["calls"])

    def source(self, name: str = DEFAULT_AGENT, **where: object) -> BindingSource:
        """The binding, opened."""
        return BindingSource(self.bind(name, **where))  # type: ignore[arg-type]


def mount(folder: Path, binding: Binding) -> Path:
    """Write a binding as the kubelet mounts its Secret."""
    return mount_data(folder, binding.to_secret_data())


def mount_data(folder: Path, data: Mapping[str, bytes]) -> Path:
    """Write a Secret's files and turn the link ``..data`` to them, as the kubelet does."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"..{secrets.token_hex(4)}"
    fresh.mkdir()
    for name, content in data.items():
        (fresh / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    turned = folder / "..data_tmp"
    turned.symlink_to(fresh.name)
    turned.rename(folder / "..data")
    return folder


def policy(
    isolation: Isolation = Isolation.MODERATE,
    encryption: EncryptionMode = EncryptionMode.ENABLED,
    durability: Durability = Durability.ASYNC,
) -> TenantPolicy:
    """A policy without quota: the limits in the store count."""
    return TenantPolicy(isolation, encryption, durability, Quota())
