"""Each adapter in turn, with a user beside it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from memtenant.resources.connection import Connection
from memtenant.resources.folder import FolderResources
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.port import Kind
from tests.resources.declaring import Declaring, InCluster, InFolder
from tests.support.controlplane.cluster import Cluster


@pytest.fixture(scope="session")
def crds(cluster: Cluster, pytestconfig: pytest.Config) -> Cluster:
    """The control plane with the committed CRDs."""
    folder = str(pytestconfig.rootpath / "crds")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", folder)
    return cluster


@pytest.fixture
async def in_cluster(crds: Cluster, namespace: str) -> AsyncIterator[InCluster]:
    """A user of the real API server; what it leaves of cluster-scoped objects is removed."""
    async with Connection.open(kubeconfig=crds.kubeconfig) as connection:
        resources = KubernetesResources(connection, home=namespace, instance="test")
        user = InCluster(resources, connection, namespace)
        yield user
        for kind in Kind:
            for declared in await resources.list(kind):
                if namespace in str(declared.key):
                    await user.delete_finally(declared.key)


@pytest.fixture(params=["folder", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def declaring(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Declaring]:
    """Each adapter in turn."""
    if request.param == "kubernetes":
        user: InCluster = request.getfixturevalue("in_cluster")
        yield user
        return
    root = tmp_path / "state"
    with FolderResources.open(root) as resources:
        yield InFolder(resources, root)
