"""What Strict tenants cost the operator with their pods: a real API server, a kubelet, and the
operator as the chart installs it. `python -m tests.bench.strict --pods [INSTANCES]`.

CPU is of the operator's process alone; requests are those of its account, as the API server's audit
log has them. In the middle of the upgrade the operator is killed.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.processes import cpu_seconds, rss_mb
from tests.bench.report import Row
from tests.bench.stage import HOME, RELEASE, ROOT, TEAM
from tests.e2e.instances import server_image, storage_class, volume
from tests.support import processes
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.kubelet import Image, Kubelet
from tests.support.kubelet import running as running_kubelet
from tests.support.servers import Flavour

_API = "memtenant.dev/v1alpha1"
_PATIENCE = 1200.0
_QUIET = 12.0
"""Seconds without a request after which nothing is left to do: longer than the longest round of
those that end in requests."""

_REST = 30.0
_POLL = 0.1
_TRIAL = " (dry run)"
_ITS_OWN = {"leases", "selfsubjectaccessreviews"}
"""Its leadership, and what it asks of its own rights: neither concerns a tenant."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """So many tenants brought somewhere: CPU seconds of the operator and seconds until its last
    request, and what it asked for. At rest, all of the time."""

    tenants: int
    cpu: float
    requests: dict[str, int]
    seconds: float

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU a tenant."""
        return self.cpu / self.tenants * 1000

    @property
    def writes(self) -> int:
        """Requests that write."""
        return sum(
            n
            for name, n in self.requests.items()
            if not name.startswith("get ") and not name.endswith(_TRIAL)
        )


@dataclass(frozen=True, slots=True)
class PodCost:
    """From nothing to Ready, a look at each with nothing to do, a time at rest, a restart of the
    operator, another image. ``away`` is how many instances were away at once during the last one,
    in the middle of which the operator was killed; ``rss`` is in MB."""

    made: Step
    looked_at: Step
    rest: Step
    restart: Step
    upgrade: Step
    away: int
    rss: float


@dataclass
class _Stage:
    cluster: Cluster
    kubelet: Kubelet
    counted: int = 0
    """Bytes of the audit log that were read."""
    seen: Counter[str] = field(default_factory=Counter)
    last: float = field(default_factory=time.monotonic)
    spent: float = 0.0
    """CPU of the operator's process at its last request."""
    process: int = 0

    @property
    def operator(self) -> int:
        """The id of the process that leads, or is about to."""
        wanted = ("pods", "-n", HOME, "-l", "app.kubernetes.io/component=controller")
        for pod in self.cluster.get(*wanted)["items"]:
            with suppress(LookupError):
                if "deletionTimestamp" not in pod["metadata"]:
                    return self.kubelet.process(HOME, pod["metadata"]["name"])
        return 0

    def end_operator(self, how: signal.Signals) -> int:
        """End the process that leads, and follow it no longer; which it was."""
        self.process, ended = 0, self.operator
        os.kill(ended, how)
        return ended

    def requests(self) -> Counter[str]:
        """All of the operator's so far, by verb and resource; `last` is when there was another."""
        before = self.last
        with self.cluster.audit_log.open("rb") as log:
            log.seek(self.counted)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self.counted += len(line)
                self._count(json.loads(line))
        if self.process and self.last > before:
            self.spent = cpu_seconds(self.process)
        return self.seen

    def _count(self, entry: Object) -> None:
        found, verb = entry.get("objectRef", {}), entry["verb"]
        resource = found.get("resource", "")
        if resource in _ITS_OWN or verb in {"watch", "list"} or not resource:
            return
        trial = _TRIAL if "dryRun=All" in entry["requestURI"] else ""
        sub = f"/{found['subresource']}" if "subresource" in found else ""
        self.seen[f"{verb} {resource}{sub}{trial}"] += 1
        self.last = time.monotonic()

    def settle(self) -> None:
        """Wait until it has asked for nothing for a while."""
        deadline = time.monotonic() + _PATIENCE
        self.requests()
        while time.monotonic() < max(self.last, 0) + _QUIET:
            if time.monotonic() > deadline:
                raise processes.StartFailed("the operator does not come to rest")
            time.sleep(_POLL)
            self.requests()

    def step(self, tenants: int, work: Callable[[], None]) -> Step:
        """What the operator did until it rested again. One that was restarted counts from nothing;
        of one that was killed the last process is what is counted."""
        self.process = before = self.operator
        requests, started = Counter(self.requests()), time.monotonic()
        cpu = self.spent = cpu_seconds(before)
        self.last = started
        work()
        # On a machine that is too busy it loses its Lease, and ends.
        processes.wait_until(lambda: self.operator != 0, what="the operator", timeout=_PATIENCE)
        self.process = now = self.operator
        self.spent = cpu_seconds(now)
        self.settle()
        self.process = 0
        done = {name: n for name, n in sorted((self.seen - requests).items()) if n}
        if not done:
            self.spent, self.last = cpu_seconds(now), time.monotonic()
        spent = self.spent - (cpu if now == before else 0.0)
        return Step(tenants, spent, done, self.last - started)

    def instances(self) -> list[Object]:
        """The pods of all instances."""
        label = "memtenant.dev/component=tenant-instance"
        found: list[Object] = self.cluster.get("pods", "-n", HOME, "-l", label)["items"]
        return found


def measure(instances: int) -> PodCost:
    """With so many Strict tenants, over as many pods of a Redis with TLS. Each step is printed when
    it ends: the last one takes long."""
    with _built(instances) as stage:

        def step(what: str, tenants: int, work: Callable[[], None]) -> Step:
            done = stage.step(tenants, work)
            print(f"{what}: {_words(done)}", flush=True)
            return done

        stage.cluster.apply(_tenant(0))
        _ready(stage)
        stage.settle()
        made = step("from nothing to Ready", instances, lambda: _make(stage, instances))
        many = instances + 1
        looked_at = step("looked at", many, lambda: _look(stage))
        rest = step("at rest", many, lambda: time.sleep(_REST))
        rss = rss_mb(stage.operator)
        restart = step("the operator restarted", many, lambda: _restart(stage))
        away: list[int] = []
        upgrade = step("another image", many, lambda: away.append(_upgrade(stage)))
        return PodCost(made, looked_at, rest, restart, upgrade, away[0], rss)


def rows(cost: PodCost) -> list[Row]:
    """As lines of the report."""
    many = cost.made.tenants
    return [
        Row(
            f"{many} Strict tenants with pods, from nothing to Ready: the operator's CPU",
            "",
            f"{cost.made.cpu_ms:.0f} ms each; {cost.made.writes / many:.1f} writes each",
            None,
        ),
        Row(
            "… all looked at with nothing to do",
            "0 writes",
            f"{cost.looked_at.cpu_ms:.0f} ms each; {cost.looked_at.writes} writes",
            cost.looked_at.writes == 0,
        ),
        Row(
            f"… at rest, {cost.rest.seconds:.0f} s",
            "0 writes",
            f"{cost.rest.cpu / cost.rest.seconds * 100:.1f} % of a core; "
            f"{cost.rest.writes} writes; {cost.rss:.0f} MB",
            cost.rest.writes == 0,
        ),
        Row(
            "… the operator restarted",
            "0 writes",
            f"{cost.restart.cpu_ms:.0f} ms each; {cost.restart.writes} writes; "
            f"{cost.restart.seconds:.0f} s",
            cost.restart.writes == 0,
        ),
        Row(
            "… another image, the operator killed in the middle: instances away at once",
            "1",
            f"{cost.away}; {cost.upgrade.seconds / cost.upgrade.tenants:.1f} s each",
            cost.away == 1,
        ),
    ]


def _words(step: Step) -> str:
    most_first = sorted(step.requests.items(), key=lambda one: (-one[1], one[0]))
    each = ", ".join(f"{n / step.tenants:.2f} {what}" for what, n in most_first)
    return f"{step.cpu_ms:.0f} ms of CPU a tenant, {step.seconds:.0f} s; {each or 'no request'}"


@contextmanager
def _built(instances: int) -> Iterator[_Stage]:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    folders = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
    operator = Image(env={"PATH": path, "MEMTENANT_HEALTH_HOST": "{address}"}, folders=folders)
    with ExitStack() as stack:
        programs = Path(tempfile.mkdtemp(prefix="memtenant-bench-"))
        stack.callback(shutil.rmtree, programs, ignore_errors=True)
        # The servers of the wheels have no TLS.
        server = server_image(programs, "redis-server", Flavour.REDIS_7, folders)
        account = f"system:serviceaccount:{HOME}:{RELEASE}"
        cluster = stack.enter_context(control_plane.running(audited=account))
        images = {"memtenant": operator, "redis": server}
        kubelet = stack.enter_context(running_kubelet(cluster.kubeconfig, images))
        for name in (HOME, TEAM):
            cluster.create_namespace(name)
        cluster.apply(storage_class(), *(volume(number) for number in range(instances + 1)))
        options = (f"--set=tenantNamespaces={{{TEAM}}}", "--set=replicas=1")
        chart = str(ROOT / "charts" / "memtenant")
        cluster.helm("install", RELEASE, chart, "-n", HOME, *options)
        cluster.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", HOME)
        cluster.apply(_template("redis:7.0"), _policy())
        yield _Stage(cluster, kubelet)


def _make(stage: _Stage, instances: int) -> None:
    stage.cluster.apply(*(_tenant(number) for number in range(1, instances + 1)))
    _ready(stage)


def _ready(stage: _Stage) -> None:
    words = ("mtenant", "--all", "-n", TEAM, "--for=condition=Ready")
    stage.cluster.kubectl("wait", *words, f"--timeout={_PATIENCE:.0f}s")


def _look(stage: _Stage) -> None:
    stage.cluster.kubectl("annotate", "mtenant", "--all", "-n", TEAM, "look=again")


def _restart(stage: _Stage) -> None:
    _another_operator(stage, stage.end_operator(signal.SIGTERM))


def _another_operator(stage: _Stage, before: int) -> None:
    requests = sum(stage.requests().values())
    processes.wait_until(
        lambda: stage.operator not in (0, before) and sum(stage.requests().values()) > requests,
        what="the next operator at work",
        timeout=_PATIENCE,
    )


def _upgrade(stage: _Stage) -> int:
    """Another image; how many instances were away at once."""
    many, image, away, killed = len(stage.instances()), "redis:7.0.1", 0, False
    stage.cluster.apply(_template(image))
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        pods = stage.instances()
        up = [pod for pod in pods if _is_ready(pod)]
        away = max(away, many - len(up))
        new = [pod for pod in up if pod["spec"]["containers"][0]["image"] == image]
        if len(new) == many:
            return away
        if len(new) >= many // 2 and not killed:
            stage.end_operator(signal.SIGKILL)
            killed = True
        time.sleep(_POLL)
    raise processes.StartFailed(f"{len(new)} of {many} instances have the image {image}")


def _is_ready(pod: Object) -> bool:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _template(image: str) -> Object:
    spec = {"dedicated": {"image": image, "storageClassName": "growing"}}
    return {"apiVersion": _API, "kind": "MemoryStore", "metadata": {"name": "own"}, "spec": spec}


def _policy() -> Object:
    return {"apiVersion": _API, "kind": "RetentionPolicy", "metadata": {"name": "standard"}}


def _tenant(number: int) -> Object:
    return {
        "apiVersion": _API,
        "kind": "MemoryTenant",
        "metadata": {"name": f"t{number}", "namespace": TEAM},
        "spec": {
            "isolation": "Strict",
            "retentionPolicyRef": {"name": "standard"},
            "quota": {"memory": "16Mi"},
            "agents": [{"name": "one"}, {"name": "two"}],
        },
    }
