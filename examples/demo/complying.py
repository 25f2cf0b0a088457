"""The end of `make demo`: a report that fails for a reason, and a log in which a byte changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from remembering import HELPDESK
from story import Story

MANIFEST = "examples/demo/manifests/4-compliance.yaml"
NOTE = "mt:{clinic.ward}:r:note"
GOOD, TAMPERED = 0, 1  # exit codes of `memtenant audit`
_LONGEST = 110
_BYTE = 300


class Run(Protocol):
    """Runs a command as typed and returns what it printed on its standard output."""

    def __call__(self, *words: str, code: int = 0, **environ: str) -> str:
        """Raises `StoryBroken` where it ends with another code."""
        ...


class Complying:
    """The tenant ``ward`` of namespace ``clinic``, under GDPR and HIPAA."""

    def __init__(self, story: Story, state: Path, run: Run) -> None:
        self.story = story
        self.state = state
        self.run = run

    def tell(self) -> None:
        """All of it."""
        page = self.report()
        self.tamper()
        self.story.tell("The report as a page for people:")
        self.story.output(str(page))

    def report(self) -> Path:
        """Evidence that something is wrong, the remedy, and evidence that nothing is."""
        story = self.story
        story.chapter("Evidence: a report fails for a reason, and passes once that is mended")
        self.run("memtenant", "apply", "-f", MANIFEST)
        self.agent(HELPDESK, "ward-nurse", "ask", "Bed 12 sleeps badly.")
        story.tell("Somebody's script writes around the SDK, in clear:")
        self.agent("examples/demo/agent.py", "ward-nurse", "SET", NOTE, "Ada, bed 12, no visitors")
        said = self.run("memtenant", "seal")
        story.output(said)
        said = self.judged(code=1)
        story.check("values in clear" in said, "the report says what, where, and by which law")
        self.agent("examples/demo/agent.py", "ward-nurse", "DEL", NOTE)
        said = self.judged(code=0)
        story.check("Fail -> Pass" in said, "mended, and the report says what turned")
        self.run("memtenant", "seal")
        checkpoint = self.run("memtenant", "audit", "checkpoint")
        kept = self.state / "kept.checkpoint"
        kept.write_text(checkpoint)
        story.output(checkpoint)
        story.tell(f"An auditor keeps that note elsewhere: here, in {kept}.")
        newest = max((self.state / "reports" / "patients").iterdir())
        words = ("memtenant", "report", "verify", str(newest), "--trusted-checkpoint", str(kept))
        said = self.run(*words, code=GOOD)
        story.output(said)
        story.check(said.startswith("good"), "the hash of the report is a leaf of the sealed log")
        return newest / "report.html"

    def tamper(self) -> None:
        """One byte of the archive."""
        story = self.story
        story.chapter("One byte of the sealed log is changed")
        kept = str(self.state / "kept.checkpoint")
        verify = ("memtenant", "audit", "verify", "--trusted-checkpoint", kept)
        story.output(self.run(*verify, code=GOOD))
        (segment,) = (self.state / "archive" / "logs" / "clinic.ward").glob("*.log")
        whole = segment.read_bytes()
        changed = bytearray(whole)
        changed[_BYTE] ^= 1
        segment.write_bytes(changed)
        story.tell(f"Byte {_BYTE} of {segment.relative_to(self.state)} gets another value.")
        said = self.run(*verify, code=TAMPERED)
        story.output("\n".join(line[:_LONGEST] for line in said.splitlines()))
        story.check("logs/clinic.ward" in said, "whoever holds the checkpoint sees it, and where")
        segment.write_bytes(whole)
        self.run(*verify, code=GOOD)
        story.works("put back, the log verifies again")

    def judged(self, *, code: int) -> str:
        """A report by hand; what is not as it should be of it, and what turned, is shown."""
        words = ("memtenant", "report", "run", "--policy", "patients", "--decrypt")
        said = self.run(*words, "--fail-on", "error", code=code)
        self.story.output("\n".join(_what_matters(said)))
        return said

    def agent(self, program: str, binding: str, *words: str) -> str:
        """Run one of the example's agents as the tenant's."""
        root = str(self.state / "bindings" / "clinic")
        said = self.run("python", program, binding, *words, SERVICE_BINDING_ROOT=root)
        self.story.output(said)
        return said


def _what_matters(said: str) -> Iterator[str]:
    """The controls that fail with their evidence, what turned, and the counts."""
    lines = said.splitlines()
    failing = False
    for line in lines:
        if line.startswith("  ") and not line.startswith("   "):
            failing = line.startswith("  Fail")
        if failing or " -> " in line or "Pass," in line or line.endswith(" Pass"):
            yield line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
