"""The fixtures themselves; `memtenant.testing` is what tests name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtenant.memory import development
from memtenant.memory._sync.tenant import Tenant
from memtenant.memory.source import ROOT_VARIABLE

__all__ = ["memtenant_binding", "memtenant_spec", "memtenant_state", "memtenant_tenant"]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def memtenant_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of the run; its server is stopped at the end."""
    state = tmp_path_factory.mktemp("memtenant")
    yield state
    development.stop(state)


@pytest.fixture
def memtenant_spec() -> dict[str, object]:
    """What is added to the MemoryTenant's spec, such as a quota: override it where needed."""
    return {}


@pytest.fixture
def memtenant_binding(
    memtenant_state: Path, memtenant_spec: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The binding of a new tenant; ``Tenant.from_binding()`` opens it, of either flavour."""
    name = f"test-{next(_numbers)}"
    folder = development.binding_of(name, name, memtenant_state, memtenant_spec)
    monkeypatch.setenv(ROOT_VARIABLE, str(folder.parent))
    return folder


@pytest.fixture
def memtenant_tenant(memtenant_binding: Path) -> Iterator[Tenant]:
    """A new tenant, opened without asyncio."""
    with Tenant.from_binding(memtenant_binding.name) as tenant:
        yield tenant
