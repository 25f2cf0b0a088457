"""The agent's side of `make demo`: what examples/agent/helpdesk.py does with memtenant's SDK."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from story import Story

HELPDESK = "examples/agent/helpdesk.py"
SUCCESS, FAILURE = 0, 1
_A_LONG_DAY = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LONGEST = 110


class Run(Protocol):
    """Runs a command as typed, with a folder of bindings mounted, and returns what it printed."""

    def __call__(self, *words: str, bindings: Path, code: int) -> str:
        """Raises `StoryBroken` where it ends with another code."""
        ...


class Remembering:
    """Three chapters on the tenant ``helpdesk`` of examples/agent/tenants.yaml.

    memtenant: runs a `memtenant` command and shows it. newest: the newest record of a list whose
    name matches, as the server holds it.
    """

    def __init__(
        self,
        story: Story,
        bindings: Path,
        run: Run,
        memtenant: Callable[..., str],
        newest: Callable[[str], tuple[str, bytes]],
    ) -> None:
        self.story = story
        self.bindings = bindings
        self.run = run
        self.memtenant = memtenant
        self.newest = newest

    def tell(self) -> None:
        """All of it."""
        self.remember()
        self.meet()
        self.forget()

    def remember(self) -> None:
        """Two agents of one tenant share a conversation; nobody else reads it."""
        story = self.story
        story.chapter("Agents remember by the SDK: encrypted, masked, summarised")
        self.memtenant("apply", "-f", "examples/agent")
        story.command("export", f"SERVICE_BINDING_ROOT={self.bindings / 'helpdesk'}")
        said = self.agent("triage", "ask", "Parcel 4711 is late. I am ada@example.org.")
        story.check("masked" in said, "personal data is masked before it is stored", said)
        said = self.agent("answers", "ask", "Is it found?")
        story.check("remembered human: Parcel 4711" in said, "the other agent remembers", said)
        story.check("ada@example.org" not in said, "and never saw the address", said)
        story.tell(
            "They go on until the prompt is full. A model would summarise; here a rule does."
        )
        said = self.agent("answers", "ask", *(f"{day}: is it found now?" for day in _A_LONG_DAY))
        story.check("summary of" in said, "what does not fit is summarised", said)
        said = self.agent("globex-default", "ask", "Is my parcel found?", namespace="support")
        story.check("remembered" not in said, "the neighbour remembers nothing of it", said)
        name, record = self.newest("mt:{helpdesk.helpdesk}:r:*:l")
        story.command("valkey-cli", "LINDEX", name, "0")
        story.output(f"{record!r:.96}…")
        story.check(b"4711" not in record, "and the server holds nothing that it could read")

    def meet(self) -> None:
        """Two agents want one ticket; a conversation too many."""
        story = self.story
        story.chapter("Agents that meet, and a quota")
        self.agent("triage", "claim", "ticket-7")
        said = self.agent("answers", "claim", "ticket-7")
        story.check("triage has it" in said, "of two who want it, one has it", said)
        self.agent("triage", "ask", "--user", "bob@example.org", "And mine?")
        said = self.agent("triage", "ask", "--user", "cleo@example.org", "And mine?")
        story.check("not remembered" in said, "a third conversation is over the quota of 2", said)
        self.agent("triage", "status")

    def forget(self) -> None:
        """A Steward has a person forgotten; the operator completes it and writes the receipt."""
        story = self.story
        story.chapter("A person is forgotten, with a receipt")
        consent = ("--consent", "letter-17")
        said = self.agent("triage", "forget", *consent, code=FAILURE)
        story.check("ErasureNotPermitted" in said, "not by any agent", said)
        said = self.agent("privacy", "forget", code=FAILURE)
        story.check("ConsentRequired" in said, "nor without a reference", said)
        self.agent("privacy", "forget", *consent)
        said = self.agent("triage", "ask", "Do you know me?", code=FAILURE)
        story.check("SubjectErased" in said, "from now on nothing is read or stored", said)
        self.memtenant("apply")
        said = self.agent("privacy", "forget", *consent)
        story.check("left: 0" in said, "the operator looked everywhere: nothing is left", said)
        story.check("residual" in said, "and says who could still read a backup", said)
        story.tell(
            "Within a day the keys are destroyed: then a backup of the server alone is noise."
        )
        said = self.agent("triage", "ask", "--user", "bob@example.org", "Still there?")
        story.check("remembered human: And mine?" in said, "others are remembered", said)

    def agent(
        self, name: str, *command: str, namespace: str = "helpdesk", code: int = SUCCESS
    ) -> str:
        """Run a command of the example agent; what it says, also in failing."""
        binding = name if namespace != "helpdesk" else f"helpdesk-{name}"
        bindings = self.bindings / namespace
        said = self.run("python", HELPDESK, binding, *command, bindings=bindings, code=code)
        shown = self.story.denied if code else self.story.output
        shown("\n".join(f"{line:.{_LONGEST}}" for line in said.splitlines()))
        return said
