"""What a job in a cluster is given: by default no key, else those whose Secrets are mounted."""

from pathlib import Path
from typing import Any

from memtenant.reports.incluster import ClusterSources, Mounts
from memtenant.tenancy.identity import TenantId
from tests.reports.conftest import ACME, Scene


async def test_a_job_opens_records_of_tenants_whose_keys_are_mounted(
    scene: Scene, tmp_path: Path
) -> None:
    await scene.declare()
    keyring = scene.folder / "state" / "bindings" / "support" / "acme-default" / "keyring.json"
    mounts = Mounts(tmp_path, tmp_path, tmp_path / "keyrings")
    nothing: Any = None

    def sources() -> ClusterSources:
        return ClusterSources(
            nothing, nothing, mounts, audit_namespace="", public_key=None, expected=()
        )

    assert await sources().keyrings(ACME) == []
    for name, data in (("acme", keyring.read_bytes()), ("damaged", b"{}")):
        (mounts.keyrings / name).mkdir(parents=True)
        (mounts.keyrings / name / "keyring.json").write_bytes(data)
    given = sources()
    assert [one.tenant for one in await given.keyrings(ACME)] == [ACME]
    assert await given.keyrings(TenantId("support", "globex")) == []
