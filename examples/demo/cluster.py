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
from typing import Any

import agent
import redis
from agentjob import agent_job
from stage import CHART, HOME, TEAMS, Stage
from story import Story, StoryBroken, stop_on_sigterm
from tests.support import servers
from tests.support.controlplane import build
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster, KubectlFailed
from tests.support.kubelet import Image, Kubelet
from tests.support.kubelet import running as running_kubelet
from tests.support.processes import StartFailed, Unavailable
from tests.support.servers import Flavour, Options

from memtenant.archive import ArchiveReader, verify
from memtenant.audit.leaf import Verdict
from memtenant.crypto.signing import VerifyingKey
from memtenant.rules.instance import instance_name
from memtenant.tenancy.identity import TenantId

HERE = Path(__file__).resolve().parent
MANIFESTS = HERE / "manifests"
EXAMPLE = HERE.parent / "agent"
RELEASE = "memtenant"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}

INSTANCES = "memtenant.dev/component=tenant-instance"
NOTE, NEIGHBOURS_NOTE = "mt:{support.acme}:r:note", "mt:{support.globex}:r:note"


class Demo(Stage):
    """The steps of the story in their order."""

    def tell(self) -> None:
        """The whole story."""
        self.install()
        self.declare()
        self.agents_at_work()
        self.agents_remember()
        self.seal()
        self.drift()
        self.quota()
        self.rotation()
        self.leader_lost()
        self.in_use()
        self.report()
        self.strict()
        self.retain()
        self.delete()
        self.hold_and_shred()

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
            f"--from-literal=password={password}",
            shown=f"kubectl create secret generic shared-admin -n {HOME} --from-file=password",
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

    def agents_at_work(self) -> None:
        """A Job mounts a binding and uses it; what is not its own is denied."""
        story = self.story
        story.chapter("An agent mounts its binding and works; what is not its own is denied")
        with self.connected("globex-default") as neighbour:
            agent.ask(neighbour, "SET", NEIGHBOURS_NOTE, "Globex only")
        said = self.run_agent(
            "triage",
            "acme-triage",
            ("SET", NOTE, "the customer prefers e-mail"),
            ("GET", NOTE),
            ("GET", NEIGHBOURS_NOTE),
            ("HSET", "mt:{support.acme}:o:limits", "memory", "9999999999"),
            ("KEYS", "*"),
        )
        story.check(
            said[:2] == ["OK", "the customer prefers e-mail"], "its own note is there", said
        )
        story.check(said[2].startswith("NOPERM"), "the neighbour's note is out of reach", said)
        story.check(said[3].startswith("NOPERM"), "so is what the operator decides on", said)
        story.check(said[4].startswith("NOPERM"), "and the names of all keys", said)
        said = self.run_agent("answers", "acme-answers", ("GET", NOTE), ("DEL", NOTE))
        story.check(
            said[0] == "the customer prefers e-mail" and said[1].startswith("NOPERM"),
            "the ReadOnly agent of the same tenant reads and does not write",
            said,
        )

    def agents_remember(self) -> None:
        """Two agents of one tenant share a conversation by memtenant's SDK, each in a Pod."""
        story = self.story
        story.chapter("Agents remember by the SDK: each a Pod with nothing but its binding")
        story.command("kubectl", "apply", "--server-side", "-f", "examples/agent/tenants.yaml")
        story.output(self.cluster.apply((EXAMPLE / "tenants.yaml").read_text()))
        self.wait_for("helpdesk", "condition=Ready", namespace="helpdesk")
        said = self.help_desk("triage", "ask", "Parcel 4711 is late. I am ada@example.org.")
        story.check("masked" in said, "personal data is masked before it is stored", said)
        said = self.help_desk("answers", "ask", "Is it found?")
        story.check("remembered human: Parcel 4711" in said, "the other agent remembers", said)
        said = self.help_desk("privacy", "forget", "--consent", "letter-17")
        story.check("erasure" in said, "a Steward has the person forgotten", said)
        receipts = "mt:{helpdesk.helpdesk}:o:erasures"
        with self.store.admin() as admin:
            story.until(
                lambda: b'"remaining":0' in b"".join(admin.hvals(receipts)),
                "the operator looked everywhere, and writes in the receipt that nothing is left",
            )

    def seal(self) -> None:
        """A sealer beside the operator writes down what agents did; the operator cannot sign."""
        story = self.story
        story.chapter("What agents do is sealed into a log, by another process than the operator")
        self.kubectl(
            *("patch", "mtenant", "helpdesk", "-n", "helpdesk", "--type=merge"),
            '-p={"spec":{"audit":{"mode":"Enabled"}}}',
        )
        self.kubectl("rollout", "status", f"deployment/{RELEASE}-sealer", "-n", HOME)
        self.wait_for("helpdesk", "condition=AuditSealed", namespace="helpdesk")
        self.help_desk("triage", "claim", "4711")
        archive = self.kubelet.logs.parent / "claims" / HOME / f"{RELEASE}-archive"

        def told() -> list[str]:
            events = ArchiveReader.open(archive).events("helpdesk.helpdesk")
            made = [one.event() for one in events if one.verdict is Verdict.GOOD]
            return [f"{one.agent}: {one.operation.name}" for one in made]

        story.until(lambda: "triage: CONTEXT_UPDATE" in told(), "its event is in the archive")
        story.output(told()[-1])
        key = f"{HOME}-audit"
        published = self.cluster.get("configmap", "memtenant-log", "-n", key)["data"]["key"]

        def sealed() -> bool:
            found = verify(ArchiveReader.open(archive), public_key=VerifyingKey.parse(published))
            tampered = [str(one) for one in found.findings if one.tampered]
            sealed_to = {one.log_id: one.sealed for one in found.logs}
            return not tampered and sealed_to.get("helpdesk.helpdesk", 0) >= len(told())

        story.until(sealed, "and under a signed checkpoint, which anybody verifies")
        user = f"system:serviceaccount:{HOME}:{RELEASE}"
        asked = ("auth", "can-i", "get", "secret/memtenant-log", "-n", key, "--as", user)
        story.command("kubectl", *asked)
        answer = self.cluster.try_kubectl(*asked).stdout.strip()
        story.denied(answer)
        story.check(answer == "no", "the operator, which administers the store, cannot sign")

    def help_desk(self, name: str, command: str, *words: str) -> str:
        """Run examples/agent in a Pod that mounts the agent's binding; what it prints."""
        binding = f"helpdesk-{name}"
        job = agent_job(f"{name}-{command}", binding, [command, *words], "helpdesk")
        return self.runagent_job(job, binding)

    def drift(self) -> None:
        """A user vanishes from the server, and comes back as it was."""
        story = self.story
        story.chapter("Somebody deletes a user behind the operator's back")
        user = self.binding("globex-default")["username"]
        story.command("valkey-cli", "ACL", "DELUSER", user)
        with self.store.admin() as admin:
            admin.acl_deluser(user)
            story.until(
                lambda: user in admin.acl_users(), "the operator put it back, password and all"
            )
        with self.connected("globex-default") as client:
            found = agent.ask(client, "GET", NEIGHBOURS_NOTE)
        story.check(found == "Globex only", "its agent works with the binding that it has", found)

    def quota(self) -> None:
        """Over the limit writing is off, reading and deleting are not; it comes back."""
        story = self.story
        story.chapter("A tenant uses up its quota of 1Mi")
        with self.connected("acme-triage") as client:
            for number in range(12):
                agent.ask(client, "SET", f"mt:{{support.acme}}:r:big:{number}", "x" * 100_000)
            self.wait_for("acme", "condition=WithinQuota=False")
            self.until_denied(client, "SET", NOTE, "one more")
            self.condition("acme", "WithinQuota")
            found = agent.ask(client, "GET", NOTE)
            story.check(found == "the customer prefers e-mail", "it can still read", found)
            story.tell("The agent deletes what it no longer needs.")
            for number in range(12):
                agent.ask(client, "DEL", f"mt:{{support.acme}}:r:big:{number}")
            self.wait_for("acme", "condition=WithinQuota=True")
            story.until(
                lambda: agent.ask(client, "SET", NOTE, "they prefer a call") == "OK",
                "and writes again",
            )

    def rotation(self) -> None:
        """New credentials; an open connection goes on, the old user goes when it is idle."""
        story = self.story
        story.chapter("Credentials rotate under an open connection")
        before = self.binding("acme-triage")["username"]
        with self.connected("acme-triage") as client, self.store.admin() as admin:
            agent.ask(client, "GET", NOTE)
            self.kubectl(
                *("annotate", "mtenant", "acme", "-n", "support", "--overwrite"),
                "memtenant.dev/rotate=now",
            )
            story.until(
                lambda: self.binding("acme-triage")["username"] != before,
                "the binding shows the tenant's other username",
            )
            after = self.binding("acme-triage")["username"]
            story.output(f"{before} → {after}")
            found = agent.ask(client, "SET", NOTE, "still here")
            story.check(found == "OK", "the open connection of the old one goes on", found)
            with self.connected("acme-triage") as fresh:
                found = agent.ask(fresh, "GET", NOTE)
            story.check(found == "still here", "the new credential works beside it", found)
            client.close()
            story.tell("The agent reads its binding again and drops the old connection.")
            story.until(
                lambda: before not in admin.acl_users(), "the old user is idle, so it is revoked"
            )

    def leader_lost(self) -> None:
        """The leading pod dies without a word; agents notice nothing, the other replica leads."""
        story = self.story
        story.chapter("The leading pod is killed")
        lost = self.leader()
        stop = threading.Event()
        counted: list[str] = []
        with self.connected("acme-triage") as client:

            def work() -> None:
                while not stop.wait(0.05):
                    counted.append(agent.ask(client, "RPUSH", "mt:{support.acme}:r:log", "at work"))

            worker = threading.Thread(target=work, daemon=True)
            worker.start()
            try:
                self.kubectl("delete", "pod", lost, "-n", HOME, "--grace-period=0", "--force")
                story.until(
                    lambda: self.leader() not in {lost, ""},
                    "the other replica leads once the Lease has run out",
                )
                self.wait_for("acme", "condition=Ready")
            finally:
                stop.set()
                worker.join()
        answered = counted == [str(number + 1) for number in range(len(counted))]
        story.check(
            answered and len(counted) > 1,
            f"meanwhile an agent wrote {len(counted)} times, without one failure",
            counted[-3:],
        )
        story.command("kubectl", "apply", "-f", "initech.yaml", note="one more tenant")
        self.cluster.apply(
            {
                "apiVersion": "memtenant.dev/v1alpha1",
                "kind": "MemoryTenant",
                "metadata": {"name": "initech", "namespace": "support"},
                "spec": {"retentionPolicyRef": {"name": "standard"}},
            }
        )
        self.wait_for("initech", "condition=Ready")
        story.works("the new leader makes tenants")

    def in_use(self) -> None:
        """What tenants need is not deleted by mistake."""
        story = self.story
        story.chapter("A store that tenants use cannot be deleted by mistake")
        words = self.refused("delete", "mstore", "shared")
        story.denied(words)
        story.check("is in use by" in words, "the API server refuses", words)
        left = self.cluster.get("mstore", "shared")["metadata"]
        story.check("deletionTimestamp" not in left, "the store is untouched")

    def report(self) -> None:
        """A policy's report, made by a pod that may read and nothing else."""
        story = self.story
        story.chapter("A compliance report: on schedule, or now")
        story.tell(
            "The policy `litigation` has a schedule, so the operator keeps a CronJob for it."
        )
        cronjob, pod_account = "memtenant-report-litigation", f"{RELEASE}-reporter"
        self.kubectl("get", "cronjobs", "-n", HOME)
        self.kubectl("create", "job", "report-now", "-n", HOME, f"--from=cronjob/{cronjob}")
        done = ("--for=condition=Complete", "--timeout=180s")
        self.kubectl("wait", "job/report-now", "-n", HOME, *done)
        (pod,) = self.cluster.get("pods", "-n", HOME, "-l", "job-name=report-now")["items"]
        story.output(self.kubelet.log(HOME, pod["metadata"]["name"], "report").strip())
        account = pod["spec"]["serviceAccountName"]
        story.check(account == pod_account, "its pod ran under an account of its own", account)
        user = f"system:serviceaccount:{HOME}:{pod_account}"
        asked = ("auth", "can-i", "get", "secrets", "-n", HOME, "--as", user)
        self.story.command("kubectl", *asked)
        answer = self.cluster.try_kubectl(*asked).stdout.strip()
        story.denied(answer)
        story.check(answer == "no", "which may read no Secret", answer)
        self.kubectl("get", "mreports", "-n", HOME)
        (report,) = self.cluster.get("mreports", "-n", HOME)["items"]
        for one in report["status"].get("failing", ())[:3]:
            story.output(f"{one['verdict']}: {one['id']} ({one['clause']}): {one['finding']}")
        story.until(
            lambda: (
                self.cluster.get("mtenant", "doe", "-n", "legal")["status"]
                .get("lastReport", {})
                .get("name")
                == report["metadata"]["name"]
            ),
            "the tenants under the policy name it in their status",
        )

    def strict(self) -> None:
        """A tenant's own instance: a pod that is killed, and back with data and users."""
        story = self.story
        story.chapter("A Strict tenant: a Valkey of its own, and agents kept apart")
        self.apply(MANIFESTS / "4-strict.yaml")
        self.wait_for("clinic", "condition=Ready")
        name = instance_name(TenantId("support", "clinic"))
        self.kubectl(
            "get", "statefulset,service,networkpolicy,pvc,pod", "-n", HOME, "-l", INSTANCES
        )
        note = "mt:{support.clinic}:r:intake_:note"
        said = self.run_agent("intake", "clinic-intake", ("SET", note, "for the doctor only"))
        story.check(said == ["OK"], "its agent's own memory is writable", said)
        said = self.run_agent("billing", "clinic-billing", ("GET", note))
        story.check(
            said[0].startswith("NOPERM"), "the other agent of the same tenant has its own", said
        )
        before = self.instance(name)["metadata"]["uid"]
        self.kubectl("delete", "pod", f"{name}-0", "-n", HOME, "--force", "--grace-period=0")
        story.until(lambda: self.is_back(name, before), "the pod is there again")
        said = self.run_agent("again", "clinic-intake", ("GET", note))
        story.check(said == ["for the doctor only"], "with its data and its users", said)
        self.kubectl("delete", "mtenant", "clinic", "-n", "support", "--timeout=180s")
        story.until(lambda: not self.instance(name), "deleted, the tenant takes it along")

    def instance(self, name: str) -> dict[str, Any]:
        """The pod of an instance; empty where it is not."""
        found = self.cluster.get("pods", "-n", HOME, "-l", INSTANCES)["items"]
        return next((pod for pod in found if pod["metadata"]["name"] == f"{name}-0"), {})

    def is_back(self, name: str, before: str) -> bool:
        """Whether another pod than before is ready."""
        pod = self.instance(name)
        ready = [
            one["status"]
            for one in pod.get("status", {}).get("conditions", ())
            if one["type"] == "Ready"
        ]
        return bool(pod) and pod["metadata"]["uid"] != before and ready == ["True"]

    def retain(self) -> None:
        """Retain: access goes, data and keys stay; declared again, the tenant finds them."""
        story = self.story
        story.chapter("Deleted with deletionPolicy Retain: acme")
        users, keys = self.on_store("support.acme")
        story.check(users > 0 and keys > 0, f"before: {users} users, {keys} keys on the store")
        self.kubectl("delete", "mtenant", "acme", "-n", "support", "--timeout=180s")
        users, kept = self.on_store("support.acme")
        story.check(users == 0, "its users are gone from the store", users)
        story.check(kept > 0 and self.record("acme"), "its data and its keyring are kept", kept)
        story.tell("Declared again in the same namespace, it is the same tenant.")
        self.apply(MANIFESTS / "2-tenants.yaml")
        self.wait_for("acme", "condition=Ready")
        with self.connected("acme-triage") as client:
            found = agent.ask(client, "GET", NOTE)
        story.check(found == "still here", "it remembers, with a new credential", found)

    def delete(self) -> None:
        """Delete: access and data go."""
        story = self.story
        story.chapter("Deleted with deletionPolicy Delete: globex")
        self.kubectl("delete", "mtenant", "globex", "-n", "support", "--timeout=180s")
        users, keys = self.on_store("support.globex")
        story.check(users == 0 and keys == 0, "no user and no key of it is left", (users, keys))
        story.check(not self.record("globex"), "and no key material")

    def hold_and_shred(self) -> None:
        """A legal hold refuses the deletion; released, Shred destroys keys, then data."""
        story = self.story
        story.chapter("Deleted with deletionPolicy Shred, under a legal hold: doe")
        with self.connected("doe-default", "legal") as client:
            note = "mt:{legal.doe}:r:case:l"
            agent.ask(client, "RPUSH", note, "evidence")
            words = agent.ask(client, "DEL", note)
            story.command("valkey-cli", "DEL", note)
            story.denied(words)
            story.check(words.startswith("NOPERM"), "under a hold nothing is removed", words)
        self.kubectl("delete", "mtenant", "doe", "-n", "legal", "--wait=false")
        self.wait_for("doe", "condition=DeletionBlocked", namespace="legal")
        self.condition("doe", "DeletionBlocked", namespace="legal")
        _, keys = self.on_store("legal.doe")
        story.check(keys > 0, "the tenant stays, and so does its evidence")
        story.tell("Counsel releases the hold.")
        self.apply(MANIFESTS / "3-release-hold.yaml")
        self.kubectl("wait", "mtenant/doe", "-n", "legal", "--for=delete", "--timeout=180s")
        users, keys = self.on_store("legal.doe")
        story.check((users, keys) == (0, 0), "its users and its data are gone", (users, keys))
        story.check(
            not self.record("doe", "legal"),
            "its keys too: no dump of it can be read",
        )


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
            demo = Demo(story, cluster, kubelet, store)
            try:
                demo.tell()
            except (StoryBroken, KubectlFailed, redis.RedisError) as error:
                story.broken(error)
                _show_logs(story, kubelet)
                return 1
            story.chapter("What is there now")
            demo.kubectl("get", "mtenants", "-A")
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
