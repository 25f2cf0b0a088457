"""What the steps of `make demo-cluster` use: kubectl, Helm, agents in Jobs, a look at the store.

Each shows the command as a person would type it, and what it answers.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import agent
import redis
from agentjob import agent_job
from story import Story, StoryBroken
from tests.support.controlplane.cluster import Cluster
from tests.support.kubelet import Kubelet
from tests.support.servers import Server

from memtenant.rules.record import record_name
from memtenant.tenancy.identity import TenantId

HERE = Path(__file__).resolve().parent
MANIFESTS = HERE / "manifests"
EXAMPLE = HERE.parent / "agent"
CHART = HERE.parents[1] / "charts" / "memtenant"
RELEASE = "memtenant"
HOME = "memtenant-system"
TEAMS = ("support", "legal", "helpdesk")
INSTANCES = "memtenant.dev/component=tenant-instance"
NOTE, NEIGHBOURS_NOTE = "mt:{support.acme}:r:note", "mt:{support.globex}:r:note"

# In production these are longer; here nobody wants to wait for a minute.
_FAST = {"measureInterval": "2s", "repairInterval": "2s", "kubeletLag": "1s"}


class Stage:
    """The cluster, its node and the store; a part of the story is told on it."""

    def __init__(self, story: Story, cluster: Cluster, kubelet: Kubelet, store: Server) -> None:
        self.story = story
        self.cluster = cluster
        self.kubelet = kubelet
        self.store = store

    def tell(self) -> None:
        """The chapters of a part, in their order."""
        raise NotImplementedError

    def kubectl(self, *arguments: str, stdin: str | None = None) -> None:
        """Run kubectl as the platform admin, and show the command and what it prints."""
        self.story.command("kubectl", *arguments)
        self.story.output(self.cluster.kubectl(*arguments, stdin=stdin))

    def refused(self, *arguments: str) -> str:
        """The words of a command that must not succeed."""
        self.story.command("kubectl", *arguments)
        answer = self.cluster.try_kubectl(*arguments)
        if answer.returncode == 0:
            raise StoryBroken(f"kubectl {' '.join(arguments)} was not refused")
        return answer.stderr.strip()

    def helm(self, *arguments: str) -> None:
        """Install the chart with quick intervals, and show how."""
        values = [
            f"--set=tenantNamespaces={{{','.join(TEAMS)}}}",
            *(f"--set=settings.{name}={value}" for name, value in _FAST.items()),
        ]
        shown = [word.replace(str(CHART), "charts/memtenant") for word in arguments]
        self.story.command("helm", *shown, *values)
        self.cluster.helm(*arguments, *values)

    def apply(self, file: Path, text: str = "") -> None:
        """Apply a manifest; ``text`` is what it says here, if not as in the file."""
        self.story.command("kubectl", "apply", "--server-side", "-f", f"manifests/{file.name}")
        self.story.output(self.cluster.apply(text or file.read_text()))

    def wait_for(self, tenant: str, what: str, namespace: str = "support") -> None:
        """`kubectl wait` for a condition of a tenant."""
        where = ("-n", namespace, f"--for={what}", "--timeout=180s")
        self.kubectl("wait", f"mtenant/{tenant}", *where)

    def condition(self, tenant: str, kind: str, namespace: str = "support") -> None:
        """Show the message of one condition."""
        status = self.cluster.get("mtenant", tenant, "-n", namespace)["status"]
        (found,) = (each for each in status["conditions"] if each["type"] == kind)
        self.story.output(f"{found['reason']}: {found['message']}")

    def run_agent(self, name: str, binding: str, *commands: Sequence[str]) -> list[str]:
        """Run an agent's commands in a Job that mounts the binding; the server's answers."""
        words = [word for command in commands for word in ("--", *command)]
        log = self.runagent_job(agent_job(name, binding, words, "agent"), binding)
        answers = [line for line in log.splitlines() if not line.startswith("> ")]
        if len(answers) != len(commands):
            raise StoryBroken(f"the agent {name} did not get through:\n{log}")
        return answers

    def runagent_job(self, job: dict[str, Any], binding: str) -> str:
        """Create the Job and wait until it is done; what its container printed."""
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(job))
        self.story.command("kubectl", "create", "-f", f"job-{name}.yaml", note=f"mounts {binding}")
        done = ("--for=condition=Complete", "--timeout=180s")
        self.cluster.kubectl("wait", f"job/{name}", "-n", namespace, *done)
        found = self.cluster.get("pods", "-n", namespace, "-l", f"job-name={name}")
        log = self.kubelet.log(namespace, found["items"][0]["metadata"]["name"], "agent")
        for line in log.splitlines():
            tell = self.story.denied if line.startswith("NOPERM") else self.story.output
            tell(line)
        return log

    @contextlib.contextmanager
    def connected(self, binding: str, namespace: str = "support") -> Iterator["redis.Redis"]:
        """A connection with the credentials that the binding shows now."""
        found = self.binding(binding, namespace)
        with agent.open_uri(found["uri"]) as client:
            yield client

    def binding(self, name: str, namespace: str = "support") -> dict[str, str]:
        """The fields of a binding Secret, decoded."""
        template = '{{range $k, $v := .data}}{{$k}}={{base64decode $v}}{{"\\x00"}}{{end}}'
        where = ("-n", namespace, "-o", f"go-template={template}")
        text = self.cluster.kubectl("get", "secret", name, *where)
        return dict(field.split("=", 1) for field in text.split("\0") if field)

    def until_denied(self, client: "redis.Redis", *command: str) -> None:
        """Wait until the server refuses the command, and show its words."""
        words: list[str] = []

        def denied() -> bool:
            words.append(agent.ask(client, *command))
            return words[-1].startswith("NOPERM")

        self.story.command("valkey-cli", *command)
        self.story.until(denied, "the tenant cannot write any more")
        self.story.denied(words[-1])

    def pods(self) -> list[str]:
        """The operator's pods that are ready."""
        found = self.cluster.get("pods", "-n", HOME, "-l", "app.kubernetes.io/component=controller")
        return [
            pod["metadata"]["name"]
            for pod in found["items"]
            if {"type": "Ready", "status": "True"}.items()
            <= next(
                (c for c in pod["status"].get("conditions", ()) if c["type"] == "Ready"), {}
            ).items()
        ]

    def leader(self) -> str:
        """The pod that holds the Lease, or nothing."""
        found = self.cluster.get("leases", "-n", HOME)["items"]
        holder = str(found[0]["spec"].get("holderIdentity") or "") if found else ""
        return holder.rpartition("_")[0]

    def record(self, tenant: str, namespace: str = "support") -> bool:
        """Whether the operator's namespace holds a tenant's record, and in it the keyring."""
        name = record_name(TenantId(namespace, tenant))
        answer = self.cluster.try_kubectl("get", "secret", name, "-n", HOME, "-o", "json")
        found = json.loads(answer.stdout) if answer.returncode == 0 else {}
        return bool(found.get("data", {}).get("keyring.json"))

    def on_store(self, tenant: str) -> tuple[int, int]:
        """How many users and keys the store has of a tenant."""
        with self.store.admin() as admin:
            users = [name for name in admin.acl_users() if _text(name).startswith(f"mt.{tenant}.")]
            keys = list(admin.scan_iter(match=f"mt:{{{tenant}}}:*"))
        return len(users), len(keys)

    def make_operators_user(self, password: str) -> None:
        """Run the command that `memtenant store acl` prints, with a password in it."""
        command = ("memtenant", "store", "acl", "--server", "valkey-9.1")
        self.story.command(*command)
        program = str(Path(sys.executable).with_name(command[0]))
        answer = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=True)
        words = answer.stdout.split()
        self.story.output(f"{' '.join(words[:7])} …")
        with self.store.admin() as admin:
            admin.execute_command(*(f">{password}" if w.startswith(">") else w for w in words))


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
