"""`memtenant apply` makes tenants that agents can use, keeps them so, and does nothing twice."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from memtenant import Detector, Message
from memtenant.cli.exits import ExitCode
from memtenant.cli.server import server_folder
from memtenant.errors import MaskingRejected
from memtenant.memory.source import BindingSource
from memtenant.stores import embedded
from memtenant.sync import Tenant
from tests.cli.program import NEIGHBOUR, TENANT, Program, policy, record_key, store, tenant

pytestmark = pytest.mark.redis

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def administered(program: Program) -> Iterator[redis.Redis]:
    """A connection as the operator's own user."""
    found = asyncio.run(embedded.running(server_folder(program.state)))
    assert found is not None
    with redis.Redis(
        host=found.address.host,
        port=found.address.port,
        username=found.username,
        password=found.password,
    ) as client:
        yield client


def written(program: Program) -> dict[str, str]:
    """Every file of the state, but the server's own and the lock's."""
    return {
        str(path.relative_to(program.state)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in program.state.rglob("*")
        if path.is_file()
        and path.relative_to(program.state).parts[0] not in ("valkey", "meta.json")
    }


def test_an_agent_reads_and_writes_with_nothing_but_its_binding(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant(), tenant(NEIGHBOUR))

    program.do("apply", "-f", manifests)

    with program.connect() as agent:
        agent.rpush(record_key(), "remember this")
        assert agent.lrange(record_key(), 0, -1) == [b"remember this"]


def test_a_running_agent_stores_no_card_once_pci_dss_applies(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    with Tenant(BindingSource(program.binding_folder())) as agent:
        chat = agent.conversation("s", user="ada")
        assert not chat.append(Message.human("4111 1111 1111 1111")).masked
        # PCI DSS asks for the audit too, and nobody drains the queue here.
        pci = policy(frameworks=["PCI_DSS"], audit={"onFailure": "Open"})
        program.do("apply", "-f", program.write("pci.yaml", pci))
        assert agent.info().masking.required  # reads the binding again at once
        with pytest.raises(MaskingRejected, match="1 CardVerification"):
            chat.append(Message.human("cvv 123"))
        with pytest.raises(MaskingRejected, match="1 Card") as error:
            chat.append(Message.human("4111 1111 1111 1111"))
        assert error.value.counts == {Detector.CARD: 1}
        receipt = chat.append(Message.human("ada@example.org"))
        assert receipt.masked == {Detector.EMAIL: 1}
        assert [one.text for one in chat.messages()] == ["4111 1111 1111 1111", "<EMAIL>"]


def test_a_neighbours_keys_are_denied(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(), tenant(NEIGHBOUR)))

    with program.connect() as agent, pytest.raises(NoPermissionError):
        agent.lrange(record_key(NEIGHBOUR), 0, -1)


def test_an_agent_that_may_only_read_cannot_write(program: Program) -> None:
    agents = [{"name": "writer"}, {"name": "reader", "access": "ReadOnly"}]
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(agents=agents)))

    with program.connect(agent="writer") as writer, program.connect(agent="reader") as reader:
        writer.rpush(record_key(), "one")
        assert reader.lrange(record_key(), 0, -1) == [b"one"]
        with pytest.raises(NoPermissionError):
            reader.rpush(record_key(), "two")


def test_the_end_says_where_bindings_are(program: Program) -> None:
    ended = program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))

    assert str(program.binding_folder()) in ended.out
    root = program.binding_folder().parent
    assert f"export SERVICE_BINDING_ROOT={root}" in ended.out


def test_a_second_apply_writes_nothing(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant())
    program.do("apply", "-f", manifests)
    before = written(program)

    ended = program.do("apply", "-f", manifests, "-o", "json")

    assert written(program) == before
    assert {one["outcome"] for one in ended.data()["objects"]} == {"unchanged"}
    assert not any(one["did"] for one in ended.data()["objects"])


def test_no_output_shows_a_secret(program: Program) -> None:
    manifests = program.write("all.yaml", policy(), tenant())
    planned = program("plan", "-f", manifests)
    ended = program.do("apply", "-f", manifests)
    shown = program.do("get", "-o", "yaml")

    binding = program.binding()
    words = planned.said + ended.said + shown.said
    assert binding.password not in words
    assert hashlib.sha256(binding.password.encode()).hexdigest() not in words


def test_a_user_that_somebody_deleted_is_planned_and_put_back(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    user = program.binding().username
    with administered(program) as admin:
        admin.acl_deluser(user)

    planned = program("plan")
    ended = program.do("apply")

    assert planned.code == ExitCode.CHANGES
    assert user in planned.out
    assert user in ended.out
    with program.connect() as agent:
        agent.rpush(record_key(), "still here")
    assert program("plan").code == ExitCode.DONE


def test_a_user_that_somebody_loosened_is_put_back(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant(), tenant(NEIGHBOUR)))
    with administered(program) as admin:
        admin.acl_setuser(program.binding().username, enabled=True, keys="*", categories=["+@all"])

    program.do("apply")

    with program.connect() as agent, pytest.raises(NoPermissionError):
        agent.lrange(record_key(NEIGHBOUR), 0, -1)


def test_a_user_of_nobody_is_removed_and_a_strangers_stays(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    with administered(program) as admin:
        admin.acl_setuser("mt.gone.gone.default.a", enabled=True, nopass=True)
        admin.acl_setuser("billing", enabled=True, nopass=True)

        program.do("apply")

        users = admin.acl_users()
    assert "mt.gone.gone.default.a" not in users
    assert "billing" in users


def test_users_and_data_survive_a_restart_of_the_server(program: Program) -> None:
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    with program.connect() as agent:
        agent.rpush(record_key(), "kept")

    program.do("local", "stop")
    program.do("local", "start")

    with program.connect() as agent:
        assert agent.lrange(record_key(), 0, -1) == [b"kept"]


def test_a_store_without_its_admin_secret_is_stood_in_for(program: Program) -> None:
    manifests = program.write(
        "all.yaml", policy(), store("shared-eu"), tenant(storeRef={"name": "shared-eu"})
    )

    program.do("apply", "-f", manifests)

    assert program.status("tenant", "acme")["store"] == "shared-eu"
    assert program("plan", "-f", manifests).code == ExitCode.DONE


def test_what_a_store_says_about_tenants_holds_when_it_is_stood_in_for(program: Program) -> None:
    manifests = program.write(
        "all.yaml",
        policy(),
        store(default=True, tenantPolicy={"maxMemoryPerTenant": "1Mi"}),
        tenant(quota={"memory": "2Mi"}),
    )

    ended = program("apply", "-f", manifests)

    assert ended.code == ExitCode.UNSETTLED
    assert "quota.memory" in ended.out


def test_the_minimal_example_works_as_it_is(program: Program) -> None:
    program.do("apply", "-f", EXAMPLES / "resources" / "1-minimal.yaml")

    ready = {one["type"]: one["status"] for one in program.status("tenant", "acme")["conditions"]}
    assert ready["Ready"] == "True"


def test_a_tenant_without_its_policy_is_not_ready_and_its_neighbour_is(program: Program) -> None:
    lost = tenant(NEIGHBOUR) | {"spec": {"retentionPolicyRef": {"name": "missing"}}}

    ended = program("apply", "-f", program.write("all.yaml", policy(), tenant(), lost))

    assert ended.code == ExitCode.UNSETTLED
    assert "RetentionPolicy 'missing' does not exist" in ended.out
    with program.connect() as agent:
        agent.rpush(record_key(), "works")


def test_a_hundred_tenants_settle_in_one_run(program: Program) -> None:
    many = [tenant(type(TENANT)("support", f"t-{number}")) for number in range(100)]

    ended = program.do("apply", "-f", program.write("all.yaml", policy(), *many), "-o", "json")

    assert len(ended.data()["bindings"]) == 100
    assert program.status("policy", "standard")["tenants"] == 100
    assert program.status("store", "local")["tenants"] == 100
    assert program("plan").code == ExitCode.DONE
