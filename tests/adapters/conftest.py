"""A tenant for the adapters, and the two kinds of Tenant opened on it.

All tests here are of the redis tier: the frameworks, which take seconds to import, are left alone
by the other tiers.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from memtenant import Tenant
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy.policy import TenantPolicy
from tests.memory.bindings import PATIENT, Provisioned
from tests.support.servers import Server
from tests.support.tiers import Tier, tier_of

HERE = Path(__file__).parent
OTHERS = {tier.value for tier in Tier if tier is not Tier.REDIS}


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return True if config.option.markexpr in OTHERS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and tier_of(item) is not Tier.REDIS:
            raise pytest.UsageError(f"{item.nodeid} is not of the redis tier: move it elsewhere")


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
