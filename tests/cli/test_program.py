"""The program itself: help, completion, formats, the embedded server, missing packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from memtenant.cli.diff import Change, difference
from memtenant.cli.exits import ExitCode
from tests.cli.program import Ended, Program, policy, store, tenant

WITHOUT_CLUSTERS = """
import sys
for name in ("kubernetes", "kopf", "aiohttp", "prometheus_client"):
    sys.modules[name] = None
import contextlib, io, json
from memtenant.cli import main
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
NO_CLUSTER = (["--help"], ["apply", "--help"], ["store", "acl"])
A_CLUSTER = (["controller"], ["detach", "--all"])


@pytest.fixture(scope="module")
def without_operator_packages() -> dict[str, Ended]:
    """What the program said to each of these, where the operator's packages are missing."""
    asked = [*NO_CLUSTER, *A_CLUSTER]
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_CLUSTERS],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [Ended(*json.loads(line)) for line in ended.stdout.splitlines()]
    return {" ".join(words): answer for words, answer in zip(asked, answers, strict=True)}


@pytest.mark.parametrize("arguments", NO_CLUSTER, ids=" ".join)
def test_what_needs_no_cluster_works_without_its_packages(
    without_operator_packages: dict[str, Ended], arguments: list[str]
) -> None:
    ended = without_operator_packages[" ".join(arguments)]

    assert ended.code == ExitCode.DONE
    assert ended.out


@pytest.mark.parametrize("arguments", A_CLUSTER, ids=" ".join)
def test_what_needs_a_cluster_says_which_packages(
    without_operator_packages: dict[str, Ended], arguments: list[str]
) -> None:
    ended = without_operator_packages[" ".join(arguments)]

    assert ended.code == ExitCode.FAILED
    assert "pip install 'memtenant[operator]'" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_where_only_the_sdk_is_installed_the_program_says_what_it_needs() -> None:
    code = "import sys; sys.modules['typer'] = None; from memtenant.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert ended.returncode == ExitCode.FAILED
    assert "pip install 'memtenant[cli]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


INTERRUPTED = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "memtenant.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from memtenant.cli import main
sys.exit(main())
"""


def test_an_interrupt_before_anything_began_is_told_as_any_other() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (ExitCode.INTERRUPTED, "interrupted\n")


def test_the_names_of_settings_stand_in_the_help(program: Program) -> None:
    assert "MEMTENANT_MEASURE_INTERVAL" in program.do("controller", "--help").out


@pytest.mark.parametrize(
    "command",
    ["validate", "plan", "apply", "get", "delete", "rotate", "detach", "controller"],
)
def test_every_command_teaches_by_example(program: Program, command: str) -> None:
    ended = program.do(command, "--help")

    assert f"memtenant {command}" in ended.out


def test_an_output_that_is_full_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", "from memtenant.cli import main; exit(main())", "store", "acl"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert ended.returncode == ExitCode.FAILED
    assert "No space left on device" in ended.stderr
    assert "defect" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_version_is_the_packages(program: Program) -> None:
    assert program.do("version").out.startswith("memtenant 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(program: Program, shell: str) -> None:
    assert "_MEMTENANT_COMPLETE" in program.do("completion", shell).out


def test_bash_completes_commands() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from memtenant.cli import main; main([])"],
        env=os.environ
        | {
            "_MEMTENANT_COMPLETE": "complete_bash",
            "COMP_WORDS": "memtenant ro",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.split() == ["rotate"]


def test_validate_counts_what_it_took(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), store(), tenant())

    ended = program.do("validate", "-f", manifests)

    assert ended.out == "Valid: 1 MemoryStore, 1 RetentionPolicy, 1 MemoryTenant\n"


def test_validate_answers_programs(program: Program) -> None:
    manifests = program.write("all.yaml", tenant(isolation="Extreme"))

    ended = program("validate", "-f", manifests, "-o", "json")

    assert ended.code == ExitCode.FAILED
    assert ended.data()["valid"] is False
    assert ended.data()["faults"][0]["where"].endswith("all.yaml, document 1, line 1")


@pytest.mark.redis
def test_validate_judges_updates_of_the_state(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    other = program.write("other.yaml", tenant(isolation="Minimal"))

    assert program("validate", "-f", other).code == ExitCode.DONE
    ended = program("validate", "-f", other, "--against-state")

    assert ended.code == ExitCode.FAILED
    assert "spec.isolation" in ended.err
    assert program("apply", "-f", other).code == ExitCode.FAILED


@pytest.mark.redis
def test_get_shows_the_columns_of_kubectl(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    narrow = program.do("get", "tenants").out.splitlines()
    wide = program.do("get", "tenants", "-o", "wide").out

    head = "NAMESPACE MEMORYTENANT STORE ISOLATION ACCESS MEMORY% READY REASON AGE"
    assert " ".join(narrow[0].split()) == head
    assert narrow[1].split()[:4] == ["support", "acme", "local", "Moderate"]
    assert "acme-default" in wide


@pytest.mark.redis
def test_what_get_prints_may_be_applied(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    printed = yaml.safe_load(program.do("get", "tenant", "acme", "-o", "yaml").out)
    again = program.write("again.yaml", printed)

    assert program("plan", "-f", again).code == ExitCode.DONE


@pytest.mark.redis
def test_a_plan_of_everything_new_writes_nothing(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant())

    ended = program("plan", "-f", manifests)

    assert ended.code == ExitCode.CHANGES
    assert "+ spec.retentionPolicyRef.name: standard" in ended.out
    assert "write binding acme-default" in ended.out
    assert "Plan: 3 to create, 0 to change, 0 to repair, 0 unchanged" in ended.out
    assert [path.name for path in program.state.iterdir()] == ["valkey"]


@pytest.mark.redis
def test_a_plan_for_a_tenant_that_cannot_be_is_a_failure(program: Program) -> None:
    ended = program("plan", "-f", program.write("all.yaml", tenant()))

    assert ended.code == ExitCode.FAILED
    assert "RetentionPolicy 'standard' does not exist" in ended.out


@pytest.mark.redis
def test_the_embedded_server_is_found_again(program: Program) -> None:
    first = program.do("local", "start", "-o", "json").data()
    second = program.do("local", "start", "-o", "json").data()
    status = program.do("local", "status", "-o", "json").data()

    assert first == second == status
    assert first["running"] is True
    program.do("local", "stop")
    assert program.do("local", "status", "-o", "json").data()["running"] is False


@pytest.mark.redis
def test_the_state_folder_may_be_relative(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMTENANT_STATE", "state")

    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    assert program.binding_folder().is_dir()


def test_lists_with_names_differ_by_name() -> None:
    before = {"agents": [{"name": "a", "access": "ReadOnly"}, {"name": "b"}]}
    after = {"agents": [{"name": "b"}, {"name": "a", "access": "ReadWrite"}]}

    assert list(difference(before, after, "spec")) == [
        Change("spec.agents[a].access", "ReadOnly", "ReadWrite")
    ]


def test_true_and_one_differ() -> None:
    assert len(list(difference({"default": True}, {"default": 1}))) == 1
