"""Instances of Strict tenants die, freeze and forget; their objects are deleted by mistake."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

from memtenant.rules.instance import instance_name
from memtenant.tenancy.identity import TenantId
from tests.chaos.faults.breakage import Breakage
from tests.chaos.faults.stores import lose_users
from tests.chaos.people import persist
from tests.chaos.schedule import Kind
from tests.chaos.strict import Strict
from tests.chaos.world import World
from tests.e2e.api import Api

__all__ = ["FAMILY"]

_PARTS = ("networkpolicies", "services", "statefulsets")


@contextmanager
def _killed(world: World, chance: random.Random) -> Iterator[str]:
    tenant = _any(world, chance)
    os.kill(_of(world).process(tenant), signal.SIGKILL)
    yield str(tenant)


@contextmanager
def _frozen(world: World, chance: random.Random) -> Iterator[str]:
    tenant = _any(world, chance)
    process = _of(world).process(tenant)
    os.kill(process, signal.SIGSTOP)
    try:
        yield str(tenant)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


@contextmanager
def _pod_deleted(world: World, chance: random.Random) -> Iterator[str]:
    tenant = _any(world, chance)
    _delete(world, "pods", f"{instance_name(tenant)}-0")
    yield str(tenant)


@contextmanager
def _part_deleted(world: World, chance: random.Random) -> Iterator[str]:
    tenant, part = _any(world, chance), chance.choice(_PARTS)
    _delete(world, part, instance_name(tenant))
    yield f"{part} of {tenant}"


@contextmanager
def _secret_deleted(world: World, chance: random.Random) -> Iterator[str]:
    tenant = _any(world, chance)
    _delete(world, "secrets", instance_name(tenant))
    yield str(tenant)


@contextmanager
def _users_lost(world: World, chance: random.Random) -> Iterator[str]:
    tenant = _any(world, chance)
    instance = _of(world).instances().get(tenant)
    lost: list[str] = []
    with suppress(redis.RedisError):  # it is away
        if instance is not None:
            lost = lose_users(instance)
    yield f"{len(lost)} users of {tenant}"


def _any(world: World, chance: random.Random) -> TenantId:
    return chance.choice(_of(world).tenants)


def _of(world: World) -> Strict:
    assert world.strict is not None
    return world.strict


def _delete(world: World, plural: str, name: str) -> None:
    def delete() -> None:
        with Api.of(world.scene.cluster) as api:
            status = api.delete(plural, world.scene.home, name)
        if status not in (200, 202, 404):
            raise OSError(f"the API server answered {status}")

    persist(delete)


FAMILY = (
    Breakage(
        Kind("instance-killed", "instance", 1.0),
        "SIGKILL for the server of a Strict tenant; its container starts again",
        _killed,
    ),
    Breakage(Kind("instance-frozen", "instance", 8.0), "SIGSTOP for it", _frozen),
    Breakage(Kind("instance-pod-deleted", "instance", 1.0), "another pod comes", _pod_deleted),
    Breakage(
        Kind("instance-part-deleted", "instance", 1.0),
        "an instance's StatefulSet, Service or NetworkPolicy",
        _part_deleted,
    ),
    Breakage(
        Kind("instance-secret-deleted", "instance", 1.0),
        "the Secret from which an instance and the operator know each other",
        _secret_deleted,
    ),
    Breakage(
        Kind("instance-users-lost", "instance", 0.5),
        "all users of memtenant's but the operator's are deleted on an instance",
        _users_lost,
    ),
)
