from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.scene import Scene
from tests.e2e.staging import control_plane_with_kinds, staged
from tests.support import tiers
from tests.support.controlplane.cluster import Cluster
from tests.support.processes import Unavailable


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """A control plane with memtenant's kinds, for operators that look after all of it."""
    with _cluster() as running:
        yield running


@contextmanager
def _cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        try:
            running = stack.enter_context(control_plane_with_kinds())
        except Unavailable as missing:
            tiers.cannot_run(str(missing))
        yield running


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
