"""Pods run as the API describes them: a kubelet's promises, on a real API server."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.kubelet import Image, Kubelet

RunPod = Callable[..., str]


@pytest.fixture
def run_pod(cluster: Cluster, kubelet: Kubelet, namespace: str) -> RunPod:
    """`run_pod(script, name=…, until=…, container={…}, **spec)` → what the container printed."""

    def run(
        script: str,
        *,
        name: str = "pod",
        until: str = "phase=Succeeded",
        container: dict[str, Any] | None = None,
        labels: dict[str, str] | None = None,
        **spec: Any,
    ) -> str:
        main = {"name": "main", "image": "example.org/shell", "args": [script]}
        main |= container or {}
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"restartPolicy": "Never", "containers": [main], **spec},
            }
        )
        wait_for(cluster, namespace, f"pod/{name}", until)
        return kubelet.log(namespace, name, "main").strip() if "Pending" not in until else ""

    return run


def wait_for(cluster: Cluster, namespace: str, what: str, until: str) -> None:
    condition = f"jsonpath={{.status.{until.replace('=', '}=', 1)}" if "=" in until else until
    cluster.kubectl("wait", what, "-n", namespace, f"--for={condition}", "--timeout=120s")


def status(cluster: Cluster, namespace: str, name: str = "pod") -> dict[str, Any]:
    found = cluster.get(f"pod/{name}", "-n", namespace)["status"]
    assert isinstance(found, dict)
    return found


def secret(namespace: str, name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_volumes_are_where_the_pod_says(cluster: Cluster, namespace: str, run_pod: RunPod) -> None:
    cluster.apply(secret(namespace, "s", password="p4ss"), config_map(namespace, "c", color="red"))
    items = [{"key": "color", "path": "colour"}]
    read_all = "cat /bindings/db/password /etc/demo/deep/colour; stat -Lc %a /bindings/db/password"
    printed = run_pod(
        f"{read_all}; touch /scratch/x && echo ' written'; touch /bindings/db/x || echo refused",
        volumes=[
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o440}},
            {"name": "c", "configMap": {"name": "c", "items": items}},
            {"name": "e", "emptyDir": {}},
        ],
        container={
            "volumeMounts": [
                {"name": "s", "mountPath": "/bindings/db"},
                {"name": "c", "mountPath": "/etc/demo/deep"},
                {"name": "e", "mountPath": "/scratch"},
            ]
        },
    )
    assert printed.splitlines()[0] == "p4ssred440"
    assert printed.splitlines()[1] == " written"
    assert printed.splitlines()[-1] == "refused"
    assert not Path("/bindings").exists()
    assert not Path("/etc/demo").exists()


def test_an_image_is_there_although_a_volume_covers_its_folder(
    kubelet: Kubelet, run_pod: RunPod, tmp_path: Path
) -> None:
    program = tmp_path / "image" / "program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho ran; ls -A " + str(tmp_path))
    program.chmod(0o755)
    (tmp_path / "covered").touch()
    kubelet.images["example.org/covered"] = Image((str(program),), folders=(program.parent,))
    printed = run_pod(
        "",
        volumes=[{"name": "tmp", "emptyDir": {}}],
        container={
            "image": "example.org/covered",
            "volumeMounts": [{"name": "tmp", "mountPath": str(tmp_path)}],
        },
    )
    assert printed.split() == ["ran", "image"]


def test_a_folder_of_a_claim_outlives_its_pod(
    run_pod: RunPod, cluster: Cluster, namespace: str
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    cluster.apply(claim)
    pod: dict[str, Any] = {
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        "container": {"volumeMounts": [{"name": "d", "mountPath": "/var/lib/data"}]},
    }
    run_pod("echo kept > /var/lib/data/file", name="writer", **pod)
    assert run_pod("cat /var/lib/data/file", name="reader", **pod) == "kept"


def test_environment_comes_from_where_the_pod_says(run_pod: RunPod) -> None:
    printed = run_pod(
        "",
        container={
            "command": ["sh", "-c"],
            "args": ["echo $GREETING $NAME"],
            "env": [
                {"name": "GREETING", "value": "hello"},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
        },
    )
    assert printed == "hello pod"


def test_in_cluster_configuration_is_that_of_the_service_account(
    namespace: str, run_pod: RunPod
) -> None:
    script = (
        "import kubernetes\n"
        "kubernetes.config.load_incluster_config()\n"
        "api = kubernetes.client.AuthenticationV1Api()\n"
        "review = api.create_self_subject_review(kubernetes.client.V1SelfSubjectReview())\n"
        "print(review.status.user_info.username)\n"
    )
    printed = run_pod(script, container={"image": "example.org/python:3", "args": [script]})
    assert printed == f"system:serviceaccount:{namespace}:default"


def test_a_pod_waits_for_a_secret_that_is_not_there_yet(
    cluster: Cluster, namespace: str, run_pod: RunPod
) -> None:
    run_pod(
        "cat /late/x",
        until="phase=Pending",
        volumes=[{"name": "l", "secret": {"secretName": "late"}}],
        container={"volumeMounts": [{"name": "l", "mountPath": "/late"}]},
    )
    wait_for(cluster, namespace, "pod/pod", 'message=secrets "late" not found')
    cluster.apply(secret(namespace, "late", x="now"))
    wait_for(cluster, namespace, "pod/pod", "phase=Succeeded")


def test_a_changed_secret_reaches_a_running_pod(
    cluster: Cluster, namespace: str, run_pod: RunPod
) -> None:
    cluster.apply(secret(namespace, "s", old="1", version="1"))
    run_pod(
        "until grep -q 2 /s/version; do sleep 0.1; done; ls /s",
        until="phase=Running",
        volumes=[{"name": "s", "secret": {"secretName": "s"}}],
        container={"volumeMounts": [{"name": "s", "mountPath": "/s"}]},
    )
    cluster.kubectl("delete", "secret/s", "-n", namespace)
    cluster.apply(secret(namespace, "s", new="2", version="2"))
    wait_for(cluster, namespace, "pod/pod", "phase=Succeeded")


FROM_SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"container": {"image": "example.org/unknown"}}, "example.org/unknown"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"container": {"env": [{"name": "X", "valueFrom": FROM_SECRET}]}}, "secretKeyRef"),
        ({"initContainers": [{"name": "i", "image": "example.org/shell"}]}, "several containers"),
    ],
    ids=["image", "volume", "environment", "init container"],
)
def test_what_it_cannot_run_is_said_in_the_pods_status(
    cluster: Cluster, namespace: str, run_pod: RunPod, more: dict[str, Any], message: str
) -> None:
    run_pod("", until="phase=Pending", **more)
    processes.wait_until(
        lambda: message in status(cluster, namespace).get("message", ""), what="a message"
    )


def test_a_read_only_root_is_read_only_but_for_its_volumes(run_pod: RunPod) -> None:
    printed = run_pod(
        "touch /tmp/x || echo root; touch /own/x && echo volume; echo > /dev/null && echo dev",
        volumes=[{"name": "e", "emptyDir": {}}],
        container={
            "volumeMounts": [{"name": "e", "mountPath": "/own"}],
            "securityContext": {"readOnlyRootFilesystem": True},
        },
    )
    assert [line for line in printed.splitlines() if " " not in line] == ["root", "volume", "dev"]


SERVER = "python -m http.server --bind $POD_ADDRESS 8080"
READY = {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1}
WEB = {"ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": READY}


def test_services_resolve_both_ways_between_two_pods(
    cluster: Cluster, namespace: str, kubelet: Kubelet, run_pod: RunPod
) -> None:
    for name in ("one", "two"):
        ports = [{"port": 8080}]
        spec = {"selector": {"app": name}, "ports": ports}
        metadata = {"name": name, "namespace": namespace}
        cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    for name, other in (("one", f"two.{namespace}.svc"), ("two", "one")):
        fetch = f"until python -c \"import urllib.request as r; r.urlopen('http://{other}:8080')\""
        reach = f"{fetch} 2>/dev/null; do sleep 0.2; done; echo reached {other} from $POD_ADDRESS"
        script = f"{SERVER} & {reach}; wait"
        run_pod(script, name=name, labels={"app": name}, container=WEB, until="phase=Running")
    for name, other in (("one", f"two.{namespace}.svc"), ("two", "one")):
        processes.wait_until(
            lambda name=name, other=other: (  # type: ignore[misc]
                f"reached {other}" in kubelet.log(namespace, name, "main")
            ),
            what=f"{name} reaches {other}",
        )
    logs = [kubelet.log(namespace, name, "main") for name in ("one", "two")]
    told = [line for log in logs for line in log.splitlines() if line.startswith("reached ")]
    addresses = {line.split()[-1] for line in told}
    assert len(addresses) == 2


def test_a_pod_is_ready_when_its_probe_says_so_and_no_longer(
    cluster: Cluster, namespace: str, run_pod: RunPod
) -> None:
    run_pod(
        f"sleep 1; timeout 5 {SERVER}; sleep 60",
        until="phase=Running",
        container=WEB | {"readinessProbe": READY | {"failureThreshold": 2}},
    )
    for verdict in ("True", "False"):
        condition = f"--for=condition=Ready={verdict}"
        cluster.kubectl("wait", "pod/pod", "-n", namespace, condition, "--timeout=120s")


def test_a_startup_probe_gives_liveness_time(
    cluster: Cluster, namespace: str, run_pod: RunPod
) -> None:
    run_pod(
        f"sleep 4; exec {SERVER}",
        until="phase=Running",
        container=WEB
        | {
            "startupProbe": READY | {"failureThreshold": 60},
            "livenessProbe": READY | {"failureThreshold": 1},
        },
    )
    cluster.kubectl("wait", "pod/pod", "-n", namespace, "--for=condition=Ready", "--timeout=120s")
    assert status(cluster, namespace)["containerStatuses"][0]["restartCount"] == 0


def test_a_pod_whose_liveness_fails_is_restarted(
    cluster: Cluster, namespace: str, run_pod: RunPod
) -> None:
    run_pod(
        "exec sleep 60",
        until="phase=Running",
        restartPolicy="Always",
        container={"ports": WEB["ports"], "livenessProbe": READY | {"failureThreshold": 1}},
    )
    wait_for(cluster, namespace, "pod/pod", "containerStatuses[0].restartCount=1")
    last = status(cluster, namespace)["containerStatuses"][0]["lastState"]["terminated"]
    assert last["exitCode"] == 143


def job(namespace: str, script: str, **spec: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "example.org/shell", "args": [script]}
    pod = {"spec": {"restartPolicy": "Never", "containers": [main]}}
    metadata = {"name": "job", "namespace": namespace}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"template": pod, **spec},
    }


def test_a_job_that_exits_with_0_is_complete(
    cluster: Cluster, namespace: str, kubelet: Kubelet
) -> None:
    cluster.apply(job(namespace, "exit 0"))
    cluster.kubectl(
        "wait", "job/job", "-n", namespace, "--for=condition=Complete", "--timeout=120s"
    )


def test_a_job_that_fails_shows_its_exit_code(
    cluster: Cluster, namespace: str, kubelet: Kubelet
) -> None:
    cluster.apply(job(namespace, "exit 3", backoffLimit=0))
    cluster.kubectl("wait", "job/job", "-n", namespace, "--for=condition=Failed", "--timeout=120s")
    pods = cluster.get("pods", "-n", namespace)["items"]
    (container,) = pods[0]["status"]["containerStatuses"]
    assert container["state"]["terminated"]["exitCode"] == 3


def test_on_failure_restarts_until_it_succeeds(
    cluster: Cluster, namespace: str, run_pod: RunPod
) -> None:
    run_pod(
        "test -e /e/tried || { touch /e/tried; exit 1; }",
        restartPolicy="OnFailure",
        volumes=[{"name": "e", "emptyDir": {}}],
        container={"volumeMounts": [{"name": "e", "mountPath": "/e"}]},
    )
    (container,) = status(cluster, namespace)["containerStatuses"]
    assert container["restartCount"] == 1


def test_deletion_lets_a_pod_finish_within_its_grace_period(
    cluster: Cluster, namespace: str, kubelet: Kubelet, run_pod: RunPod
) -> None:
    run_pod(
        "trap 'echo goodbye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
        until="phase=Running",
    )
    processes.wait_until(lambda: "up" in kubelet.log(namespace, "pod", "main"), what="pod is up")
    cluster.kubectl("delete", "pod/pod", "-n", namespace, "--timeout=120s")
    assert "goodbye" in kubelet.log(namespace, "pod", "main")


def test_deletion_kills_what_ignores_sigterm(
    cluster: Cluster, namespace: str, kubelet: Kubelet, run_pod: RunPod
) -> None:
    run_pod(
        "trap '' TERM; echo $$; while :; do sleep 0.1; done",
        until="phase=Running",
        terminationGracePeriodSeconds=1,
    )
    processes.wait_until(lambda: kubelet.log(namespace, "pod", "main") != "", what="pod is up")
    pid = int(kubelet.log(namespace, "pod", "main"))
    cluster.kubectl("delete", "pod/pod", "-n", namespace, "--timeout=120s")
    assert not processes.exists(pid)


def test_a_deployment_comes_up_under_its_own_service_account(
    cluster: Cluster, namespace: str, kubelet: Kubelet
) -> None:
    script = "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; hostname; sleep 60"
    main = {"name": "main", "image": "example.org/shell", "args": [script]}
    labels = {"app": "demo"}
    pod_spec = {"serviceAccountName": "runner", "containers": [main]}
    cluster.kubectl("create", "serviceaccount", "runner", "-n", namespace)
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "demo", "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod_spec},
            },
        }
    )
    cluster.kubectl("rollout", "status", "deployment/demo", "-n", namespace, "--timeout=120s")
    names = [p["metadata"]["name"] for p in cluster.get("pods", "-n", namespace)["items"]]
    assert len(names) == 2
    for name in names:
        processes.wait_until(
            lambda name=name: (  # type: ignore[misc]
                kubelet.log(namespace, name, "main") == f"{namespace}{name}\n"
            ),
            what=f"{name} prints its namespace and host name",
        )


def test_a_deployment_scaled_down_leaves_no_process(
    cluster: Cluster, namespace: str, kubelet: Kubelet
) -> None:
    script = "echo $$; exec sleep 1000"
    main = {"name": "main", "image": "example.org/shell", "args": [script]}
    labels = {"app": "demo"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [main]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo", "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    cluster.apply(deployment)
    cluster.kubectl("rollout", "status", "deployment/demo", "-n", namespace, "--timeout=120s")
    (pod,) = cluster.get("pods", "-n", namespace)["items"]
    name = pod["metadata"]["name"]
    processes.wait_until(lambda: kubelet.log(namespace, name, "main") != "", what="its pid")
    cluster.kubectl("scale", "deployment/demo", "--replicas=0", "-n", namespace)
    cluster.kubectl("wait", f"pod/{name}", "-n", namespace, "--for=delete", "--timeout=120s")
    assert not processes.exists(int(kubelet.log(namespace, name, "main")))


@pytest.mark.cluster
def test_pods_outlive_an_absent_api_server() -> None:

    with control_plane.running() as own:
        kubelet = Kubelet(own.kubeconfig, {"example.org/shell": Image(entrypoint=("sh", "-c"))})
        try:
            own.create_namespace("away")
            args = ["for i in 1 2 3 4 5 6; do sleep 0.5; done; echo done"]
            main = {"name": "main", "image": "example.org/shell", "args": args}
            spec = {"restartPolicy": "Never", "containers": [main]}
            metadata = {"name": "pod", "namespace": "away"}
            own.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
            wait_for(own, "away", "pod/pod", "phase=Running")
            own.kill_api()
            processes.wait_until(
                lambda: "done" in kubelet.log("away", "pod", "main"), what="the pod's end"
            )
            own.start_api()
            wait_for(own, "away", "pod/pod", "phase=Succeeded")
        finally:
            kubelet.close()


@pytest.mark.cluster
def test_a_killed_kubelet_leaves_no_pod_behind(tmp_path: Path) -> None:
    with control_plane.running() as own:
        own.create_namespace("crash")
        script = (
            "import pathlib, threading\n"
            "from tests.support.kubelet import Image, running\n"
            "images = {'example.org/shell': Image(entrypoint=('sh', '-c'))}\n"
            f"with running(pathlib.Path('{own.kubeconfig}'), images):\n"
            "    threading.Event().wait()\n"
        )
        env = os.environ | {"TMPDIR": str(tmp_path)}
        run = subprocess.Popen([sys.executable, "-c", script], env=env)
        pod_file = tmp_path / "pid"
        args = [f"echo $$ > {pod_file}; exec sleep 1000"]
        main = {"name": "main", "image": "example.org/shell:1", "args": args}
        metadata = {"name": "pod", "namespace": "crash"}
        spec = {"containers": [main]}
        own.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        processes.wait_until(lambda: pod_file.exists() and pod_file.read_text() != "", what="a pod")
        pid = int(pod_file.read_text())
        assert processes.exists(pid)
        run.kill()
        run.wait()
        processes.wait_until(lambda: not processes.exists(pid), what="the pod's end")
