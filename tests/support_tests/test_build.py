"""The builder: once, never half, never twice at the same time; on a tiny module of its own."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.controlplane import build, toolchain
from tests.support.controlplane.build import COMPONENTS, Component
from tests.support.processes import StartFailed, Unavailable

needs_go = pytest.mark.cluster
SAYS = 'package main\n\nvar says = "nothing"\n\nfunc main() { println(says) }\n'


@pytest.fixture
def component(tmp_path: Path) -> Component:
    """A program without dependencies, whose version is that of a module it does not need."""
    module = tmp_path / "module"
    (module / "tiny").mkdir(parents=True)
    (module / "go.mod").write_text(
        "module example.org/own\n\ngo 1.26.0\n\n// example.org/x v1.2.3\n"
    )
    (module / "tiny" / "main.go").write_text(SAYS)
    return Component(
        "tiny",
        module,
        "// example.org/x",
        {"tiny": "./tiny"},
        usual="seconds",
        stamp=("main.says={version}",),
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@needs_go
def test_a_program_is_built_with_its_version_and_found_the_next_time(
    component: Component, cache: Path
) -> None:
    said: list[str] = []
    program = build.build(component, said.append, cache) / "tiny"
    answer = subprocess.run([program], capture_output=True, text=True, check=True)
    assert answer.stderr == "v1.2.3\n"
    assert any("compiling tiny" in line for line in said)
    said.clear()
    build.build(component, said.append, cache)
    assert said == ["tiny v1.2.3: already built"]


@needs_go
def test_a_changed_recipe_builds_anew_beside_the_old_one(component: Component, cache: Path) -> None:
    first = build.build(component, print, cache)
    with (component.module / "go.mod").open("a") as gomod:
        gomod.write("// another\n")
    second = build.build(component, print, cache)
    assert first != second
    assert (first / "tiny").exists()
    assert (second / "tiny").exists()


@needs_go
def test_two_at_once_build_once_and_the_second_says_that_it_waits(
    component: Component, cache: Path
) -> None:
    cache.mkdir()
    said: list[str] = []
    with (cache / "tiny.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("4711")
        other.flush()
        second = threading.Thread(target=build.build, args=(component, said.append, cache))
        second.start()
        processes.wait_until(lambda: bool(said), what="the second build says something")
        assert "process 4711 is building it already" in said[0]
        folder = component.folder(cache)
        folder.mkdir()
    second.join()
    assert said[1:] == ["tiny v1.2.3: built meanwhile"]


@needs_go
def test_a_build_that_fails_shows_why_and_leaves_nothing(component: Component, cache: Path) -> None:
    (component.module / "tiny" / "main.go").write_text("package main\n\nfunc main() { oops() }\n")
    with pytest.raises(StartFailed, match="undefined: oops"):
        build.build(component, print, cache)
    assert [path.name for path in cache.iterdir()] == ["tiny.lock"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_half_result_and_can_be_repeated(
    component: Component, cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    hanging = tmp_path / "bin" / "go"
    hanging.parent.mkdir()
    # A compiler that has written half of its output when the interrupt comes.
    hanging.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "version) echo go version go1.99.0 ;;\n"
        "mod) ;;\n"
        f'build) for word; do out=$last; last=$word; done; echo half > "$out"; echo $$ > {tmp_path}'
        "/started; exec sleep 60 ;;\n"
        "esac\n"
    )
    hanging.chmod(hanging.stat().st_mode | stat.S_IXUSR)
    script = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from tests.support.controlplane import __main__ as command, build\n"
        # Whoever runs the tests in the background of a shell has it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGTERM, command._interrupted)\n"
        f"tiny = build.Component('tiny', Path({str(component.module)!r}), '// example.org/x',\n"
        "    {'tiny': './tiny'}, usual='', stamp=('main.says={version}',))\n"
        f"build.build(tiny, print, Path({str(cache)!r}))\n"
    )
    env = os.environ | {"PATH": f"{hanging.parent}:/usr/bin:/bin"}
    run = subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.DEVNULL)
    started = tmp_path / "started"
    processes.wait_until(lambda: started.exists() and started.read_text() != "", what="the build")
    run.send_signal(number)
    assert run.wait(120) != 0
    assert not component.folder(cache).exists()
    compiler = int(started.read_text())
    deadline = time.monotonic() + 60
    while processes.exists(compiler) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes.exists(compiler)
    if number is not signal.SIGKILL:
        assert [path.name for path in cache.iterdir()] == ["tiny.lock"]


@needs_go
def test_what_a_killed_build_left_is_removed_by_the_next(component: Component, cache: Path) -> None:
    leftover = cache / ".tiny-abc" / "bin"
    leftover.mkdir(parents=True)
    (leftover / "tiny").write_text("half")
    build.build(component, print, cache)
    assert not leftover.exists()


def test_every_component_has_the_version_that_its_go_mod_pins() -> None:
    versions = {component.name: component.version for component in COMPONENTS}
    assert versions == {"etcd": "v3.6.6", "kubernetes": "v1.36.2", "helm": "v4.3.1"}


def test_kubernetes_is_told_its_version() -> None:
    assert "gitVersion=v1.36.2" in build.KUBERNETES.ldflags
    assert "gitMinor=36" in build.KUBERNETES.ldflags


def test_ready_made_programs_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ready = tmp_path / "etcd"
    ready.touch(mode=0o700)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert build.program("etcd") == ready


def test_a_program_that_is_not_built_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(Unavailable, match="is not built: `make control-plane`"):
        build.program("kube-apiserver", tmp_path)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.default_cache() == tmp_path / "memtenant" / "control-plane"


def test_a_go_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    old.chmod(0o700)
    installed = tmp_path / "cache" / f"go-{toolchain._FROM_PYPI}"
    installed.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert toolchain.go(print, tmp_path / "cache") == installed / "go" / "bin" / "go"


def test_a_broken_kubectl_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "kubectl"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert build.kubectl() != broken
