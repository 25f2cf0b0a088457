"""The Dockerfile installs what is locked, and agrees with the chart that runs it."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.chart.rendered import CHART, ROOT

LOCKED = ROOT / "docker" / "locked.py"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COPIES = [
    line.split()[1:-1]
    for line in DOCKERFILE.splitlines()
    if line.startswith("COPY") and "--from=" not in line
]

LOCK = """# comment
First_Package==1.0 ; sys_platform != 'win32' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
second-package==2.0 \\
    --hash=sha256:bb
tests-only==3.0 \\
    --hash=sha256:cc
"""


def _planned(*names: str) -> str:
    packages = [
        {"metadata": {"name": name}, "download_info": {"url": f"https://x/{name}"}}
        for name in names
    ]
    own = {"metadata": {"name": "memtenant"}, "download_info": {"url": "file:///src/dist/x.whl"}}
    return json.dumps({"install": [*packages, own]})


def _part(tmp_path: Path, *names: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "lock").write_text(LOCK)
    (tmp_path / "report").write_text(_planned(*names))
    return subprocess.run(
        [sys.executable, LOCKED, tmp_path / "lock", tmp_path / "report"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_image_gets_what_it_needs_with_every_hash(tmp_path: Path) -> None:
    answer = _part(tmp_path, "first.package", "Second_Package")
    assert answer.stdout == "\n".join(LOCK.splitlines()[1:6]) + "\n"


def test_a_package_that_is_not_locked_stops_the_build(tmp_path: Path) -> None:
    answer = _part(tmp_path, "first-package", "stranger")
    assert answer.returncode != 0
    assert "stranger" in answer.stderr


def test_the_repositorys_own_lock_file_can_be_split() -> None:
    part = runpy.run_path(str(LOCKED))["part"]
    found = part((ROOT / "requirements.lock").read_text(), {"kopf", "pyyaml", "redis"})
    assert [line.split("==")[0] for line in found.splitlines() if "==" in line] == [
        "kopf",
        "pyyaml",
        "redis",
    ]
    assert found.count("--hash=sha256:") > 3


def test_the_image_runs_as_the_user_that_the_chart_names() -> None:
    user = yaml.safe_load((CHART / "values.yaml").read_text())["podSecurityContext"]
    assert f"\nUSER {user['runAsUser']}:{user['runAsGroup']}\n" in DOCKERFILE
    assert user["runAsUser"] > 0


def test_the_image_needs_no_shell_to_start_and_hears_sigterm() -> None:
    assert '\nENTRYPOINT ["memtenant"]\n' in DOCKERFILE
    assert '\nCMD ["controller"]\n' in DOCKERFILE
    assert "\nSTOPSIGNAL SIGTERM\n" in DOCKERFILE


@pytest.mark.parametrize("sources", COPIES, ids=" ".join)
def test_what_is_copied_is_there_and_not_ignored(sources: list[str]) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignore
