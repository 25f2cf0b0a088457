"""Quotas, holds and durability: what is refused, with what to do, and what goes on."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest

from memtenant import Conversation, Message, Options, Tenant
from memtenant.errors import (
    HistoryRewound,
    NotDurable,
    QuotaExceeded,
    TenantHeld,
)
from memtenant.memory.reports import AgentState
from memtenant.rules.acl import AccessState
from memtenant.tenancy.policy import Durability
from tests.conftest import StartServer
from tests.functions.tenants import set_limits
from tests.memory.bindings import PATIENT, Provisioned, policy
from tests.memory.conftest import Open
from tests.support.servers import Flavour, Server


async def test_each_limit_is_named_with_what_frees_it(acme: Provisioned, tenant: Tenant) -> None:
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    set_limits(acme.server, conversations=1)
    with pytest.raises(QuotaExceeded, match=r"spec\.quota\.conversations") as refused:
        await tenant.conversation("t", user="ada").append(Message.human("x"))
    assert (refused.value.limit, refused.value.used, refused.value.allowed) == (
        "conversations",
        1,
        1,
    )
    set_limits(acme.server, memory=1000)
    with pytest.raises(QuotaExceeded, match=r"spec\.quota\.memory") as refused:
        await chat.append(Message.human("", noise=list(range(900))))
    assert refused.value.retry_after is None
    with pytest.raises(QuotaExceeded):
        await chat.append(Message.human("x" * 60_000, noise=list(range(3000))), on_limit="wait")
    # One that does not fit leaves those that met it alone.
    big = Message.human("", noise=list(range(3000)))
    results = await asyncio.gather(
        chat.append(Message.human("small")), chat.append(big), return_exceptions=True
    )
    assert [type(one).__name__ for one in results] == ["Receipt", "QuotaExceeded"]


async def test_the_rate_is_waited_for_where_that_is_asked(
    acme: Provisioned, tenant: Tenant
) -> None:
    chat = tenant.conversation("s", user="ada")
    set_limits(acme.server, writes_per_second=5)
    results = await asyncio.gather(
        *(chat.append(Message.human(str(n)), on_limit="wait") for n in range(12))
    )
    assert len({one.sequence for one in results}) == 12
    seconds = {int(one.time.timestamp()) for one in results}
    assert len(seconds) >= 2
    set_limits(acme.server, writes_per_second=1)
    with pytest.raises(QuotaExceeded, match="writes_per_second") as refused:
        await _append_many(chat, 50)
    assert refused.value.retryable
    assert 0 < (refused.value.retry_after or 0) <= 1


async def test_over_a_measured_quota_reading_and_deleting_go_on(
    acme: Provisioned, tenant: Tenant
) -> None:
    chat = tenant.conversation("s", user="ada")
    for number in range(4):
        await chat.append(Message.human(str(number)))
    acme.provision(state=AccessState(over_quota=True))
    with pytest.raises(QuotaExceeded, match="operator measured"):
        await chat.append(Message.human("more"))
    with pytest.raises(QuotaExceeded):
        await chat.remove(2)
    assert (popped := await chat.pop()) is not None
    assert popped.text == "3"
    assert [one.text for one in await chat.messages()] == ["0", "1", "2"]
    acme.provision()
    assert (await chat.append(Message.human("4"))).sequence == 5
    assert [one.text for one in await chat.messages()] == ["0", "1", "2", "4"]
    acme.provision(state=AccessState(over_quota=True))
    assert await chat.clear() == 4


async def test_under_a_hold_content_is_added_and_never_taken_away(
    acme: Provisioned, tenant: Tenant
) -> None:
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    acme.provision(state=AccessState(held=True))
    await chat.append(Message.human("two"))
    for change in (chat.clear(), chat.delete(), chat.remove(1), chat.pop()):
        with pytest.raises(TenantHeld, match="legal hold"):
            await change
    with pytest.raises(TenantHeld):
        await chat.update_message(1, Message.human("uno"))
    assert await chat.count() == 2
    assert (await tenant.usage()).held


async def test_expired_messages_are_not_shown_though_they_are_still_there(
    acme: Provisioned, tenant: Tenant
) -> None:
    chat = tenant.conversation("s", user="ada")
    await chat.extend([Message.human("old"), Message.ai("old too")])
    await asyncio.sleep(0.02)
    receipt = await chat.append(Message.human("new"))
    assert await chat.count() == 3
    await chat.messages()
    set_limits(acme.server, cutoff_content=int(receipt.time.timestamp() * 1000))
    assert [one.text for one in await chat.messages()] == ["new"]
    assert [one.text for one in await chat.window(1000)] == ["new"]
    assert await chat.count() == 1


async def test_usage_status_and_info_tell_the_counters(acme: Provisioned, opened: Open) -> None:
    tenant, other = opened(acme), opened(acme, "other")
    assert (await tenant.usage()).last_activity is None
    await tenant.conversation("s", user="ada").extend([Message.human("a"), Message.ai("b")])
    usage = await other.usage()
    assert (usage.messages, usage.conversations) == (2, 1)
    assert usage.memory_share is not None
    assert 0 < usage.memory_share < 0.01
    assert usage.last_activity is not None
    assert abs(usage.last_activity.timestamp() - time.time()) < 60
    statuses = await tenant.agent_status(["default", "other"])
    assert [(one.agent, one.state, one.writes) for one in statuses] == [
        ("default", AgentState.ACTIVE, 2),
        ("other", AgentState.UNKNOWN, 0),
    ]
    assert [one.agent for one in await tenant.agent_status()] == ["default"]
    info = tenant.info()
    assert (info.tenant, info.agent, info.binding_version) == ("support.acme", "default", 1)
    assert info.never_updates == ""


async def test_replicated_writes_wait_for_the_replica(
    redis_replicated: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, replica = redis_replicated
    acme = Provisioned(primary, tmp_path, policy=policy(durability=Durability.REPLICATED))
    acme.replicas = (replica,)
    acme.provision()
    async with Tenant(acme.source(), options=PATIENT) as tenant:
        chat = tenant.conversation("s", user="ada")
        await chat.append(Message.human("one"))
        await asyncio.gather(*(chat.append(Message.human("x")) for _ in range(10)))
        with replica.admin() as admin:
            key = next(iter(admin.scan_iter("*:l")))
            assert admin.llen(key) == 11
        replica.freeze()
        try:
            async with Tenant(acme.source(), options=Options(retry_budget=3)) as impatient:
                hasty = impatient.conversation("s", user="ada")
                with pytest.raises(NotDurable, match="failover now would lose it") as short:
                    await hasty.append(Message.human("two"), idempotency_key="two")
        finally:
            replica.thaw()
        assert (short.value.acknowledged, short.value.expected) == (0, 1)
        again = await chat.append(Message.human("two"), idempotency_key="two")
        assert again.duplicate
        assert await chat.count() == 12


async def test_a_replica_counts_from_the_moment_in_which_the_operator_counts_it(
    redis_replicated: tuple[Server, Server], tmp_path: Path
) -> None:
    """It may be the next primary: who goes on with the former number loses what it lacks."""
    primary, replica = redis_replicated
    acme = Provisioned(primary, tmp_path, policy=policy(durability=Durability.REPLICATED))
    acme.replicas = (replica,)
    acme.provision(limits={"replicas": "1"})
    async with Tenant(acme.source(), options=Options(retry_budget=1)) as tenant:
        chat = tenant.conversation("s", user="ada")
        await chat.append(Message.human("one"))
        acme.provision(limits={"replicas": "2"})
        with pytest.raises(NotDurable) as short:
            await chat.append(Message.human("two"), idempotency_key="two")
        assert (short.value.acknowledged, short.value.expected) == (1, 2)
        acme.provision(limits={"replicas": "1"})
        again = await chat.append(Message.human("two"), idempotency_key="two")
        assert again.duplicate


async def test_the_first_write_of_a_process_waits_for_all_replicas_and_is_sent_once(
    redis_replicated: tuple[Server, Server], tmp_path: Path
) -> None:
    """Who waits for one of two has to repeat it, and is told that it was stored before."""
    primary, replica = redis_replicated
    acme = Provisioned(primary, tmp_path, policy=policy(durability=Durability.REPLICATED))
    acme.replicas = (replica,)
    acme.provision(limits={"replicas": "2"})
    with primary.admin() as admin, admin.monitor() as told:
        async with Tenant(acme.source(), options=Options(retry_budget=0.5)) as tenant:
            with pytest.raises(NotDurable):
                await tenant.conversation("s", user="ada").append(Message.human("one"))
        said = (one["command"] for one in told.listen())
        assert next(one for one in said if one.startswith("WAIT ")) == "WAIT 2 1000"


async def test_a_repeated_append_that_stores_nothing_is_not_durable_either_without_the_replica(
    redis_replicated: tuple[Server, Server], tmp_path: Path
) -> None:
    """A WAIT counts from its own connection's last write, and a repetition may use another one."""
    primary, replica = redis_replicated
    acme = Provisioned(primary, tmp_path, policy=policy(durability=Durability.REPLICATED))
    acme.replicas = (replica,)
    acme.provision()
    patience = Options(retry_budget=1.5)
    replica.freeze()
    try:
        for _ in range(2):
            async with Tenant(acme.source(), options=patience) as tenant:
                chat = tenant.conversation("s", user="ada")
                with pytest.raises(NotDurable):
                    await chat.append(Message.human("two"), idempotency_key="two")
    finally:
        replica.thaw()


async def test_a_replica_that_is_slow_is_waited_for_without_storing_twice(
    redis_replicated: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, replica = redis_replicated
    acme = Provisioned(primary, tmp_path, policy=policy(durability=Durability.REPLICATED))
    acme.replicas = (replica,)
    acme.provision()
    async with Tenant(acme.source(), options=PATIENT) as tenant:
        chat = tenant.conversation("s", user="ada")
        await chat.append(Message.human("one"))
        replica.freeze()
        pending = asyncio.create_task(chat.append(Message.human("two")))
        await asyncio.sleep(1.5)  # the first WAIT is over
        assert not pending.done()
        replica.thaw()
        assert (await pending).sequence == 2
        assert await chat.count() == 2
        with replica.admin() as admin:
            assert admin.llen(next(iter(admin.scan_iter("*:l")))) == 2


async def test_an_async_write_that_a_failover_lost_is_told(
    start_server: StartServer, tmp_path: Path
) -> None:
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    acme = Provisioned(primary, tmp_path, replicas=(replica,))
    acme.provision()
    async with Tenant(acme.source(), options=PATIENT) as tenant:
        chat = tenant.conversation("s", user="ada")
        await chat.append(Message.human("one"))
        with primary.admin() as admin:
            assert admin.wait(1, 60_000) == 1
        replica.promote()
        await chat.append(Message.human("two"))  # acknowledged by one that is no primary any more
        primary.kill9()
        acme.bind(port=replica.port, version=2)
        with pytest.raises(HistoryRewound):
            await chat.messages()
        assert [one.text for one in await chat.messages()] == ["one"]


async def _append_many(chat: Conversation, count: int) -> None:
    for number in range(count):
        await chat.append(Message.human(str(number)))


async def test_active_conversations_are_counted_by_their_last_append(
    acme: Provisioned, tenant: Tenant
) -> None:
    for number in range(3):
        await tenant.conversation(str(number), user="ada").append(Message.human("Hello"))
    await tenant.shared_context("case").create({"a": 1})
    assert (await tenant.usage()).active_conversations is None
    usage = await tenant.usage(active_within=timedelta(minutes=5))
    assert (usage.conversations, usage.active_conversations) == (3, 3)
    await asyncio.sleep(0.02)
    assert (await tenant.usage(active_within=timedelta(milliseconds=1))).active_conversations == 0
