"""Between a declared object's raw JSON and the models: specs in, statuses out.

Only a status that differs from the one last seen is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

from pydantic import ValidationError

from memtenant.api.conditions import Finding, merge
from memtenant.api.parse import parse
from memtenant.api.policy import RetentionPolicySpec
from memtenant.api.resource import Status
from memtenant.api.store import MemoryStoreSpec
from memtenant.api.tenant import MemoryTenantSpec
from memtenant.reconcile.world import World
from memtenant.resources.port import API_VERSION, Declared
from memtenant.rules.status import as_json

__all__ = ["policy_spec", "save_status", "status_before", "store_spec", "tenant_spec"]

S = TypeVar("S", bound=Status)


def tenant_spec(declared: Declared) -> MemoryTenantSpec:
    """The spec with its defaults; `InvalidResource` names the field that cannot be read."""
    return cast(MemoryTenantSpec, _spec(declared))


def store_spec(declared: Declared) -> MemoryStoreSpec:
    """The spec with its defaults; `InvalidResource` names the field that cannot be read."""
    return cast(MemoryStoreSpec, _spec(declared))


def policy_spec(declared: Declared) -> RetentionPolicySpec:
    """The spec with its defaults; `InvalidResource` names the field that cannot be read."""
    return cast(RetentionPolicySpec, _spec(declared))


def _spec(declared: Declared) -> object:
    key = declared.key
    raw = {
        "apiVersion": API_VERSION,
        "kind": key.kind.value,
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": declared.spec,
    }
    return parse(raw).spec


def status_before(declared: Declared, model: type[S]) -> S:
    """The status as it was last seen; empty where somebody wrote something unreadable."""
    try:
        return model.model_validate(declared.status)
    except ValidationError:
        return model()


async def save_status(
    world: World, declared: Declared, status: S, findings: Iterable[Finding] = ()
) -> bool:
    """Merge the findings into the status and write it if it differs; whether it was written."""
    generation = declared.generation
    conditions = merge(status.conditions, findings, now=world.clock.now(), generation=generation)
    after = as_json(
        status.model_copy(update={"conditions": conditions, "observed_generation": generation})
    )
    if after == as_json(status_before(declared, type(status))):
        return False
    await world.resources.write_status(declared, after)
    return True
