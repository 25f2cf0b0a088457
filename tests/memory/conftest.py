"""A tenant of each flavour of server, and the SDK opened by its binding."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from memtenant import Tenant
from memtenant.tenancy.policy import TenantPolicy
from tests.memory.bindings import PATIENT, Provisioned
from tests.support.servers import Server

Open = Callable[..., Tenant]


@pytest.fixture
def policy() -> TenantPolicy:
    """What the tenant declares; a module that needs another one overrides it."""
    return TenantPolicy()


@pytest.fixture
def acme(redis_server: Server, tmp_path: Path, policy: TenantPolicy) -> Provisioned:
    """A tenant with two agents, on each flavour in turn."""
    made = Provisioned(redis_server, tmp_path, policy=policy)
    made.provision("default", "other")
    return made


@pytest.fixture
def on_valkey(valkey: Server, tmp_path: Path, policy: TenantPolicy) -> Provisioned:
    """A tenant with two agents, where one flavour proves the point."""
    made = Provisioned(valkey, tmp_path, policy=policy)
    made.provision("default", "other")
    return made


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """`opened(provisioned, agent="default", **binding)`: a Tenant that is closed after the test."""
    tenants: list[Tenant] = []

    def open_(of: Provisioned, name: str = "default", **where: object) -> Tenant:
        tenants.append(Tenant(of.source(name, **where), options=PATIENT))
        return tenants[-1]

    yield open_
    for one in tenants:
        await one.aclose()


@pytest.fixture
def tenant(acme: Provisioned, opened: Open) -> Tenant:
    """The SDK as the tenant's agent ``default``."""
    return opened(acme)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test put on it."""
    with ExitStack() as stack:
        yield stack
