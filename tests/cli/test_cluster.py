"""`validate`, `plan` and `detach` against a real API server."""

from collections.abc import Iterator
from typing import Any

import pytest

from memtenant.cli.exits import ExitCode
from memtenant.reconcile.world import FINALIZER
from memtenant.tenancy.identity import TenantId
from tests.cli.program import Program, policy, store, tenant
from tests.support.controlplane.cluster import Cluster
from tests.support.servers import Server

pytestmark = pytest.mark.cluster

OTHERS = "example.com/others"


@pytest.fixture(scope="module")
def crds(cluster: Cluster, pytestconfig: pytest.Config) -> Cluster:
    folder = str(pytestconfig.rootpath / "crds")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", folder)
    return cluster


@pytest.fixture
def declared(crds: Cluster, namespace: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """A policy and a tenant with our finalizer and a stranger's, in a cluster without operator."""
    a_policy = policy(namespace)
    a_tenant = tenant(TenantId(namespace, "acme"), retentionPolicyRef={"name": namespace})
    for one in (a_policy, a_tenant):
        one["metadata"]["finalizers"] = [FINALIZER, OTHERS]
    crds.apply(a_policy, a_tenant)
    yield namespace, a_policy, a_tenant
    for kind, where in (("mtenant", ("-n", namespace)), ("rp", ())):
        name = "acme" if kind == "mtenant" else namespace
        crds.try_kubectl(
            *("patch", kind, name, *where, "--type=merge"),
            *("-p", '{"metadata":{"finalizers":null}}'),
        )
    crds.try_kubectl("delete", "rp", namespace, "--wait=false")


def finalizers(cluster: Cluster, *arguments: str) -> list[str]:
    found: list[str] = cluster.get(*arguments)["metadata"].get("finalizers", [])
    return found


def test_detach_takes_our_finalizers_and_leaves_others(
    program: Program, crds: Cluster, declared: tuple[str, Any, Any]
) -> None:
    namespace = declared[0]

    program.do("detach", "--all", "--kubeconfig", crds.kubeconfig)

    assert finalizers(crds, "mtenant", "acme", "-n", namespace) == [OTHERS]
    assert finalizers(crds, "rp", namespace) == [OTHERS]


def test_detach_may_be_repeated(
    program: Program, crds: Cluster, declared: tuple[str, Any, Any]
) -> None:
    namespace = declared[0]
    name = f"{namespace}/acme"

    first = program.do("detach", name, "--kubeconfig", crds.kubeconfig)
    version = crds.get("mtenant", "acme", "-n", namespace)["metadata"]["resourceVersion"]
    second = program.do("detach", name, "--kubeconfig", crds.kubeconfig)

    assert "1 detached" in first.out
    assert "0 detached" in second.out
    now = crds.get("mtenant", "acme", "-n", namespace)["metadata"]["resourceVersion"]
    assert now == version
    assert FINALIZER in finalizers(crds, "rp", namespace)


def test_detach_of_what_is_not_there_does_nothing(
    program: Program, crds: Cluster, declared: tuple[str, Any, Any]
) -> None:
    namespace = declared[0]

    ended = program(
        "detach", f"{namespace}/acme", f"{namespace}/nobody", "--kubeconfig", crds.kubeconfig
    )

    assert ended.code == ExitCode.FAILED
    assert FINALIZER in finalizers(crds, "mtenant", "acme", "-n", namespace)


def test_validate_judges_an_update_of_what_the_cluster_has(
    program: Program, crds: Cluster, declared: tuple[str, Any, Any]
) -> None:
    _, _, a_tenant = declared
    a_tenant["spec"]["isolation"] = "Minimal"
    manifests = program.write("minimal.yaml", a_tenant)

    alone = program("validate", "-f", manifests)
    there = program("validate", "-f", manifests, "--kubeconfig", crds.kubeconfig)

    assert alone.code == ExitCode.DONE, alone.said
    assert there.code == ExitCode.FAILED
    assert "spec.isolation" in there.err


def test_plan_shows_fields_and_actions_and_writes_nothing(
    program: Program,
    crds: Cluster,
    declared: tuple[str, Any, Any],
    valkey: Server,
) -> None:
    namespace, a_policy, a_tenant = declared
    crds.kubectl(
        *("create", "secret", "generic", "valkey-admin", "-n", namespace),
        f"--from-literal=password={valkey.admin_password}",
    )
    a_store = store(
        namespace, standalone={"endpoint": valkey.endpoint}, adminUsername=valkey.admin_user
    )
    a_tenant["spec"] |= {"quota": {"memory": "1Gi"}, "storeRef": {"name": namespace}}
    before = crds.get("secrets", "-n", namespace)["items"]

    ended = program(
        *("plan", "-f", program.write("new.yaml", a_policy, a_store, a_tenant)),
        *("--kubeconfig", crds.kubeconfig, "--home", namespace),
    )

    assert ended.code == ExitCode.CHANGES, ended.said
    assert "spec.quota.memory: 256Mi → 1Gi" in ended.out
    assert "write binding acme-default" in ended.out
    assert f"+ MemoryStore/{namespace}" in ended.out
    assert crds.try_kubectl("get", "mstore", namespace).returncode != 0
    assert crds.get("secrets", "-n", namespace)["items"] == before
    assert crds.get("mtenant", "acme", "-n", namespace)["spec"]["quota"]["memory"] == "256Mi"
    with valkey.admin() as admin:
        assert list(admin.scan_iter()) == []
        assert not [name for name in admin.acl_users() if str(name).startswith("mt.support.")]


def test_plan_is_empty_for_what_the_cluster_has_and_says_what_it_cannot_see(
    program: Program, crds: Cluster, declared: tuple[str, Any, Any]
) -> None:
    namespace, a_policy, a_tenant = declared

    ended = program(
        *("plan", "-o", "json", "-f", program.write("same.yaml", a_policy, a_tenant)),
        *("--kubeconfig", crds.kubeconfig, "--home", namespace),
    )

    found = {one["object"]: one for one in ended.data()["objects"]}
    assert all(one["fields"] == [] for one in found.values())
    assert ended.code == ExitCode.FAILED
    assert "MemoryStore" in found[f"MemoryTenant/{namespace}/acme"]["problem"]


def test_an_api_server_that_is_away_is_one_line(program: Program, crds: Cluster) -> None:
    kubeconfig = program.state.parent / "away"
    kubeconfig.write_text(crds.kubeconfig.read_text().replace(str(crds.port), "1"))

    ended = program("detach", "--all", "--kubeconfig", kubeconfig)

    assert ended.code == ExitCode.FAILED
    assert len(ended.err.splitlines()) == 1
