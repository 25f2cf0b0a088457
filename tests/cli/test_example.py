"""examples/local does what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import Program

pytestmark = pytest.mark.redis

FOLDER = Path(__file__).parents[2] / "examples" / "local"


def test_the_example_agent_writes_its_own_and_is_denied_its_neighbours(program: Program) -> None:
    program.do("apply", "-f", FOLDER)

    ran = subprocess.run(
        [sys.executable, FOLDER / "greeter.py"],
        env=os.environ | {"SERVICE_BINDING_ROOT": str(program.state / "bindings" / "support")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "support.acme remembers 1 greetings" in ran.stdout
    assert "a neighbour's key: No permissions" in ran.stdout
