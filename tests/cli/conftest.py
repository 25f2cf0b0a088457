"""A program over a state folder of the test's own; its embedded server ends with the test."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtenant.cli.server import instances_of, server_folder
from memtenant.stores import embedded
from tests.cli.program import Program


@pytest.fixture
def program(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    proven_once: None,
) -> Iterator[Program]:
    state = tmp_path / "state"
    monkeypatch.setenv("MEMTENANT_STATE", str(state))
    monkeypatch.setenv("MEMTENANT_DEBUG", "1")  # a defect fails its test with a traceback
    monkeypatch.delenv("MEMTENANT_REDIS", raising=False)
    monkeypatch.delenv("MEMTENANT_REDIS_PASSWORD", raising=False)
    yield Program(state, capsys)
    asyncio.run(_stop(state))


async def _stop(state: Path) -> None:
    await embedded.stop(server_folder(state))
    await instances_of(state).stop()
