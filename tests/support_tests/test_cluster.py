"""The control plane is a real one: RBAC, owners, tokens, admission; and it breaks on demand."""

import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster, KubectlFailed

READER = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]
"""


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A control plane that these tests may break."""
    with control_plane.running() as cluster:
        yield cluster


pytestmark = pytest.mark.cluster


def test_it_is_the_version_that_go_mod_pins(cluster: Cluster) -> None:
    assert "Server Version: v1.36.2" in cluster.kubectl("version")


def test_a_service_account_may_do_what_its_role_says_and_no_more(
    cluster: Cluster, namespace: str
) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=READER)
    own = cluster.kubeconfig_for_service_account(namespace, "reader")
    assert "kube-root-ca.crt" in cluster.kubectl("get", "configmaps", kubeconfig=own)
    with pytest.raises(KubectlFailed, match=f"serviceaccount:{namespace}:reader.* cannot list"):
        cluster.kubectl("get", "secrets", kubeconfig=own)


def test_a_person_has_the_rights_of_their_group(cluster: Cluster, namespace: str) -> None:
    stranger = cluster.kubeconfig_for_user("stranger", ["nobody"])
    with pytest.raises(KubectlFailed, match='User "stranger" cannot'):
        cluster.kubectl("get", "configmaps", "-n", namespace, kubeconfig=stranger)


def test_what_is_declared_is_applied_and_a_refusal_is_told_in_kubectls_words(
    cluster: Cluster, namespace: str
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": namespace},
    }
    for text in ("one", "two"):
        cluster.declare({**secret, "data": {"a": b64encode(text.encode()).decode()}})
    assert cluster.get("secret/s", "-n", namespace)["data"] == {"a": "dHdv"}
    with pytest.raises(KubectlFailed, match=r"kubectl apply .*\.dat: field not declared"):
        cluster.declare({**secret, "dat": {}})


def test_what_an_object_owns_is_collected_with_it(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "owner", "-n", namespace)
    uid = cluster.get("configmap/owner", "-n", namespace)["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": "owned", "namespace": namespace, "ownerReferences": [reference]}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    cluster.kubectl("delete", "configmap/owner", "-n", namespace)
    cluster.kubectl("wait", "--for=delete", "configmap/owned", "-n", namespace, "--timeout=120s")


def test_a_restricted_namespace_refuses_a_root_pod(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl(
        "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    with pytest.raises(KubectlFailed, match="violates PodSecurity"):
        cluster.kubectl("run", "root", "--image=any", "-n", namespace)


def test_helm_sees_the_cluster(cluster: Cluster, namespace: str) -> None:
    assert "NAME" in cluster.helm("list", "-n", namespace)


def test_objects_survive_a_crash_of_the_api_server(own_cluster: Cluster) -> None:
    own_cluster.kubectl("create", "configmap", "survivor")
    own_cluster.kill_api()
    with pytest.raises(KubectlFailed, match="refused"):
        own_cluster.kubectl("get", "configmap/survivor")
    own_cluster.start_api()
    assert "survivor" in own_cluster.kubectl("get", "configmap/survivor")


def test_an_api_server_that_was_stopped_comes_back(own_cluster: Cluster) -> None:
    own_cluster.stop_api()
    own_cluster.start_api()
    own_cluster.create_namespace("after-the-stop")  # the controller manager works on as well


def test_a_frozen_api_server_does_not_answer_until_it_thaws(own_cluster: Cluster) -> None:
    own_cluster.freeze_api()
    try:
        answer = own_cluster.try_kubectl("get", "namespaces", "--request-timeout=1s")
    finally:
        own_cluster.thaw_api()
    assert answer.returncode != 0
    assert "default" in own_cluster.kubectl("get", "namespaces")


def test_a_killed_test_run_leaves_no_control_plane_behind(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "from tests.support.controlplane.cluster import start\n"
        "print(*(p.pid for p in start()._processes.values()), flush=True)\n"
        "signal.pause()\n"
    )
    env = os.environ | {"TMPDIR": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env
    )
    assert run.stdout is not None
    pids = [int(pid) for pid in run.stdout.readline().split()]
    assert len(pids) == 3
    run.kill()
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 60
    while any(map(processes.exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(processes.exists, pids))
