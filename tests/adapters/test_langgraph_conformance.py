"""LangGraph's own conformance suite, every capability of it, on each flavour of server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate

from memtenant import Tenant
from memtenant.langgraph import Saver
from memtenant.sync import Tenant as SyncTenant
from tests.memory.bindings import PATIENT, Provisioned
from tests.support.servers import Server

CAPABILITIES = 8


class Synchronous(Saver):
    """The suite calls the methods with asyncio; these go to the others, in a thread."""

    def __init__(self, tenant: Tenant) -> None:
        super().__init__(tenant.opened_as(SyncTenant), subject="ada")


@pytest.fixture
def acme(redis_server: Server, tmp_path: Path) -> Provisioned:
    made = Provisioned(redis_server, tmp_path)
    made.provision()
    return made


@pytest.mark.parametrize("synchronous", [False, True], ids=["async", "sync"])
def test_the_saver_passes_every_capability(acme: Provisioned, synchronous: bool) -> None:
    async def savers() -> AsyncIterator[BaseCheckpointSaver[Any]]:
        async with Tenant(acme.source(), options=PATIENT) as tenant:
            yield Synchronous(tenant) if synchronous else Saver(tenant, subject="ada")

    report = asyncio.run(validate(checkpointer_test("memtenant")(savers)))
    failures = [line for result in report.results.values() for line in result.failures]
    assert failures == []
    assert [name for name, result in report.results.items() if not result.passed] == []
    assert len(report.results) == CAPABILITIES
