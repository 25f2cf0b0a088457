"""GitOps: the same manifests again change nothing, and neither does the operator by looking."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from memtenant.reconcile.world import COUNT_EVERY
from tests.e2e import invariants
from tests.e2e.scene import Scene
from tests.support.controlplane import build
from tests.support.servers import Options, Server

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples" / "gitops"
ARGO = ("--server-side", "--field-manager=argocd")


@pytest.fixture(scope="module")
def scene(stage: Callable[[], Scene]) -> Scene:
    scene = stage()
    scene.server(Options(appendonly=True))
    scene.operator(resync_interval="2")
    return scene


@pytest.fixture(scope="module")
def manifests(scene: Scene) -> str:
    """The example, on a server and in a namespace that exist here."""
    team = scene.team(
        labels={"memory.example.com/region": "eu", "memory.example.com/tenants": "allowed"}
    )
    objects: list[dict[str, Any]] = []
    for part in ("platform", "teams"):
        folder = EXAMPLES / part / "overlays" / "staging"
        objects += yaml.safe_load_all(_kustomize(folder))
    for one in objects:
        if one["kind"] == "MemoryStore":
            one["spec"]["standalone"]["endpoint"] = scene.servers[0].endpoint
            one["spec"]["adminUsername"] = scene.servers[0].admin_user
            ref = one["spec"]["adminSecretRef"]
            password = scene.servers[0].admin_password.encode()
            scene.secret(scene.home, ref["name"], {ref["key"]: password})
            selector = one["spec"].get("allowedNamespaces", {}).get("selector", {})
            for key, value in selector.get("matchLabels", {}).items():
                scene.cluster.kubectl("label", "ns", team, f"{key}={value}", "--overwrite")
        if one["kind"] == "MemoryTenant":
            one["metadata"]["namespace"] = team
    return yaml.safe_dump_all(objects)


@pytest.fixture(scope="module")
def declared(scene: Scene, manifests: str) -> str:
    """The manifests, whose objects have come to rest."""
    team = scene.namespaces[0]
    scene.cluster.kubectl("apply", *ARGO, "-f", "-", stdin=manifests)
    scene.wait_ready(team, "helpdesk", "handbook")
    # The first measurement after they were made is told once, whenever it comes.
    measured = "--for=jsonpath={.status.usage.since}"
    scene.cluster.kubectl("wait", measured, "mtenants", "--all", "-n", team, "--timeout=240s")
    scene.settled(quiet=COUNT_EVERY + 3)  # a store tells of its tenants at most so often
    return manifests


def test_the_same_manifests_twice_make_no_difference(scene: Scene, declared: str) -> None:
    mark = len(scene.witness.changes)

    again = scene.cluster.kubectl("apply", *ARGO, "-f", "-", stdin=declared)
    difference = scene.cluster.try_kubectl("diff", *ARGO, "-f", "-", stdin=declared)

    assert again.count("serverside-applied") == declared.count("apiVersion: memtenant.dev")
    assert (difference.returncode, difference.stdout) == (0, "")
    time.sleep(1)
    assert _written(scene, mark) == []


def test_a_resync_of_what_is_as_declared_writes_nothing_anywhere(
    scene: Scene, declared: str
) -> None:
    scene.cluster.kubectl("apply", *ARGO, "-f", "-", stdin=declared)
    scene.settled()
    mark, before = len(scene.witness.changes), _dirt(scene.servers[0])

    time.sleep(6)  # several resyncs, repairs and measurements

    assert _written(scene, mark) == []
    assert _dirt(scene.servers[0]) == before
    invariants.check(scene, scene.servers[0])  # it writes and removes: measurements may see that


def _written(scene: Scene, mark: int) -> list[tuple[str, str, tuple[str, str]]]:
    return [
        (change.plural, change.type, change.name)
        for change in scene.witness.since(mark)
        if change.plural != "leases"
    ]


def _dirt(server: Server) -> tuple[int, int]:
    """How many changes of keys, and how many commands that set or removed users."""
    with server.admin() as admin:
        changes = admin.info("persistence")["rdb_changes_since_last_save"]
        stats = admin.info("commandstats")
    users = [stats.get(f"cmdstat_acl|{name}", {}) for name in ("setuser", "deluser")]
    return int(changes), sum(int(one.get("calls", 0)) for one in users)


def _kustomize(folder: Path) -> str:
    answer = subprocess.run(
        [build.kubectl(), "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
