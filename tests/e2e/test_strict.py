"""A Strict tenant in a cluster: its instance as a real pod, from the first binding to its end.

Real Helm, real API server and controllers, the operator in pods under its own RBAC, each instance a
real Valkey in a pod of the kubelet. The tests are one life, in order.
"""

import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from memtenant.rules.instance import claim_name, instance_name
from memtenant.tenancy.identity import TenantId
from tests.chart.rendered import CHART, HOME, RELEASE, ROOT
from tests.e2e.instances import server_image, storage_class, volume
from tests.support import processes, tiers
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.kubelet import Image, Kubelet
from tests.support.kubelet import running as running_kubelet
from tests.support.processes import Unavailable
from tests.support.servers import Flavour

pytestmark = pytest.mark.cluster

API = "memtenant.dev/v1alpha1"
TEAM = "health"
CLINIC, LAB, VAULT = (TenantId(TEAM, name) for name in ("clinic", "lab", "vault"))
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PATIENCE = 240.0  # seconds, on a busy machine
GIB = 1 << 30

Object = dict[str, Any]


@dataclass(slots=True)
class Stage:
    """A cluster with the operator in it and a node on which instances run."""

    cluster: Cluster
    kubelet: Kubelet

    def wait(self, tenant: TenantId, condition: str = "condition=Ready") -> None:
        self.cluster.kubectl(
            *("wait", f"mtenant/{tenant.name}", "-n", tenant.namespace, f"--for={condition}"),
            f"--timeout={PATIENCE:.0f}s",
        )

    def generation_is_ready(self, tenant: TenantId) -> bool:
        found = self.cluster.get("mtenant", tenant.name, "-n", tenant.namespace)
        ready = [c for c in found["status"].get("conditions", ()) if c["type"] == "Ready"]
        return bool(ready) and (
            ready[0]["status"] == "True"
            and ready[0]["observedGeneration"] == found["metadata"]["generation"]
        )

    def agent(self, tenant: TenantId, agent: str) -> "redis.Redis":
        """A client with an agent's binding, at the address behind the Service's name."""
        name = f"{tenant.name}-{agent}"
        wanted = ("host", "port", "username", "password")
        fields = {field: self.secret(name, tenant.namespace, field) for field in wanted}
        assert fields["host"] == f"{instance_name(tenant)}.{HOME}.svc"
        tls: Object = {}
        if tenant == VAULT:
            tls = {"ssl": True, "ssl_ca_data": self.secret(name, TEAM, "ca.crt")}
            tls["ssl_check_hostname"] = False  # it is the Service's, and nothing resolves that here
        return redis.Redis(
            self.kubelet.address(HOME, f"{instance_name(tenant)}-0"),
            int(fields["port"]),
            username=fields["username"],
            password=fields["password"],
            decode_responses=True,
            **tls,
        )

    def remembers(self) -> bool:
        """Whether the clinic's agent finds what it stored."""
        try:
            with self.agent(CLINIC, "intake") as intake:
                return bool(intake.get(own_key(CLINIC, "intake")) == "hello")
        except redis.RedisError:
            return False

    def secret(self, name: str, namespace: str, field: str) -> str:
        return self.cluster.kubectl(
            *("get", "secret", name, "-n", namespace),
            f'-o=go-template={{{{base64decode (index .data "{field}")}}}}',
        )

    def served(self, tenant: TenantId) -> str:
        """The certificate that the instance shows, verified by its authority and its name."""
        name = f"{tenant.name}-intake"
        context = ssl.create_default_context(cadata=self.secret(name, TEAM, "ca.crt"))
        where = (self.kubelet.address(HOME, f"{instance_name(tenant)}-0"), 6379)
        host = self.secret(name, TEAM, "host")
        with (
            socket.create_connection(where, 60) as raw,
            context.wrap_socket(raw, server_hostname=host) as shown,
        ):
            return ssl.DER_cert_to_PEM_cert(shown.getpeercert(True) or b"")

    def pod(self, tenant: TenantId) -> Object:
        return self.pods(tenant)[0]

    def pods(self, *tenants: TenantId) -> list[Object]:
        """Those of the tenants' instances at one moment; empty where there is none."""
        found = self.cluster.get("pods", "-n", HOME)["items"]
        there = {pod["metadata"]["name"]: pod for pod in found}
        return [there.get(f"{instance_name(which)}-0", {}) for which in tenants]

    def names(self) -> set[str]:
        """Everything that instances consist of."""
        kinds = "statefulsets,services,networkpolicies,persistentvolumeclaims,pods"
        found = self.cluster.get(kinds, "-n", HOME, "-l", "memtenant.dev/component=tenant-instance")
        return {f"{item['kind']}/{item['metadata']['name']}" for item in found["items"]}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The operator installed by the chart; volumes that may grow."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    folders = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
    operator = Image(env={"PATH": path, "MEMTENANT_HEALTH_HOST": "{address}"}, folders=folders)
    programs = tmp_path_factory.mktemp("programs")
    tls_programs = tmp_path_factory.mktemp("tls")
    with ExitStack() as stack:
        try:
            valkey = server_image(programs, "valkey-server", Flavour.VALKEY_9, folders)
            # The embedded Valkey has no TLS.
            redis_7 = server_image(tls_programs, "redis-server", Flavour.REDIS_7, folders)
            cluster = stack.enter_context(control_plane.running())
            images = {"memtenant": operator, "valkey/": valkey, "redis": redis_7}
            kubelet = stack.enter_context(running_kubelet(cluster.kubeconfig, images))
        except Unavailable as missing:
            tiers.cannot_run(str(missing))
        for name in (HOME, TEAM):
            cluster.create_namespace(name, RESTRICTED)
        cluster.apply(storage_class(), *(volume(number) for number in range(3)))
        options = (f"--set=tenantNamespaces={{{TEAM}}}", "--set=settings.repairInterval=1s")
        cluster.helm("install", RELEASE, str(CHART), "-n", HOME, "--set=replicas=1", *options)
        cluster.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", HOME)
        cluster.apply(template("valkey/valkey:8.1"), template("redis:7.0", "own-tls"), policy())
        cluster.apply(*(tenant(which) for which in (CLINIC, LAB, VAULT)))
        yield Stage(cluster, kubelet)


def template(image: str, name: str = "own") -> Object:
    tls = {"mode": "Enabled" if name == "own-tls" else "Disabled"}
    spec = {"dedicated": {"image": image, "storageClassName": "growing", "tls": tls}}
    return {"apiVersion": API, "kind": "MemoryStore", "metadata": {"name": name}, "spec": spec}


def policy() -> Object:
    return {"apiVersion": API, "kind": "RetentionPolicy", "metadata": {"name": "standard"}}


def tenant(which: TenantId, **spec: object) -> Object:
    return {
        "apiVersion": API,
        "kind": "MemoryTenant",
        "metadata": {"name": which.name, "namespace": which.namespace},
        "spec": {
            "isolation": "Strict",
            "retentionPolicyRef": {"name": "standard"},
            "storeRef": {"name": "own-tls" if which == VAULT else "own"},
            "quota": {"memory": "16Mi"},
            "agents": [{"name": "intake"}, {"name": "billing"}],
            "deletionPolicy": "Delete",
            **spec,
        },
    }


def own_key(which: TenantId, agent: str) -> str:
    return f"mt:{{{which}}}:r:{agent}_:note"


def test_an_agent_works_on_the_instance_and_reaches_only_its_own(stage: Stage) -> None:
    stage.wait(CLINIC)
    stage.wait(LAB)
    with stage.agent(CLINIC, "intake") as intake, stage.agent(CLINIC, "billing") as billing:
        intake.set(own_key(CLINIC, "intake"), "hello")
        assert intake.get(own_key(CLINIC, "intake")) == "hello"
        with pytest.raises(redis.exceptions.NoPermissionError):
            billing.get(own_key(CLINIC, "intake"))
    name = instance_name(CLINIC)
    assert {one for one in stage.names() if name in one} == {
        f"StatefulSet/{name}", f"Service/{name}", f"NetworkPolicy/{name}",
        f"PersistentVolumeClaim/{claim_name(CLINIC)}", f"Pod/{name}-0",
    }  # fmt: skip


def test_an_instance_that_is_killed_is_back_with_data_and_users(stage: Stage) -> None:
    os.kill(stage.kubelet.process(HOME, f"{instance_name(CLINIC)}-0"), signal.SIGKILL)
    processes.wait_until(stage.remembers, what="the agent's data back", timeout=PATIENCE)
    stage.cluster.kubectl("delete", "pod", f"{instance_name(CLINIC)}-0", "-n", HOME)
    processes.wait_until(stage.remembers, what="the agent's data in the next pod", timeout=PATIENCE)
    processes.wait_until(
        lambda: stage.generation_is_ready(CLINIC), what="the tenant Ready", timeout=PATIENCE
    )


def test_an_instance_whose_node_is_drained_is_on_another_with_data_and_users(stage: Stage) -> None:
    pod = f"{instance_name(CLINIC)}-0"
    node, address = stage.pod(CLINIC)["spec"]["nodeName"], stage.kubelet.address(HOME, pod)
    only_it = f"--pod-selector=statefulset.kubernetes.io/pod-name={pod}"
    stage.cluster.kubectl("drain", node, only_it)
    try:
        processes.wait_until(stage.remembers, what="the agent's data there", timeout=PATIENCE)
    finally:
        stage.cluster.kubectl("uncordon", node)
    assert stage.pod(CLINIC)["spec"]["nodeName"] != node
    assert stage.kubelet.address(HOME, pod) != address
    processes.wait_until(
        lambda: stage.generation_is_ready(CLINIC), what="the tenant Ready", timeout=PATIENCE
    )


def test_a_raised_quota_grows_the_volume_around_the_pod_that_runs(stage: Stage) -> None:
    before = stage.pod(CLINIC)["metadata"]["uid"]
    stage.cluster.apply(tenant(CLINIC, quota={"memory": "1Gi"}))
    processes.wait_until(
        lambda: stage.generation_is_ready(CLINIC), what="the tenant Ready", timeout=PATIENCE
    )
    claim = stage.cluster.get("pvc", claim_name(CLINIC), "-n", HOME)
    assert claim["spec"]["resources"]["requests"]["storage"] == "4Gi"
    processes.wait_until(
        lambda: f"StatefulSet/{instance_name(CLINIC)}" in stage.names(),
        what="the StatefulSet made anew",
        timeout=PATIENCE,
    )
    assert stage.pod(CLINIC)["metadata"]["uid"] == before
    with stage.agent(CLINIC, "intake") as intake:
        assert intake.get(own_key(CLINIC, "intake")) == "hello"


def test_a_new_image_restarts_one_instance_after_the_other(stage: Stage) -> None:
    both = (CLINIC, LAB)
    before = {which: stage.pod(which)["metadata"]["uid"] for which in both}
    stage.cluster.apply(template("valkey/valkey:9.0"))
    away_at_once = 0

    def upgraded() -> bool:
        nonlocal away_at_once
        pods = stage.pods(*both)
        ready = [
            any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
            for pod in pods
            if pod and "conditions" in pod["status"]
        ]
        away_at_once = max(away_at_once, 2 - sum(ready))
        return all(
            pod
            and pod["metadata"]["uid"] != before[which]
            and pod["spec"]["containers"][0]["image"] == "valkey/valkey:9.0"
            for which, pod in zip(both, pods, strict=True)
        )

    processes.wait_until(upgraded, what="both upgraded", timeout=PATIENCE)
    assert away_at_once == 1
    for which in both:
        processes.wait_until(
            lambda which=which: stage.generation_is_ready(which),  # type: ignore[misc]
            what="the tenant Ready",
            timeout=PATIENCE,
        )


def test_an_instance_is_verified_by_tls_and_takes_a_new_certificate_as_it_runs(
    stage: Stage,
) -> None:
    stage.wait(VAULT)
    pod = stage.pod(VAULT)["metadata"]["uid"]
    with stage.agent(VAULT, "intake") as intake:
        intake.set(own_key(VAULT, "intake"), "hello")
    first = stage.served(VAULT)
    damage = '{"data": {"tls.crt": "bm9uZQ=="}}'
    stage.cluster.kubectl("patch", "secret", instance_name(VAULT), "-n", HOME, "-p", damage)
    stage.cluster.kubectl("annotate", "mtenant", VAULT.name, "-n", TEAM, "look=again")
    processes.wait_until(
        lambda: stage.served(VAULT) != first, what="another certificate", timeout=PATIENCE
    )
    assert stage.pod(VAULT)["metadata"]["uid"] == pod
    with stage.agent(VAULT, "intake") as intake:
        assert intake.get(own_key(VAULT, "intake")) == "hello"


def test_a_deleted_tenant_takes_its_instance_along_and_no_other(stage: Stage) -> None:
    stage.cluster.kubectl(
        *("delete", "mtenant", CLINIC.name, "-n", TEAM, f"--timeout={PATIENCE:.0f}s")
    )
    processes.wait_until(
        lambda: not [one for one in stage.names() if instance_name(CLINIC) in one],
        what="nothing left of the instance",
        timeout=PATIENCE,
    )
    assert stage.cluster.try_kubectl("get", "secret", instance_name(CLINIC), "-n", HOME)
    with stage.agent(LAB, "intake") as intake:
        assert intake.ping()
    stage.cluster.apply(tenant(LAB, deletionPolicy="Retain"))
    processes.wait_until(
        lambda: stage.generation_is_ready(LAB), what="the tenant Ready", timeout=PATIENCE
    )
    stage.cluster.kubectl(
        *("delete", "mtenant", LAB.name, "-n", TEAM, f"--timeout={PATIENCE:.0f}s")
    )
    processes.wait_until(
        lambda: (
            {one for one in stage.names() if instance_name(VAULT) not in one}
            == {f"PersistentVolumeClaim/{claim_name(LAB)}"}
        ),
        what="only the volume left",
        timeout=PATIENCE,
    )
