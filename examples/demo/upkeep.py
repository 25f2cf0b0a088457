"""`make demo-cluster`, the operator: what it keeps true, and what it tells of it."""

import threading

import agent
from stage import HOME, NEIGHBOURS_NOTE, NOTE, RELEASE, Stage


class Upkeep(Stage):
    """What drifts, runs over, grows old or dies."""

    def tell(self) -> None:
        """All of it."""
        self.drift()
        self.quota()
        self.rotation()
        self.leader_lost()
        self.in_use()
        self.report()

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
