"""A test's tier follows from what it asks for, and a missing piece is said in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from tests.support import tiers

def test_plain(): pass
def test_server(start_server): pass
@pytest.mark.cluster
def test_marked(): pass
@pytest.mark.e2e
def test_operators(): pass
def test_namespace(namespace): pass
def test_missing(): tiers.cannot_run("the moon is not here: `apt-get install moon`")
def test_broken(): assert False
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A small suite that uses the real conftest.py."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    path = tmp_path / "test_suite.py"
    path.write_text(TESTS)
    return path


def run(
    module: str, *arguments: str, cached: bool = False, **env: str
) -> "subprocess.CompletedProcess[str]":
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "MEMTENANT"))}
    clean["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # as in pyproject.toml, which is not read there
    return subprocess.run(
        [sys.executable, "-m", module, *arguments, *(() if cached else ("-p", "no:cacheprovider"))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=clean | env,
    )


@pytest.mark.parametrize(
    ("tier", "names"),
    [
        ("unit", {"test_plain", "test_missing", "test_broken"}),
        ("redis", {"test_server"}),
        ("cluster", {"test_marked", "test_namespace"}),
        ("e2e", {"test_operators"}),
    ],
)
def test_a_tier_is_what_a_test_needs(
    suite: Path,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tier: str,
    names: set[str],
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    ran = pytester.inline_run("--collect-only", "-q", "-m", tier, str(suite))
    (collected,) = ran.getcalls("pytest_collection_finish")
    assert {item.name for item in collected.session.items} == names


def test_the_last_line_says_how_it_ended(suite: Path) -> None:
    ended = run("tests.run", "--tier", "unit", "--tier", "redis", str(suite))
    assert ended.stdout.splitlines()[-1] == "2 passed, 1 failed, 1 skipped"
    assert "== redis tier: 1 passed, 0 failed in" in ended.stdout
    assert ended.returncode == 1


def test_what_is_missing_is_a_skip_with_one_line(suite: Path) -> None:
    ended = run("tests.run", "--tier", "unit", str(suite), "-k", "test_missing")
    assert "the moon is not here: `apt-get install moon`" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "0 passed, 0 failed, 1 skipped"
    assert ended.returncode == 0


def test_what_is_missing_fails_where_all_is_required(suite: Path) -> None:
    ended = run(
        "tests.run", "--tier", "unit", str(suite), "-k", "test_missing", MEMTENANT_REQUIRE="all"
    )
    assert ended.stdout.splitlines()[-1] == "0 passed, 1 failed"
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("require", "last"), [("", "0 passed, 0 failed, 1 skipped"), ("all", "0 passed, 1 failed")]
)
def test_a_cluster_tier_without_a_control_plane_says_how_to_get_it(
    suite: Path, tmp_path: Path, require: str, last: str
) -> None:
    blocked = tmp_path / "a file where the cache should be"
    blocked.touch()
    ended = run(
        "tests.run",
        *("--tier", "cluster", str(suite)),
        XDG_CACHE_HOME=str(blocked),
        MEMTENANT_REQUIRE=require,
    )
    assert "set XDG_CACHE_HOME to another" in ended.stdout
    assert "build it with `make control-plane`" in ended.stdout
    assert ended.stdout.splitlines()[-1] == last


def test_a_suite_that_cannot_be_collected_is_a_failure(suite: Path) -> None:
    suite.write_text("import nothing_of_that_name\n")
    ended = run("tests.run", "--tier", "unit", str(suite))
    assert ended.stdout.splitlines()[-1] == "0 passed, 1 failed"
    assert ended.returncode == 1


SECOND_RUN = """
import pathlib
import pytest

def test_good(start_server): pass

@pytest.mark.parametrize("name", NAMES)
def test_waits_for_a_server(start_server, name, request):
    mark = pathlib.Path(__file__).with_name(name)
    mark.write_text(mark.read_text() + "." if mark.exists() else ".")
    assert mark.read_text() == ".." and not name.startswith("broken")

def test_plain():
    assert PLAIN
"""


@pytest.mark.parametrize(
    ("names", "plain", "last", "unsteady"),
    [
        (["slow"], True, "2 passed, 1 failed", True),
        (["slow", "broken"], True, "2 passed, 2 failed", True),
        (["slow"], False, "1 passed, 2 failed", False),
        (["a", "b", "c", "d", "e", "f"], True, "2 passed, 6 failed", False),
    ],
    ids=["one", "and a broken one", "the unit tier fails too", "many"],
)
def test_what_fails_beside_others_is_run_once_more_alone_and_has_failed(
    suite: Path, names: list[str], plain: bool, last: str, unsteady: bool
) -> None:
    suite.write_text(f"NAMES, PLAIN = {names}, {plain}\n{SECOND_RUN}")
    ended = run("tests.run", "--tier", "unit", "--tier", "redis", str(suite), cached=True)
    assert ended.stdout.splitlines()[-1] == last
    assert ("\nunsteady, failed beside other tests and passed alone" in ended.stdout) == unsteady
    assert ended.returncode == 1
