"""What a leadership hands to the reconciles: the seam at which they are put together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from memtenant.controller.settings import Settings
from memtenant.reconcile.outcome import Reconciler
from memtenant.reconcile.world import InstanceHost
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Resources
from memtenant.resources.secretsahead import SecretsAhead

__all__ = ["Leadership", "ReconcilerFactory"]


@dataclass(frozen=True, slots=True)
class Leadership:
    """One time of leading. ``term`` fences the stores: it is greater than all before.

    ``installation`` is what the operator writes on the stores that it owns; ``instances`` is where
    those of Strict tenants run; ``ahead`` has the Secrets that were listed before they are asked
    for.
    """

    settings: Settings
    resources: Resources
    mirror: Mirror
    term: int
    installation: str
    instances: InstanceHost | None = None
    ahead: SecretsAhead | None = None


ReconcilerFactory = Callable[[Leadership], AbstractAsyncContextManager[Reconciler]]
"""Makes the reconciler of a leadership; its exit closes every connection to a store, at once."""
