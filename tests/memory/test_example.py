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

        def run(binding: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(EXAMPLE / "helpdesk.py"), binding]
            return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)

        first, second = run("helpdesk-triage"), run("helpdesk-answers")
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert "question number 1" in first.stdout
        assert "human: Where is my order?" in second.stdout
        assert "question number 2" in second.stdout
        assert "answers: 2 questions at all" in second.stdout
        unknown = run("nobody")
        assert unknown.returncode == 1
        assert "BindingInvalid: " in unknown.stderr
    finally:
        development.stop(state)
