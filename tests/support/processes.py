"""Child processes that never outlive the process that wanted them.

Every server of the tests and demos is started here. Two things make sure that nothing stays
behind: an exit handler, and on Linux the kernel's parent-death signal, which also holds when
the test run itself is killed with SIGKILL. The kernel ties that signal to the *thread* that
forked, so one thread that lives as long as the interpreter does all the forking.
"""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
_children: set[subprocess.Popen[bytes]] = set()

# Below Linux's ephemeral range, so that no outgoing connection takes the port of a server
# while that server restarts.
_PORTS = range(15_000, 32_000)
_given: set[int] = set()

SHARE = "MEMTENANT_TEST_PORTS"
"""The variable with the share of these ports that a process and its children have, as ``1/4``:
what runs beside them does not take the port of a server that restarts either."""


class Unavailable(Exception):
    """Something that a tier needs is not on this machine: says in one line how to get it."""


class StartFailed(Exception):
    """A server did not come up: the message carries the end of its log."""


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `argv` with its output appended to `log`; it dies with this process, however that dies.

    `new_session` keeps a terminal's Ctrl-C away from the child, for servers that are stopped in
    an order of their own.
    """
    with log.open("ab") as output:
        child = _spawner.submit(
            subprocess.Popen,
            [*_death_signal_prefix(), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=new_session,
        ).result()
    _children.add(child)
    return child


def _death_signal_prefix() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def stop(child: subprocess.Popen[bytes], *, grace: float = 10.0) -> int:
    """End `child` with SIGTERM, after `grace` seconds with SIGKILL; returns its exit code."""
    if child.poll() is None:
        child.send_signal(signal.SIGCONT)  # a frozen process does not see SIGTERM
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    _children.discard(child)
    return child.returncode


def kill(child: subprocess.Popen[bytes]) -> None:
    """End `child` as a crash does: SIGKILL, no goodbye."""
    child.kill()
    child.wait()
    _children.discard(child)


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill `child`, which leads a session, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    kill(child)


@atexit.register
def _stop_all() -> None:
    for child in list(_children):
        with contextlib.suppress(ProcessLookupError):
            child.kill()
            child.wait()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nothing listens on now, outside the ephemeral range, and that was not
    given before: whoever has it may be about to start, or start again."""
    part, _, parts = os.environ.get(SHARE, "1/1").partition("/")
    share = _PORTS[int(part) - 1 :: int(parts)]
    while True:
        port = random.choice(share)
        if port in _given and len(_given) < len(share) // 2:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    timeout: float = 120.0,
    child: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
) -> None:
    """Poll `ready` until it holds.

    Raises StartFailed, with the end of `log`, when `child` ends or `timeout` seconds pass first.
    """
    deadline = time.monotonic() + timeout
    for pause in _pauses():
        if ready():
            return
        if child is not None and child.poll() is not None:
            raise StartFailed(f"{what}: ended with exit code {child.returncode}{_tail(log)}")
        if time.monotonic() > deadline:
            raise StartFailed(f"{what}: not ready after {timeout:.0f} s{_tail(log)}")
        time.sleep(pause)


def _pauses() -> Iterator[float]:
    pause = 0.005
    while True:
        yield pause
        pause = min(pause * 1.5, 0.25)


def _tail(log: Path | None, lines: int = 15) -> str:
    if log is None or not log.exists():
        return ""
    return "\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def exists(pid: int) -> bool:
    """Whether a process with this id is there and is not a zombie."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
