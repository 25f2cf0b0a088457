from collections.abc import Iterator
from pathlib import Path

import pytest

from memtenant.controller import events
from tests.controller.faults import FaultyApi, faulty_api
from tests.support.controlplane.cluster import Cluster

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Cluster:
    """The API server with memtenant's kinds."""
    cluster.apply(*(path.read_text() for path in sorted(CRDS.glob("*.yaml"))))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
    return cluster


@pytest.fixture
def faults(api: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyApi]:
    """The API server behind a proxy that misbehaves on demand; KUBECONFIG names it."""
    with faulty_api(api, tmp_path) as proxy:
        monkeypatch.setenv("KUBECONFIG", str(proxy.kubeconfig))
        monkeypatch.setattr(events, "_FAREWELL", 0.5)
        yield proxy
