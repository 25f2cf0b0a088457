"""A cluster as the commands see it: needs ``memtenant[operator]``, imported when asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from memtenant.errors import UsageError
from memtenant.resources.port import Resources

__all__ = ["DEFAULT_HOME", "Target", "needs_operator", "resources"]

DEFAULT_HOME = "memtenant-system"


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster: as kubectl chooses where neither is given. ``home`` is the operator's
    namespace."""

    kubeconfig: Path | None = None
    context: str | None = None
    home: str = DEFAULT_HOME


def needs_operator(error: ImportError) -> UsageError:
    """What to say where the packages for clusters are not installed."""
    return UsageError(
        f"this needs the packages for clusters ({error.name} is missing): "
        "pip install 'memtenant[operator]'"
    )


@asynccontextmanager
async def resources(target: Target) -> AsyncIterator[Resources]:
    """The declared objects of the cluster."""
    try:
        from memtenant.resources.connection import Connection
        from memtenant.resources.kubernetes import KubernetesResources
    except ImportError as error:
        raise needs_operator(error) from None
    async with Connection.open(kubeconfig=target.kubeconfig, context=target.context) as connection:
        yield KubernetesResources(connection, home=target.home, instance="memtenant-cli")
