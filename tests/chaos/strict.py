"""Strict tenants: their instances are pods, which a kubelet runs and faults end."""

import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

from memtenant.rules.instance import host_of, instance_name
from memtenant.tenancy.identity import TenantId
from tests.e2e.instances import Instance, instance_of, server_image
from tests.e2e.scene import API, Scene, data_of
from tests.support import processes
from tests.support.kubelet import Kubelet, running
from tests.support.processes import Unavailable
from tests.support.servers import Flavour

__all__ = ["Strict"]

_HOSTS = Path("/etc/hosts")
_LAG = 0.2


@dataclass
class Strict:
    """The tenants and what runs their pods. Names of instances lead to their pods for all
    processes of the run, which is in a mount namespace of its own."""

    scene: Scene
    kubelet: Kubelet
    hosts: Path
    tenants: list[TenantId] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @classmethod
    def made(cls, scene: Scene) -> "Strict":
        """A node for pods, and templates of instances by which they are on disk with each write,
        or a second later."""
        programs = scene.folder / "programs"
        programs.mkdir()
        images = {"valkey/": server_image(programs, "valkey-server", Flavour.VALKEY_9)}
        kubelet = scene.stack.enter_context(running(scene.cluster.kubeconfig, images))
        hosts = scene.folder / "hosts"
        hosts.write_text(_HOSTS.read_text())
        strict = cls(scene, kubelet, hosts)
        _mount_over(hosts, _HOSTS)
        for fsync in ("Always", "EverySecond"):
            spec = {
                "image": "valkey/valkey:9.1",
                "tls": {"mode": "Disabled"},  # the embedded Valkey has none
                "persistence": {"fsync": fsync},
            }
            scene.cluster.declare(
                {
                    "apiVersion": API,
                    "kind": "MemoryStore",
                    "metadata": {"name": strict.template(fsync)},
                    "spec": {"dedicated": spec},
                }
            )
        strict._thread = threading.Thread(target=strict._follow, name="hosts", daemon=True)
        strict._thread.start()
        scene.stack.callback(strict.close)
        return strict

    def template(self, fsync: str) -> str:
        """The name of a MemoryStore."""
        return f"own-{fsync.lower()}-{self.scene.tag}"

    def instances(self) -> dict[TenantId, Instance]:
        """Those that have a pod and a Secret now."""
        found = {}
        for tenant in self.tenants:
            secret = self.scene.witness.latest("secrets", self.scene.home, instance_name(tenant))
            if secret is not None and self._address(tenant):
                found[tenant] = instance_of(self.kubelet, self.scene.home, tenant, data_of(secret))
        return found

    def process(self, tenant: TenantId) -> int:
        """The id of the instance's process, waited for."""
        pod = f"{instance_name(tenant)}-0"
        running: list[int] = []

        def there() -> bool:
            try:
                running.append(self.kubelet.process(self.scene.home, pod))
            except LookupError:
                return False
            return True

        processes.wait_until(there, what=f"the pod of {tenant}", timeout=120)
        return running[-1]

    def close(self) -> None:
        """Follow no more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _address(self, tenant: TenantId) -> str:
        return self.kubelet.address(self.scene.home, f"{instance_name(tenant)}-0")

    def _follow(self) -> None:
        """What a cluster's name service does for headless Services."""
        plain = self.hosts.read_text()
        known = plain
        while not self._closing.wait(_LAG):
            lines = [
                f"{address} {host_of(tenant, self.scene.home)}\n"
                for tenant in list(self.tenants)
                if (address := self._address(tenant))
            ]
            text = plain + "".join(lines)
            if text != known:
                self.hosts.write_text(text)  # in place: the file is bind-mounted
                known = text


def _mount_over(file: Path, over: Path) -> None:
    done = subprocess.run(
        ["mount", "--bind", str(file), str(over)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"{over} cannot be mounted over here ({done.stderr.strip()})")
