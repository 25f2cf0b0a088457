"""`make demo-cluster`, the end of tenants: what goes, what stays, what may not go yet."""

from typing import Any

import agent
from stage import HOME, INSTANCES, MANIFESTS, NOTE, Stage

from memtenant.rules.instance import instance_name
from memtenant.tenancy.identity import TenantId


class Leaving(Stage):
    """One tenant for each deletion policy, and a Strict one with an instance of its own."""

    def tell(self) -> None:
        """All of it."""
        self.strict()
        self.retain()
        self.delete()
        self.hold_and_shred()

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
