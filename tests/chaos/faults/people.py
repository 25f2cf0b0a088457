"""What people do to Secrets, by mistake, and to policies and quotas."""

import random
import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from memtenant.rules.systemusers import SystemRole
from tests.chaos.faults.breakage import Breakage
from tests.chaos.people import persist
from tests.chaos.schedule import Kind
from tests.chaos.world import KEY_SECRET, World, declare_audited
from tests.e2e.api import Api

__all__ = ["FAMILY"]


@contextmanager
def _binding_deleted(world: World, chance: random.Random) -> Iterator[str]:
    namespace, name = _any_binding(world, chance)
    _delete(world, namespace, name)
    yield f"{namespace}/{name}"


@contextmanager
def _binding_edited(world: World, chance: random.Random) -> Iterator[str]:
    namespace, name = _any_binding(world, chance)
    field = chance.choice(["password", "keyring.json", "host", "username"])
    _edit(world, namespace, name, {field: b"edited by mistake"})
    yield f"{field} of {namespace}/{name}"


@contextmanager
def _binding_unlabelled(world: World, chance: random.Random) -> Iterator[str]:
    namespace, name = _any_binding(world, chance)
    patch = {"metadata": {"labels": None}}
    persist(lambda: _merge(world, namespace, name, patch))
    try:
        yield f"{namespace}/{name}"
    finally:
        _delete(world, namespace, name)  # as the operator asks for: without its mark it is not its


@contextmanager
def _sealers_secret_deleted(world: World, _: random.Random) -> Iterator[str]:
    _delete(world, world.scene.home, SystemRole.SEALER.secret_name)
    yield ""


@contextmanager
def _admin_password_wrong(world: World, _: random.Random) -> Iterator[str]:
    name = f"{world.scene.store_name}-admin"
    _edit(world, world.scene.home, name, {"password": secrets.token_hex(16).encode()})
    try:
        yield ""
    finally:
        right = world.nodes[0].admin_password.encode()
        _edit(world, world.scene.home, name, {"password": right})


@contextmanager
def _key_taken_away(world: World, _: random.Random) -> Iterator[str]:
    ((namespace, key),) = world.keys.items()
    _delete(world, namespace[0], KEY_SECRET)
    try:
        yield f"{namespace[0]}/{KEY_SECRET}"
    finally:
        persist(lambda: world.scene.secret(namespace[0], KEY_SECRET, {"root": key}))


@contextmanager
def _held(world: World, _: random.Random) -> Iterator[str]:
    hold = {"matter": "CHAOS-1", "since": "2026-01-31T09:30:00Z", "tenantSelector": {}}
    persist(lambda: declare_audited(world, hold))
    try:
        yield "all audited tenants"
    finally:
        persist(lambda: declare_audited(world))


@contextmanager
def _quota_cut(world: World, chance: random.Random) -> Iterator[str]:
    place = chance.choice(sorted(world.people.steady))
    before = world.people.change(place, quota={"memory": "256Mi", "conversations": 1})
    try:
        yield ".".join(place)
    finally:
        world.people.change(place, **before)


def _any_binding(world: World, chance: random.Random) -> tuple[str, str]:
    agent = chance.choice(world.agents.all)
    namespace, tenant = agent.tenant
    return namespace, f"{tenant}-{agent.name}"


def _edit(world: World, namespace: str, name: str, data: dict[str, bytes]) -> None:
    encoded = {field: b64encode(value).decode() for field, value in data.items()}
    persist(lambda: _merge(world, namespace, name, {"data": encoded}))


def _merge(world: World, namespace: str, name: str, patch: Mapping[str, object]) -> None:
    with Api.of(world.scene.cluster) as api:
        status = api.merge("secrets", namespace, name, patch)
    if status not in (200, 404):  # 404: it is about to be made
        raise OSError(f"the API server answered {status}")


def _delete(world: World, namespace: str, name: str) -> None:
    def delete() -> None:
        with Api.of(world.scene.cluster) as api:
            status = api.delete("secrets", namespace, name)
        if status not in (200, 404):
            raise OSError(f"the API server answered {status}")

    persist(delete)


FAMILY = (
    Breakage(Kind("binding-deleted", "secrets", 0.5), "an agent's binding", _binding_deleted),
    Breakage(
        Kind("binding-edited", "secrets", 0.5),
        "password, keyring, host or username in an agent's binding",
        _binding_edited,
    ),
    Breakage(
        Kind("binding-unlabelled", "secrets", 3.0),
        "an agent's binding loses its labels, and then is deleted",
        _binding_unlabelled,
    ),
    Breakage(
        Kind("sealers-secret-deleted", "secrets", 0.5),
        "the Secret from which the sealer knows stores and keys",
        _sealers_secret_deleted,
    ),
    Breakage(
        Kind("admin-password-wrong", "secrets", 5.0),
        "the Secret of the store's administrator has another password for a while",
        _admin_password_wrong,
    ),
    Breakage(
        Kind("key-taken-away", "secrets", 5.0),
        "a tenant's own root key is gone for a while",
        _key_taken_away,
    ),
    Breakage(
        Kind("hold-set", "spec", 5.0),
        "a legal hold over the audited tenants, and its end",
        _held,
    ),
    Breakage(
        Kind("quota-cut", "spec", 4.0),
        "a tenant may hold fewer conversations than it does, for a while",
        _quota_cut,
    ),
)
