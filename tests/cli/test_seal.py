"""Sealing without a cluster: the SDK's events go through a real server into the archive."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memtenant import Message
from memtenant.archive import ArchiveReader, verify
from memtenant.audit import Operation
from memtenant.cli.exits import ExitCode
from memtenant.errors import AuditUnavailable
from memtenant.sync import Tenant
from memtenant.tenancy import keys
from tests.cli.program import TENANT, Program, policy, tenant
from tests.cli.test_given_server import url
from tests.support import processes
from tests.support.servers import Server


@pytest.fixture
def audited(
    program: Program, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Program:
    """An audited tenant on a server of its own."""
    password = tmp_path / "password"
    password.write_text(valkey.admin_password)
    manifests = program.write(
        "all.yaml", policy(audit={"mode": "Required", "sealEvery": "5s"}), tenant()
    )
    given = ("--redis", url(valkey), "--redis-password-file", password)
    ended = program.do("apply", "-f", manifests, *given)
    assert "memtenant seal --watch" in ended.said
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(program.binding_folder().parent))
    return program


def events(program: Program) -> list[Operation]:
    reader = ArchiveReader.open(program.state / "archive")
    return [one.event().operation for one in reader.events(str(TENANT))]


def condition(program: Program) -> dict[str, str]:
    """What the tenant says of its audit."""
    found = program.do("get", "tenant", "acme", "-n", "support", "-o", "json").data()
    (told,) = [one for one in found["status"]["conditions"] if one["type"] == "AuditSealed"]
    return dict(told)


def lapse(server: Server) -> None:
    """As if the sealer had been away for more than a minute."""
    with server.admin() as admin:
        long_ago = int(time.time() * 1000) - 61_000
        admin.hset(keys.limits(TENANT), "audit_heartbeat", str(long_ago))


def test_what_agents_do_is_sealed(audited: Program) -> None:
    with Tenant.from_binding() as agent:
        agent.conversation("s", user="ada").append(Message.human("hello"))
    sealed = audited.do("seal", "-o", "json").data()
    assert sealed["failures"] == {}
    assert Operation.APPEND in events(audited)
    assert verify(ArchiveReader.open(audited.state / "archive")).findings == ()
    assert condition(audited)["reason"] == "Sealed"
    assert "Sealed window" in audited.do("seal").out


def test_a_log_that_was_cut_is_not_sealed_and_the_exit_code_says_so(audited: Program) -> None:
    audited.do("seal")
    (log,) = (audited.state / "archive/logs" / str(TENANT)).glob("*.log")
    log.write_bytes(log.read_bytes()[:-1])
    with Tenant.from_binding() as agent:
        agent.conversation("s", user="ada").append(Message.human("hello"))
    ended = audited("seal")
    assert ended.code == ExitCode.FAILED, ended.said
    assert f"the log of {TENANT} is not what was sealed" in ended.said


def test_closed_refuses_and_open_counts_while_nobody_drains(
    audited: Program, valkey: Server
) -> None:
    lapse(valkey)
    with Tenant.from_binding() as agent:
        chat = agent.conversation("s", user="ada")
        with pytest.raises(AuditUnavailable):
            chat.append(Message.human("refused"))
        audited.do("apply")  # seals once, too
        chat.append(Message.human("stored"))

        opened = policy(audit={"mode": "Required", "onFailure": "Open"})
        audited.do("apply", "-f", audited.write("open.yaml", opened))
        lapse(valkey)
        chat.append(Message.human("stored without an event"))
    audited.do("seal")
    audited.do("apply")
    told = condition(audited)
    assert told["reason"] == "AuditGaps"
    assert "1 events were dropped" in told["message"]
    assert events(audited).count(Operation.APPEND) == 1


def test_a_watch_drains_until_it_is_told_to_stop(audited: Program) -> None:
    command = [str(Path(sys.executable).parent / "memtenant"), "seal", "--watch"]
    watch = subprocess.Popen([*command, "--state", str(audited.state)], stderr=subprocess.PIPE)
    try:
        with Tenant.from_binding() as agent:
            agent.conversation("s", user="ada").append(Message.human("hello"))
        processes.wait_until(lambda: Operation.APPEND in events(audited), what="the event")
        busy = audited("seal")
        assert busy.code == ExitCode.FAILED
        assert "another process" in busy.err
        audited.do("apply")  # it goes on beside the watch
        with Tenant.from_binding() as agent:
            agent.conversation("s", user="ada").append(Message.human("last"))
    finally:
        watch.terminate()
        assert watch.wait(120) == 0
    assert events(audited).count(Operation.APPEND) == 2
    reader = ArchiveReader.open(audited.state / "archive")
    latest = reader.latest()
    assert latest is not None
    assert {one.log_id: one.size - one.sealed for one in verify(reader).logs}[str(TENANT)] == 0


def test_nothing_to_seal_is_said(program: Program) -> None:
    ended = program("seal")
    assert ended.code == ExitCode.FAILED
    assert "is no state folder" in ended.err


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(audited: Program) -> None:
    audited.do("seal")
    archive, audit = audited.state / "archive", audited.state / "audit"
    note = archive / "reads" / "0123456789abcdef.json"
    note.parent.mkdir(exist_ok=True)
    os.mkfifo(note)
    audited.do("seal")
    assert not note.exists()
    (segment,) = (archive / "logs" / str(TENANT)).glob("*.log")
    (declared,) = (audited.state / "objects").glob("*/support/acme.json")
    for file, *command in (
        (segment, "audit", "events", str(TENANT)),
        (archive / "checkpoints" / "latest", "audit", "checkpoint"),
        (archive / "checkpoints" / "latest", "seal"),
        (archive / "state" / ".alive.new", "seal"),
        (audit / "head", "seal"),
        (declared, "get", "tenants"),
    ):
        kept = file.read_bytes() if file.exists() else b""
        file.unlink(missing_ok=True)
        os.mkfifo(file)
        ended = audited(*command)
        told = f"{file.name} cannot be (used|read): it is no plain file: remove it"
        assert (ended.code > 0, bool(re.search(told, ended.err))) == (True, True), ended.said
        file.unlink()
        file.write_bytes(kept)
    audited.do("seal")
