"""A Secret that has a binding's name and is not ours costs that one agent its binding, no more."""

from collections.abc import Mapping
from datetime import timedelta

import pytest
import redis
from redis.exceptions import AuthenticationError

from memtenant.resources.port import Kind, ObjectKey
from memtenant.rules.record import LABEL_PHASE, RECORD_LABEL
from memtenant.tenancy import keys
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import TenantId
from tests.reconcile.conftest import Ground, told
from tests.support.servers import Server

ACME = ObjectKey.tenant("support", "acme")
CONTENT = f"{keys.records(TenantId('support', 'acme'))}conversation:l"


def declare(ground: Ground, *agents: str, token: str = "", **spec: object) -> None:
    annotations = {"memtenant.dev/rotate": token} if token else None
    ground.tenant("acme", annotations, agents=[{"name": name} for name in agents], **spec)


async def delete(ground: Ground, name: str) -> None:
    stored = await ground.resources.get_secret("support", name)
    assert stored is not None
    await ground.resources.delete_secret(stored)


async def condition(ground: Ground, kind: str) -> tuple[str, str, str]:
    return told(await ground.tenant_status("acme"), kind)


async def bound(ground: Ground) -> list[str]:
    return [one.agent for one in (await ground.tenant_status("acme")).bindings]


@pytest.fixture
async def stripped(ground: Ground) -> Ground:
    """A tenant of two agents, of which the binding of ``triage`` lost its labels."""
    declare(ground, "answers", "triage")
    await ground.settle()
    ground.label("support/acme-triage", {})
    return ground


async def test_it_is_told_at_the_first_look_with_what_to_do(stripped: Ground) -> None:
    happened = (await stripped.settle())[ACME]
    assert happened.error is None
    for kind, status in (("Ready", "False"), ("Stalled", "True")):
        was, reason, message = await condition(stripped, kind)
        assert (was, reason) == (status, "ForeignSecret")
        assert "support/acme-triage" in message
        assert "remove it" in message
    assert await condition(stripped, "Reconciling") == ("", "", "")
    assert await bound(stripped) == ["answers"]


async def test_the_bindings_and_users_of_other_agents_are_put_back(
    stripped: Ground, valkey: Server
) -> None:
    await delete(stripped, "acme-answers")
    valkey.admin().acl_deluser("mt.support.acme.answers.a", "mt.support.acme.triage.a")
    await stripped.settle()
    for agent in ("answers", "triage"):
        assert (await stripped.login("acme", agent)).rpush(CONTENT, b"one")


async def test_what_is_declared_of_the_tenant_goes_on_being_enforced(
    stripped: Ground, valkey: Server
) -> None:
    declare(stripped, "answers", "triage", quota={"memory": "8Mi", "conversations": 7})
    await stripped.settle()
    limits = keys.limits(TenantId("support", "acme"))
    assert valkey.admin().hget(limits, "conversations") == b"7"


async def test_the_secret_is_left_alone_until_it_is_gone_and_then_the_binding_is_written(
    stripped: Ground,
) -> None:
    before = await stripped.resources.get_secret("support", "acme-triage")
    await stripped.settle()
    assert await stripped.resources.get_secret("support", "acme-triage") == before
    await delete(stripped, "acme-triage")
    await stripped.settle()
    assert (await condition(stripped, "Ready"))[0] == "True"
    assert await condition(stripped, "Stalled") == ("", "", "")
    assert await bound(stripped) == ["answers", "triage"]
    assert (await stripped.login("acme", "triage")).rpush(CONTENT, b"one")


async def test_credentials_turn_for_the_others_and_nobody_is_shut_out(stripped: Ground) -> None:
    """Who reads the Secret that is left alone goes on with what is in it."""
    was = [await password(stripped, agent) for agent in ("answers", "triage")]
    declare(stripped, "answers", "triage", token="now")
    for _ in range(3):
        await stripped.settle()
    await stripped.settle(timedelta(days=2))
    answers, triage = [await password(stripped, agent) for agent in ("answers", "triage")]
    assert answers != was[0]
    assert triage == was[1]
    for agent in ("answers", "triage"):
        assert (await stripped.login("acme", agent)).rpush(CONTENT, b"one")


async def test_an_agent_that_is_taken_away_is_revoked_with_or_without_labels(
    stripped: Ground,
) -> None:
    agent = await stripped.login("acme", "triage")
    declare(stripped, "answers")
    await stripped.settle()
    assert (await condition(stripped, "Ready"))[0] == "True"
    with pytest.raises((AuthenticationError, redis.ConnectionError)):
        (await login_anew(agent)).ping()


async def test_a_name_that_was_taken_before_the_tenant_came_is_no_binding_of_it(
    ground: Ground,
) -> None:
    """Nor is another agent's binding told as the tenant's own."""
    ground.resources.declare_secret("support", "acme-answers", {"password": b"somebody else's"})
    declare(ground, "answers", "triage")
    await ground.settle()
    assert (await condition(ground, "Stalled"))[1] == "ForeignSecret"
    status = await ground.tenant_status("acme")
    assert status.binding is None
    assert await bound(ground) == ["triage"]
    assert (await ground.login("acme", "triage")).rpush(CONTENT, b"one")
    there = await ground.resources.get_secret("support", "acme-answers")
    assert there is not None
    assert there.data == {"password": b"somebody else's"}


async def test_a_record_without_labels_is_told_at_once_and_what_was_accepted_goes_on(
    ground: Ground, valkey: Server
) -> None:
    """It holds the keys: its tenant is told to put the labels back, not only to delete it."""
    declare(ground, "answers")
    await ground.settle()
    record = f"{ground.resources.home}/support.acme-keyring"
    labels = ground.label(record, {})
    await delete(ground, "acme-answers")
    await ground.settle()
    assert (await condition(ground, "Ready"))[:2] == ("False", "ForeignSecret")
    assert (await ground.login("acme", "answers")).rpush(CONTENT, b"one")
    declare(ground, "answers", "triage")
    valkey.admin().acl_deluser("mt.support.acme.answers.a")
    assert (await ground.settle())[ACME].error is None
    status, reason, message = await condition(ground, "Stalled")
    assert (status, reason) == ("True", "ForeignSecret")
    assert "put them back: kubectl" in message
    assert "memtenant.dev/owner=tenant-record" in message
    assert (await ground.login("acme", "answers")).rpush(CONTENT, b"two")
    owner = {"app.kubernetes.io/managed-by", "memtenant.dev/owner"}
    ground.label(record, {name: labels[name] for name in owner})
    await ground.settle()
    assert (await condition(ground, "Ready"))[0] == "True"
    assert await bound(ground) == ["answers", "triage"]
    assert ground.label(record, labels) == labels


@pytest.mark.parametrize("lost", [RECORD_LABEL, LABEL_PHASE])
async def test_a_record_gets_a_label_back_that_it_lost(ground: Ground, lost: str) -> None:
    """That of a tenant, and that of one which left its data behind."""
    declare(ground, "answers")
    await ground.settle()
    place = f"{ground.resources.home}/support.acme-keyring"
    labels = without(ground, place, lost)
    await ground.settle()
    assert ground.label(place, labels) == labels
    ground.resources.delete(ACME)
    await ground.settle()
    retained = without(ground, place, lost)
    await ground.settle()
    store = await ground.store_status("shared")
    assert (store.orphan_count, store.orphans[0].tenant_id) == (1, "support.acme")
    assert ground.label(place, retained) == retained


async def test_a_record_that_a_tenant_left_without_labels_is_told_by_the_store(
    ground: Ground,
) -> None:
    declare(ground, "answers")
    await ground.settle()
    ground.resources.delete(ACME)
    await ground.settle()
    place = f"{ground.resources.home}/support.acme-keyring"
    labels = ground.label(place, {})
    await ground.settle()
    store = await ground.store_status("shared")
    assert store.orphan_count == 1
    assert told(store, "Ready")[:2] == ("False", "ForeignSecret")
    assert "label secret support.acme-keyring " in told(store, "Ready")[2]
    owner = {"app.kubernetes.io/managed-by", "memtenant.dev/owner"}
    ground.label(place, {name: labels[name] for name in owner})
    await ground.settle()
    assert told(await ground.store_status("shared"), "Ready")[0] == "True"
    assert ground.label(place, labels) == labels


def without(ground: Ground, place: str, label: str) -> Mapping[str, str]:
    """Take one label of a Secret away; those that there were."""
    labels = ground.label(place, {})
    ground.label(place, {name: value for name, value in labels.items() if name != label})
    return labels


async def test_a_second_look_writes_nothing(stripped: Ground) -> None:
    await stripped.settle()
    before = await stripped.resources.list(Kind.TENANT)
    happened = (await stripped.settle())[ACME]
    assert happened.did == ()
    assert await stripped.resources.list(Kind.TENANT) == before


async def password(ground: Ground, agent: str) -> str:
    stored = await ground.resources.get_secret("support", f"acme-{agent}")
    assert stored is not None
    return Binding.from_mapping(stored.data).password


async def login_anew(agent: "redis.Redis") -> "redis.Redis":
    agent.connection_pool.disconnect()
    return agent
