"""What has passed its cut-off goes physically, nothing younger, and nothing at all under a hold."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import WRITER_LIFE, RecordKeys
from memtenant.crypto.record import Place as RecordPlace
from memtenant.errors import AccessDenied, DataError, FunctionFailed, TenantHeld
from memtenant.functions.context_calls import ContextUpdate, FieldUpdate, ReadContext
from memtenant.functions.expiry_calls import (
    CompactIndex,
    Expire,
    ExpireContext,
    Expired,
    Expiring,
    ExpiringContext,
    Part,
    Passed,
)
from memtenant.functions.keyspace import ConversationKeys
from memtenant.functions.library import libraries
from memtenant.functions.passes import Passes
from memtenant.rules.acl import AccessState
from memtenant.tenancy.policy import EncryptionMode
from tests.functions.catalogue import Place, declared, expiring_calls, fill
from tests.functions.tenants import (
    AGENT,
    CONVERSATION,
    DATA_KEY,
    ONCE,
    SUBJECT,
    Agent,
    Books,
    Lane,
    acting,
    in_ms,
    mark,
    provision,
    record,
    set_limits,
    snapshot,
    state,
)
from tests.functions.test_nothing_half_written import denied_in_turn, refused
from tests.stores.operators import ACME
from tests.support.servers import Server

PLACE = Place(ACME)
HOUR = 3_600_000
PLAIN, TAGGED, TOMBSTONE = 0x10, 0x11, 0x12


@pytest.fixture
def agent(redis_server: Server) -> Iterator[Agent]:
    with acting(redis_server) as agent:
        yield agent


def entry(sequence: int, time: int, body: bytes = b"\xfaold", kind: int = PLAIN) -> bytes:
    """A stored entry, as whoever may RPUSH can make it."""
    return (
        bytes([kind])
        + sequence.to_bytes(5, "big")
        + time.to_bytes(6, "big")
        + (1).to_bytes(3, "big")
        + body
    )


def plant(
    admin: "redis.Redis", times: list[int | None], conversation: ConversationKeys = CONVERSATION
) -> list[bytes]:
    """A list with entries of these times; None is what memtenant did not write."""
    entries = [
        b"junk" if time is None else entry(place, time) for place, time in enumerate(times, 1)
    ]
    admin.delete(conversation.list)
    admin.rpush(conversation.list, *entries)
    return entries


def member(conversation: ConversationKeys = CONVERSATION) -> bytes:
    return conversation.list.split(b"}:r:")[1].removesuffix(b":l")


def age(admin: "redis.Redis", key: bytes, *, by: int) -> None:
    """Make each entry of a list that much older."""
    for place, raw in enumerate(admin.lrange(key, 0, -1)):
        older = int.from_bytes(raw[6:12], "big") - by
        admin.lset(key, place, raw[:6] + older.to_bytes(6, "big") + raw[12:])


def everything(agent: Agent, call: Expire) -> list[Expired]:
    """The call until its end."""
    answers = [agent.call(call)]
    while answers[-1].next is not None:
        answers.append(agent.call(replace(call, start=answers[-1].next)))
    return answers


def test_the_expired_head_goes_and_the_counters_follow(redis_server: Server, agent: Agent) -> None:
    lane = Lane()
    agent.append(lane.append(*(record() for _ in range(5))))
    now = in_ms()
    with redis_server.admin() as admin:
        before = {
            key: int(value)
            for key, value in admin.hgetall(ONCE.usage).items()
            if key in (b"bytes", b"messages", b"conversations")
        }
        for place in (0, 1):
            raw = admin.lindex(CONVERSATION.list, place)
            admin.lset(CONVERSATION.list, place, entry(place + 1, now - 2 * HOUR, raw[15:]))
        kept = admin.lrange(CONVERSATION.list, 2, -1)
        set_limits(redis_server, cutoff_content=now - HOUR)
        would = agent.call(Expiring(CONVERSATION))
        done = agent.call(Expire(CONVERSATION))
        assert (would.live, would.ends, would.size) == (done.live, done.ends, done.size)
        assert (done.live, done.entries, done.kept, done.ends) == (2, 2, 3, False)
        assert admin.lrange(CONVERSATION.list, 0, -1) == kept
        after = {key: int(admin.hget(ONCE.usage, key)) for key in before}
        assert before[b"bytes"] - after[b"bytes"] == done.size
        assert before[b"messages"] - after[b"messages"] == 2
        assert after[b"conversations"] == 1
        head = state(admin)
        assert (head.first, head.last, head.count) == (3, 5, 3)
        assert head.oldest == admin.zscore(ONCE.conversations, member()) == done.oldest
    assert not agent.call(Expire(CONVERSATION)).changes
    assert agent.append(lane.append()).first == 6


def test_a_conversation_of_which_nothing_is_left_goes_whole(
    redis_server: Server, agent: Agent
) -> None:
    fill(agent, PLACE)
    talk = PLACE.conversation
    now = in_ms()
    with redis_server.admin() as admin:
        admin.delete(talk.checkpoints)
        admin.hset(talk.head, "meta", "a title")
        age(admin, talk.list, by=2 * HOUR)
        set_limits(redis_server, cutoff_content=now - HOUR)
        would = agent.call(Expiring(talk))
        done = agent.call(Expire(talk))
        assert would.ends
        assert done.ends
        assert done.live == 5
        assert admin.exists(talk.list, talk.summaries) == 0
        assert not admin.hexists(talk.head, "meta")
        assert 0 < admin.ttl(talk.head) <= 900
        assert admin.zscore(ONCE.conversations, b"_:conversation") is None
        assert int(admin.hget(ONCE.usage, "messages")) == 0
        assert int(admin.hget(ONCE.usage, "conversations")) == 0
    # It begins anew, and no sequence comes a second time.
    assert agent.append(Lane(talk, PLACE.subject).append()).first == 6


def test_messages_of_a_thread_go_and_what_a_graph_keeps_of_it_stays(
    redis_server: Server, agent: Agent
) -> None:
    fill(agent, PLACE)
    talk = PLACE.conversation
    with redis_server.admin() as admin:
        saved = admin.hgetall(talk.checkpoints)
        assert saved
        age(admin, talk.list, by=2 * HOUR)
        set_limits(redis_server, cutoff_content=in_ms() - HOUR)
        done = agent.call(Expire(talk))
        assert (done.live, done.ends, done.undated) == (5, False, 0)
        assert admin.exists(talk.list) == 0
        assert admin.hgetall(talk.checkpoints) == saved
        assert int(admin.hget(ONCE.usage, "conversations")) == 0
        assert not agent.call(Expire(talk, Part.GRAPH)).changes
        assert admin.hgetall(talk.checkpoints) == saved
    assert agent.append(Lane(talk, PLACE.subject).append()).first == 6


def test_what_a_graph_keeps_of_a_thread_goes_when_it_has_expired(
    redis_server: Server, agent: Agent
) -> None:
    fill(agent, PLACE)
    talk = PLACE.conversation
    with redis_server.admin() as admin:
        before = int(admin.hget(ONCE.usage, "bytes"))
        count = admin.hlen(talk.checkpoints)
        set_limits(redis_server, cutoff_content=in_ms() + HOUR)
        would = agent.call(Expiring(talk, Part.GRAPH))
        done = agent.call(Expire(talk, Part.GRAPH))
        assert would.live == done.live == count
        assert admin.exists(talk.checkpoints) == 0
        assert before - int(admin.hget(ONCE.usage, "bytes")) == done.size
        assert not admin.hexists(talk.head, "saved")
        assert admin.zscore(ONCE.conversations, b"_:conversation") is not None
        assert agent.call(Expire(talk)).ends
        assert admin.zscore(ONCE.conversations, b"_:conversation") is None


@pytest.mark.parametrize("mode", list(EncryptionMode))
def test_a_message_is_no_younger_than_its_writer_allows(
    redis_server: Server, agent: Agent, mode: EncryptionMode
) -> None:
    """An agent that moves the date of its records again and again does not keep them."""
    now = in_ms()
    opened = (now - 3 * WRITER_LIFE) // 1000 * 1000
    keys = RecordKeys(SecretKey(bytes(32)), RecordPlace(ACME, "_", "conversation"), mode)

    def sealed(opened: int) -> bytes:
        return keys.seal("message", (opened // 1000).to_bytes(4, "big") + b"lane", 1, b"hello")

    honest = entry(2, opened + WRITER_LIFE - 1, sealed(opened))
    moved = [
        entry(1, now, sealed(opened)),
        entry(3, now, b"\0" * 8 + sealed(opened), kind=TAGGED),
        entry(4, now + 10 * HOUR, sealed(now)),
    ]
    closed = opened + WRITER_LIFE
    with redis_server.admin() as admin:

        def expire() -> Expired:
            return Expire(CONVERSATION).read(admin.execute_command(*Expire(CONVERSATION).words))

        admin.rpush(CONVERSATION.list, moved[0], honest, *moved[1:])
        set_limits(redis_server, cutoff_content=now - 3 * WRITER_LIFE, held=1)
        assert agent.call(Expiring(CONVERSATION)).redated == 1  # the one of a time to come
        # Until a pass has closed its writer, one of version 1 may have written it when it says so.
        set_limits(redis_server, held=0)
        assert agent.call(Expiring(CONVERSATION)).redated == 1
        passed = Passed(ACME, Passes().and_then(closed - 1, closed).and_then(closed, closed))
        passed.read(admin.execute_command(*passed.words))
        with pytest.raises(AccessDenied, match="passes"):
            agent.call(passed)
        assert expire().redated == 3
        assert [
            int.from_bytes(one[6:12], "big") for one in admin.lrange(CONVERSATION.list, 0, 2)
        ] == [closed + 1, closed - 1, closed + 1]
        assert [one[15:] for one in admin.lrange(CONVERSATION.list, 2, -1)] == [
            one[15:] for one in moved[1:]
        ]
        admin.lset(CONVERSATION.list, 0, moved[0])  # and again
        set_limits(redis_server, cutoff_content=closed + 2)
        assert expire().live == 3
        assert admin.llen(CONVERSATION.list) == 1
    assert f"WRITER_LIFE = {WRITER_LIFE} " in libraries()[0].code


def test_a_writer_of_yesterday_is_closed_and_when_it_wrote_last_is_kept(
    redis_server: Server, agent: Agent
) -> None:
    """Under a hold, too, where nothing else is written."""
    now = in_ms()
    lane, young = Lane(), Lane()
    agent.append(lane.append())
    agent.append(young.append())
    old = ((now - WRITER_LIFE) // 1000).to_bytes(4, "big") + b"lane"
    with redis_server.admin() as admin:
        writers = admin.hget(CONVERSATION.head, "writers")
        admin.hset(CONVERSATION.head, "writers", writers.replace(lane.writer, old))
        assert agent.call(Expiring(CONVERSATION)).closes
        assert agent.call(Expire(CONVERSATION)).changes
        left = admin.hget(CONVERSATION.head, "writers")
        assert old not in left
        assert left == bytes(19) + writers[19:]
        assert not agent.call(Expire(CONVERSATION)).changes
        agent.append(young.append())
        assert len(admin.lrange(CONVERSATION.list, 0, -1)) == 3


def test_a_message_whose_writer_is_still_to_come_goes_a_period_after_it_was_seen(
    redis_server: Server, agent: Agent
) -> None:
    now = in_ms()
    to_come = (now + 3650 * WRITER_LIFE) // 1000
    keys = RecordKeys(SecretKey(bytes(32)), RecordPlace(ACME, "_", "conversation"))
    raw = keys.seal("message", to_come.to_bytes(4, "big") + b"lane", 1, b"hello")
    with redis_server.admin() as admin:
        admin.rpush(CONVERSATION.list, entry(1, to_come * 1000, raw))
        set_limits(redis_server, cutoff_content=now - HOUR)
        assert agent.call(Expire(CONVERSATION)).redated == 1
        assert not agent.call(Expire(CONVERSATION)).changes
        assert admin.lindex(CONVERSATION.list, 0)[15:] == raw
        set_limits(redis_server, cutoff_content=in_ms() + 1)
        assert agent.call(Expire(CONVERSATION)).ends


def test_what_goes_of_an_audited_tenant_is_counted_by_kind_and_by_the_operator_alone(
    redis_server: Server, agent: Agent
) -> None:
    fill(agent, PLACE)
    talk = PLACE.conversation
    calls = (*(Expire(talk, part) for part in Part), ExpireContext(PLACE.context))
    set_limits(redis_server, cutoff_content=in_ms() + HOUR, audit=1)
    before = snapshot(redis_server)
    for call in calls:
        with pytest.raises(AccessDenied, match="untold"):
            agent.call(call)
    assert snapshot(redis_server) == before
    untold = f"mt:{{{ACME}}}:o:untold"
    with redis_server.admin() as admin:
        went = [call.read(admin.execute_command(*call.words)) for call in calls]
        assert not any(call.read(admin.execute_command(*call.words)).changes for call in calls)
        counted = {name.decode(): int(value) for name, value in admin.hgetall(untold).items()}
    assert all(one.live for one in went)
    assert 0 < counted.pop("derived") <= counted.pop("content") <= in_ms()
    graph, summaries, messages, values = went
    assert counted == {
        "messages": messages.live,
        "summaries": summaries.live + messages.summaries,
        "checkpoints": graph.live,
        "values": values.live,
        "calls": 4,
    }


def test_nothing_younger_goes_wherever_it_stands(redis_server: Server, agent: Agent) -> None:
    now = in_ms()
    old, young = now - 2 * HOUR, now - HOUR // 2
    with redis_server.admin() as admin:
        entries = plant(admin, [old, old, young, old, young, old])
        set_limits(redis_server, cutoff_content=now - HOUR)
        done = agent.call(Expire(CONVERSATION))
        assert (done.live, done.kept) == (4, 2)
        left = admin.lrange(CONVERSATION.list, 0, -1)
        assert [left[0], left[2]] == [entries[2], entries[4]]
        assert [one[0] for one in (left[1], left[3])] == [TOMBSTONE, TOMBSTONE]
        assert [len(one) for one in (left[1], left[3])] == [15, 15]
    assert not agent.call(Expire(CONVERSATION)).changes


def test_a_long_list_goes_in_bounded_steps(redis_server: Server, agent: Agent) -> None:
    now = in_ms()
    old, young = now - 2 * HOUR, now
    with redis_server.admin() as admin:
        plant(admin, [*([old] * 95), young, *([old] * 30), young])
        set_limits(redis_server, cutoff_content=now - HOUR)
        would = everything(agent, Expiring(CONVERSATION, most=20))  # type: ignore[arg-type]
        done = everything(agent, Expire(CONVERSATION, most=20))
        assert sum(one.live for one in would) == sum(one.live for one in done) == 125
        assert max(one.entries for one in done) <= 20
        assert admin.llen(CONVERSATION.list) == 32
        plant(admin, [old] * 45)
        done = everything(agent, Expire(CONVERSATION, most=20))
        assert [one.ends for one in done] == [False, False, True]
        assert admin.exists(CONVERSATION.list) == 0


def test_what_is_dated_into_the_future_gets_the_servers_time(
    redis_server: Server, agent: Agent
) -> None:
    now = in_ms()
    with redis_server.admin() as admin:
        (original,) = plant(admin, [now + 1000 * HOUR])
        set_limits(redis_server, cutoff_content=now - HOUR)
        assert agent.call(Expire(CONVERSATION)).redated == 1
        raw = admin.lindex(CONVERSATION.list, 0)
        dated = int.from_bytes(raw[6:12], "big")
        assert now <= dated <= in_ms()
        assert raw[:6] + raw[12:] == original[:6] + original[12:]
        set_limits(redis_server, cutoff_content=in_ms() + HOUR)
        assert agent.call(Expire(CONVERSATION)).ends


def test_what_has_no_date_goes_with_the_next_that_has_one_else_it_stays_and_is_counted(
    redis_server: Server, agent: Agent
) -> None:
    now = in_ms()
    with redis_server.admin() as admin:
        plant(admin, [None, now - 2 * HOUR, None])
        set_limits(redis_server, cutoff_content=now - HOUR)
        done = agent.call(Expire(CONVERSATION))
        assert (done.live, done.undated, done.ends) == (2, 1, False)
        assert admin.lrange(CONVERSATION.list, 0, -1) == [b"junk"]


def test_a_summary_does_not_outlive_what_it_was_made_from_whatever_its_date(
    redis_server: Server, agent: Agent
) -> None:
    fill(agent, PLACE)
    talk = PLACE.conversation
    with redis_server.admin() as admin:
        age(admin, talk.summaries, by=-HOUR // 120)  # an agent dates it half a minute ahead
        set_limits(redis_server, cutoff_content=in_ms() - HOUR)
        assert not agent.call(Expire(talk, Part.SUMMARIES)).changes
        admin.lpop(talk.list)
        assert not agent.call(Expire(talk, Part.SUMMARIES)).changes
        admin.lpop(talk.list)
        kept = admin.lrange(talk.list, 0, -1)
        for held, went in ((1, 0), (0, 1)):  # under a hold or minimum no agent removes its sources
            set_limits(redis_server, held=held)
            assert agent.call(Expire(talk, Part.SUMMARIES)).live == went
        assert admin.exists(talk.summaries) == 0
        assert admin.lrange(talk.list, 0, -1) == kept


def test_summaries_go_by_their_own_cut_off(redis_server: Server, agent: Agent) -> None:
    fill(agent, PLACE)
    talk = PLACE.conversation
    now = in_ms()
    with redis_server.admin() as admin:
        age(admin, talk.summaries, by=2 * HOUR)
        before = int(admin.hget(ONCE.usage, "bytes"))
        set_limits(redis_server, cutoff_content=now - 3 * HOUR, cutoff_derived=now - HOUR)
        assert not agent.call(Expire(talk)).changes
        done = agent.call(Expire(talk, Part.SUMMARIES))
        assert done.live == 1
        assert admin.exists(talk.summaries) == 0
        assert before - int(admin.hget(ONCE.usage, "bytes")) == done.size
        assert admin.llen(talk.list) == 5


def test_the_title_of_a_conversation_without_messages_goes_when_its_last_write_has_expired(
    redis_server: Server, agent: Agent
) -> None:
    agent.append(Lane().append(meta=b"a title"))
    with redis_server.admin() as admin:
        admin.delete(CONVERSATION.list)
        set_limits(redis_server, cutoff_content=in_ms() - HOUR)
        assert agent.call(Expire(CONVERSATION)).kept == 1
        assert admin.hexists(CONVERSATION.head, "meta")
        set_limits(redis_server, cutoff_content=in_ms() + HOUR)
        assert agent.call(Expire(CONVERSATION)).ends
        assert not admin.hexists(CONVERSATION.head, "meta")


def test_values_of_a_context_go_one_by_one_and_versions_never_come_back(
    redis_server: Server, agent: Agent
) -> None:
    fill(agent, PLACE)
    context = PLACE.context
    now = in_ms()
    with redis_server.admin() as admin:
        for key in (context.values, context.versions):
            raw = admin.hget(key, "one")
            admin.hset(key, "one", raw[:6] + (now - 2 * HOUR).to_bytes(6, "big") + raw[12:])
        set_limits(redis_server, cutoff_content=now - HOUR)
        would, done = agent.call(ExpiringContext(context)), agent.call(ExpireContext(context))
        assert (would.live, done.live, done.kept, done.ends) == (1, 1, 1, False)
        assert set(admin.hkeys(context.values)) == {b"two"}
        assert set(admin.hkeys(context.versions)) == {b"two", b"#"}
        assert admin.zscore(ONCE.conversations, b"c:context") == done.oldest
        set_limits(redis_server, cutoff_content=in_ms() + HOUR)
        assert agent.call(ExpireContext(context)).ends
        assert admin.exists(context.values, context.changes) == 0
        assert admin.hkeys(context.versions) == [b"#"]
        assert admin.zscore(ONCE.conversations, b"c:context") is None
        set_limits(redis_server, cutoff_content=now - HOUR)
    fresh = ContextUpdate(
        context, (FieldUpdate("one", record()),), mark(), PLACE.context_key, DATA_KEY, AGENT
    )
    assert agent.call(fresh).revision > 2
    assert agent.call(ReadContext(context)).fields


def test_the_head_of_a_contexts_log_goes_as_far_as_it_has_expired(
    redis_server: Server, agent: Agent
) -> None:
    """Also what memtenant did not write, where something expired stands behind it."""
    now = in_ms()
    old = [entry(number + 1, now - 2 * HOUR) for number in range(150)]
    strange, young = b"no entry", [entry(151, now), entry(152, now - 2 * HOUR)]
    context = PLACE.context
    set_limits(redis_server, cutoff_content=now - HOUR)
    with redis_server.admin() as admin:
        admin.hset(context.values, "value", entry(1, now))
        admin.hset(context.versions, mapping={"value": entry(1, now), "#": entry(152, now)})
        admin.rpush(context.changes, strange, *old[:40], strange, *old[40:], *young)
        agent.call(ExpireContext(context))
        assert admin.lrange(context.changes, 0, -1) == young
        admin.delete(context.changes)
        admin.rpush(context.changes, *old, strange)
        agent.call(ExpireContext(context))
        assert admin.lrange(context.changes, 0, -1) == [strange]


def test_an_index_keeps_one_entry_for_what_is_there(redis_server: Server, agent: Agent) -> None:
    fill(agent, PLACE)
    there, gone = b"_:conversation", b"_:gone"
    value, dead = b"c:context:one", b"c:context:three"
    with redis_server.admin() as admin:
        admin.delete(SUBJECT.index)
        admin.rpush(SUBJECT.index, there, gone, value, there, dead, gone, value, value)
    entries = ((there, 1), (gone, 1), (value, 2), (dead, 0))
    call = CompactIndex(SUBJECT.index, ONCE.limits, entries)
    set_limits(redis_server, cutoff_content=1)
    with pytest.raises(DataError):
        agent.call(call)  # the operator alone takes anything from an index
    with redis_server.admin() as admin:
        admin.response_callbacks.clear()
        assert call.read(admin.execute_command(*call.words)) == 6
        assert admin.lrange(SUBJECT.index, 0, -1) == [there, value]


def test_under_a_hold_nothing_goes_for_anybody(redis_server: Server, agent: Agent) -> None:
    fill(agent, PLACE)
    now = in_ms()
    with redis_server.admin() as admin:
        age(admin, PLACE.conversation.list, by=2 * HOUR)
        set_limits(redis_server, cutoff_content=None, cutoff_derived=None)
        before = snapshot(redis_server)
        for words in expiring_calls(PLACE).values():
            admin.execute_command(*words)
        assert snapshot(redis_server) == before
    # Under a content minimum there is a cut-off, and only the operator may act on it.
    provision(redis_server, state=AccessState(held=True))
    set_limits(redis_server, cutoff_content=now - HOUR)
    before = snapshot(redis_server)
    with pytest.raises(TenantHeld):
        agent.call(Expire(PLACE.conversation))
    assert snapshot(redis_server) == before
    with redis_server.admin() as admin:
        admin.execute_command(*Expire(PLACE.conversation).words)
        assert admin.exists(PLACE.conversation.list) == 0


def test_each_permission_and_each_type_in_turn_all_or_nothing(
    redis_server: Server, agent: Agent
) -> None:
    """As for the other Functions, on a tenant of which everything has expired."""
    fill(agent, PLACE)
    user = provision(redis_server)
    set_limits(redis_server, cutoff_content=in_ms() + HOUR)
    calls = expiring_calls(PLACE)
    del calls["compact"]  # no agent may
    with redis_server.admin() as admin:
        admin.delete(PLACE.conversation.checkpoints)
    denied = denied_in_turn(redis_server, agent, user, calls)
    damaged = 0
    provision(redis_server)
    with Books(redis_server) as books:
        for key in {key for words in calls.values() for key in declared(words)} - {ONCE.limits}:
            for poison in (("SET", key, "text"), ("RPUSH", key, "x"), ("HSET", key, "f", "v")):
                for name, words in calls.items():
                    if key not in declared(words):
                        continue
                    books.restore(("DEL", key), poison)
                    error = refused(agent, words)
                    if error is not None:
                        damaged += 1
                        assert isinstance(error, DataError), (name, poison, error)
                        assert not isinstance(error, FunctionFailed), (name, poison, error)
                        assert books.unchanged(), (name, poison)
    assert denied > 20
    assert damaged > 5


def test_an_agent_cannot_keep_what_has_expired_by_spoiling_the_books(
    redis_server: Server, agent: Agent
) -> None:
    fill(agent, PLACE)
    set_limits(redis_server, cutoff_content=in_ms() + HOUR)
    with redis_server.admin() as admin:
        admin.delete(PLACE.conversation.checkpoints)
        for key in (ONCE.usage, ONCE.conversations, PLACE.conversation.head):
            admin.delete(key)
        admin.set(ONCE.usage, "x")
        admin.set(ONCE.conversations, "x")
        admin.hset(PLACE.conversation.head, "state", "x")
        assert agent.call(Expire(PLACE.conversation)).ends
        assert admin.exists(PLACE.conversation.list) == 0
