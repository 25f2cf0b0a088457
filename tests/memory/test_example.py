"""The example agent, run as its own text says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memtenant.memory import development

pytestmark = pytest.mark.redis
EXAMPLE = Path(__file__).parents[2] / "examples" / "agent"


def test_the_example_remembers_from_run_to_run(tmp_path: Path) -> None:
    state = tmp_path / "state"
    program = [sys.executable, "-c", "import sys; from memtenant.cli import main; sys.exit(main())"]
    apply = [*program, "apply", "-f", str(EXAMPLE), "--state", str(state)]
    try:
        subprocess.run(apply, check=True, capture_output=True)
        environ = os.environ | {"SERVICE_BINDING_ROOT": str(state / "bindings" / "helpdesk")}

        def run(binding: str, *words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(EXAMPLE / "helpdesk.py"), binding, *words]
            return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)

        first = run("helpdesk-triage", "ask", "Where is my parcel? I am ada@example.org.")
        second = run("helpdesk-answers", "ask", "And now?")
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert "masked before it was stored: 1 x Email" in first.stdout
        assert "remembered human: Where is my parcel? I am <EMAIL>." in second.stdout
        assert "as number 2" in second.stdout
        mine, taken = (
            run("helpdesk-triage", "claim", "t-7"),
            run("helpdesk-answers", "claim", "t-7"),
        )
        assert (mine.stdout, taken.stdout) == (
            "t-7 is mine: triage\n",
            "t-7 is taken: triage has it\n",
        )
        assert "2 questions, 1 conversations" in run("helpdesk-answers", "status").stdout
        assert "ConsentRequired: " in run("helpdesk-privacy", "forget").stderr
        assert "Requested" in run("helpdesk-privacy", "forget", "--consent", "letter-17").stdout
        assert "SubjectErased: " in run("helpdesk-triage", "ask", "Do you know me?").stderr
        unknown = run("nobody", "status")
        assert unknown.returncode == 1
        assert "BindingInvalid: " in unknown.stderr
    finally:
        development.stop(state)
