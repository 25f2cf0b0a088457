"""Commands that are killed, and commands that meet."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memtenant.cli.exits import ExitCode
from memtenant.resources.folder import FolderResources
from memtenant.tenancy.identity import TenantId
from tests.cli.program import Program, policy, record_key, tenant
from tests.cli.test_apply import administered

pytestmark = pytest.mark.redis

MAIN = "import sys; from memtenant.cli import main; sys.exit(main())"


def spawn(program: Program, *arguments: str | Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments, "--state", program.state],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_an_apply_killed_anywhere_is_finished_by_the_next(program: Program) -> None:
    tenants = [tenant(TenantId("support", f"t-{number}")) for number in range(8)]
    manifests = program.write("all.yaml", policy(), *tenants)
    program.do("local", "start")
    chance = random.Random(7)

    for _ in range(10):
        running = spawn(program, "apply", "-f", manifests)
        time.sleep(chance.uniform(0.5, 1.6))
        running.kill()
        running.wait()
    program.do("apply", "-f", manifests)

    assert program("plan", "-f", manifests).code == ExitCode.DONE
    for number in range(8):
        with program.connect(TenantId("support", f"t-{number}")) as agent:
            agent.rpush(record_key(TenantId("support", f"t-{number}")), "here")
    with administered(program) as admin:
        ours = [name for name in admin.acl_users() if str(name).startswith("mt.support.")]
    assert len(ours) == 8


def test_a_deletion_killed_anywhere_is_finished_by_the_next(program: Program) -> None:
    tenants = [
        tenant(TenantId("support", f"t-{number}"), deletionPolicy="Shred") for number in range(8)
    ]
    manifests = program.write("all.yaml", policy(), *tenants)
    program.do("apply", "-f", manifests)
    chance = random.Random(7)

    for _ in range(4):
        running = spawn(program, "delete", "-f", manifests)
        time.sleep(chance.uniform(0.5, 1.2))
        running.kill()
        running.wait()
    for number in range(8):
        program("delete", f"tenant/support/t-{number}")
    program.do("apply")

    with administered(program) as admin:
        assert not [name for name in admin.acl_users() if str(name).startswith("mt.support.")]
        assert not list(admin.scan_iter(match="mt:{*"))
    assert not list((program.state / "secrets").rglob("*t-[0-9]*"))


def test_a_second_command_is_told_to_wait(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant())
    with FolderResources.open(program.state):
        ended = program("apply", "-f", manifests)

    assert ended.code == ExitCode.FAILED
    assert "another memtenant command is working" in ended.err


def test_a_reader_that_has_enough_is_no_error(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    running = subprocess.Popen(
        [sys.executable, "-c", MAIN, "get", "-o", "yaml", "--state", program.state],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()

    assert running.stderr.read() == b""
    running.stderr.close()
    running.wait()
