"""A tenant for the adapters, and the two kinds of Tenant opened on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from memtenant import Tenant
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy.policy import TenantPolicy
from tests.memory.bindings import PATIENT, Provisioned
from tests.support.servers import Server


@pytest.fixture
def policy() -> TenantPolicy:
    """What the tenant declares; a test that needs another one overrides it."""
    return TenantPolicy()


@pytest.fixture
def acme(valkey: Server, tmp_path: Path, policy: TenantPolicy) -> Provisioned:
    """A tenant with one agent."""
    made = Provisioned(valkey, tmp_path, policy=policy)
    made.provision()
    return made


@pytest.fixture
async def tenant(acme: Provisioned) -> AsyncIterator[Tenant]:
    async with Tenant(acme.source(), options=PATIENT) as tenant:
        yield tenant


@pytest.fixture
def sync_tenant(acme: Provisioned) -> Iterator[SyncTenant]:
    with SyncTenant(acme.source(), options=PATIENT) as tenant:
        yield tenant
