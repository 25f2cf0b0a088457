"""The node: registers itself, takes every pod that no node has, and keeps names resolvable."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.kubelet.api import AWAY, Api, ApiError, Object
from tests.support.kubelet.container import timestamp
from tests.support.kubelet.images import Image
from tests.support.kubelet.pod import PodWorker

_POLL = 0.25  # seconds
_DOMAIN = "svc.cluster.local"


class Kubelet:
    """Runs pods until it is closed; `logs` is the folder with a file a container."""

    def __init__(
        self, kubeconfig: Path, images: Mapping[str, Image], *, name: str = "local", subnet: int = 1
    ) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix="memtenant-kubelet-"))
        self.logs = self.folder / "logs"
        self._api = Api(kubeconfig)
        self.images = dict(images)  # more may be added: a pod looks when it starts
        self._addresses = (f"127.{subnet}.{i // 250}.{i % 250 + 1}" for i in range(250 * 256))
        self._workers: dict[str, PodWorker] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self._register()
        self._thread.start()

    def address(self, namespace: str, pod: str) -> str:
        """The loopback address of a pod that runs here. Raises LookupError if none does."""
        for worker in list(self._workers.values()):
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, pod):
                return worker.address
        raise LookupError(f"no pod {namespace}/{pod} runs here")

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What a container printed since its pod was first started."""
        return (self.logs / f"{namespace}_{pod}_{container}.log").read_text(errors="replace")

    def close(self) -> None:
        """Kill all pods without a word to the API server, as a power cut would."""
        self._stop.set()
        self._thread.join()
        for worker in self._workers.values():
            worker.stop(grace=0)
        for worker in self._workers.values():
            worker.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _register(self) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}}
        with contextlib.suppress(ApiError):  # it is there already
            self._api.call("POST", "/api/v1/nodes", node)
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        times = {"lastHeartbeatTime": timestamp(), "lastTransitionTime": timestamp()}
        status = {
            "conditions": [ready | times],
            "addresses": [{"type": "Hostname", "address": self.name}],
            "nodeInfo": {"kubeletVersion": "v0.0.0-local-processes"},
        }
        self._api.call("PATCH", f"/api/v1/nodes/{self.name}/status", {"status": status})
        self._api.call("PATCH", f"/api/v1/nodes/{self.name}", {"spec": {"taints": None}})

    def _run(self) -> None:
        while not self._stop.wait(_POLL):
            with contextlib.suppress(AWAY, ApiError):  # the next round looks again
                pods = self._api.call("GET", "/api/v1/pods")["items"]
                services = self._api.call("GET", "/api/v1/services")["items"]
                self._reconcile(pods)
                self._resolve(services)

    def _reconcile(self, pods: list[Object]) -> None:
        here = {p["metadata"]["uid"]: p for p in pods if p["spec"].get("nodeName") == self.name}
        for pod in pods:
            if not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
                self._bind(pod)
        for uid, pod in here.items():
            ended = pod["status"].get("phase") in {"Succeeded", "Failed"}
            if "deletionTimestamp" in pod["metadata"]:
                self._delete(uid, pod)
            elif uid not in self._workers and not ended:
                address = next(self._addresses)
                worker = PodWorker(self._api, pod, address, self.folder, self.images)
                self._workers[uid] = worker
        for uid in self._workers.keys() - here.keys():  # removed by force
            self._workers[uid].stop(grace=0)
            if not self._workers[uid].running:
                del self._workers[uid]

    def _bind(self, pod: Object) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": self.name}
        binding = {"metadata": {"name": pod["metadata"]["name"]}, "target": target}
        with contextlib.suppress(ApiError):  # another kubelet was faster, or it has a gate
            self._api.call("POST", f"{_path(pod)}/binding", binding)

    def _delete(self, uid: str, pod: Object) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.stop(pod["metadata"].get("deletionGracePeriodSeconds", 30))
            if worker.running:
                return
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        with contextlib.suppress(ApiError):  # it is gone
            self._api.call("DELETE", _path(pod), options)

    def _resolve(self, services: list[Object]) -> None:
        """Tell every pod the names of Services: short ones within their own namespace."""
        entries: list[tuple[str, str, str]] = []  # address, name, namespace
        for service in services:
            name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
            for worker in self._behind(service):
                entries.append((worker.address, name, namespace))
                if service["spec"].get("clusterIP") == "None":
                    host = worker.pod["spec"].get("hostname", worker.pod["metadata"]["name"])
                    entries.append((worker.address, f"{host}.{name}", namespace))
        for worker in self._workers.values():
            own = worker.pod["metadata"]["namespace"]
            lines = ["127.0.0.1 localhost kubernetes.default kubernetes.default.svc"]
            for address, name, namespace in sorted(entries):
                names = [f"{name}.{namespace}{end}" for end in ("", ".svc", f".{_DOMAIN}")]
                lines.append(" ".join([address, *([name] if namespace == own else []), *names]))
            worker.hosts = "\n".join(lines) + "\n"

    def _behind(self, service: Object) -> list[PodWorker]:
        selector = service["spec"].get("selector") or {}
        unready_too = service["spec"].get("publishNotReadyAddresses", False)
        return [
            worker
            for worker in self._workers.values()
            if selector
            and worker.pod["metadata"]["namespace"] == service["metadata"]["namespace"]
            and selector.items() <= (worker.pod["metadata"].get("labels") or {}).items()
            and (worker.ready or unready_too)
        ]


def _path(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


@contextlib.contextmanager
def running(kubeconfig: Path, images: Mapping[str, Image]) -> Iterator[Kubelet]:
    """A kubelet for the length of the block."""
    kubelet = Kubelet(kubeconfig, images)
    try:
        yield kubelet
    finally:
        kubelet.close()
