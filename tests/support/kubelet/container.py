"""One container: a process in namespaces of its own, its state, probes and restarts."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.support import processes
from tests.support.kubelet import sandbox
from tests.support.kubelet.api import Object
from tests.support.kubelet.images import Image, find
from tests.support.kubelet.volumes import NotReadyYet, Volumes

_BACKOFF, _LONGEST_BACKOFF = 0.5, 10.0  # seconds
_IMPATIENCE = 1.0  # seconds between the probes of a container that is not ready
_UNSHARE = ["unshare", "--mount", "--uts", "--propagation", "private"]


@dataclass(slots=True)
class Container:
    """A container of a pod; `tick` moves it on, the rest says how it is."""

    spec: Object
    volumes: Volumes
    folder: Path
    log: Path
    images: dict[str, Image]
    env: dict[str, str]
    restarts_on: frozenset[bool]  # after success, after failure
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _start_at: float = 0.0
    _since: str = ""
    _due: dict[str, float] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int | None:
        """How it ended for good, or None."""
        ended = self.state.get("terminated")
        return None if ended is None or self._will_restart(ended) else int(ended["exitCode"])

    @property
    def status(self) -> Object:
        """Its entry in the pod's status."""
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }

    def tick(self) -> None:
        """Start it when due, notice its end, probe it."""
        now = time.monotonic()
        if self.runs:
            self._probe_all(now)
        elif self._process is not None:
            self._ended(self._process, now)
        elif self.exit_code is None and now >= self._start_at:
            try:
                self._start(now)
            except NotReadyYet as error:
                reason = {"reason": "CreateContainerConfigError", "message": str(error)}
                self.state = {"waiting": reason}
                self._start_at = now + _BACKOFF

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send its process a signal, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def end(self) -> None:
        """Kill whatever still runs, and note how it ended."""
        if self._process is not None:
            processes.kill_group(self._process)
            self._ended(self._process, time.monotonic())

    def _start(self, now: float) -> None:
        image = find(self.images, self.spec["image"])
        if image is None:
            raise NotReadyYet(f"image {self.spec['image']} stands for no local program")
        env = self._environment(image)
        argv = [_expand(part, env) for part in image.argv(self.spec)]
        context = self.spec.get("securityContext") or {}
        mounted = self.spec.get("volumeMounts", ())
        names = str(self.folder.parent / "hosts")
        hosts = {"source": names, "target": "/etc/hosts", "read_only": False}
        spec = {
            "root": str(self.folder / "root"),
            "directory": self.spec.get("workingDir", "/"),
            "hostname": self.env["HOSTNAME"],
            "argv": argv,
            "env": env,
            "read_only": bool(context.get("readOnlyRootFilesystem")),
            "mounts": [*map(self._mount, mounted), *self._kept(image, mounted), hosts],
        }
        Path(spec["root"]).mkdir(exist_ok=True)
        file = self.folder / f"{self.spec['name']}.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(spec))
        command = [*_UNSHARE, *_unprivileged(), sys.executable, sandbox.__file__, str(file)]
        self._process = processes.spawn(command, log=self.log, new_session=True)
        self._since = timestamp()
        self.state = {"running": {"startedAt": self._since}}
        self._failures, self._due = {}, {}
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            self._due[name] = now + self.spec.get(name, {}).get("initialDelaySeconds", 0)
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec

    def _mount(self, mount: Object) -> Object:
        source = self.volumes.path(mount["name"]) / mount.get("subPath", "")
        if "subPath" in mount and self.volumes.writable(mount["name"]):
            source.mkdir(parents=True, exist_ok=True)
        read_only = mount.get("readOnly", False) or not self.volumes.writable(mount["name"])
        return {"source": str(source), "target": mount["mountPath"], "read_only": read_only}

    def _kept(self, image: Image, mounted: Sequence[Object]) -> list[Object]:
        covered = (
            f for f in image.folders if any(f.is_relative_to(m["mountPath"]) for m in mounted)
        )
        return [{"source": str(f), "target": str(f), "read_only": False} for f in covered]

    def _environment(self, image: Image) -> dict[str, str]:
        own = {k: v.format(address=self.volumes.address) for k, v in image.env.items()}
        env = own | self.env
        for source in self.spec.get("envFrom", ()):
            kind, ref = next((k, v) for k, v in source.items() if k != "prefix")
            data = self.volumes.entries(kind.removesuffix("Ref"), ref)
            env |= {source.get("prefix", "") + k: v.decode() for k, v in data.items()}
        for entry in self.spec.get("env", ()):
            match entry.get("valueFrom"):
                case None:
                    env[entry["name"]] = _expand(entry.get("value", ""), env)
                case {"fieldRef": ref}:
                    env[entry["name"]] = self.volumes.field(ref["fieldPath"])
                case {"secretKeyRef": ref} | {"configMapKeyRef": ref} as source:
                    kind = next(iter(source)).removesuffix("KeyRef")
                    data = self.volumes.entries(kind, ref)
                    if ref["key"] in data:
                        env[entry["name"]] = data[ref["key"]].decode()
                    elif not ref.get("optional", False):
                        raise NotReadyYet(f"{kind} {ref['name']!r} has no key {ref['key']!r}")
                case other:
                    raise NotReadyYet(f"this kubelet cannot resolve env from {other}")
        return env

    def _ended(self, process: subprocess.Popen[bytes], now: float) -> None:
        processes.kill_group(process)  # what the container's own process left behind
        code = process.returncode
        code = 128 - code if code < 0 else code
        self._process, self.ready, self.started = None, False, False
        reason = "Completed" if code == 0 else "Error"
        times = {"startedAt": self._since, "finishedAt": timestamp()}
        ended = {"exitCode": code, "reason": reason, **times}
        self.state = {"terminated": ended}
        if self._will_restart(ended):
            self._start_at = now + min(_BACKOFF * 2**self.restarts, _LONGEST_BACKOFF)
            self.restarts += 1
            self.last_state = self.state
            self.state = {"waiting": {"reason": "CrashLoopBackOff"}}

    def _will_restart(self, ended: Object) -> bool:
        return (ended["exitCode"] == 0) in self.restarts_on

    def _probe_all(self, now: float) -> None:
        if not self.started:
            self.started = bool(self._probe("startupProbe", now))
            self.ready = self.started and "readinessProbe" not in self.spec
            return
        verdict = self._probe("readinessProbe", now)
        self.ready = self.ready if verdict is None else verdict
        if self._probe("livenessProbe", now) is False:
            self.signal(signal.SIGTERM)

    def _probe(self, name: str, now: float) -> bool | None:
        """Whether its threshold is reached either way; None while it is not, or nothing is due."""
        probe = self.spec.get(name)
        if probe is None or now < self._due[name]:
            return None
        period = probe.get("periodSeconds", 10)
        patient = self.ready or name == "livenessProbe"
        self._due[name] = now + (period if patient else min(period, _IMPATIENCE))
        if self._check(probe):
            self._failures[name] = 0
            return True
        self._failures[name] = self._failures.get(name, 0) + 1
        return None if self._failures[name] < probe.get("failureThreshold", 3) else False

    def _check(self, probe: Object) -> bool:
        seconds = probe.get("timeoutSeconds", 1)
        try:
            match probe:
                case {"httpGet": get}:
                    host, port = self._where(get)
                    scheme = get.get("scheme", "HTTP").lower()
                    url = f"{scheme}://{host}:{port}{get.get('path', '/')}"
                    _opener().open(url, timeout=seconds).close()
                    return True
                case {"tcpSocket": tcp}:
                    socket.create_connection(self._where(tcp), timeout=seconds).close()
                    return True
                case {"exec": action} if self._process is not None:
                    enter = ["nsenter", "-t", str(self._process.pid), "-m", "-r", *_entering()]
                    command = [*enter, *action["command"]]
                    subprocess.run(command, timeout=seconds, capture_output=True, check=True)
                    return True
        except (OSError, http.client.HTTPException, subprocess.SubprocessError):
            pass
        return False

    def _where(self, action: Object) -> tuple[str, int]:
        ports = {p.get("name"): p["containerPort"] for p in self.spec.get("ports", ())}
        port = action["port"]
        host = action.get("host") or self.volumes.address
        return host, port if isinstance(port, int) else ports[port]


def timestamp() -> str:
    """Now, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _opener() -> urllib.request.OpenerDirector:
    """Without the machine's proxies, and, as probes are, content with any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )


def _expand(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` becomes its value, an unknown one stays, `$$(NAME)` is an escape."""
    return re.sub(
        r"\$(\$\([\w.-]+\))|\$\(([\w.-]+)\)",
        lambda found: found[1] or env.get(found[2], found[0]),
        text,
    )


def _unprivileged() -> list[str]:
    return [] if os.geteuid() == 0 else ["--user", "--map-root-user"]


def _entering() -> list[str]:
    return [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
