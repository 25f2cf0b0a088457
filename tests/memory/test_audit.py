"""What the SDK leaves in the audit queue: one event a call, on every flavour, and only if asked."""

import asyncio
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memtenant import Head, Message, Tenant
from memtenant.audit import Failure, Operation, Reference, parse_sequences
from memtenant.errors import (
    AuditUnavailable,
    KeyUnavailable,
    QuotaExceeded,
    RecordTampered,
    SubjectErased,
    VersionConflict,
)
from memtenant.memory import auditing
from memtenant.memory.auditing import Auditor
from memtenant.memory.places import context_place, conversation_place
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy import keys
from memtenant.tenancy.policy import AgentAccess, Isolation, SubjectRights, TenantPolicy
from tests.functions.tenants import in_ms, set_limits, snapshot
from tests.memory.bindings import Provisioned
from tests.memory.conftest import Open
from tests.memory.queue import (
    MESSAGE_HEADER,
    Left,
    audit,
    check_writers,
    covered,
    drained,
    stored,
)
from tests.stores.operators import ACME
from tests.support.relay import Proxy
from tests.support.servers import Server


def told(server: Server) -> list[tuple[Operation, str]]:
    return [one.told for one in drained(server)]


def reference(acme: Provisioned, tenant: Tenant, session: str, user: str) -> Reference:
    """What an auditor who holds the data key knows of a conversation."""
    where = conversation_place(ACME, Isolation.MODERATE, acme.keyring.name_key, session, user)
    known = tenant._keys.known(where.alias)
    assert known is not None
    return Reference.of(known.key, where.place)


async def test_every_call_leaves_one_event_that_says_what_was_done(
    acme: Provisioned, tenant: Tenant
) -> None:
    server = acme.server
    audit(server)
    chat = tenant.conversation("s", user="ada")
    left: list[Left] = []

    async def leaves(call: Any, operation: Operation, sequence: int, count: int = 1) -> Left:
        await call
        (one,) = drained(server)
        assert one.told == (operation, "O")
        assert (one.event.count, one.entry.sequence) == (count, sequence)
        assert (one.event.agent, one.event.binding_version) == ("default", 1)
        assert abs(one.entry.time - in_ms()) < 60_000
        left.append(one)
        return one

    one = await leaves(chat.append(Message.human("a secret")), Operation.APPEND, 1)
    await leaves(chat.extend([Message.ai("b"), Message.ai("c")]), Operation.APPEND, 3, 2)
    known = reference(acme, tenant, "s", "ada")
    with server.admin() as admin:
        record = admin.lindex(next(iter(admin.scan_iter("*:l"))), 0)[MESSAGE_HEADER:]
    assert one.event.commitment == known.commit([record])
    assert covered(left) == stored(server)
    await leaves(chat.update_message(2, Message.ai("B")), Operation.UPDATE, 2)
    removal = await leaves(chat.remove(2, 9), Operation.REMOVE, 2, 2)
    assert parse_sequences(removal.event.detail) == (2, 9)
    await leaves(chat.pop(), Operation.POP, 3)
    await leaves(chat.remove(2), Operation.REMOVE, 0)  # nothing was there, and it was tried
    await leaves(chat.clear(), Operation.CLEAR, 3)
    await leaves(chat.delete(), Operation.DELETE, 3)
    assert {(one.event.subject, one.event.place) for one in left} == {(known.subject, known.place)}
    context = tenant.shared_context("case")
    first = await leaves(context.create({"a": 1, "b": 2}), Operation.CONTEXT_CREATE, 1, 2)
    await leaves(context.update({"a": None}), Operation.CONTEXT_UPDATE, 2)
    await leaves(context.delete(), Operation.CONTEXT_DELETE, 2)
    await leaves(context.delete(), Operation.CONTEXT_DELETE, 2)
    where = context_place(ACME, Isolation.MODERATE, acme.keyring.name_key, "case")
    key = tenant._keys.known(where.alias)
    assert key is not None
    assert first.event.place == Reference.of(key.key, where.place).place
    check_writers(left)
    # Nobody asked for events of reads.
    await chat.messages()
    await context.read()
    await tenant.conversations("ada")
    await tenant.usage()
    assert drained(server) == []
    for secret in (b"ada", b"secret", b"case"):
        assert not any(secret in one.entry.event for one in left)


async def test_audited_reads_leave_one_event_a_call(acme: Provisioned, opened: Open) -> None:
    server, tenant = acme.server, opened(acme)
    chat, context = tenant.conversation("s", user="ada"), tenant.shared_context("case")
    await chat.extend([Message.human("a"), Message.ai("b")])
    await context.create({"a": 1})
    audit(server, audit_reads=1)
    for call, operation in (
        (chat.messages(), Operation.READ),
        (chat.messages(), Operation.READ),  # from the copy, and what is new
        (chat.messages(2), Operation.READ),
        (chat.window(1000), Operation.READ),
        (context.read(), Operation.CONTEXT_READ),
        (tenant.conversations("ada"), Operation.LIST),
    ):
        await call
        assert told(server) == [(operation, "O")]
    # Another process reads with its own events, before it knows any key.
    stranger = opened(acme, "other")
    assert [one.text for one in await stranger.conversation("s", user="ada").messages()] == [
        "a",
        "b",
    ]
    (one,) = drained(server)
    assert one.event.agent == "other"
    assert one.event.subject == reference(acme, tenant, "s", "ada").subject
    # Of somebody about whom nothing is known.
    assert await tenant.conversation("s", user="bob").messages() == []
    (one,) = drained(server)
    assert (one.event.subject, one.event.place) == (bytes(16), bytes(16))
    # Counters and times are no content.
    await chat.count()
    await tenant.usage()
    await context.access_log()
    assert drained(server) == []
    # What agents say of themselves is content.
    await tenant.agent_status(["default"])
    (one,) = drained(server)
    assert one.event.operation is Operation.CONTEXT_READ


async def test_a_watch_leaves_an_event_for_what_it_finds_and_not_for_each_look(
    on_valkey: Provisioned, opened: Open
) -> None:
    server, tenant = on_valkey.server, opened(on_valkey)
    context = tenant.shared_context("case")
    await context.create({"a": 1})
    audit(server, audit_reads=1)
    watch = context.watch(interval=0.01)
    looks = on_valkey.calls("hlen")
    seen = asyncio.ensure_future(anext(watch))
    async with asyncio.timeout(60):
        while on_valkey.calls("hlen") < looks + 10:  # noqa: ASYNC110 - nothing tells of them
            await asyncio.sleep(0.01)
    assert len(drained(server)) <= 2
    await opened(on_valkey, "other").shared_context("case").update({"a": 2})
    assert [change.name for change in (await seen).changes] == ["a"]
    assert told(server) == [(Operation.CONTEXT_UPDATE, "O"), (Operation.CONTEXT_CHANGES, "O")]
    seen = asyncio.ensure_future(anext(watch))
    await context.delete()
    assert (await seen).kind == "Deleted"
    await watch.aclose()  # type: ignore[attr-defined]


async def test_conflicts_and_refusals_that_reach_the_store_are_told(
    on_valkey: Provisioned, opened: Open
) -> None:
    tenant = opened(on_valkey)
    audit(on_valkey.server)
    chat, context = tenant.conversation("s", user="ada"), tenant.shared_context("case")
    await chat.append(Message.human("a"))
    await context.create({"a": 1})
    with pytest.raises(VersionConflict):
        await chat.append(Message.human("b"), expected=Head(0, 0))
    with pytest.raises(VersionConflict):
        await context.update({"a": 2}, expected={"a": 7})
    set_limits(on_valkey.server, memory=1)
    with pytest.raises(QuotaExceeded):
        await chat.append(Message.human("b"))
    set_limits(on_valkey.server, memory=None)
    await chat.append(Message.human("b"))
    await context.update({"a": 2})
    left = drained(on_valkey.server)
    assert [one.told for one in left] == [
        (Operation.APPEND, "O"),
        (Operation.CONTEXT_CREATE, "O"),
        (Operation.APPEND, "C"),
        (Operation.CONTEXT_UPDATE, "C"),
        (Operation.APPEND, "R"),
        (Operation.APPEND, "O"),
        (Operation.CONTEXT_UPDATE, "O"),
    ]
    check_writers(left)


async def test_an_idempotency_key_that_is_known_leaves_no_second_event(
    on_valkey: Provisioned, opened: Open
) -> None:
    tenant = opened(on_valkey)
    audit(on_valkey.server)
    chat = tenant.conversation("s", user="ada")
    for _ in range(2):
        await chat.append(Message.human("a"), idempotency_key="k")
    await chat.append(Message.human("b"))
    left = drained(on_valkey.server)
    assert len(left) == 2
    check_writers(left)


async def test_a_running_agent_follows_a_switch_without_a_new_binding(
    on_valkey: Provisioned, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, tenant = on_valkey.server, opened(on_valkey)
    chat = tenant.conversation("s", user="ada")
    made = 0
    event = Auditor.event

    def counting(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return event(*arguments)

    monkeypatch.setattr(Auditor, "event", counting)
    await chat.append(Message.human("a"))
    await chat.messages()
    assert made == 0  # who is not audited pays nothing
    audit(server)
    await chat.append(Message.human("b"))
    await chat.messages()
    assert told(server) == [(Operation.APPEND, "O")]
    audit(server, audit_reads=1)
    await chat.messages()
    assert told(server) == [(Operation.READ, "O")]
    set_limits(server, audit=0)
    await chat.append(Message.human("c"))
    assert drained(server) == []
    monkeypatch.setattr(tenant._store.auditor, "_believed", {False: 0.0, True: 0.0})
    made = 0
    await chat.append(Message.human("d"))
    await chat.messages()
    assert made == 0


async def test_closed_does_nothing_while_nobody_drains_and_open_counts(
    acme: Provisioned, tenant: Tenant
) -> None:
    server, chat = acme.server, tenant.conversation("s", user="ada")
    await chat.append(Message.human("a"))
    await tenant.conversations("ada")
    audit(server, audit_reads=1)
    set_limits(server, audit_heartbeat=in_ms() - 61_000)
    before = snapshot(server)
    for call in (
        lambda: chat.append(Message.human("b")),
        lambda: chat.pop(),
        lambda: chat.clear(),
        lambda: chat.messages(),
        lambda: tenant.shared_context("case").create({"a": 1}),
        lambda: tenant.conversations("ada"),
    ):
        with pytest.raises(AuditUnavailable):
            await call()
    assert snapshot(server) == before
    set_limits(server, on_failure="Open")
    await chat.append(Message.human("b"))
    assert len(await chat.messages()) == 2
    with server.admin() as admin:
        assert admin.hget(keys.usage(ACME), "dropped") == b"2"
    assert drained(server) == []


async def test_calls_at_the_same_time_leave_writers_without_a_gap(
    on_valkey: Provisioned, opened: Open
) -> None:
    audit(on_valkey.server, audit_reads=1)
    tenants = [opened(on_valkey), opened(on_valkey, "other")]

    async def work(number: int) -> None:
        tenant = tenants[number % 2]
        chat = tenant.conversation(f"s{number % 3}", user="ada")
        for _ in range(4):
            await chat.append(Message.human("x"))
            await chat.messages()
            await tenant.shared_context("case").update({f"f{number}": number})
        await chat.remove(1)

    await asyncio.gather(*(work(number) for number in range(12)))
    left = drained(on_valkey.server)
    check_writers(left)
    assert stored(on_valkey.server) <= covered(left)


def test_a_forked_child_has_writers_of_its_own(on_valkey: Provisioned) -> None:
    audit(on_valkey.server)
    with SyncTenant(on_valkey.source()) as tenant:
        context = tenant.shared_context("case")
        context.create({"n": 0})
        children = []
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    context.update({f"n{number}": 1})
                    context.update({f"n{number}": 2})
                    code = 0
                finally:
                    os._exit(code)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
        context.update({"n": 1})
    left = drained(on_valkey.server)
    check_writers(left)
    assert sorted(Counter(one.event.writer for one in left).values()) == [2, 2, 2]


async def test_writes_whose_reply_was_lost_leave_exactly_one_event(
    acme: Provisioned, opened: Open
) -> None:
    audit(acme.server)
    with Proxy.to(acme.server.host, acme.server.port) as proxy:
        tenant = opened(acme, port=proxy.port)
        chat, context = tenant.conversation("s", user="ada"), tenant.shared_context("case")
        await chat.extend([Message.human(str(n)) for n in range(9)])
        await context.create({"n": 0})
        calls = (
            lambda: chat.append(Message.human("x")),
            lambda: chat.remove(1),
            lambda: context.update({"n": 1}),
            lambda: chat.clear(),
        )
        for call in calls:
            drained(acme.server)
            task = asyncio.ensure_future(call())
            # It is done, and the answer is on its way back.
            proxy.delay(0.05)
            async with asyncio.timeout(60):
                while not _queued(acme.server):  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.002)
            await asyncio.to_thread(proxy.cut)
            proxy.delay(0)
            await task
            assert [one.told[1] for one in drained(acme.server)] == ["O"]


def _queued(server: Server) -> bool:
    with server.admin() as admin:
        return bool(admin.exists(keys.audit_queue(ACME)))


async def test_failed_decryptions_are_told_a_few_a_minute_and_never_masked(
    on_valkey: Provisioned, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server, tenant = on_valkey.server, opened(on_valkey)
    await tenant.conversation("s", user="ada").append(Message.human("a"))
    audit(server)
    with server.admin() as admin:
        name = next(iter(admin.scan_iter("*:l")))
        entry = bytearray(admin.lindex(name, 0))
        entry[-1] ^= 1
        admin.lset(name, 0, bytes(entry))
    chat = tenant.conversation("s", user="ada")
    for call in (chat.messages, chat.pop, lambda: chat.window(100)):
        with pytest.raises(RecordTampered):
            await call()
    left = drained(server)
    assert [one.told for one in left] == [(Operation.DECRYPTION_FAILED, "O")] * 3
    assert {one.event.detail for one in left} == {bytes((Failure.TAMPERED,))}
    assert {one.event.place for one in left} == {reference(on_valkey, tenant, "s", "ada").place}
    for _ in range(auditing.FAILURES_A_MINUTE):
        with pytest.raises(RecordTampered):
            await chat.messages()
    assert len(drained(server)) == auditing.FAILURES_A_MINUTE - 3
    # Nobody drains the queue: the error is still the one that matters.
    other = opened(on_valkey).conversation("s", user="ada")
    set_limits(server, audit_heartbeat=0)
    with caplog.at_level(logging.WARNING), pytest.raises(RecordTampered):
        await other.messages()
    assert "could not be audited" in caplog.text


async def test_what_needs_no_key_goes_on_without_one_and_leaves_its_event(
    on_valkey: Provisioned, opened: Open
) -> None:
    await opened(on_valkey).conversation("s", user="ada").append(Message.human("a"))
    audit(on_valkey.server)
    with on_valkey.server.admin() as admin:
        admin.delete(next(iter(admin.scan_iter("*:k:*"))))
    chat = opened(on_valkey).conversation("s", user="ada")
    with pytest.raises(KeyUnavailable):
        await chat.messages()
    assert await chat.delete() == 1
    left = drained(on_valkey.server)
    assert [one.told[0] for one in left] == [Operation.DECRYPTION_FAILED, Operation.DELETE]
    assert {one.event.subject for one in left} == {bytes(16)}
    with on_valkey.server.admin() as admin:
        where = conversation_place(ACME, Isolation.MODERATE, on_valkey.keyring.name_key, "s", "ada")
        admin.hset(where.subject.data_key, "erased", "1")
    with pytest.raises(SubjectErased):
        await chat.messages()
    await chat.clear()
    assert told(on_valkey.server) == [(Operation.CLEAR, "O")]


async def test_an_export_and_an_erasure_are_told_call_by_call(
    on_valkey: Provisioned, opened: Open, tmp_path: Path
) -> None:
    rights = SubjectRights(erasure=True, portability=True)
    on_valkey.policy = TenantPolicy(access=AgentAccess.STEWARD, rights=rights)
    tenant, server = opened(on_valkey), on_valkey.server
    await tenant.conversation("s", user="ada").append(Message.human("a"))
    await tenant.shared_context("case").create({"of-ada": 1}, about=["ada"])
    subject = reference(on_valkey, tenant, "s", "ada").subject
    audit(server, audit_reads=1)
    await tenant.export("ada", tmp_path / "ada")
    exported = drained(server)
    # The beginning, the conversation, its summaries, the value.
    assert [one.told for one in exported] == [(Operation.EXPORT, "O")] * 4
    assert [one.event.subject == subject for one in exported] == [True, True, True, False]
    await tenant.forget("ada")
    forgotten = drained(server)
    assert {one.told for one in forgotten} == {(Operation.FORGET, "O")}
    assert len(forgotten) == 3
    assert {one.event.subject for one in forgotten} == {subject}
    check_writers([*exported, *forgotten])
