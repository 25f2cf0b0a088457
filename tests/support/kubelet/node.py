"""The only node: takes every pod, runs its container, resolves the names of Services."""

import contextlib
import ipaddress
import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from tests.support import processes
from tests.support.kubelet import sandbox
from tests.support.kubelet.api import Api, NotYet, Object
from tests.support.kubelet.volumes import Volumes

_NODES = ("local", "other")
"""Both are this machine, with one network and the same volumes: a pod goes to the first that takes
pods (`kubectl cordon`, `kubectl drain`)."""
_TICK, _PROBE_EVERY, _RESTART_AFTER, _REFRESH_EVERY = 0.2, 1.0, 1.0, 2.0  # seconds
_HELD_PORT = 14_999
"""Of the last address of a kubelet's network, which shows others that it is taken."""


@dataclass(frozen=True, slots=True)
class Image:
    """The program behind all image names that begin alike.

    A pod's `command` and `args` replace entrypoint and command; in env (PATH, say) `{address}` is
    the pod's; folders of this machine stay visible under a volume (a checkout in a pod's /tmp).
    """

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()


class Pod:
    """A pod of this node, moved on by `tick`. The API server has filled in its spec's defaults."""

    def __init__(self, api: Api, manifest: Object, address: str, folder: Path) -> None:
        self.metadata, self.address, self.ready = manifest["metadata"], address, False
        self._api, self._spec = api, manifest["spec"]
        self._container = self._spec["containers"][0]
        name = "{namespace}_{name}".format_map(self.metadata)
        self._log = folder / "logs" / f"{name}_{self._container['name']}.log"
        self._folder = folder / "pods" / self.metadata["uid"]
        (self._folder / "root").mkdir(parents=True)
        self._hosts = self._folder / "hosts"
        self._hosts.touch()
        self._volumes = Volumes(api, manifest, self._folder / "volumes", folder / "claims")
        self._process: subprocess.Popen[bytes] | None = None
        self._refresh_at, self._start_at, self._probe_at, self._kill_at = 0.0, 0.0, 0.0, math.inf
        self._answered: dict[str, float] = {}  # when a probe last succeeded
        self._phase, self._message, self._restarts = "Pending", "", 0
        self._states: Object = {"state": {"waiting": {"reason": "ContainerCreating"}}}
        self._published: Object = {}

    def tick(self, images: Mapping[str, Image]) -> None:
        """Do what is due, and publish what changed."""
        try:
            self._advance(time.monotonic(), images)
        except (NotYet, OSError) as reason:
            self._message = str(reason)
        status = self._status()
        if status != self._published:
            path = "namespaces/{namespace}/pods/{name}/status".format_map(self.metadata)
            with contextlib.suppress(NotYet):  # the next tick tries again
                self._api.call("PATCH", path, {"status": status})
                self._published = status

    @property
    def pid(self) -> int | None:
        """Of its container's process."""
        return None if self._process is None else self._process.pid

    def stop(self, grace: float) -> bool:
        """SIGTERM at the first call, SIGKILL `grace` seconds later; True when nothing runs."""
        if self._process is not None and self._kill_at == math.inf:
            self._process.terminate()
        self._start_at, self._kill_at = math.inf, min(self._kill_at, time.monotonic() + grace)
        if self._process is not None and time.monotonic() >= self._kill_at:
            self._end(self._process)
        return self._process is None

    def resolve(self, services: list[Object], pods: Collection["Pod"]) -> None:
        """Write /etc/hosts: short names of Services within their own namespace, and long ones."""
        lines = ["127.0.0.1 localhost kubernetes.default.svc"]
        for service in services:
            name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
            names = [f"{name}.{namespace}{end}" for end in ("", ".svc", ".svc.cluster.local")]
            names += [name] if namespace == self.metadata["namespace"] else []
            wanted = service["spec"].get("selector", {}).items()
            for pod in pods:
                own = pod.metadata["namespace"] == namespace and wanted
                if own and pod.ready and wanted <= pod.metadata.get("labels", {}).items():
                    lines.append(" ".join([pod.address, *names]))
        text = "\n".join(lines) + "\n"
        if text != self._hosts.read_text():
            self._hosts.write_text(text)  # in place: the file is bind-mounted

    def _advance(self, now: float, images: Mapping[str, Image]) -> None:
        if now >= self._refresh_at and self._phase in {"Pending", "Running"}:
            self._refresh_at = now + _REFRESH_EVERY
            self._volumes.refresh()
            self._message = ""
        if self._process is None:
            if now >= self._start_at and not self._message:
                self._start(now, images)
        elif self._process.poll() is not None:
            self._end(self._process)
        elif now >= self._probe_at:
            self._probe_at = now + _PROBE_EVERY
            self._probe(self._process, now)

    def _start(self, now: float, images: Mapping[str, Image]) -> None:
        container, name = self._container, self._container["image"]
        image = next((images[prefix] for prefix in images if name.startswith(prefix)), None)
        if image is None or len(self._spec["containers"]) > 1 or "initContainers" in self._spec:
            raise NotYet(f"no local program for {name}, or the pod has several containers")
        command, args = container.get("command"), container.get("args")
        mounts = [self._volumes.mount(each) for each in container.get("volumeMounts", ())]
        for source, target in ((self._hosts, "/etc/hosts"), *((f, f) for f in image.folders)):
            mounts.append({"source": str(source), "target": str(target), "read_only": False})
        spec = {
            "root": str(self._folder / "root"),
            "directory": container.get("workingDir", "/"),
            "hostname": self.metadata["name"],
            "argv": [*(command or image.entrypoint), *(args or (() if command else image.command))],
            "env": self._environment(image),
            "read_only": container.get("securityContext", {}).get("readOnlyRootFilesystem", False),
            "mounts": mounts,
        }
        file = self._folder / "sandbox.json"
        file.write_text(json.dumps(spec))
        unshare = ["unshare", "-mu" if os.geteuid() == 0 else "-Urmu"]  # mounts and host name
        words = [*unshare, sys.executable, sandbox.__file__, str(file)]
        self._process = processes.spawn(words, log=self._log, new_session=True)
        self._phase, self._states["state"] = "Running", {"running": {}}
        startup = container.get("startupProbe", {"periodSeconds": 0, "failureThreshold": 0})
        alive_by = now + startup["periodSeconds"] * startup["failureThreshold"]
        self._answered = {"readinessProbe": -math.inf, "livenessProbe": alive_by}
        self.ready = "readinessProbe" not in container

    def _environment(self, image: Image) -> dict[str, str]:
        server, port = self._api.url.removeprefix("https://").split(":")
        env = {key: value.format(address=self.address) for key, value in image.env.items()}
        env |= {"KUBERNETES_SERVICE_HOST": server, "KUBERNETES_SERVICE_PORT": port}
        env |= {"HOME": "/", "HOSTNAME": self.metadata["name"], "POD_ADDRESS": self.address}
        for entry in self._container.get("env", ()):
            source = entry.get("valueFrom")
            env[entry["name"]] = self._volumes.field(source) if source else entry.get("value", "")
        return env

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill what is left, note the exit code, and start again later if the pod wants it."""
        processes.kill_group(process)
        code = 128 - process.returncode if process.returncode < 0 else process.returncode
        self._process, self.ready = None, False
        self._states["state"] = ended = {"terminated": {"exitCode": code}}
        final = {"Never", "OnFailure"} if code == 0 else {"Never"}
        if self._kill_at < math.inf or self._spec["restartPolicy"] in final:
            self._phase, self._start_at = "Failed" if code else "Succeeded", math.inf
        else:
            self._start_at, self._restarts = time.monotonic() + _RESTART_AFTER, self._restarts + 1
            self._states["lastState"] = ended

    def _probe(self, process: "subprocess.Popen[bytes]", now: float) -> None:
        """Ready, and alive, is what has answered within the time in which its probe may fail."""
        for kind in self._answered.keys() & self._container.keys():
            probe = self._container[kind]
            if self._answers(probe):
                self._answered[kind] = max(now, self._answered[kind])
            late = now - self._answered[kind] > probe["periodSeconds"] * probe["failureThreshold"]
            if kind == "readinessProbe":
                self.ready = not late
            elif late:
                process.terminate()

    def _answers(self, probe: Object) -> bool:
        ports = {p.get("name"): p["containerPort"] for p in self._container.get("ports", ())}
        patience = float(probe["timeoutSeconds"])
        if "tcpSocket" in probe:
            port = probe["tcpSocket"]["port"]
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, ports.get(port, port)), patience).close()
                return True
            return False
        get = probe.get("httpGet", {"port": 0, "path": ""})
        url = f"http://{self.address}:{ports.get(get['port'], get['port'])}{get['path']}"
        try:
            return urllib3.request("GET", url, timeout=patience, retries=False).status < 400
        except urllib3.exceptions.HTTPError:
            return False

    def _status(self) -> Object:
        container = {"name": self._container["name"], "image": self._container["image"]}
        container |= {"ready": self.ready, "restartCount": self._restarts} | self._states
        conditions = [{"type": t, "status": str(self.ready)} for t in ("ContainersReady", "Ready")]
        status = {"phase": self._phase, "message": self._message, "conditions": conditions}
        return status | {"containerStatuses": [container]}


class Kubelet:
    """Runs pods until it is closed; `logs` is the folder with a file a container."""

    def __init__(self, kubeconfig: Path, images: Mapping[str, Image]) -> None:
        self.images = dict(images)  # more may be added: a pod looks when it starts
        self._folder = Path(tempfile.mkdtemp(prefix="memtenant-kubelet-"))
        self.logs = self._folder / "logs"
        self.logs.mkdir()
        self._network, network = _own_network()
        self._addresses = network.hosts()
        self._pods: dict[str, Pod] = {}
        self._api = Api(kubeconfig)
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        for name in _NODES:
            with contextlib.suppress(NotYet):  # it is there already
                self._api.call("POST", "nodes", {"metadata": {"name": name}, "status": ready})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self._thread.start()

    def address(self, namespace: str, pod: str) -> str:
        """Where a pod's servers listen; empty for one that is not there."""
        for mine in list(self._pods.values()):
            if (mine.metadata["namespace"], mine.metadata["name"]) == (namespace, pod):
                return mine.address
        return ""

    def process(self, namespace: str, pod: str) -> int:
        """The id of the process of a pod's container; ``LookupError`` while it does not run."""
        for mine in list(self._pods.values()):
            named = (mine.metadata["namespace"], mine.metadata["name"]) == (namespace, pod)
            if named and mine.pid is not None:
                return mine.pid
        raise LookupError(f"{namespace}/{pod} does not run")

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What a container printed since its pod was first started."""
        return (self.logs / f"{namespace}_{pod}_{container}.log").read_text(errors="replace")

    def claim(self, namespace: str, name: str) -> Path:
        """The folder behind a PersistentVolumeClaim, which lives longer than the pods."""
        return self._folder / "claims" / namespace / name

    def close(self) -> None:
        """Kill all pods without a word to the API server, as a power cut would."""
        self._stop.set()
        self._thread.join()
        for pod in self._pods.values():
            pod.stop(grace=0)
        self._network.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            with contextlib.suppress(NotYet):  # the next round looks again
                pods = self._api.call("GET", "pods")["items"]
                for gone in self._pods.keys() - {pod["metadata"]["uid"] for pod in pods}:
                    self._pods.pop(gone).stop(grace=0)  # removed by force
                for pod in pods:
                    with contextlib.suppress(NotYet):  # one pod does not hold the others up
                        self._follow(pod)
                services = self._api.call("GET", "services")["items"]
                for mine in self._pods.values():
                    mine.resolve(services, self._pods.values())
            for mine in self._pods.values():
                mine.tick(self.images)

    def _follow(self, manifest: Object) -> None:
        """Bind a pod, take it on or end it, as the API server wants."""
        metadata = manifest["metadata"]
        uid, path = metadata["uid"], "namespaces/{namespace}/pods/{name}".format_map(metadata)
        if "deletionTimestamp" in metadata:
            pod = self._pods.get(uid)
            if pod is None or pod.stop(metadata["deletionGracePeriodSeconds"]):
                only_this = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
                self._api.call("DELETE", path, only_this)
        elif "nodeName" not in manifest["spec"]:
            binding = {"metadata": {"name": metadata["name"]}, "target": {"name": self._node()}}
            self._api.call("POST", f"{path}/binding", binding)
        elif uid not in self._pods and manifest["status"]["phase"] == "Pending":
            self._pods[uid] = Pod(self._api, manifest, str(next(self._addresses)), self._folder)

    def _node(self) -> str:
        nodes = self._api.call("GET", "nodes")["items"]
        closed = {one["metadata"]["name"] for one in nodes if one["spec"].get("unschedulable")}
        for name in _NODES:
            if name not in closed:
                return name
        raise NotYet("no node takes pods")


def _own_network() -> tuple[socket.socket, ipaddress.IPv4Network]:
    """Addresses of this machine's loopback that no kubelet of another process has, and what holds
    them while it is open."""
    while True:
        network = ipaddress.IPv4Network(f"127.{random.randrange(1, 255)}.0.0/16")
        held = socket.socket()
        try:
            held.bind((str(network[-2]), _HELD_PORT))
        except OSError:
            held.close()
            continue
        return held, network


def running(kubeconfig: Path, images: Mapping[str, Image]) -> "contextlib.closing[Kubelet]":
    """A kubelet for the length of the block."""
    return contextlib.closing(Kubelet(kubeconfig, images))
