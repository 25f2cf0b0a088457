"""Whatever is given: one clear line and an exit code, never a traceback, nothing half-written."""

import json
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtenant.cli.exits import ExitCode
from memtenant.cli.server import given_server
from memtenant.errors import UsageError
from tests.cli.program import Ended, Program, policy, store, tenant

QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=10), below, max_size=3)
    ),
    max_leaves=8,
)
WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)


TOO_LONG = "x" * 300
"""No file system has a file of this name, whoever asks."""


def fails(ended: Ended) -> None:
    """One or more lines that say what and what to do."""
    assert ended.code == ExitCode.FAILED
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.said


@QUICK
@given(content=st.binary(max_size=200))
def test_any_bytes_are_judged(program: Program, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(content)
        file.flush()

        ended = program("validate", "-f", file.name)

    assert ended.code in (ExitCode.DONE, ExitCode.FAILED)


@QUICK
@given(
    where=st.sampled_from(
        ["metadata", "spec", "spec.quota", "spec.agents", "kind", "metadata.name"]
    ),
    value=VALUES,
)
def test_a_tenant_with_anything_anywhere_is_judged(
    program: Program, where: str, value: Any
) -> None:
    raw: dict[str, Any] = tenant()
    *path, last = where.split(".")
    inside = raw
    for part in path:
        inside = inside[part]
    inside[last] = value
    manifests = program.state.parent / "any.yaml"
    manifests.write_text(yaml.safe_dump(raw, allow_unicode=False))

    ended = program("validate", "-f", manifests)

    assert ended.code in (ExitCode.DONE, ExitCode.FAILED)
    if ended.code == ExitCode.FAILED:
        fails(ended)
        assert "any.yaml" in ended.err


@QUICK
@given(data=st.dictionaries(st.text(max_size=10), VALUES, max_size=3), name=VALUES)
def test_any_secret_is_judged_and_no_value_shown(
    program: Program, data: dict[str, Any], name: Any
) -> None:
    raw = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "data": data,
        "stringData": {"key": "c0nfidential"},
    }
    manifests = program.state.parent / "any.yaml"
    manifests.write_text(yaml.safe_dump(raw))

    ended = program("validate", "-f", manifests)

    assert ended.code in (ExitCode.DONE, ExitCode.FAILED)
    assert "c0nfidential" not in ended.said


@QUICK
@given(words=st.lists(WORDS, max_size=4))
def test_any_arguments_are_answered(program: Program, words: list[str]) -> None:
    command = ["get", *words] if words and words[0].startswith("-") is False else ["get"]

    ended = program(*command)

    assert ended.code in (ExitCode.DONE, ExitCode.FAILED)


@QUICK
@given(url=st.text(max_size=60) | st.text(max_size=30).map(lambda text: f"redis://{text}"))
def test_any_url_is_a_server_or_refused_without_repeating_it(url: str) -> None:
    secret = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    said = ""
    try:
        given_server(url, environ={})
    except UsageError as error:
        said = str(error)
    assert len(secret) < 4 or secret not in said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"quota": {"memory": "-1"}}, "spec.quota.memory"),
        ({"isolation": "Extreme"}, "spec.isolation"),
        ({"retentionPolicyRef": {}}, "spec.retentionPolicyRef.name"),
        ({"surprise": 1}, "spec.surprise"),
    ],
)
def test_what_where_and_what_to_do(program: Program, spec: dict[str, Any], words: str) -> None:
    manifests = program.write("tenants.yaml", policy(), tenant(**spec))

    ended = program("apply", "-f", manifests)

    fails(ended)
    assert words in ended.err
    assert "tenants.yaml, document 2, line" in ended.err
    assert not program.state.exists()


def test_all_faults_are_told_at_once(program: Program) -> None:
    wrong = tenant(isolation="Extreme", quota={"memory": "none"})

    ended = program("validate", "-f", program.write("all.yaml", wrong, policy(nonsense=1)))

    assert ended.err.count("error: ") == 3


def test_one_bad_document_declares_nothing(program: Program) -> None:
    ended = program("apply", "-f", program.write("all.yaml", policy(), tenant(isolation="Extreme")))

    fails(ended)
    assert not program.state.exists()


def test_the_same_object_twice_is_refused(program: Program) -> None:
    ended = program("validate", "-f", program.write("all.yaml", policy(), policy()))

    fails(ended)
    assert "given twice" in ended.err


def test_other_kinds_are_left_alone(program: Program) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}

    ended = program.do("validate", "-f", program.write("all.yaml", policy(), other))

    assert "Skipped ConfigMap" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["apply"],
        ["apply", "-f", "missing.yaml"],
        ["apply", "-f", "/dev/null", "-n", "No Namespace"],
        ["plan"],
        ["delete"],
        ["delete", "tenant"],
        ["delete", "tenant/a/b/c"],
        ["delete", "pod/x"],
        ["delete", "tenant/nobody"],
        ["rotate", "nobody"],
        ["rotate", "a/b/c"],
        ["get", "pods"],
        ["get", "tenant", "nobody"],
        ["get", "-o", "xml"],
        ["detach"],
        ["detach", "acme", "--all"],
        ["detach", "--all", "--kubeconfig", "missing"],
        ["store", "acl", "--server", "six"],
        ["store", "acl", "--server", "6.2"],
        ["store", "acl", "--username", "a b"],
        ["local", "start", "--port", "0"],
        ["local", "reset", "--yes"],
        ["controller", "--workers", "0", "--kubeconfig", "missing"],
        ["controller", "--settings", "missing.yaml"],
        ["seal", "--archive", "elsewhere"],
        ["seal", "--tenant-share", "20"],
        ["completion"],
        ["completion", "zork"],
        ["nonsense"],
        ["apply", "--nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_answered_in_one_line(program: Program, arguments: list[str]) -> None:
    ended = program(*arguments)

    fails(ended)
    assert len(ended.err.splitlines()) == 1
    assert not program.state.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "-f", TOO_LONG],
        ["apply", "-f", TOO_LONG],
        ["get", "--state", TOO_LONG],
        ["local", "status", "--state", TOO_LONG],
        ["report", "show", TOO_LONG],
        ["report", "run", "--state", TOO_LONG],
        ["seal", "--state", TOO_LONG],
        ["retention", "explain", "--state", TOO_LONG],
        ["detach", "--all", "--kubeconfig", TOO_LONG],
    ],
    ids=lambda arguments: " ".join(arguments[:-1]),
)
def test_what_the_machine_refuses_is_no_defect(program: Program, arguments: list[str]) -> None:
    ended = program(*arguments)

    fails(ended)
    assert TOO_LONG in ended.err
    assert "defect" not in ended.err


@pytest.mark.parametrize(
    "url",
    ["http://x", "redis://", "redis://h:99999", "redis://h/3", "redis://h?ssl=1", "redis://[::"],
)
def test_a_url_that_cannot_be_used_says_what_to_write(program: Program, url: str) -> None:
    ended = program("apply", "-f", program.write("all.yaml", policy()), "--redis", url)

    fails(ended)
    assert "redis://USER@HOST:PORT" in ended.err


def test_a_ca_that_is_none_is_told_before_anything_is_declared(
    program: Program, tmp_path: Path
) -> None:
    manifests, ca = program.write("all.yaml", policy()), tmp_path / "ca.crt"
    ca.write_text("no certificate")

    for command in (("apply", "-f", manifests), ("store", "acl")):
        ended = program(*command, "--redis", "rediss://h", "--redis-ca", ca)

        fails(ended)
        assert "--redis-ca: " in ended.err
        assert not program.state.exists()


def test_a_file_is_no_state_folder(program: Program) -> None:
    file = program.write("all.yaml", policy())

    for command in (("get",), ("seal",), ("retention", "explain")):
        ended = program(*command, "--state", file)

        fails(ended)
        assert f"{file} is no folder" in ended.err


def test_redis_options_go_together(program: Program, tmp_path: Path) -> None:
    manifests = program.write("all.yaml", policy())

    fails(program("apply", "-f", manifests, "--redis-password-file", "/dev/null"))
    fails(program("apply", "-f", manifests, "--redis", "redis://h", "--redis-ca", "/dev/null"))
    fails(
        program(
            *("apply", "-f", manifests, "--redis", "redis://h"),
            *("--redis-password-file", tmp_path / "missing"),
        )
    )


def test_a_damaged_state_is_named_and_left_alone(program: Program) -> None:
    damaged = program.state / "objects" / "memorytenants" / "support" / "acme.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    (program.state / "meta.json").write_text(json.dumps({"uid": str(uuid4()), "reserved": 1}))

    ended = program("apply", "-f", program.write("all.yaml", policy()))

    fails(ended)
    assert "acme.json is damaged" in ended.err
    assert damaged.read_text() == "{"


def test_no_escape_sequence_of_a_file_reaches_the_terminal(program: Program) -> None:
    manifests = program.state.parent / "evil.yaml"
    manifests.write_text(yaml.safe_dump(tenant() | {"\x1b[31mred": 1}))

    ended = program("validate", "-f", manifests)

    fails(ended)
    assert "\x1b" not in ended.said


def test_a_store_with_its_own_secret_and_redis_is_a_contradiction(program: Program) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "valkey-admin", "namespace": "memtenant-system"},
        "stringData": {"password": "x"},
    }
    manifests = program.write("all.yaml", policy(), store(), secret)

    ended = program("apply", "-f", manifests, "--redis", "redis://127.0.0.1:1")

    fails(ended)
    assert "leave --redis out" in ended.err
    assert program.do("get").out == ""
