"""The demos do what they tell: each checks every step itself and ends with 0 only if all held."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes, tiers
from tests.support.controlplane import build
from tests.support.processes import Unavailable

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo"
ESCAPE = "\033["

TOLD_BY_BOTH = (
    "NOPERM No permissions to access a key",
    "✓ the neighbour's note is out of reach",
    "password and all",
    "✓ personal data is masked before it is stored",
    "remembered human: Parcel 4711 is late. I am <EMAIL>.",
    "✓ it can still read",
    "✓ the open connection of the old one goes on",
    "✓ the old user is idle, so it is revoked",
    "✓ the other agent of the same tenant has its own",
    "✓ it remembers, with a new credential",
    "✓ no user and no key of it is left",
    "legal hold Doe v. Acme names this tenant",
    "Done: ",
)


@pytest.fixture
def control_plane() -> None:
    try:
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "helm"):
            build.program(name)
    except Unavailable as missing:
        tiers.cannot_run(str(missing))


def environment(tmp_path: Path) -> dict[str, str]:
    """Everything that a demo makes is below ``tmp_path``."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}


def left_behind(tmp_path: Path) -> list[str]:
    """Command lines of processes that still work below ``tmp_path``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(tmp_path) in line:
                found.append(line)
    return found


def run(script: str, tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, DEMO / script, *arguments],
        env=environment(tmp_path),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.redis
def test_the_demo_without_a_cluster(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ended = run("local.py", tmp_path, "--state", str(state))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for words in (
        *TOLD_BY_BOTH,
        "$ memtenant apply -f",
        "✓ mended, and the report says what turned",
        "✓ the hash of the report is a leaf of the sealed log",
        "✓ whoever holds the checkpoint sees it, and where",
        f"The state folder stays: {state}",
    ):
        assert words in ended.stdout
    pages = list((state / "reports" / "patients").glob("*/report.html"))
    assert any(str(page) in ended.stdout for page in pages)
    assert ESCAPE not in ended.stdout
    assert not left_behind(tmp_path)
    assert (state / "bindings" / "support" / "acme-triage" / "uri").is_file()


@pytest.mark.redis
def test_a_step_that_does_not_hold_ends_the_demo_with_an_error(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file, where a folder should be")
    ended = run("local.py", tmp_path, "--state", str(state))
    assert ended.returncode == 1
    assert "✗ " in ended.stdout
    assert "Done: " not in ended.stdout


@pytest.mark.e2e
@pytest.mark.usefixtures("control_plane")
def test_the_demo_with_a_cluster(tmp_path: Path) -> None:
    ended = run("cluster.py", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for words in (
        *TOLD_BY_BOTH,
        "$ helm install memtenant charts/memtenant",
        "✓ the operator, which administers the store, cannot sign",
        "✓ the other replica leads once the Lease has run out",
        "without one failure",
        "is in use by 5 tenants",
        "✓ with its data and its users",
        "✓ its pod ran under an account of its own",
        "✓ the tenants under the policy name it in their status",
        "$ kubectl get mtenants -A",
    ):
        assert words in ended.stdout
    assert ESCAPE not in ended.stdout
    assert not left_behind(tmp_path)
    assert not list(tmp_path.glob("memtenant-*"))


@pytest.mark.e2e
@pytest.mark.usefixtures("control_plane")
def test_ctrl_c_on_a_terminal_stops_and_removes_everything(tmp_path: Path) -> None:
    with on_a_terminal("cluster.py", tmp_path) as (demo, terminal):
        told = read_until(terminal, b"two replicas run")
        os.write(terminal, b"\x03")
        told += read_until(terminal, None)
        assert demo.wait(60) == 130, told.decode(errors="replace")
    assert ESCAPE.encode() in told
    assert not left_behind(tmp_path)
    assert not list(tmp_path.glob("memtenant-*"))


@contextlib.contextmanager
def on_a_terminal(script: str, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A demo and the other end of the terminal that it runs on."""
    terminal, its_end = pty.openpty()
    demo = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, DEMO / script],
        env=environment(tmp_path),
        cwd=ROOT,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    try:
        yield demo, terminal
    finally:
        os.close(terminal)
        if demo.poll() is None:
            demo.send_signal(signal.SIGTERM)
            processes.stop(demo)


def read_until(terminal: int, words: bytes | None) -> bytes:
    """What is printed until ``words`` come, or until nobody prints any more."""
    told = b""
    while words is None or words not in told:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end is closed
            more = b""
        if not more:
            assert words is None, told.decode(errors="replace")
            break
        told += more
    return told
