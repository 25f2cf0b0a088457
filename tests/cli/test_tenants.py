"""Tenants in their variety: keys of their own, agents that come and go, stores that fail."""

import base64
import secrets
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from memtenant.cli.exits import ExitCode
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.cli.program import TENANT, Program, policy, record_key, store, tenant
from tests.cli.test_apply import administered
from tests.conftest import StartServer
from tests.support.servers import Flavour, Options, Server

pytestmark = pytest.mark.redis


def condition(program: Program, type_: str, name: str = "acme") -> dict[str, Any]:
    found = program.status("tenant", name)["conditions"]
    return next((one for one in found if one["type"] == type_), {})


def key_secret(root: bytes, namespace: str = "support") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "acme-key", "namespace": namespace},
        "data": {"root": base64.b64encode(root).decode()},
    }


KEYED: dict[str, Any] = {"encryption": {"keySecretRef": {"name": "acme-key", "key": "root"}}}


def test_a_root_key_of_the_teams_own_is_used_and_its_change_adds_a_version(
    program: Program,
) -> None:
    first, second = secrets.token_bytes(32), secrets.token_bytes(32)
    program.do("apply", "-f", program.write("1.yaml", policy(), tenant(**KEYED), key_secret(first)))
    assert program.status("tenant", "acme")["keyVersion"] == 1

    planned = program("plan", "-f", program.write("2.yaml", key_secret(second)))
    program.do("apply", "-f", program.write("2.yaml", key_secret(second)))

    assert planned.code == ExitCode.CHANGES
    assert program.status("tenant", "acme")["keyVersion"] == 2
    assert program("plan").code == ExitCode.DONE


def test_key_material_of_the_wrong_form_is_refused_without_showing_it(program: Program) -> None:
    wrong = b"correct horse battery staple"

    ended = program(
        "apply", "-f", program.write("all.yaml", policy(), tenant(**KEYED), key_secret(wrong))
    )

    assert ended.code == ExitCode.UNSETTLED
    assert "support/acme-key" in ended.out
    assert wrong.decode() not in ended.said
    assert not program.binding_folder().exists()


def test_a_tenant_waits_for_its_key_secret(program: Program) -> None:
    ended = program("apply", "-f", program.write("all.yaml", policy(), tenant(**KEYED)))

    assert ended.code == ExitCode.UNSETTLED
    assert "acme-key" in ended.out
    program.do("apply", "-f", program.write("key.yaml", key_secret(secrets.token_bytes(32))))
    assert program.binding_folder().exists()


def test_agents_come_and_go(program: Program) -> None:
    def with_agents(*names: str) -> Path:
        agents = [{"name": name} for name in names]
        return program.write("all.yaml", policy(), tenant(agents=agents))

    program.do("apply", "-f", with_agents("one", "two"))
    gone = program.binding(agent="one").uri

    program.do("apply", "-f", with_agents("two", "three"))

    assert not program.binding_folder(agent="one").exists()
    with redis.Redis.from_url(gone) as former, pytest.raises(AuthenticationError):
        former.ping()
    with program.connect(agent="three") as agent:
        agent.rpush(record_key(), "here")
    assert program("plan").code == ExitCode.DONE


def test_minimal_isolation_has_one_user_for_all_agents(program: Program) -> None:
    agents = [{"name": "one"}, {"name": "two"}]
    manifests = program.write("all.yaml", policy(), tenant(isolation="Minimal", agents=agents))

    program.do("apply", "-f", manifests)

    assert program.binding(agent="one").username == program.binding(agent="two").username
    program.do("rotate", "support/acme")
    assert program.binding(agent="one").uri == program.binding(agent="two").uri
    assert program.binding(agent="one").version == 2
    assert program("plan").code == ExitCode.DONE


def test_encryption_may_be_off_where_the_policy_lets_it(program: Program) -> None:
    manifests = program.write(
        "all.yaml",
        policy(encryption={"mode": "Optional"}),
        tenant(encryption={"mode": "Disabled"}),
    )

    program.do("apply", "-f", manifests)

    assert program.binding().policy.encryption.value == "Disabled"
    assert program("plan").code == ExitCode.DONE


def test_two_agents_never_share_a_binding_name(program: Program) -> None:
    first = tenant(TenantId("support", "a"), agents=[{"name": "b-c"}])
    second = tenant(TenantId("support", "a-b"), agents=[{"name": "c"}])

    ended = program("apply", "-f", program.write("all.yaml", policy(), first, second))

    assert ended.code == ExitCode.UNSETTLED
    told = " ".join(ended.out.split())
    assert "Secret support/a-b-c has the name of a binding and not memtenant's labels" in told


def test_a_retained_memory_is_not_adopted_in_another_form(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    program.do("delete", "tenant/support/acme")

    ended = program("apply", "-f", program.write("other.yaml", tenant(isolation="Minimal")))

    assert ended.code == ExitCode.UNSETTLED
    assert "was made with Moderate, not Minimal" in ended.out


def test_a_content_minimum_stops_a_deletion(program: Program) -> None:
    kept = policy(retention={"content": {"min": "30d"}})
    program.do("apply", "-f", program.write("all.yaml", kept, tenant(deletionPolicy="Delete")))
    with program.connect() as agent:
        agent.rpush(record_key(), "not a record of ours")

    ended = program("delete", "tenant/support/acme")

    assert ended.code == ExitCode.UNSETTLED
    assert "at least 30d" in ended.out


def test_a_flooded_audit_queue_switches_its_agents_off_and_trimming_it_on(
    program: Program,
) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(quota={"memory": "1Mi"})))
    queue = keys.audit_queue(TENANT)
    with program.connect() as agent:
        for _ in range(40):
            agent.rpush(queue, b"x" * 1_000_000)
    flooded = program("apply")
    mode = program.status("tenant", "acme")["access"]["mode"]

    assert flooded.code == ExitCode.UNSETTLED
    assert "outgrew" in flooded.out
    with program.connect() as agent, pytest.raises(AuthenticationError):
        agent.ping()

    with administered(program) as admin:
        admin.unlink(queue)
    program.do("apply")
    with program.connect() as agent:
        agent.rpush(queue, b"event")
    assert mode != program.status("tenant", "acme")["access"]["mode"]


def test_a_server_that_lost_everything_is_provisioned_again(
    program: Program, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(Flavour.VALKEY_9, Options(aclfile=False))
    monkeypatch.setenv("MEMTENANT_REDIS", f"redis://admin@{server.endpoint}")
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", server.admin_password)
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    server.restart()

    planned = program("plan")
    program.do("apply")

    assert planned.code == ExitCode.CHANGES
    with program.connect() as agent:
        agent.rpush(record_key(), "again")


def test_a_server_that_is_away_leaves_tenants_as_they_are(
    program: Program, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(Flavour.VALKEY_9, Options(aclfile=True, appendonly=True))
    monkeypatch.setenv("MEMTENANT_REDIS", f"redis://admin@{server.endpoint}")
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", server.admin_password)
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(deletionPolicy="Delete")))
    server.stop()

    away = program("apply")
    stuck = program("delete", "tenant/support/acme")

    assert away.code == ExitCode.UNSETTLED
    assert condition(program, "Ready")["status"] == "False"
    assert stuck.code == ExitCode.UNSETTLED
    assert "waiting until" in stuck.out
    server.start()
    program.do("apply")
    assert program("get", "tenant", "acme").code == ExitCode.FAILED


def test_every_replica_has_the_users(
    program: Program, redis_replicated: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, replica = redis_replicated
    words = program.do("store", "acl").out.replace("REPLACE-WITH-A-PASSWORD", "s3cret").split()
    for server in redis_replicated:
        with server.admin() as admin:
            admin.execute_command(*words)
    monkeypatch.setenv("MEMTENANT_REDIS", f"redis://memtenant@{primary.endpoint}")
    monkeypatch.setenv("MEMTENANT_REDIS_PASSWORD", "s3cret")

    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    binding = program.binding()
    with replica.client(binding.username, binding.password) as agent:
        assert agent.lrange(record_key(), 0, -1) == []
        with pytest.raises(NoPermissionError):
            agent.lrange(record_key(TenantId("sales", "globex")), 0, -1)
    assert program("plan").code == ExitCode.DONE


def test_tenants_beyond_a_stores_capacity_are_told_so(program: Program) -> None:
    manifests = program.write(
        "all.yaml",
        policy(),
        store(default=True, capacity={"memory": "3Mi"}),
        tenant(TenantId("support", "a"), quota={"memory": "2Mi"}),
        tenant(TenantId("support", "b"), quota={"memory": "2Mi"}),
    )

    ended = program("apply", "-f", manifests, "-o", "json")

    assert ended.code == ExitCode.UNSETTLED
    problems = [one for one in ended.data()["objects"] if one["problem"]]
    assert len(problems) == 1
    assert "3Mi" in problems[0]["problem"]


def test_a_lost_record_never_becomes_a_new_key(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    before = program.binding()
    record = program.state / "secrets" / "memtenant-system" / "support.acme-keyring.json"
    record.unlink()

    ended = program("apply")

    assert ended.code == ExitCode.UNSETTLED
    assert "restore the Secret from a backup" in ended.out
    assert program.binding() == before
