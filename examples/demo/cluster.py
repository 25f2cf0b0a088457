"""`make demo-cluster`: the operator, installed by Helm into a real control plane.

The API server, etcd, controller manager and Helm are the real ones, and so is the Valkey. Pods are
processes of this machine: `tests/support/kubelet` says what that leaves out. Everything is gone
when the demo ends, also by Ctrl-C.
"""

import argparse
import contextlib
import secrets
import sys
import tempfile
import threading
from pathlib import Path

import redis
from atwork import AtWork
from leaving import Leaving
from stage import CHART, EXAMPLE, HERE, HOME, MANIFESTS, RELEASE, TEAMS, Stage
from story import Story, StoryBroken, stop_on_sigterm
from tests.support import servers
from tests.support.controlplane import build
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster, KubectlFailed
from tests.support.kubelet import Image, Kubelet
from tests.support.kubelet import running as running_kubelet
from tests.support.processes import StartFailed, Unavailable
from tests.support.servers import Flavour, Options
from upkeep import Upkeep

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Installing(Stage):
    """The platform team's part."""

    def tell(self) -> None:
        """All of it."""
        self.install()
        self.declare()

    def install(self) -> None:
        """Namespaces, the store's own user for the operator, and the chart."""
        story = self.story
        story.chapter("The platform team installs the operator")
        story.tell("Every namespace enforces the Pod Security Standard `restricted`.")
        for name in (HOME, *TEAMS):
            self.cluster.create_namespace(name, RESTRICTED)
        story.tell("On Valkey the operator gets a user of its own, with what it needs and no more.")
        password = secrets.token_urlsafe(24)
        self.make_operators_user(password)
        self.kubectl(
            *("create", "secret", "generic", "shared-admin", "-n", HOME),
            "--from-file=password=/dev/stdin",
            stdin=password,
        )
        self.helm("install", RELEASE, str(CHART), "-n", HOME)
        self.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", HOME, "--timeout=300s")
        pods = self.pods()
        story.check(len(pods) == 2, "two replicas run", pods)
        story.until(lambda: self.leader() in pods, "one of them leads, the other stands by")

    def declare(self) -> None:
        """Store, policies, tenants: applied, and Ready."""
        story = self.story
        story.chapter("A store, two retention policies, three tenants: `kubectl apply`")
        platform = (MANIFESTS / "1-platform.yaml").read_text()
        placed = platform.replace("valkey.memtenant-system.svc:6379", self.store.endpoint)
        self.apply(MANIFESTS / "1-platform.yaml", placed)
        self.apply(MANIFESTS / "2-tenants.yaml")
        self.kubectl(
            *("wait", "mtenants", "--all", "-A", "--for=condition=Ready", "--timeout=300s")
        )
        self.kubectl("get", "mstores,rp")
        self.kubectl("get", "mtenants", "-A")
        secret = self.cluster.get("secret", "acme-triage", "-n", "support")
        story.check(
            secret["type"] == "servicebinding.io/redis",
            "each agent has a binding Secret: host, user, password, keys",
        )


PARTS: tuple[type[Stage], ...] = (Installing, AtWork, Upkeep, Leaving)


def _images(folder: Path) -> dict[str, Image]:
    server = folder / "valkey-server"
    server.write_text(f'#!/bin/sh\nexec {Flavour.VALKEY_9.binary()} "$@" --bind "$POD_ADDRESS"\n')
    server.chmod(0o755)
    programs = Path(sys.executable).parent
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    here = (HERE.parents[1], Path(sys.prefix), Path(sys.base_prefix))
    return {
        # All pods share this machine's network: each serves its probes on an address of its own.
        "memtenant": Image(env={"PATH": path, "MEMTENANT_HEALTH_HOST": "{address}"}, folders=here),
        "valkey/": Image(env={"PATH": f"{folder}:{path}"}, folders=(*here, folder)),
        "example.org/agent": Image((sys.executable, str(HERE / "agent.py")), folders=here),
        "example.org/helpdesk": Image((sys.executable, str(EXAMPLE / "helpdesk.py")), folders=here),
    }


def look_around(story: Story, cluster: Cluster) -> None:
    """What is there now and how to go on, until Ctrl-C."""
    story.end(
        f"  export KUBECONFIG={cluster.kubeconfig}",
        "  kubectl get mtenants -A",
        "  kubectl describe mtenant acme -n support",
        "  kubectl explain mtenant.spec.quota",
        "  kubectl get events -n support --sort-by=.lastTimestamp",
        f"kubectl is {build.kubectl()}; Ctrl-C stops everything and removes it.",
    )
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def main() -> int:
    """0 if everything went as told, 1 if not, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-wait", action="store_true", help="stop at the end of the story")
    options = parser.parse_args()
    stop_on_sigterm()
    story = Story()
    story.title(
        "memtenant on Kubernetes: declared tenants become isolated memory.",
        "Starting a control plane (kube-apiserver, etcd, kube-controller-manager) and a Valkey.",
    )
    try:
        with (
            servers.running(Flavour.VALKEY_9, Options(aclfile=True, appendonly=True)) as store,
            control_plane.running() as cluster,
            tempfile.TemporaryDirectory(prefix="memtenant-demo-") as folder,
            running_kubelet(cluster.kubeconfig, _images(Path(folder))) as kubelet,
        ):
            stage = Stage(story, cluster, kubelet, store)
            try:
                for part in PARTS:
                    part(story, cluster, kubelet, store).tell()
            except (StoryBroken, KubectlFailed, redis.RedisError) as error:
                story.broken(error)
                _show_logs(story, kubelet)
                return 1
            story.chapter("What is there now")
            stage.kubectl("get", "mtenants", "-A")
            if options.no_wait or not sys.stdout.isatty():
                story.end("Everything is stopped and removed.")
            else:
                look_around(story, cluster)
    except (Unavailable, StartFailed) as error:
        story.broken(error)
        return 1
    except KeyboardInterrupt:
        story.tell("Interrupted: everything is stopped and removed.")
        return 130
    return 0


def _show_logs(story: Story, kubelet: Kubelet) -> None:
    """The end of what the operator said."""
    for log in sorted(kubelet.logs.glob(f"{HOME}_*.log")):
        story.tell(f"{log.name}:")
        story.output("\n".join(log.read_text(errors="replace").splitlines()[-15:]))


if __name__ == "__main__":
    sys.exit(main())
