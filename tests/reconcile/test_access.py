"""A tenant where the operator may not touch Secrets is told so, before anything is made for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memtenant.api.conditions import ConditionType
from memtenant.errors import ResourceForbidden
from memtenant.reconcile.access import LOOK_AGAIN
from memtenant.reconcile.once import fill, local_world
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import SECRET_ACCESS_MISSING, ObjectKey, StoredSecret

ACME = ObjectKey.tenant("support", "acme")


class Granted(FolderResources):
    """A folder in which Secrets may be touched only at home and in the granted namespaces."""

    granted: frozenset[str] = frozenset()
    asked = 0

    async def can_read_secrets(self, namespace: str) -> bool:
        self.asked += 1
        return namespace in self.granted

    async def get_secret(self, namespace: str, name: str) -> StoredSecret | None:
        if namespace != self.home and namespace not in self.granted:
            raise ResourceForbidden(f"may not get {name}", reason=SECRET_ACCESS_MISSING)
        return await super().get_secret(namespace, name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with Granted.open(tmp_path / "state") as resources:
        resources.declare(ObjectKey.policy("standard"), {})
        resources.declare(ACME, {"retentionPolicyRef": {"name": "standard"}})
        async with local_world(resources) as world:
            yield world


def port(world: World) -> Granted:
    assert isinstance(world.resources, Granted)
    return world.resources


async def conditions(world: World) -> dict[str, tuple[str, str, str]]:
    declared = await world.resources.get(ACME)
    assert declared is not None
    found = declared.status.get("conditions", ())
    return {c["type"]: (c["status"], c["reason"], c.get("message", "")) for c in found}


async def test_it_is_stalled_with_the_command_that_grants_access(world: World) -> None:
    world.service_account = "platform-memtenant"
    outcome = await WorldReconciler(world).reconcile(ACME, "1")
    assert outcome.requeue_after == LOOK_AGAIN
    status, reason, message = (await conditions(world))[ConditionType.STALLED]
    assert (status, reason) == ("True", SECRET_ACCESS_MISSING)
    command = (
        "kubectl -n support create rolebinding platform-memtenant-secrets "
        "--clusterrole=platform-memtenant-secrets "
        "--serviceaccount=memtenant-system:platform-memtenant"
    )
    assert command in message


async def test_nothing_is_made_for_it(world: World) -> None:
    await WorldReconciler(world).reconcile(ACME, "1")
    declared = await world.resources.get(ACME)
    assert declared is not None
    assert not declared.finalizers
    assert not await world.resources.list_secrets(world.resources.home, {})


async def test_looking_again_writes_nothing(world: World) -> None:
    reconciler = WorldReconciler(world)
    assert (await reconciler.reconcile(ACME, "1")).changed
    await fill(world.mirror, world.resources)
    assert not (await reconciler.reconcile(ACME, "2")).changed


async def test_once_granted_it_goes_on(world: World) -> None:
    reconciler = WorldReconciler(world)
    await reconciler.reconcile(ACME, "1")
    await fill(world.mirror, world.resources)
    port(world).granted = frozenset({"support"})
    await reconciler.reconcile(ACME, "2")
    assert (await conditions(world))[ConditionType.READY][1] != SECRET_ACCESS_MISSING


async def test_a_grant_is_asked_for_once_a_namespace(world: World) -> None:
    port(world).granted = frozenset({"support"})
    for attempt in range(3):
        await WorldReconciler(world).reconcile(ACME, str(attempt))
    assert port(world).asked == 1
