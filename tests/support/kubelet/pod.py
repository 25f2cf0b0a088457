"""One pod in a thread of its own: its containers in order, its status, its end."""

import shutil
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.kubelet.api import AWAY, Api, ApiError, Object
from tests.support.kubelet.container import Container, timestamp
from tests.support.kubelet.images import Image
from tests.support.kubelet.volumes import NotReadyYet, Volumes

_TICK = 0.1  # seconds
_REFRESH = 2.0  # seconds between looks at Secrets, ConfigMaps and tokens
_RESTARTS = {"Always": {True, False}, "OnFailure": {False}, "Never": set[bool]()}


class PodWorker:
    """Runs a pod until it ends by itself, is deleted or the kubelet stops."""

    def __init__(
        self, api: Api, pod: Object, address: str, folder: Path, images: Mapping[str, Image]
    ) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        self.pod, self.address = pod, address
        self.ready = False
        self.hosts = "127.0.0.1 localhost\n"  # what /etc/hosts says in this pod
        self._written_hosts = ""
        self.folder = folder / "pods" / metadata["uid"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._api = api
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._volumes = Volumes(api, pod, address, self.folder / "volumes", folder / "claims")
        server, port = api.url.removeprefix("https://").rsplit(":", 1)
        env = {
            "HOSTNAME": spec.get("hostname", metadata["name"]),
            "HOME": "/",
            "POD_ADDRESS": address,
            "KUBERNETES_SERVICE_HOST": server,
            "KUBERNETES_SERVICE_PORT": port,
        }
        policy = _RESTARTS[spec["restartPolicy"]]

        def container(spec: Object, restarts_on: set[bool]) -> Container:
            own = self.folder / spec["name"]
            own.mkdir(exist_ok=True)
            log = folder / "logs" / f"{metadata['namespace']}_{metadata['name']}_{spec['name']}.log"
            log.parent.mkdir(exist_ok=True)
            rule = frozenset(restarts_on)
            return Container(spec, self._volumes, own, log, dict(images), env, rule)

        self._init = [container(s, policy - {True}) for s in spec.get("initContainers", ())]
        self._main = [container(s, policy) for s in spec["containers"]]
        self._refresh_at = 0.0
        self._waiting_for: str | None = "ContainerCreating"
        self._began = timestamp()
        self._published: Object = {}
        self._changed: dict[str, tuple[bool, str]] = {}
        self._stop = threading.Event()
        self._grace: float = 0.0
        self._thread = threading.Thread(target=self._run, name=metadata["name"], daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it still has something to do."""
        return self._thread.is_alive()

    def stop(self, grace: float) -> None:
        """SIGTERM, after `grace` seconds SIGKILL; returns at once."""
        self._grace = grace
        self._stop.set()

    def join(self) -> None:
        """Wait until nothing of the pod runs."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._tick()
            self._publish()
            if self._phase() in {"Succeeded", "Failed"}:
                break
            self._stop.wait(_TICK)
        self._terminate()
        while not self._publish() and not self._stop.wait(_TICK):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tick(self) -> None:
        if self.hosts != self._written_hosts:  # in place: the file is bind-mounted
            self._written_hosts = self.hosts
            (self.folder / "hosts").write_text(self._written_hosts)
        if time.monotonic() >= self._refresh_at:
            try:
                self._volumes.refresh()
                self._waiting_for = None
            except (NotReadyYet, ApiError) as missing:
                # A pod that runs already keeps what it has, as with the real kubelet.
                self._waiting_for = self._waiting_for and str(missing)
            except AWAY:
                pass
            self._refresh_at = time.monotonic() + (_REFRESH if not self._waiting_for else 0.5)
        if self._waiting_for:
            return
        try:
            for container in self._init:
                container.tick()
                if container.exit_code != 0:
                    return
            for container in self._main:
                container.tick()
        except (AWAY, ApiError):
            pass  # a container's environment could not be read: the next tick tries again

    def _terminate(self) -> None:
        everyone = [*self._init, *self._main]
        for container in everyone:
            container.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        while any(container.runs for container in everyone) and time.monotonic() < deadline:
            time.sleep(_TICK / 2)
        for container in everyone:
            container.end()

    def _phase(self) -> str:
        init = [container.exit_code for container in self._init]
        if any(code not in {0, None} for code in init):
            return "Failed"
        codes = [container.exit_code for container in self._main]
        if None not in codes:
            return "Failed" if any(codes) else "Succeeded"
        started = any("waiting" not in c.state or c.restarts for c in self._main)
        return "Running" if started else "Pending"

    def _publish(self) -> bool:
        """Write the status if it changed; False if the API server is away and gets it later."""
        status = self._status()
        if status == self._published:
            return True
        try:
            self._api.call("PATCH", f"{self._path}/status", {"status": status})
        except AWAY:
            return False
        except ApiError:
            pass  # the pod is gone, or this status is one that nobody wants
        self._published = status
        return True

    def _status(self) -> Object:
        phase = self._phase()
        initialised = all(container.exit_code == 0 for container in self._init)
        self.ready = phase == "Running" and all(container.ready for container in self._main)
        conditions = {
            "PodScheduled": True,
            "Initialized": initialised,
            "ContainersReady": self.ready,
            "Ready": self.ready,
        }
        return {
            "phase": phase,
            "message": self._waiting_for,
            "startTime": self._began,
            "conditions": [self._condition(k, v) for k, v in conditions.items()],
            "initContainerStatuses": [container.status for container in self._init],
            "containerStatuses": [container.status for container in self._main],
        }

    def _condition(self, kind: str, holds: bool) -> Object:
        before, since = self._changed.get(kind, (not holds, ""))
        if before != holds:
            since = timestamp()
            self._changed[kind] = holds, since
        return {"type": kind, "status": str(holds), "lastTransitionTime": since}
