"""The saver in real graphs: interrupts, time travel, what is on the server, and who may see it."""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
import redis
from langchain_core.messages import HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    empty_checkpoint,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from memtenant import Message, Tenant
from memtenant.audit import Operation
from memtenant.errors import (
    MaskingRejected,
    QuotaExceeded,
    RecordInvalid,
    RecordMissing,
    TenantHeld,
    UsageError,
)
from memtenant.functions import ConversationKeys
from memtenant.langgraph import Saver
from memtenant.memory._async.erasure import erase, read_places
from memtenant.memory.masking import Masking
from memtenant.memory.subjects import subject_of
from memtenant.rules.acl import AccessState
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy.policy import Isolation, TenantPolicy
from tests.adapters.graphs import approval, config, talker, text
from tests.functions.tenants import set_limits
from tests.memory.bindings import PATIENT, Provisioned
from tests.memory.queue import audit, check_writers, drained

MARKER = "the courier left it with Mrs Q. Marker"


def extend(lines: list[str], writes: Sequence[list[str]]) -> list[str]:
    """A reducer of all the writes of one step."""
    return [*lines, *(line for write in writes for line in write)]


def hash_key(acme: Provisioned) -> bytes:
    """The key of the only thread."""
    with acme.server.admin() as admin:
        (key,) = admin.scan_iter("mt:*:g")
    assert isinstance(key, bytes)
    return key


def fields(acme: Provisioned, kind: str = "") -> dict[bytes, bytes]:
    """What is stored of the only thread; of one kind of field."""
    with acme.server.admin() as admin:
        found: dict[bytes, bytes] = admin.hgetall(hash_key(acme))
    return {name: value for name, value in found.items() if name.startswith(kind.encode())}


def outcome(saver: Saver, thread: str = "ticket-4711") -> RecordInvalid | int:
    """How many messages the thread shows, or why none."""
    try:
        return len(talker(saver).get_state(config(thread)).values["messages"])
    except RecordInvalid as error:
        return error


async def test_a_graph_waits_for_a_person_across_processes_and_goes_on_where_it_was(
    acme: Provisioned, tenant: Tenant
) -> None:
    """Each step in a Tenant and a saver of its own, by turns with asyncio and without."""
    first = await approval(Saver(tenant, subject="ada")).ainvoke({"amount": 12}, config())
    assert first["__interrupt__"][0].value == {"question": "who?", "amount": 12}
    with SyncTenant(acme.source(), options=PATIENT) as other:
        second = approval(Saver(other, subject="ada")).invoke(Command(resume="Bo"), config())
        assert second["__interrupt__"][0].value == {"question": "why?"}
    saver = Saver(tenant, subject="ada")
    third = approval(saver).invoke(Command(resume="late"), config())
    assert third == {"amount": 12, "approved": "Bo: late", "log": ["asked", "paid 12"]}
    saver.close()


async def test_a_graph_goes_back_in_time_and_both_branches_stay(tenant: Tenant) -> None:
    graph = talker(Saver(tenant, subject="ada"))
    for word in ("one", "two"):
        await graph.ainvoke({"messages": [HumanMessage(word)]}, config())
    history = [state async for state in graph.aget_state_history(config())]
    assert [len(state.values.get("messages", [])) for state in history] == [4, 3, 2, 2, 1, 0]
    forked = await graph.aupdate_state(
        history[2].config, {"messages": [HumanMessage("another two")]}
    )
    branch = await graph.ainvoke(None, forked)
    assert [message.content for message in branch["messages"]][::2] == ["one", "another two"]
    again = await graph.aget_state(history[0].config)
    assert [message.content for message in again.values["messages"]][::2] == ["one", "two"]


def test_the_thread_of_another_user_is_another_thread(sync_tenant: SyncTenant) -> None:
    saver = Saver(sync_tenant, subject=lambda config: config["configurable"]["user_id"])
    graph = talker(saver)
    graph.invoke({"messages": [HumanMessage("mine")]}, config(user_id="ada"))
    assert graph.get_state(config(user_id="bo")).values == {}
    with pytest.raises(UsageError, match="fixed subject"):
        list(saver.list(None))


def test_tasks_that_run_at_once_lose_no_write(sync_tenant: SyncTenant) -> None:
    """LangGraph stores from threads: on a thread that is new, with a key that is new."""
    saver = Saver(sync_tenant, subject="ada")
    graph = talker(saver)
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(graph.invoke, {"messages": [HumanMessage(text())]}, config(f"t{n % 4}"))
            for n in range(16)
        ]
    assert all(len(one.result()["messages"]) >= 2 for one in asked)
    assert len(list(saver.list(None))) == 3 * 16


class Weighing(Saver):
    """Stores beside each checkpoint what a saver stores that keeps every one of them whole."""

    client: "redis.Redis"

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        whole = b"".join(self.serde.dumps_typed(one)[1] for one in (checkpoint, metadata))
        self.client.hset("snapshots", checkpoint["id"], whole)  # type: ignore[arg-type]
        return super().put(config, checkpoint, metadata, new_versions)


def test_a_hundred_turns_are_kilobytes_where_whole_checkpoints_are_megabytes(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    """66 KB of messages: 0.5 MB with all that belongs to them, whole checkpoints 16 MB."""
    saver = Weighing(sync_tenant, subject="ada")
    graph = talker(saver)
    with acme.server.admin() as saver.client:
        for _ in range(100):
            graph.invoke({"messages": [HumanMessage(text())]}, config())
        kept = saver.client.memory_usage(hash_key(acme), samples=0)
        snapshots = saver.client.memory_usage("snapshots", samples=0)
    assert kept < 600_000
    assert snapshots > 20 * kept
    counted = sync_tenant.usage().bytes
    assert 0.9 * kept < counted < 1.2 * kept
    assert len(graph.get_state(config()).values["messages"]) == 200


def test_nothing_readable_is_on_the_server(acme: Provisioned, sync_tenant: SyncTenant) -> None:
    graph = talker(Saver(sync_tenant, subject="ada@example.org"))
    graph.invoke({"messages": [HumanMessage(MARKER)]}, config("session-of-ada"))
    with acme.server.admin() as admin:
        stored = b"".join(key + admin.dump(key) for key in admin.scan_iter("mt:*"))
    stored += b"".join(name + value for name, value in fields(acme).items())
    for secret in ("Marker", "ada", "talk", "HumanMessage", "session-of", "__start__"):
        assert secret.encode() not in stored, secret


def test_what_was_changed_on_the_server_is_not_shown(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    graph = talker(Saver(sync_tenant, subject="ada"))
    for word in ("one", "two"):
        graph.invoke({"messages": [HumanMessage(word)]}, config())
    key, lists, values = hash_key(acme), fields(acme, "n"), list(fields(acme, "e").items())
    checkpoints = sorted(fields(acme, "c").items())
    longest = max(lists.values(), key=len)
    newest, before = checkpoints[-1], checkpoints[-2]
    changes: dict[str, tuple[bytes, bytes | None]] = {}
    for name, value in lists.items():
        changes[f"a list without an element {name!r}"] = (name, value[:-16])
        changes[f"a list of another {name!r}"] = (name, longest if value != longest else value[:19])
    changes["an older checkpoint in its place"] = (newest[0], before[1])
    for (one, value), (_, other) in itertools.pairwise(values):
        changes[f"another value {one!r}"] = (one, other)
        changes[f"no value {one!r}"] = (one, None)
        changes[f"an edited value {one!r}"] = (one, value[:-1] + bytes((value[-1] ^ 1,)))
    detected = 0
    with acme.server.admin() as admin:
        for what, (name, changed) in changes.items():
            original = admin.hget(key, name)
            if changed is None:
                admin.hdel(key, name)
            else:
                admin.hset(key, name, changed)
            found = outcome(Saver(sync_tenant, subject="ada"))
            if isinstance(found, RecordInvalid):
                assert changed is not None or isinstance(found, RecordMissing), what
                detected += 1
            else:  # what the newest checkpoint does not refer to
                assert found == 4, what
            admin.hset(key, name, original)
    assert detected >= 10


def test_a_checkpoint_of_another_thread_is_refused(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    """Under the other's names: as it is, the namespace's alias is another one there."""
    saver = Saver(sync_tenant, subject="ada")
    for thread in ("one", "two"):
        talker(saver).invoke({"messages": [HumanMessage(thread)]}, config(thread))
    with acme.server.admin() as admin:
        first, second = admin.scan_iter("mt:*:g")
        stored = admin.hgetall(first)
        space, other = (
            next(name[1:9] for name in admin.hkeys(key) if name[:1] == b"c")
            for key in (first, second)
        )
        admin.delete(second, second[:-1] + b"h")
        admin.hset(
            second, mapping={name.replace(space, other, 1): value for name, value in stored.items()}
        )
    found = [outcome(saver, thread) for thread in ("one", "two")]
    assert sorted(str(getattr(one, "reason", one)) for one in found) == ["2", "RecordKeyMismatch"]


def test_a_pruned_thread_keeps_its_latest_state_and_waiting_writes_and_nothing_else(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    saver = Saver(sync_tenant, subject="ada")
    graph = talker(saver)
    for _ in range(3):
        graph.invoke({"messages": [HumanMessage(text())]}, config())
    latest = saver.get_tuple(config())
    assert latest is not None
    saver.put_writes(latest.config, [("messages", [HumanMessage("waiting")])], "task")
    before = graph.get_state(config()).values["messages"]
    removed = before[0].id
    graph.update_state(config(), {"messages": [RemoveMessage(removed)]})
    waiting = saver.get_tuple(config())
    assert waiting is not None
    saver.put_writes(waiting.config, [("messages", [HumanMessage("waiting")])], "task")
    saver.prune(["ticket-4711"])
    assert len(list(saver.list(config()))) == 1
    assert [write[1] for write in (saver.get_tuple(config()) or waiting).pending_writes or ()] == [
        "messages"
    ]
    assert graph.get_state(config()).values["messages"] == before[1:]
    assert len(fields(acme, "e")) <= len(before)  # the removed message's is not there any more
    # And the thread goes on, although the process remembers what was there before.
    graph.invoke({"messages": [HumanMessage("go on")]}, config())
    assert len(graph.get_state(config()).values["messages"]) == len(before) + 1


def test_a_thread_is_gone_with_its_conversation_and_gives_its_quota_back(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    """By either way, and what is deleted in parts is counted as what is deleted whole."""
    saver = Saver(sync_tenant, subject="ada")
    graph = talker(saver)
    for remove in ("delete_thread", "conversation", "runs", "with messages"):
        chat = sync_tenant.conversation("ticket-4711", user="ada")
        if remove == "with messages":
            chat.append(Message.human("beside it"))
        for _ in range(2):
            graph.invoke({"messages": [HumanMessage(text())]}, {**config(), "run_id": None})
        assert sync_tenant.usage().bytes > 2000
        if remove == "delete_thread":
            saver.delete_thread("ticket-4711")
        elif remove == "runs":
            thread = sync_tenant.checkpoints("ticket-4711", user="ada")
            assert thread.remove(*((head.namespace, head.name) for head in thread.heads())) == 6
        else:
            chat.delete()
        assert sync_tenant.usage().bytes == 0, remove
        assert saver.get_tuple(config()) is None
        with acme.server.admin() as admin:
            assert not list(admin.scan_iter("mt:*:g"))
            assert admin.zcard(f"mt:{{{acme.tenant}}}:x") == 0


def test_what_is_older_than_its_period_is_not_read_and_goes_with_the_next_step(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    graph = talker(Saver(sync_tenant, subject="ada"))
    graph.invoke({"messages": [HumanMessage("old")]}, config())
    time.sleep(0.02)
    cutoff = time.time_ns() // 1_000_000
    time.sleep(0.02)
    graph.invoke({"messages": [HumanMessage("new")]}, config())
    old = min(fields(acme, "e").values(), key=lambda value: value[6:12])
    set_limits(acme.server, cutoff_content=cutoff)
    messages = graph.get_state(config()).values["messages"]
    assert messages[0].content == "new"
    assert len(messages) == 2
    assert len([*graph.get_state_history(config())]) == 3
    graph.invoke({"messages": [HumanMessage("newest")]}, config())
    assert len(graph.get_state(config()).values["messages"]) == 4
    for name, value in fields(acme, "e").items():
        assert int.from_bytes(value[6:12], "big") >= cutoff or len(value) == 15, name
    assert old not in fields(acme).values()


def test_a_copied_thread_is_as_old_as_it_was(acme: Provisioned, sync_tenant: SyncTenant) -> None:
    saver = Saver(sync_tenant, subject="ada")
    graph = talker(saver)
    graph.invoke({"messages": [HumanMessage("old")]}, config("one"))
    time.sleep(0.02)
    cutoff = time.time_ns() // 1_000_000
    saver.copy_thread("one", "two")
    state = graph.get_state(config("two"))
    assert state.values == graph.get_state(config("one")).values
    assert state.config["configurable"]["thread_id"] == "two"
    set_limits(acme.server, cutoff_content=cutoff)
    assert graph.get_state(config("two")).values == {}


def test_the_servers_limits_are_errors_of_their_own(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    graph = talker(Saver(sync_tenant, subject="ada"))
    graph.invoke({"messages": [HumanMessage("one")]}, config())
    before = fields(acme)
    set_limits(acme.server, memory=100)
    with pytest.raises(QuotaExceeded, match="memory"):
        graph.invoke({"messages": [HumanMessage("two")]}, config())
    set_limits(acme.server, memory=10**8)
    acme.provision(state=AccessState(held=True))
    with pytest.raises(TenantHeld):
        graph.invoke({"messages": [HumanMessage("two")]}, config())
    assert fields(acme) == before


def test_pickle_is_refused_in_both_directions(acme: Provisioned, sync_tenant: SyncTenant) -> None:
    saver = Saver(sync_tenant, subject="ada", serde=JsonPlusSerializer(pickle_fallback=True))
    made = empty_checkpoint()
    made["channel_values"] = {"thing": object()}
    made["channel_versions"] = {"thing": 1}
    with pytest.raises(UsageError, match="pickle"):
        saver.put(config(checkpoint_ns=""), made, {}, {"thing": 1})

    class Pickles(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            return "pickle", b"cos\nsystem\n(S'true'\ntR."

    with pytest.raises(UsageError, match="pickle"):
        Saver(sync_tenant, subject="ada", serde=Pickles()).put(
            config(checkpoint_ns=""), empty_checkpoint(), {}, {}
        )


def test_the_key_of_a_thread_is_its_conversations(
    acme: Provisioned, sync_tenant: SyncTenant
) -> None:
    """An erasure that finds the conversation by its subject's index finds the thread."""
    talker(Saver(sync_tenant, subject="ada")).invoke({"messages": [HumanMessage("one")]}, config())
    with acme.server.admin() as admin:
        (index,) = admin.scan_iter("mt:*:i:*")
        (where,) = admin.lrange(index, 0, -1)
    scope, _, conversation = where.decode().partition(":")
    assert hash_key(acme) == ConversationKeys.of(acme.tenant, scope, conversation).checkpoints


async def test_each_call_leaves_an_event_where_the_tenant_is_audited(
    acme: Provisioned, tenant: Tenant
) -> None:
    saver = Saver(tenant, subject="ada")
    # Two first writes at once may each bring a key: one is refused, and sealed again.
    await talker(saver).ainvoke({"messages": [HumanMessage("zero")]}, config())
    audit(acme.server, audit_reads=1)
    await talker(saver).ainvoke({"messages": [HumanMessage("one")]}, config())
    left = drained(acme.server)
    assert {one.event.operation for one in left} == {
        Operation.CHECKPOINT_READ,
        Operation.CHECKPOINT_WRITE,
    }
    assert {one.told[1] for one in left} == {"O"}
    puts = [one for one in left if one.event.operation is Operation.CHECKPOINT_WRITE]
    assert all(one.event.commitment != bytes(16) and one.event.count > 0 for one in puts)
    await saver.adelete_thread("ticket-4711")
    assert [one.told for one in drained(acme.server)] == [(Operation.CHECKPOINT_DELETE, "O")]
    check_writers(left)


class TestWhereSeveralUsersShareAThread:
    """Minimal isolation: the session alone says which conversation it is."""

    @pytest.fixture
    def policy(self) -> TenantPolicy:
        return TenantPolicy(isolation=Isolation.MINIMAL)

    async def test_an_erasure_of_one_takes_the_state_along(
        self, acme: Provisioned, tenant: Tenant
    ) -> None:
        saver = Saver(tenant, subject=lambda config: config["configurable"]["user_id"])
        for user in ("ada", "bo"):
            said = {"messages": [HumanMessage(f"of {user}")]}
            state = await talker(saver).ainvoke(said, config(user_id=user))
        assert len(state["messages"]) == 4
        subject = subject_of(acme.source().current(), "bo")
        places = await read_places(tenant._store, subject)
        assert len(places.conversations) == 1
        with acme.server.admin() as admin:
            assert len(list(admin.scan_iter("mt:*:i:*"))) == 2
        await erase(tenant._store, places, "default")
        assert await saver.aget_tuple(config(user_id="ada")) is None


async def test_a_tenant_that_masks_refuses_what_cannot_be_masked(acme: Provisioned) -> None:
    async with Tenant(acme.source(), options=PATIENT, masking=Masking()) as tenant:
        graph = talker(Saver(tenant, subject="ada"))
        with pytest.raises(MaskingRejected, match="without a checkpointer"):
            await graph.ainvoke({"messages": [HumanMessage("4111 1111 1111 1111")]}, config())
        with acme.server.admin() as admin:
            assert not list(admin.scan_iter("mt:*:g"))


@pytest.mark.parametrize("turns", [3, 5])
def test_a_channel_that_keeps_only_changes_survives_pruning(
    sync_tenant: SyncTenant, turns: int
) -> None:
    """It is rebuilt from the writes since its last snapshot, wherever that is."""

    class Log(TypedDict):
        lines: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=4)]

    builder = StateGraph(Log)
    builder.add_node("say", lambda state: {"lines": [f"line {len(state['lines'])}"]})
    builder.add_edge(START, "say")
    builder.add_edge("say", END)
    saver = Saver(sync_tenant, subject="ada")
    graph = builder.compile(checkpointer=saver)
    for number in range(turns):
        graph.invoke({"lines": [f"turn {number}"]}, config())
    before = graph.get_state(config()).values
    kept = len(list(saver.list(config())))
    saver.prune(["ticket-4711"])
    assert len(list(saver.list(config()))) < kept
    assert graph.get_state(config()).values == before
    assert len(before["lines"]) == 2 * turns
    graph.invoke({"lines": ["more"]}, config())
    assert graph.get_state(config()).values["lines"][: 2 * turns] == before["lines"]
