"""Real servers start, break and come back as the tests need them to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import processes
from tests.support.certificates import Authority
from tests.support.processes import StartFailed, Unavailable
from tests.support.servers import Flavour, Options, Server, running

StartServer = Callable[..., Server]


def test_each_flavour_runs_the_version_that_it_is_named_after(redis_server: Server) -> None:
    assert redis_server.version.startswith(redis_server.flavour.value.rsplit("-", 1)[1])


def test_nobody_gets_in_without_a_password(redis_server: Server) -> None:
    with (
        redis_server.client("default", "") as anonymous,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        anonymous.ping()


def test_a_shared_server_is_handed_over_empty(
    flavour: Flavour, session_servers: Callable[[Flavour], Server]
) -> None:
    library = "#!lua name=leftover\nredis.register_function('leftover', function() end)"
    with session_servers(flavour).admin() as admin:
        admin.set("leftover", "1")
        admin.acl_setuser("leftover", enabled=True, nopass=True)
        admin.function_load(library)
    with session_servers(flavour).admin() as admin:
        assert admin.dbsize() == 0
        assert sorted(admin.acl_users()) == ["admin", "default"]
        assert admin.function_list() == []


def test_a_replica_follows_its_primary_and_can_be_promoted(
    flavour: Flavour, start_server: StartServer
) -> None:
    primary = start_server(flavour)
    replica = start_server(flavour, replica_of=primary)
    with primary.admin() as write, replica.admin() as read:
        write.set("k", "v")
        assert write.execute_command("WAIT", 1, 60_000) == 1
        assert read.get("k") == b"v"
        primary.kill9()
        replica.promote()
        assert read.set("k", "w")


def test_an_old_primary_comes_back_as_a_replica(start_server: StartServer) -> None:
    first, second = start_server(Flavour.REDIS_7), start_server(Flavour.REDIS_7)
    with second.admin() as write:
        write.set("k", "v")
    first.follow(second)
    first.restart()
    first.wait_for_sync()
    with first.admin() as read:
        assert read.get("k") == b"v"


def test_users_survive_a_restart_only_with_an_aclfile(
    flavour: Flavour, start_server: StartServer
) -> None:
    for aclfile in (True, False):
        server = start_server(flavour, Options(aclfile=aclfile))
        with server.admin() as admin:
            admin.acl_setuser("agent", enabled=True, passwords=["+secret"])
            if aclfile:
                admin.acl_save()
        server.restart()
        with server.admin() as admin:
            assert ("agent" in admin.acl_users()) is aclfile


def test_data_survives_a_crash_with_appendonly(flavour: Flavour, start_server: StartServer) -> None:
    server = start_server(flavour, Options(appendonly=True, config={"appendfsync": "always"}))
    with server.admin() as admin:
        admin.set("k", "v")
    pid = server.pid
    server.kill9()
    assert not server.alive
    server.start()
    assert server.pid != pid
    with server.admin() as admin:
        assert admin.get("k") == b"v"


def test_a_frozen_server_answers_again_when_thawed(start_server: StartServer) -> None:
    server = start_server(Flavour.VALKEY_9)
    server.freeze()
    impatient = redis.Redis.from_url(server.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
    with impatient, pytest.raises(redis.TimeoutError):
        impatient.ping()
    server.thaw()
    with server.admin() as admin:
        assert admin.ping()


def test_debian_server_speaks_tls_itself(start_server: StartServer) -> None:
    server = start_server(Flavour.REDIS_7, Options(tls=Authority()))
    with server.admin() as admin:
        assert admin.ping()
    plain = redis.Redis(server.host, server.port, retry=Retry(NoBackoff(), 0))
    with plain, pytest.raises(redis.ConnectionError):
        plain.ping()


def test_a_server_without_tls_says_so() -> None:
    with (
        pytest.raises(Unavailable, match="TlsRelay"),
        running(Flavour.VALKEY_9, Options(tls=Authority())),
    ):
        pass


def test_a_missing_server_is_named_in_one_line_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="apt-get install redis-server") as missing:
        Flavour.REDIS_7.binary()
    assert "\n" not in str(missing.value)


def test_a_server_that_cannot_start_shows_the_end_of_its_log() -> None:
    with (
        pytest.raises(StartFailed, match="nonsense-option"),
        running(Flavour.VALKEY_9, Options(config={"nonsense-option": "1"})),
    ):
        pass


def test_no_password_is_in_the_process_list(start_server: StartServer) -> None:
    server = start_server(Flavour.VALKEY_9)
    argv = Path(f"/proc/{server.pid}/cmdline").read_bytes()
    assert server.admin_password.encode() not in argv


def test_a_killed_test_run_leaves_no_server_behind(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "from tests.support.servers import Flavour, start\n"
        "print(start(Flavour.VALKEY_9).pid, flush=True)\n"
        "signal.pause()\n"
    )
    env = os.environ | {"TMPDIR": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env
    )
    assert run.stdout is not None
    pid = int(run.stdout.readline())
    assert processes.exists(pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 60
    while processes.exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    gone = not processes.exists(pid)
    if not gone:
        os.kill(pid, signal.SIGKILL)
    assert gone
