"""Rotation, quota, holds and each deletion policy, from the command line to the server."""

import time
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from memtenant.cli.exits import ExitCode
from memtenant.cli.server import server_folder
from memtenant.crypto.agent_keyring import AgentKeyring
from tests.cli.program import TENANT, Program, policy, record_key, tenant
from tests.cli.test_apply import administered

pytestmark = pytest.mark.redis

QUICK: dict[str, Any] = {"credentials": {"minOverlap": "1s"}}


def keys_left(program: Program) -> list[bytes]:
    with administered(program) as admin:
        return [key for key in admin.scan_iter(match="mt:*") if b"store" not in key]


def test_an_open_connection_goes_on_through_a_rotation(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    before = program.binding()
    with program.connect() as agent:
        agent.rpush(record_key(), "before")

        program.do("rotate", "support/acme")

        agent.rpush(record_key(), "after")
    after = program.binding()
    assert (after.version, before.version) == (2, 1)
    assert after.username != before.username
    with program.connect() as agent:
        assert agent.lrange(record_key(), 0, -1) == [b"before", b"after"]


def test_the_earlier_credential_ends_after_its_overlap(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(**QUICK)))
    before = program.binding().uri
    with redis.Redis.from_url(before) as busy:
        busy.ping()  # so the rotation lasts until this ends, however slow the commands are
        program.do("rotate", "acme", "-n", "support")
        with redis.Redis.from_url(before) as early:
            early.ping()
    time.sleep(2.1)  # minOverlap, counted from the next whole second

    program.do("apply")

    with redis.Redis.from_url(before) as late, pytest.raises(AuthenticationError):
        late.ping()
    with program.connect() as agent:
        agent.ping()
    assert program("plan").code == ExitCode.DONE


def test_a_rotation_is_not_taken_back_by_a_manifest_that_does_not_speak_of_it(
    program: Program,
) -> None:
    manifests = program.write("all.yaml", policy(), tenant(**QUICK))
    program.do("apply", "-f", manifests)
    program.do("rotate", "support/acme")
    time.sleep(2.1)  # minOverlap, counted from the next whole second

    program.do("apply", "-f", manifests)

    assert program.binding().version == 2
    assert program("plan", "-f", manifests).code == ExitCode.DONE


def test_two_rotations_in_a_row_are_both_done_in_the_end(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(**QUICK)))
    with program.connect() as busy:
        busy.ping()  # so the first rotation lasts until this ends, however slow the commands are
        program.do("rotate", "support/acme")

        second = program.do("rotate", "support/acme")

    assert "an earlier rotation is not over yet" in second.out
    time.sleep(2.1)  # minOverlap, counted from the next whole second
    program.do("apply")
    assert program.binding().version == 3


def test_a_key_is_rotated_and_the_earlier_one_kept_for_the_grace(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant())
    program.do("apply", "-f", manifests)
    before = program.binding()

    ended = program.do("rotate", "support/acme", "--keys")

    assert "key version 2 is active" in ended.out
    assert "version 1 retires: 0 data keys under it" in ended.out
    after = program.binding()
    assert (after.username, after.version) == (before.username, before.version)
    keyring = AgentKeyring.from_json(after.keyring)
    assert ([kek.version for kek in keyring.keks], keyring.active) == ([1, 2], 2)
    assert program.status("tenant", "acme")["keys"]["retiring"] == [1]
    program.do("apply", "-f", manifests)
    assert program("plan", "-f", manifests).code == ExitCode.DONE
    assert AgentKeyring.from_json(program.binding().keyring) == keyring


def test_writing_ends_at_the_quota_and_returns_under_it(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(quota={"memory": "1Mi"})))
    with program.connect() as agent:
        for number in range(24):
            agent.rpush(record_key(), str(number) * 2 * 32_000)

        full = program.do("apply")

        assert "limits" not in full.err
        with pytest.raises(NoPermissionError):
            agent.rpush(record_key(), "more")
        assert agent.llen(record_key()) == 24
        assert program.status("tenant", "acme")["access"]["mode"] != "ReadWrite"

        agent.delete(record_key())
        program.do("apply")

        agent.rpush(record_key(), "again")
    assert program.status("tenant", "acme")["access"]["mode"] == "ReadWrite"


def test_plan_sees_a_quota_that_is_used_up(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(quota={"memory": "1Mi"})))
    with program.connect() as agent:
        agent.rpush(record_key(), "x" * 2_000_000)

    planned = program("plan")

    assert planned.code == ExitCode.CHANGES
    assert "access.over" in planned.out


def test_retain_revokes_access_and_a_later_tenant_of_the_name_finds_its_memory(
    program: Program,
) -> None:
    manifests = program.write("all.yaml", policy(), tenant(deletionPolicy="Retain"))
    program.do("apply", "-f", manifests)
    before = program.binding()
    with program.connect() as agent:
        agent.rpush(record_key(), "kept")

    deleted = program.do("delete", "tenant/support/acme")

    assert "retained" in deleted.out
    assert not program.binding_folder().exists()
    with redis.Redis.from_url(before.uri) as revoked, pytest.raises(AuthenticationError):
        revoked.ping()

    program.do("apply", "-f", manifests)

    assert program.binding().username == before.username
    assert program.binding().version > before.version
    with program.connect() as agent:
        assert agent.lrange(record_key(), 0, -1) == [b"kept"]


@pytest.mark.parametrize("how", ["Delete", "Shred"])
def test_delete_and_shred_leave_nothing(program: Program, how: str) -> None:
    manifests = program.write("all.yaml", policy(), tenant(deletionPolicy=how))
    program.do("apply", "-f", manifests)
    with program.connect() as agent:
        agent.rpush(record_key(), "gone soon")

    program.do("delete", "-f", manifests)

    assert keys_left(program) == []
    assert not list((program.state / "secrets").rglob("*acme*"))
    assert not program.binding_folder().exists()
    shown = program.do("get", "-o", "json").data()["items"]
    assert [item["metadata"]["name"] for item in shown] == ["local"]


def test_after_shred_a_tenant_of_the_name_starts_afresh(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant(deletionPolicy="Shred"))
    program.do("apply", "-f", manifests)
    before = program.binding()
    program.do("delete", "tenant/support/acme")

    program.do("apply", "-f", manifests)

    assert program.binding().keyring != before.keyring
    with program.connect() as agent:
        assert agent.llen(record_key()) == 0


def test_a_hold_stops_a_deletion_until_it_is_released(program: Program) -> None:
    held = policy(
        legalHolds=[
            {"matter": "smith-v-acme", "tenantSelector": {}, "since": "2026-01-01T00:00:00Z"}
        ]
    )
    program.do("apply", "-f", program.write("all.yaml", held, tenant(deletionPolicy="Delete")))
    with program.connect() as agent:
        agent.rpush(record_key(), "evidence")

    stopped = program("delete", "tenant/support/acme")

    assert stopped.code == ExitCode.UNSETTLED
    assert "smith-v-acme" in stopped.out
    with program.connect() as agent:
        assert agent.lrange(record_key(), 0, -1) == [b"evidence"]
        with pytest.raises(NoPermissionError):
            agent.delete(record_key())

    program.do("apply", "-f", program.write("released.yaml", policy()))

    assert keys_left(program) == []
    assert program("get", "tenant", "acme").code == ExitCode.FAILED


def test_a_policy_in_use_is_not_deleted_and_goes_with_its_last_tenant(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    blocked = program("delete", "policy/standard")

    assert blocked.code == ExitCode.UNSETTLED
    assert "1 MemoryTenants are under this policy" in blocked.out

    program.do("delete", "tenant/support/acme")

    assert program("get", "policy", "standard").code == ExitCode.FAILED


def test_a_store_goes_after_its_tenants_and_is_released(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant(deletionPolicy="Delete"))
    program.do("apply", "-f", manifests)

    program.do("delete", "store/local", "tenant/support/acme", "policy/standard")

    with administered(program) as admin:
        assert list(admin.scan_iter(match="mt:*")) == []


def test_reset_leaves_nothing_and_asks_first(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115

    assert program("local", "reset").code == ExitCode.INTERRUPTED
    assert program.state.exists()

    program.do("local", "reset", "--yes")

    assert not program.state.exists()
    assert not server_folder(program.state).exists()
    assert program("local", "reset", "--yes").code == ExitCode.FAILED


def test_a_changed_quota_is_planned_field_by_field(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(quota={"memory": "1Mi"})))
    larger = program.write("larger.yaml", tenant(quota={"memory": "2Mi"}))

    planned = program("plan", "-f", larger)

    assert planned.code == ExitCode.CHANGES
    assert "spec.quota.memory: 1Mi → 2Mi" in planned.out
    assert "limits.memory: 1048576 → 2097152" in planned.out
    assert TENANT.name in planned.out
    program.do("apply", "-f", larger)
    assert program("plan", "-f", larger).code == ExitCode.DONE
