"""The installation's root key: made once, never made again while anything depends on it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from memtenant.errors import KeyUnavailable
from memtenant.reconcile.once import local_world
from memtenant.reconcile.world import ROOT_SECRET, World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import SecretDraft, StoredSecret
from memtenant.rules.record import RECORD_COMPONENT, RECORD_LABEL
from tests.reconcile.conftest import Ground


class Interleaved(FolderResources):
    """A folder in which each step lets the others go on, and another replica may be quicker."""

    overtaken = False

    async def get_secret(self, namespace: str, name: str) -> StoredSecret | None:
        found = await super().get_secret(namespace, name)
        await asyncio.sleep(0)
        return found

    async def list_secrets(
        self, namespace: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        if self.overtaken:
            self.overtaken = False
            await self.create_secret(root_draft(namespace))
            await self.create_secret(record_draft(namespace))
        return await super().list_secrets(namespace, labels)


def root_draft(home: str) -> SecretDraft:
    return SecretDraft(home, ROOT_SECRET, "installation-root", {"root": bytes(32)})


def record_draft(home: str, name: str = "support.acme-keyring") -> SecretDraft:
    return SecretDraft(home, name, "tenant-record", {}, labels={RECORD_LABEL: RECORD_COMPONENT})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with Interleaved.open(tmp_path / "state") as resources:
        async with local_world(resources) as world:
            yield world


async def test_all_of_the_first_tenants_get_the_same_one(world: World) -> None:
    async def first_tenant(number: int) -> bytes:
        root = await world.installation_root()
        # What the reconcile does next; the root must not be taken for lost because of it.
        await world.resources.create_secret(record_draft(world.resources.home, f"t{number}"))
        return root.secret

    roots = await asyncio.gather(*(first_tenant(number) for number in range(8)))
    assert len(set(roots)) == 1


async def test_one_that_another_replica_made_meanwhile_is_taken(world: World) -> None:
    assert isinstance(world.resources, Interleaved)
    world.resources.overtaken = True
    await world.installation_root()


async def test_a_lost_one_is_not_replaced(world: World) -> None:
    await world.resources.create_secret(record_draft(world.resources.home))
    with pytest.raises(KeyUnavailable, match="restore it from a backup"):
        await world.installation_root()


async def test_a_lost_one_is_not_replaced_though_the_record_lost_its_labels(ground: Ground) -> None:
    ground.tenant("acme")
    await ground.settle()
    home = ground.resources.home
    root = await ground.resources.get_secret(home, ROOT_SECRET)
    assert root is not None
    await ground.resources.delete_secret(root)
    ground.label(f"{home}/support.acme-keyring", {})
    async with local_world(ground.resources) as world:
        with pytest.raises(KeyUnavailable, match=r"keys of tenants are under it \(1\)"):
            await world.installation_root()
