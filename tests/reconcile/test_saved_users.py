"""A node with an aclfile has its users after a restart, also where no operator runs then."""

from pathlib import Path

import pytest

from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.resources.port import ObjectKey
from memtenant.stores import NodeResults
from memtenant.stores.acl import Saved
from tests.conftest import StartServer
from tests.reconcile.conftest import Ground
from tests.support.servers import Flavour, Options, Server

LATE = ObjectKey.tenant("support", "late")
SHARED = ObjectKey.store("shared")


def users(server: Server) -> set[str]:
    with server.admin() as admin:
        return {str(name) for name in admin.acl_users() if ".support." in str(name)}


@pytest.fixture
def with_aclfile(start_server: StartServer, tmp_path: Path) -> Ground:
    made = Ground(start_server(Flavour.VALKEY_9, Options(aclfile=True)), tmp_path / "state")
    made.open()
    made.policy()
    made.store()
    made.tenant("acme")
    return made


async def test_users_that_come_while_the_nodes_save_are_saved_too(
    with_aclfile: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = with_aclfile
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler, link = WorldReconciler(world), world.links["shared"]
        ground.tenant("late")
        await fill(world.mirror, ground.resources)
        save = link.admin.users.save

        async def save_before_one_comes() -> NodeResults[Saved]:
            saved = await save()
            await reconciler.reconcile(LATE, "new")
            return saved

        with ground.server.admin() as admin:
            admin.acl_deluser(*users(ground.server))  # so that there is something to save
        with monkeypatch.context() as during:
            during.setattr(link.admin.users, "save", save_before_one_comes)
            await reconciler.repair(SHARED)
        await reconciler.repair(SHARED)
    made = users(ground.server)
    ground.server.restart()
    assert users(ground.server) == made
    assert len(made) == 2
    ground.close()


async def test_users_that_were_not_saved_yet_are_saved_by_another_login(
    with_aclfile: Ground,
) -> None:
    ground = with_aclfile
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler = WorldReconciler(world)
        ground.tenant("late")
        await fill(world.mirror, ground.resources)
        await reconciler.reconcile(LATE, "new")
        with ground.server.admin() as admin:
            admin.acl_setuser("admin", enabled=True, passwords=["+another"])
        ground.resources.declare_secret("memtenant-system", "admin", {"password": b"another"})
        await reconciler.reconcile(SHARED, "another login")
        await reconciler.repair(SHARED)
    ground.server.restart()
    assert len(users(ground.server)) == 2
    ground.close()
