"""A control plane with memtenant's kinds, and a scene on it from its beginning to its end."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e import invariants
from tests.e2e.api import Api
from tests.e2e.scene import Scene
from tests.e2e.witness import Witness
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster

CRDS = Path(__file__).parents[2] / "crds"


@contextmanager
def control_plane_with_kinds() -> Iterator[Cluster]:
    """Raises Unavailable where the control plane is not built."""
    running = control_plane.start()
    try:
        running.apply(*(path.read_text() for path in sorted(CRDS.glob("*.yaml"))))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
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
            for process in (*scene.sealers, *scene.replicas):
                process.stop()
            _clear(scene)


def _no_defect_is_logged(scene: Scene) -> None:
    for process in (*scene.replicas, *scene.sealers):
        for line in process.log.read_text(errors="replace").splitlines():
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
