"""The operator and the sealer as real processes that a test kills, freezes and thaws; a kubelet
starts them again.

replica = Replica(identity="a", kubeconfig=kubeconfig, home=home, folder=folder)
replica.start()
replica.kill()         # it is started again, as a container that crashed
replica.stop()         # SIGTERM; it stays down
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from tests.support import processes

MEMTENANT = (str(Path(sys.executable).parent / "memtenant"),)
"""How it is started."""

QUICK: Mapping[str, str] = {
    "repair_interval": "0.5",
    "measure_interval": "0.5",
    "store_probe_longest": "1",
    "backoff_longest": "2",
}
"""Settings under which a test need not wait. Intervals only: nothing else differs from the
defaults. A Lease lasts as long as shipped: a busy machine takes it from nobody."""


class Lease(TypedDict):
    """Settings of how long a leader leads."""

    lease_duration: str
    lease_renew_deadline: str
    lease_retry_period: str


QUICK_LEASE: Lease = {
    "lease_duration": "3",
    "lease_renew_deadline": "2.5",
    "lease_retry_period": "0.5",
}
"""Of a leader that a test kills or freezes, so that the next one need not wait. On a busy machine
it loses the Lease now and then, and ends: one end more is nothing to such a test."""


@dataclass(kw_only=True)
class Kept:
    """A process that is started again whenever it ends. ``program`` is memtenant as it is started;
    ``exits`` are the codes with which it ended so far."""

    identity: str
    kubeconfig: Path
    folder: Path
    program: Sequence[str] = MEMTENANT
    exits: list[int] = field(default_factory=list)
    argv: list[list[str]] = field(default_factory=list)
    _process: "subprocess.Popen[bytes] | None" = None
    _wanted: bool = False
    _watcher: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def log(self) -> Path:
        """What all its processes wrote."""
        return self.folder / f"{self.identity}.log"

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there (a frozen one is)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._wanted = True
        self._spawn()
        self._watcher = threading.Thread(target=self._restart_when_it_ends, daemon=True)
        self._watcher.start()

    def kill(self) -> None:
        """Crash it (SIGKILL)."""
        with self._lock:
            if self.alive:
                os.kill(self.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end; the exit code of its last process."""
        with self._lock:
            self._wanted = False
        if self._process is None:
            return 0
        code = processes.stop(self._process, grace=30)
        if self._watcher is not None:
            self._watcher.join(10)
        return code

    def _arguments(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return {}

    def _spawn(self) -> None:
        inherited = {
            name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ
        }
        self._process = processes.spawn(
            [*self.program, *self._arguments()],
            log=self.log,
            env={**inherited, "HOME": str(self.folder), **self._environment()},
            cwd=self.folder,
            new_session=True,
        )

    def _restart_when_it_ends(self) -> None:
        while self._process is not None:
            self._note_argv()
            code = self._process.wait()
            self.exits.append(code)
            with self._lock:
                if not self._wanted:
                    return
                self._spawn()

    def _note_argv(self) -> None:
        try:
            raw = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return
        self.argv.append(raw.decode(errors="replace").split("\0"))


@dataclass(kw_only=True)
class Replica(Kept):
    """One replica of the operator."""

    home: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What all its processes wrote."""
        return self.folder / f"operator-{self.identity}.log"

    def _arguments(self) -> list[str]:
        return ["controller"]

    def _environment(self) -> dict[str, str]:
        settings = {
            "home_namespace": self.home,
            "identity": self.identity,
            "kubeconfig": str(self.kubeconfig),
            "secret_access": "Cluster",
            "health_host": "127.0.0.1",
            "health_port": "0",
            "log_format": "json",
            **QUICK,
            **self.settings,
        }
        return {f"MEMTENANT_{name.upper()}": value for name, value in settings.items()}


@dataclass(kw_only=True)
class Sealer(Kept):
    """The sealer of a cluster. ``files`` is where a kubelet mounts its Secret."""

    archive: Path
    files: Path
    audit_namespace: str

    def _arguments(self) -> list[str]:
        return [
            *("seal", "--in-cluster", "--health-host", "127.0.0.1", "--health-port", "0"),
            *("--archive", str(self.archive), "--files", str(self.files)),
            *("--audit-namespace", self.audit_namespace),
            *("--kubeconfig", str(self.kubeconfig), "--log-format", "json"),
        ]
