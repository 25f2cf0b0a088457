"""Fixtures that every test may ask for, and the tier that a test belongs to.

A test's tier follows from what it asks for: `e2e` if it needs operators on an API server, `cluster`
if it needs the API server, `redis` if it needs a real server, otherwise `unit`.
"""

import gc
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from memtenant.rules.acl import template_digest
from memtenant.stores.connection import NodeClient
from memtenant.stores.fence import Term
from memtenant.stores.matrix import MatrixProof, prove_matrix
from memtenant.stores.nodes import NodeFacts
from tests.support import servers, tiers
from tests.support.clusters import Nodes
from tests.support.clusters import cluster as redis_cluster
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.kubelet import Image, Kubelet
from tests.support.kubelet import running as running_kubelet
from tests.support.processes import Unavailable
from tests.support.sentinels import Watched, watched
from tests.support.servers import Flavour, Options, Server

# How long an example takes, or is looked for, tells of the machine and of what else it does.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

StartServer = Callable[..., Server]
Found = TypeVar("Found")


# What is collected stays to the end: whoever looks for garbage need not look there.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    tiers.register_markers(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tiers.mark(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def session_servers() -> Iterator[Callable[[Flavour], Server]]:
    """One server a flavour for the whole run, started at its first use."""
    with ExitStack() as stack:
        running: dict[Flavour, Server] = {}

        def get(flavour: Flavour) -> Server:
            if flavour not in running:
                running[flavour] = _started(stack, flavour)
            elif not running[flavour].alive:
                running[flavour].start()
            running[flavour].wipe()
            return running[flavour]

        yield get


@pytest.fixture(scope="session")
def session_replicas(
    session_servers: Callable[[Flavour], Server],
) -> Iterator[Callable[[Flavour], tuple[Server, Server]]]:
    """One primary with a replica a flavour for the whole run, started at its first use."""
    with ExitStack() as stack:
        running: dict[Flavour, tuple[Server, Server]] = {}

        def get(flavour: Flavour) -> tuple[Server, Server]:
            if flavour not in running:
                primary = _started(stack, flavour)
                running[flavour] = primary, _started(stack, flavour, replica_of=primary)
            for server in running[flavour]:
                server.wipe()
            return running[flavour]

        yield get


@pytest.fixture(params=list(Flavour), ids=lambda flavour: flavour.value)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each flavour of server in turn."""
    assert isinstance(request.param, Flavour)
    return request.param


@pytest.fixture
def redis_server(flavour: Flavour, session_servers: Callable[[Flavour], Server]) -> Server:
    """An empty server of each flavour in turn. Shared: do not stop it or change its settings."""
    return session_servers(flavour)


@pytest.fixture
def redis_replicated(
    flavour: Flavour, session_replicas: Callable[[Flavour], tuple[Server, Server]]
) -> tuple[Server, Server]:
    """An empty primary and its replica, of each flavour in turn. Shared, as `redis_server`."""
    return session_replicas(flavour)


@pytest.fixture
def valkey(session_servers: Callable[[Flavour], Server]) -> Server:
    """An empty Valkey, where one flavour proves the point. Shared, as `redis_server`."""
    return session_servers(Flavour.VALKEY_9)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """`start_server(flavour, options=None, replica_of=None)`: servers of a test's own."""
    with ExitStack() as stack:

        def start(
            flavour: Flavour, options: Options | None = None, *, replica_of: Server | None = None
        ) -> Server:
            return _started(stack, flavour, options, replica_of=replica_of)

        yield start


@pytest.fixture(scope="session")
def known_proofs() -> dict[tuple[str, str, str], MatrixProof]:
    """What `proven_once` keeps."""
    return {}


@pytest.fixture
def proven_once(
    monkeypatch: pytest.MonkeyPatch, known_proofs: dict[tuple[str, str, str], MatrixProof]
) -> None:
    """The isolation matrix (a second of work) is asked once for each server version and rule
    template of the run, not at each start of an operator: tests/stores is where it is tested."""

    async def asked_once(
        node: NodeClient,
        facts: NodeFacts,
        commands: frozenset[str],
        term: Term,
        *,
        own_keys: bool = False,
    ) -> MatrixProof:
        template = template_digest(commands, own_keys=own_keys)
        about = (str(facts.flavour), facts.version, template)
        if about not in known_proofs:
            proof = await prove_matrix(node, facts, commands, term, own_keys=own_keys)
            known_proofs[about] = proof
        return known_proofs[about]

    monkeypatch.setattr("memtenant.stores.admin.prove_matrix", asked_once)


@pytest.fixture(scope="session")
def redis_sentinels() -> Callable[..., AbstractContextManager[Watched]]:
    """`with redis_sentinels(flavour) as watched`: Sentinels over a primary and its replicas."""
    return _where_it_runs(watched)


@pytest.fixture(scope="session")
def redis_clusters() -> Callable[..., AbstractContextManager[Nodes]]:
    """`with redis_clusters(flavour) as nodes`: a Redis or Valkey Cluster."""
    return _where_it_runs(redis_cluster)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Kubernetes control plane for the whole run. Shared: keep to namespaces of your own."""
    try:
        running = control_plane.start()
    except Unavailable as missing:
        tiers.cannot_run(str(missing))
    yield running
    control_plane.discard(running)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace of a test's own, deleted in the background afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.create_namespace(name)
    yield name
    cluster.discard_namespace(name)


@pytest.fixture(scope="session")
def kubelet(cluster: Cluster) -> Iterator[Kubelet]:
    """The node of `cluster`: it runs every pod. Add to its `images` what your pods need.

    The only one of the run: a second would run the same pods again.
    """
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}
    images = {
        "example.org/shell": Image(entrypoint=("sh", "-c"), command=("true",), env=path),
        "example.org/python": Image(entrypoint=("python", "-c"), env=path),
    }
    with running_kubelet(cluster.kubeconfig, images) as kubelet:
        yield kubelet


def _where_it_runs(
    start: Callable[..., AbstractContextManager[Found]],
) -> Callable[..., AbstractContextManager[Found]]:
    @contextmanager
    def running(flavour: Flavour, **how: Any) -> Iterator[Found]:
        try:
            flavour.binary()
        except Unavailable as missing:
            tiers.cannot_run(str(missing))
        with start(flavour, **how) as found:
            yield found

    return running


def _started(
    stack: ExitStack,
    flavour: Flavour,
    options: Options | None = None,
    *,
    replica_of: Server | None = None,
) -> Server:
    try:
        return stack.enter_context(servers.running(flavour, options, replica_of=replica_of))
    except Unavailable as missing:
        tiers.cannot_run(str(missing))
