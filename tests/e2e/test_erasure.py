"""A person is forgotten in a cluster: the operator is killed meanwhile, no node keeps a byte."""

from collections.abc import Callable
from pathlib import Path

import pytest

from memtenant import Message
from memtenant.memory.source import BindingSource
from memtenant.sync import Tenant
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasurePhase
from tests.e2e.operator import QUICK_LEASE
from tests.e2e.scene import Scene, eventually
from tests.memory.bindings import PATIENT, mount
from tests.support.servers import Options, Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def scene(stage: Callable[[], Scene]) -> Scene:
    scene = stage()
    server = scene.server(Options(appendonly=True))
    scene.server(Options(appendonly=True), replica_of=server)
    scene.policy(erasure={"mode": "Required"})
    scene.store(server)
    scene.operator(erase_interval="0.3", **QUICK_LEASE)
    return scene


def in_files(server: Server, record: bytes) -> bool:
    """Whether a file of the server's holds the bytes."""
    return any(record in one.read_bytes() for one in server.folder.rglob("*") if one.is_file())


def test_a_person_leaves_the_store_and_the_files_of_every_node(
    scene: Scene, tmp_path: Path
) -> None:
    team = scene.team()
    scene.tenant(team, "acme", agents=[{"name": "default", "access": "Steward"}])
    scene.wait_ready(team, "acme")
    binding = scene.binding(team, "acme")
    tenant = Tenant(BindingSource(mount(tmp_path / "binding", binding)), options=PATIENT)
    for user in ("ada", "bob"):
        tenant.conversation("s", user=user).append(Message.human(f"I am {user}. " + "x" * 64))
    with scene.servers[0].admin() as admin:
        lists = list(admin.scan_iter(f"{keys.records(binding.tenant)}*:l"))
        records = {name: (admin.lindex(name, 0) or b"")[-48:] for name in lists}
    for server in scene.servers:
        eventually(
            lambda server=server: all(in_files(server, one) for one in records.values()),  # type: ignore[misc]
            "the records are in the append-only file",
        )

    asked = tenant.forget("ada")
    scene.leading().kill()

    def purged() -> bool:
        receipt = tenant.erasure(asked.id)
        return receipt is not None and receipt.phase is ErasurePhase.PURGED

    eventually(purged, "the erasure is purged")
    with scene.servers[0].admin() as admin:
        (left,) = admin.scan_iter(f"{keys.records(binding.tenant)}*:l")
    (gone,) = (record for name, record in records.items() if name != left)
    for server in scene.servers:
        assert not in_files(server, gone)
        assert in_files(server, records[left])
    assert tenant.conversation("s", user="bob").count() == 1
    receipt = tenant.erasure(asked.id)
    assert receipt is not None
    assert (receipt.remaining, receipt.key_version) == (0, 1)
    assert len(receipt.residuals) == 1  # who has a backup of the keys too
    tenant.close()
