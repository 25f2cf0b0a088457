"""The CRDs on the real API server, and a judge that asks it."""

from collections.abc import Iterator

import pytest

from tests.api.server import Judge
from tests.support.controlplane.cluster import Cluster

CRDS = "crds/"


@pytest.fixture(scope="session")
def installed(cluster: Cluster, pytestconfig: pytest.Config) -> Cluster:
    """The control plane with the committed CRDs, established."""
    folder = str(pytestconfig.rootpath / CRDS)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", folder)
    return cluster


@pytest.fixture(scope="session")
def judge(installed: Cluster) -> Iterator[Judge]:
    """The real API server's verdicts; namespaced objects in a namespace of their own."""
    installed.create_namespace("judged")
    asked = Judge(installed, "judged")
    yield asked
    asked.close()
