"""The scene: a control plane with the chart installed, one Valkey, one operator process.

The operator runs under the ServiceAccount that the chart makes, with the rights that the chart
grants and the settings that the chart leaves at their defaults. The bare loop has an account of its
own, and writes a copy of the MemoryTenant definition in another API group, which the operator does
not watch: the two can take turns on one API server.
"""

import asyncio
import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.bench.processes import cpu_seconds
from tests.support import processes, servers
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.servers import Flavour, Options, Server

ROOT = Path(__file__).parents[2]
HOME = "memtenant-system"
RELEASE = "memtenant"
TEAM = "support"
BARE = "bare"
STORE = "shared"
POLICY = "gdpr"
BARE_GROUP = "bench.memtenant.dev"

_QUIET = 0.4
"""Seconds of a nearly idle operator after which what it does is looked at."""

_AT_REST = 0.3
"""Of a core that the operator may use and still seem to rest: with thousands of tenants its rounds
never end."""

_POLL = 0.05
_ASK_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Rest:
    """Since when a process rests, in monotonic seconds, and its CPU seconds until then."""

    at: float
    cpu: float


@dataclass
class Operator:
    """`memtenant controller` as a process of its own."""

    kubeconfig: Path
    folder: Path
    port: int = field(default_factory=processes.free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return cpu_seconds(self.pid)

    def start(self) -> float:
        """Start it; the moment, in monotonic seconds."""
        settings = {
            "home_namespace": HOME,
            "tenant_namespaces": TEAM,
            "service_account": RELEASE,
            "kubeconfig": str(self.kubeconfig),
            "health_host": "127.0.0.1",
            "health_port": str(self.port),
            "log_format": "json",
        }
        env = {f"MEMTENANT_{name.upper()}": value for name, value in settings.items()}
        started = time.monotonic()
        self._process = processes.spawn(
            [str(Path(sys.executable).parent / "memtenant"), "controller"],
            log=self.folder / "operator.log",
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **env},
            cwd=self.folder,
            new_session=True,
        )
        return started

    def stop(self) -> None:
        """SIGTERM: it drains and gives the Lease back."""
        if self._process is not None:
            processes.stop(self._process, grace=30)

    async def wait_for_lead(self) -> None:
        """Wait until it leads."""
        await self._until(lambda found: found.get("memtenant_lease_leader") == 1, _POLL)

    async def tenants_reconciled(self) -> int:
        """Reconciles of tenants that ended well since the process started."""
        return _tenants_reconciled(await self._metrics())

    async def wait_for_measurement(self) -> None:
        """Wait until the store was measured once more."""
        name = "memtenant_store_round_last_success_timestamp_seconds"
        labels = f'{{round="measure",store="{STORE}"}}'
        now = time.time()
        await self._until(lambda found: found.get(name + labels, 0.0) > now, _ASK_EVERY)

    async def settled(self, reconciled: int) -> Rest:
        """Wait until so many reconciles of tenants are done and nothing is left to do. Asks the
        operator only when the kernel says that it rests: a scrape costs it more than a reconcile.
        """
        rest, pause = Rest(time.monotonic(), self.cpu), _QUIET
        while True:
            await asyncio.sleep(_POLL)
            now = Rest(time.monotonic(), self.cpu)
            if now.cpu - rest.cpu > _AT_REST * max(now.at - rest.at, _QUIET):
                rest = now
            if now.at - rest.at < pause:
                continue
            found = await self._metrics()
            if _tenants_reconciled(found) >= reconciled and _idle(found):
                return rest
            # On a machine with other work it may seem to rest: asking it must not be its work.
            pause = max(_QUIET, 20 * (self.cpu - now.cpu))
            rest = Rest(time.monotonic(), self.cpu)

    async def _until(self, reached: Callable[[dict[str, float]], bool], every: float) -> None:
        while True:
            if reached(await self._metrics()):
                return
            await asyncio.sleep(every)

    def _last_words(self) -> str:
        return (self.folder / "operator.log").read_text()[-1000:]

    async def _metrics(self) -> dict[str, float]:
        """Every series; none while the process does not serve yet. One that ended never will."""
        return await asyncio.to_thread(self._scrape)

    def _scrape(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/metrics", timeout=30
            ) as page:
                text: str = page.read().decode()
        except OSError:
            if self._process is None or self._process.poll() is not None:
                raise processes.StartFailed(f"the operator ended: {self._last_words()}") from None
            return {}
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in ("", "#"))
        return {name: float(value) for name, value in pairs}


def _tenants_reconciled(found: dict[str, float]) -> int:
    return int(found.get('memtenant_reconciliations_successful_total{kind="MemoryTenant"}', 0))


def _idle(found: dict[str, float]) -> bool:
    ready = sum(n for name, n in found.items() if name.startswith("memtenant_queue_depth"))
    return ready == 0 and found.get("memtenant_workers_busy") == 0


@dataclass
class Stage:
    """Everything that runs. ``account`` is the bare loop's kubeconfig."""

    cluster: Cluster
    server: Server
    operator: Operator
    account: Path

    def api_cpu(self) -> float:
        """CPU seconds of the API server and etcd."""
        running = self.cluster._processes
        return sum(cpu_seconds(running[name].pid) for name in ("kube-apiserver", "etcd"))


@contextmanager
def built() -> Iterator[Stage]:
    """The scene, with the store declared and the operator started."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="memtenant-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = stack.enter_context(control_plane.running())
        server = stack.enter_context(
            servers.running(Flavour.VALKEY_9, Options(aclfile=True, appendonly=True))
        )
        for name in (HOME, TEAM, BARE):
            cluster.create_namespace(name)
        _install(cluster)
        _declare(cluster, server)
        account = _bare_account(cluster)
        operator = Operator(cluster.kubeconfig_for_service_account(HOME, RELEASE), folder)
        operator.start()
        stack.callback(operator.stop)
        cluster.kubectl("wait", f"memorystore/{STORE}", "--for=condition=Ready", "--timeout=120s")
        yield Stage(cluster, server, operator, account)


def tenant(name: str, namespace: str = TEAM, group: str = "memtenant.dev") -> dict[str, Any]:
    """A MemoryTenant as a team writes it."""
    return {
        "apiVersion": f"{group}/v1alpha1",
        "kind": "MemoryTenant",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"retentionPolicyRef": {"name": POLICY}, "quota": {"memory": "16Mi"}},
    }


def _install(cluster: Cluster) -> None:
    chart = str(ROOT / "charts" / "memtenant")
    cluster.helm(*("install", RELEASE, chart, "-n", HOME, "--set", f"tenantNamespaces={{{TEAM}}}"))
    definition = yaml.safe_load((ROOT / "crds" / "memorytenants.memtenant.dev.yaml").read_text())
    definition["metadata"]["name"] = f"memorytenants.{BARE_GROUP}"
    definition["spec"]["group"] = BARE_GROUP
    for unneeded in ("shortNames", "categories"):
        definition["spec"]["names"].pop(unneeded, None)
    cluster.apply(definition)
    for group in ("memtenant.dev", BARE_GROUP):
        cluster.kubectl(
            *("wait", f"crd/memorytenants.{group}", "--for=condition=Established", "--timeout=120s")
        )


def _declare(cluster: Cluster, server: Server) -> None:
    password = base64.b64encode(server.admin_password.encode()).decode()
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "store-admin", "namespace": HOME},
            "data": {"password": password},
        },
        {
            "apiVersion": "memtenant.dev/v1alpha1",
            "kind": "MemoryStore",
            "metadata": {"name": STORE},
            "spec": {
                "standalone": {"endpoint": server.endpoint},
                "adminUsername": server.admin_user,
                "adminSecretRef": {"name": "store-admin", "key": "password"},
                "default": True,
            },
        },
        {
            "apiVersion": "memtenant.dev/v1alpha1",
            "kind": "RetentionPolicy",
            "metadata": {"name": POLICY},
            "spec": {"frameworks": ["GDPR"]},
        },
    )


def _bare_account(cluster: Cluster) -> Path:
    """An account with rights by RBAC, as the operator has: an administrator is not even asked."""
    rules = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
        *(
            {"apiGroups": [group], "resources": resources, "verbs": ["create", "patch"]}
            for group, resources in (
                ("", ["secrets"]),
                ("events.k8s.io", ["events"]),
                ("memtenant.dev", ["memorytenants", "retentionpolicies"]),
                (BARE_GROUP, ["memorytenants", "memorytenants/status"]),
            )
        ),
    ]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": BARE, "namespace": BARE},
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": BARE},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": BARE},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": BARE,
            },
            "subjects": [{"kind": "ServiceAccount", "name": BARE, "namespace": BARE}],
        },
    )
    return cluster.kubeconfig_for_service_account(BARE, BARE)
