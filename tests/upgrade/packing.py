"""Make a release's wheel and chart from a commit: `python -m tests.upgrade.packing COMMIT FOLDER`.

The time in both is the commit's, so whoever has the history makes the same bytes again.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.controlplane import build

ROOT = Path(__file__).parents[2]


def pack(commit: str, folder: Path) -> None:
    """Put the wheel and the packaged chart of the commit into the folder."""
    folder = folder.resolve()
    with tempfile.TemporaryDirectory() as source:
        archive = _run("git", "-C", str(ROOT), "archive", commit)
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
        when = _run("git", "-C", str(ROOT), "log", "-1", "--format=%ct", commit).decode().strip()
        env = {**os.environ, "SOURCE_DATE_EPOCH": when}
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), source)
        subprocess.run([*pip, *wheel], check=True, env=env)
        chart = ("package", f"{source}/charts/memtenant", "--destination", str(folder))
        subprocess.run([str(build.helm()), *chart], check=True, env=env)


def _run(*words: str) -> bytes:
    return subprocess.run(words, check=True, capture_output=True).stdout


if __name__ == "__main__":
    pack(sys.argv[1], Path(sys.argv[2]))
