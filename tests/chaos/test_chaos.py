"""One schedule in every run of the suite; `make chaos` makes longer ones, of ever new seeds and on
other shapes of a store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tiers

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CHAOS = (sys.executable, "-m", "tests.chaos")
RUN = ("--store", "dedicated", "--seed", "20261129", "--minutes", "0.5")
MISSING = 3


def test_everything_is_whole_after_half_a_minute_of_chaos(tmp_path: Path) -> None:
    """As a process of its own: it mounts small disks, which must not be seen by other tests."""
    told = subprocess.run(
        [*CHAOS, *RUN, "--keep"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    print(told.stdout)
    if told.returncode == MISSING:
        tiers.cannot_run(told.stderr.strip())
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
