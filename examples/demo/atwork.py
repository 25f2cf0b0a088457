"""`make demo-cluster`, agents: what they may and may not, remember, and what is sealed of it."""

import agent
from agentjob import agent_job
from stage import EXAMPLE, HOME, NEIGHBOURS_NOTE, NOTE, RELEASE, Stage

from memtenant.archive import ArchiveReader, verify
from memtenant.audit.leaf import Verdict
from memtenant.crypto.signing import VerifyingKey


class AtWork(Stage):
    """Each agent is a Pod with nothing but its binding."""

    def tell(self) -> None:
        """All of it."""
        self.agents_at_work()
        self.agents_remember()
        self.seal()

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
