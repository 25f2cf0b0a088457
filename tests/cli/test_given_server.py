"""`--redis`: a server of one's own instead of the embedded one, on every flavour."""

from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from memtenant.cli.exits import ExitCode
from tests.cli.program import NEIGHBOUR, Program, policy, record_key, tenant
from tests.conftest import StartServer
from tests.support.certificates import Authority
from tests.support.servers import Flavour, Options, Server


@pytest.fixture
def password_file(tmp_path: Path, redis_server: Server) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{redis_server.admin_password}\n")
    return file


def url(server: Server) -> str:
    return f"redis://{server.admin_user}@{server.endpoint}"


def test_tenants_work_on_a_given_server(
    program: Program, redis_server: Server, password_file: Path
) -> None:
    manifests = program.write("all.yaml", policy(), tenant(), tenant(NEIGHBOUR))
    given = ("--redis", url(redis_server), "--redis-password-file", password_file)

    program.do("apply", "-f", manifests, *given)

    with program.connect() as agent:
        agent.rpush(record_key(), "here")
        with pytest.raises(NoPermissionError):
            agent.lrange(record_key(NEIGHBOUR), 0, -1)
    assert program.binding().port == redis_server.port
    assert program("plan", "-f", manifests, *given).code == ExitCode.DONE
    assert not (program.state / "valkey").exists()


def test_the_server_is_remembered(
    program: Program, redis_server: Server, password_file: Path
) -> None:
    manifests = program.write("all.yaml", policy(), tenant(deletionPolicy="Delete"))
    given = ("--redis", url(redis_server), "--redis-password-file", password_file)
    program.do("apply", "-f", manifests, *given)

    program.do("apply")
    program.do("delete", "tenant/support/acme")

    with redis_server.admin() as admin:
        assert not [name for name in admin.acl_users() if str(name).startswith("mt.support.")]
    assert not (program.state / "valkey").exists()


def test_the_printed_user_is_all_that_the_operator_needs(
    program: Program, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMTENANT_REDIS", url(redis_server))
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", redis_server.admin_password)
    printed = program.do("store", "acl").out.replace("REPLACE-WITH-A-PASSWORD", "s3cret")
    with redis_server.admin() as admin:
        admin.execute_command(*printed.split())
    monkeypatch.setenv("MEMTENANT_REDIS", f"redis://memtenant@{redis_server.endpoint}")
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", "s3cret")

    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    with program.connect() as agent:
        agent.rpush(record_key(), "here")


def test_the_user_for_any_server_is_taken_by_each(program: Program, redis_server: Server) -> None:
    printed = program.do("store", "acl").out

    with redis_server.admin() as admin:
        assert admin.execute_command(*printed.split())


def test_the_line_for_an_aclfile_is_read_by_the_server(
    program: Program, start_server: StartServer
) -> None:
    server = start_server(Flavour.VALKEY_9, Options(aclfile=True))
    line = program.do("store", "acl", "--server", "valkey-9.1", "--aclfile").out
    assert server.aclfile is not None
    with server.aclfile.open("a") as file:
        file.write(line)

    with server.admin() as admin:
        admin.acl_load()
        assert "memtenant" in [str(name) for name in admin.acl_users()]


def test_a_password_in_the_command_line_is_warned_of_and_not_shown(
    program: Program, valkey: Server
) -> None:
    ended = program.do(
        *("apply", "-f", program.write("all.yaml", policy(), tenant())),
        *("--redis", f"redis://{valkey.admin_user}:{valkey.admin_password}@{valkey.endpoint}"),
    )

    assert "visible to every user" in ended.err
    assert valkey.admin_password not in ended.said


def test_a_password_in_the_environment_is_not_warned_of(
    program: Program, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "MEMTENANT_REDIS",
        f"redis://{valkey.admin_user}:{valkey.admin_password}@{valkey.endpoint}",
    )

    ended = program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    assert ended.err == ""


def test_tenants_are_not_left_behind_by_another_server(
    program: Program, redis_server: Server, password_file: Path
) -> None:
    manifests = program.write("all.yaml", policy(), tenant())
    program.do("apply", "-f", manifests)

    ended = program(
        *("apply", "-f", manifests, "--redis", url(redis_server)),
        *("--redis-password-file", password_file),
    )

    assert ended.code == ExitCode.FAILED
    assert "use another state folder" in ended.err
    assert program("plan", "-f", manifests).code == ExitCode.DONE


def test_two_state_folders_do_not_share_a_server(
    program: Program, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMTENANT_REDIS", url(valkey))
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", valkey.admin_password)
    manifests = program.write("all.yaml", policy(), tenant())
    program.do("apply", "-f", manifests)

    ended = program("apply", "-f", manifests, "--state", tmp_path / "other")
    planned = program("plan", "-f", manifests, "--state", tmp_path / "another")

    assert ended.code == ExitCode.UNSETTLED
    assert "provisioned by another installation" in ended.out
    assert planned.code == ExitCode.FAILED
    assert "provisioned by another installation" in planned.out


def test_a_server_that_does_not_answer_is_said_to(program: Program, tmp_path: Path) -> None:
    ended = program(
        *("apply", "-f", program.write("all.yaml", policy(), tenant())),
        *("--redis", "redis://127.0.0.1:1"),
    )

    assert ended.code == ExitCode.UNSETTLED
    assert "127.0.0.1:1" in ended.out


def test_a_wrong_password_is_said(
    program: Program, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", "wrong")

    ended = program(
        "apply", "-f", program.write("all.yaml", policy(), tenant()), "--redis", url(valkey)
    )

    assert ended.code == ExitCode.UNSETTLED
    assert valkey.endpoint in ended.out
    assert "wrong" not in ended.said.replace("wrong password", "").replace("wrong username", "")


def test_a_server_with_tls_is_checked_against_the_given_ca(
    program: Program, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(Flavour.REDIS_7, Options(tls=Authority("tests")))
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", server.admin_password)
    manifests = program.write("all.yaml", policy(), tenant())
    secure = ("--redis", f"rediss://admin@{server.endpoint}")

    unknown = program("apply", "-f", manifests, *secure)
    assert server.ca_file is not None
    program.do("apply", "-f", manifests, *secure, "--redis-ca", server.ca_file)

    assert unknown.code == ExitCode.UNSETTLED
    assert program.binding().tls
    ca = program.binding_folder() / "ca.crt"
    with redis.Redis.from_url(program.binding().uri, ssl_ca_certs=str(ca)) as agent:
        agent.rpush(record_key(), "here")
