from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e import invariants
from tests.e2e.api import Api
from tests.e2e.scene import Scene
from tests.e2e.witness import Witness
from tests.support import tiers
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.processes import Unavailable

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """A control plane with memtenant's kinds, for operators that look after all of it."""
    with _cluster() as running:
        yield running


@contextmanager
def _cluster() -> Iterator[Cluster]:
    try:
        running = control_plane.start()
    except Unavailable as missing:
        tiers.cannot_run(str(missing))
    try:
        running.apply(*(path.read_text() for path in sorted(CRDS.glob("*.yaml"))))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield running
    finally:
        control_plane.discard(running)


@contextmanager
def staged(cluster: Cluster, folder: Path) -> Iterator[Scene]:
    """An empty scene. At its end the operators stop in order, nothing was shown that must not be,
    no defect is in a log, and what was declared is gone."""
    witness = Witness(cluster)
    with ExitStack() as stack:
        witness.start()
        stack.callback(witness.close)
        scene = Scene(cluster, folder, stack, witness)
        cluster.declare({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scene.home}})
        try:
            yield scene
            if scene.replicas:
                invariants.no_secret_is_shown(scene)
                _no_defect_is_logged(scene)
        finally:
            for replica in scene.replicas:
                replica.stop()
            _clear(scene)


@pytest.fixture
def scene(own_cluster: Cluster, tmp_path: Path) -> Iterator[Scene]:
    """A scene of a test's own, for tests that break what others need."""
    with staged(own_cluster, tmp_path) as scene:
        yield scene


@pytest.fixture
def fragile_scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene on a control plane of its own, for a test that stops it: the controller manager
    takes a minute to find an API server that was away."""
    with _cluster() as cluster, staged(cluster, tmp_path) as scene:
        yield scene


@pytest.fixture(scope="module")
def stage(
    own_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Scene]]:
    """Makes the one scene that the tests of a module share."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(staged(own_cluster, tmp_path_factory.mktemp("scene")))


def _no_defect_is_logged(scene: Scene) -> None:
    for replica in scene.replicas:
        for line in replica.log.read_text(errors="replace").splitlines():
            # kopf tells with a traceback that a watch broke, then it watches again; and its own
            # callback stumbles when it is stopped in the middle of a watch.
            if '"logger": "kopf._core.reactor.' not in line and "kopf/_cogs/clients" not in line:
                assert "Traceback" not in line, line
                assert "defect of memtenant" not in line, line
                assert line.startswith("{"), line


def _clear(scene: Scene) -> None:
    """Remove what was declared, whoever still holds it: a finalizer waits for operators that are
    gone."""
    api = Api(scene.cluster)
    for plural in ("memorytenants", "memorystores", "retentionpolicies"):
        for item in scene.witness.all(plural):
            metadata = item["metadata"]
            api.discard(plural, metadata.get("namespace", ""), metadata["name"])
    for namespace in (scene.home, *scene.namespaces):
        scene.cluster.discard_namespace(namespace)
