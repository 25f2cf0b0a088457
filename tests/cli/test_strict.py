"""A Strict tenant without a cluster: an instance of its own, from the first binding to its end."""

import asyncio
from base64 import b64encode
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError

from memtenant import Message
from memtenant.cli.exits import ExitCode
from memtenant.cli.server import instances_folder
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.errors import SubjectErased
from memtenant.memory.source import BindingSource
from memtenant.resources.port import API_VERSION
from memtenant.rules.instance import ADMIN_USER
from memtenant.stores import embedded
from memtenant.sync import Tenant
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasurePhase
from tests.cli.program import TENANT, Program, policy, tenant

pytestmark = pytest.mark.redis

AGENTS = [{"name": "intake", "access": "Steward"}, {"name": "billing"}]


def template(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "MemoryStore",
        "metadata": {"name": "own"},
        "spec": {"dedicated": {"image": "valkey/valkey:8.1"}} | spec,
    }


def strict(**spec: Any) -> dict[str, Any]:
    defaults = {"isolation": "Strict", "agents": AGENTS, "quota": {"memory": "16Mi"}}
    return tenant(**(defaults | spec))


def opened(program: Program, agent: str) -> Tenant:
    return Tenant(BindingSource(program.binding_folder(agent=agent)))


def instance(program: Program) -> "redis.Redis":
    """A client as the operator."""
    folder = instances_folder(program.state) / str(TENANT)
    found = asyncio.run(embedded.running(folder))
    assert found is not None
    return redis.Redis(
        found.address.host, found.address.port, username=ADMIN_USER, password=found.password
    )


def said(program: Program, agent: str) -> list[str]:
    with opened(program, agent) as memory:
        return [one.text for one in memory.conversation("s", user="ada").messages()]


def say(program: Program, agent: str, text: str) -> None:
    with opened(program, agent) as memory:
        memory.conversation("s", user="ada").append(Message.human(text))


def test_its_life(program: Program) -> None:
    """Made, used, grown, stopped and back, retained, taken over, and shredded."""
    manifests = program.write("all.yaml", template(), policy(), strict())
    assert "make the embedded instance" in program("plan", "-f", manifests).out
    program.do("apply", "-f", manifests)
    assert program("plan").code == ExitCode.DONE
    assert program.status("store", "own")["flavour"] == "Dedicated"
    say(program, "intake", "one")
    say(program, "billing", "two")
    with instance(program) as admin:
        assert admin.info("memory")["maxmemory"] == 32 << 20
        run_id = admin.info("server")["run_id"]

    program.do("apply", "-f", program.write("all.yaml", strict(quota={"memory": "64Mi"})))

    with instance(program) as admin:
        assert admin.info("memory")["maxmemory"] == 80 << 20
        assert admin.info("server")["run_id"] == run_id
    first = program.binding(agent="intake")
    program.do("local", "stop")
    assert program("plan").code == ExitCode.CHANGES
    program.do("apply")
    assert (said(program, "intake"), said(program, "billing")) == (["one"], ["two"])

    program.do("delete", "tenant/support/acme")
    assert list(instances_folder(program.state).iterdir())
    program.do("apply", "-f", program.write("all.yaml", strict(deletionPolicy="Shred")))
    assert (said(program, "intake"), said(program, "billing")) == (["one"], ["two"])
    with (
        redis.Redis(
            program.binding(agent="intake").host,
            program.binding(agent="intake").port,
            username=first.username,
            password=first.password,
        ) as revoked,
        pytest.raises(AuthenticationError),
    ):
        revoked.ping()

    program.do("delete", "tenant/support/acme")
    assert not list(instances_folder(program.state).iterdir())


def root_key(first: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "root", "namespace": TENANT.namespace},
        "data": {"key": b64encode(bytes(range(first, first + 32))).decode()},
    }


def test_each_agent_has_keys_of_its_own_which_turn_under_a_new_root(program: Program) -> None:
    keyed = strict(encryption={"keySecretRef": {"name": "root", "key": "key"}})
    first = (template(), policy(), root_key(1), keyed)
    program.do("apply", "-f", program.write("all.yaml", *first))
    say(program, "intake", "one")
    say(program, "billing", "two")

    def keyring(agent: str) -> AgentKeyring:
        return AgentKeyring.from_json(program.binding(agent=agent).keyring)

    intake, billing = keyring("intake"), keyring("billing")
    assert intake.keks != billing.keks
    assert intake.shared == billing.shared

    # The former root is gone with this: only the bindings have the keys, for the operator to open.
    program.do("apply", "-f", program.write("all.yaml", root_key(101)))

    assert keyring("intake").active == keyring("billing").active == 2
    shown = program.do("get", "tenant", "acme", "-n", "support", "-o", "json").data()
    assert shown["status"]["keys"]["remaining"] == 0
    with instance(program) as admin:
        wrapped = [admin.hget(name, "dek") for name in admin.scan_iter("*:k:*")]
    assert [one[:4] for one in wrapped if one] == [b"\0\0\0\2"] * 2
    assert (said(program, "intake"), said(program, "billing")) == (["one"], ["two"])


def test_a_person_is_erased_at_every_agent(program: Program) -> None:
    former = [*AGENTS, {"name": "former"}]
    program.do(
        "apply", "-f", program.write("all.yaml", template(), policy(), strict(agents=former))
    )
    for agent in ("intake", "billing", "former"):
        say(program, agent, f"to {agent}")
    with opened(program, "billing") as memory:
        memory.shared_context("case").create({"of": "ada"}, about=["ada"])
    program.do("apply", "-f", program.write("all.yaml", strict()))
    with opened(program, "intake") as memory:
        receipt = memory.forget("ada")

    program.do("apply")

    with opened(program, "intake") as memory:
        done = memory.erasure(receipt.id)
    assert done is not None
    assert (done.phase, done.conversations, done.values) == (ErasurePhase.PURGED, 3, 1)
    with instance(program) as admin:
        names = {name.decode() for name in admin.scan_iter("mt:{support.acme}:*")}
        assert not [name for name in names if name.endswith(":l")]
        marked = [name for name in names if ":k:" in name and admin.hexists(name, "erased")]
        assert len(marked) == 3
        assert not [name for name in marked if admin.hexists(name, "dek")]
    with opened(program, "billing") as memory, pytest.raises(SubjectErased):
        memory.conversation("s", user="ada").append(Message.human("again"))


def test_an_audited_tenants_instance_waits_for_the_last_events_to_be_sealed(
    program: Program,
) -> None:
    audited = policy(audit={"mode": "Required", "onFailure": "Open"})
    doomed = strict(deletionPolicy="Delete", audit={"mode": "Enabled"})
    program.do("apply", "-f", program.write("all.yaml", template(), audited, doomed))
    say(program, "intake", "one")
    queue = keys.audit_queue(TENANT)
    with instance(program) as admin:
        admin.hset(keys.STORE_SEALER, "sealed_at", "1")
        assert admin.llen(queue) > 0

    ended = program("delete", "tenant/support/acme")

    assert ended.code == ExitCode.UNSETTLED
    assert "when the sealer has taken the last events" in ended.said
    with instance(program) as admin:
        assert not list(admin.scan_iter("mt:{support.acme}:r:*"))
        admin.ltrim(queue, 1, 0)
    program.do("apply")
    assert not list(instances_folder(program.state).iterdir())


def test_isolation_and_store_have_to_fit(program: Program) -> None:
    ended = program("apply", "-f", program.write("all.yaml", template(), policy(), tenant()))
    assert ended.code == ExitCode.UNSETTLED
    assert "makes an instance for each tenant with isolation Strict" in ended.said


def test_a_neighbours_instance_knows_nobody_else(program: Program) -> None:
    other = strict()
    other["metadata"] = {"name": "globex", "namespace": "sales"}
    program.do("apply", "-f", program.write("all.yaml", template(), policy(), strict(), other))
    with instance(program) as admin:
        users = set(admin.acl_users())
    assert {name.rpartition(".")[0] for name in users if name.startswith("mt.")} >= {
        "mt.support.acme.intake",
        "mt.support.acme.billing",
    }
    assert not any("globex" in name for name in users)
