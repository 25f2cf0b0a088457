"""Ranges, deltas and tails: what comes back, what has expired, and what a copy may keep."""

import pytest

from memtenant.errors import HistoryRewound
from memtenant.functions import ConversationKeys, Delta, Entries, Head, ReadRange, Remove, Tail
from memtenant.functions.replies import Status
from tests.functions.tenants import (
    AGENT,
    CONVERSATION,
    Agent,
    Lane,
    acting,
    change_state,
    in_ms,
    record,
    set_limits,
    snapshot,
    state,
)
from tests.stores.operators import ACME
from tests.support.servers import Server


@pytest.fixture
def agent(redis_server: Server) -> Agent:
    return acting(redis_server)


def sequences(found: Entries) -> list[int]:
    return [entry.header.sequence for entry in found.entries]


def filled(agent: Agent, count: int) -> Lane:
    lane = Lane()
    agent.append(lane.append(*(record() for _ in range(count))))
    return lane


def age(server: Server, sequence: int, milliseconds: int) -> None:
    """Make an entry older, as if it had been written then."""
    with server.admin() as admin:
        entry = admin.lindex(CONVERSATION.list, sequence - 1)
        assert isinstance(entry, bytes)
        time = (in_ms() - milliseconds).to_bytes(6, "big")
        admin.lset(CONVERSATION.list, sequence - 1, entry[:6] + time + entry[12:])


def test_nothing_is_read_of_a_conversation_that_is_not_there(agent: Agent) -> None:
    for call in (ReadRange(CONVERSATION), Tail(CONVERSATION), Delta(CONVERSATION, 0, 0)):
        found = agent.call(call)
        assert isinstance(found, Entries)
        assert (found.status, found.head, found.entries) == (Status.OK, Head(0, 0), ())


def test_a_range_is_read_in_order_and_paged(agent: Agent) -> None:
    filled(agent, 100)
    assert sequences(agent.call(ReadRange(CONVERSATION, 10, 12))) == [10, 11, 12]
    assert sequences(agent.call(ReadRange(CONVERSATION, 99, 0))) == [99, 100]
    assert sequences(agent.call(ReadRange(CONVERSATION, 101))) == []
    page = agent.call(ReadRange(CONVERSATION, 1, limit=40))
    assert (sequences(page), page.more) == (list(range(1, 41)), True)
    last = agent.call(ReadRange(CONVERSATION, 61, limit=40))
    assert (sequences(last), last.more) == (list(range(61, 101)), False)


def test_a_reply_is_bounded_in_bytes_and_has_one_entry_at_least(agent: Agent) -> None:
    lane = Lane()
    agent.append(lane.append(*(b"x" * 1000 for _ in range(10))))
    for call in (ReadRange(CONVERSATION, max_bytes=3100), Tail(CONVERSATION, max_bytes=3100)):
        found = agent.call(call)
        assert isinstance(found, Entries)
        assert (len(found.entries), found.more) == (3, True)
    assert sequences(agent.call(ReadRange(CONVERSATION, max_bytes=1))) == [1]
    assert sequences(agent.call(Tail(CONVERSATION, max_bytes=1))) == [10]


def test_a_tail_holds_as_many_as_fit_into_the_tokens(agent: Agent) -> None:
    filled(agent, 100)  # of 10 tokens each
    found = agent.call(Tail(CONVERSATION, max_tokens=55))
    assert (sequences(found), found.more) == ([96, 97, 98, 99, 100], True)
    found = agent.call(Tail(CONVERSATION, before=3, max_tokens=55))
    assert (sequences(found), found.more) == ([1, 2], False)
    assert sequences(agent.call(Tail(CONVERSATION, max_tokens=9))) == []
    assert sequences(agent.call(Tail(CONVERSATION, before=50, limit=2))) == [48, 49]


def test_a_delta_is_what_came_after(agent: Agent) -> None:
    lane = filled(agent, 3)
    seen = agent.entries().head
    assert sequences(agent.call(Delta(CONVERSATION, seen.epoch, seen.last))) == []
    agent.append(lane.append(record(), record()))
    assert sequences(agent.call(Delta(CONVERSATION, seen.epoch, seen.last))) == [4, 5]


def test_a_delta_of_another_epoch_is_stale(agent: Agent) -> None:
    filled(agent, 3)
    seen = agent.entries().head
    agent.call(Remove(CONVERSATION, (2,), AGENT))
    found = agent.call(Delta(CONVERSATION, seen.epoch, seen.last))
    assert (found.status, found.entries) == (Status.STALE, ())
    assert found.head == Head(seen.epoch + 1, 3)
    found.head.check_not_behind(seen)


def test_a_server_that_lost_writes_is_found_out(redis_server: Server, agent: Agent) -> None:
    lane = filled(agent, 2)
    with redis_server.admin() as admin:
        kept = {key: admin.dump(key) for key in (CONVERSATION.list, CONVERSATION.head)}
        seen = agent.append(lane.append()).head
        for key, value in kept.items():
            admin.restore(key, 0, value, replace=True)
    found = agent.call(Delta(CONVERSATION, seen.epoch, seen.last))
    assert found.status is Status.REWOUND
    with pytest.raises(HistoryRewound):
        found.head.check_not_behind(seen)


def test_what_is_older_than_the_cut_off_is_not_read_and_a_changed_cut_off_counts_at_once(
    redis_server: Server, agent: Agent
) -> None:
    filled(agent, 5)
    for sequence in (1, 2, 3):
        age(redis_server, sequence, 1_000_000)
    assert len(agent.entries().entries) == 5
    set_limits(redis_server, cutoff_content=in_ms() - 500_000)
    assert sequences(agent.entries()) == [4, 5]
    assert sequences(agent.call(Tail(CONVERSATION))) == [4, 5]
    assert sequences(agent.call(Delta(CONVERSATION, agent.entries().head.epoch, 1))) == [4, 5]
    set_limits(redis_server, cutoff_content=None)
    assert len(agent.entries().entries) == 5


def test_an_append_trims_what_has_expired_and_the_books_follow(
    redis_server: Server, agent: Agent
) -> None:
    lane = filled(agent, 40)
    for sequence in range(1, 36):
        age(redis_server, sequence, 1_000_000)
    with redis_server.admin() as admin:
        change_state(admin, oldest=in_ms() - 1_000_000)
        set_limits(redis_server, cutoff_content=in_ms() - 500_000)
        agent.append(lane.append())
        assert admin.llen(CONVERSATION.list) == 41 - 32  # a bounded step
        agent.append(lane.append())
        assert admin.llen(CONVERSATION.list) == 42 - 35
        assert (state(admin).count, state(admin).first) == (7, 36)
        oldest = agent.call(ReadRange(CONVERSATION, limit=1)).entries[0].header.time
        assert admin.zrange("mt:{support.acme}:x", 0, -1, withscores=True)[0][1] == oldest
    assert sequences(agent.entries()) == list(range(36, 43))


def test_reading_writes_nothing(redis_server: Server, agent: Agent) -> None:
    filled(agent, 5)
    before = snapshot(redis_server)
    for call in (ReadRange(CONVERSATION), Tail(CONVERSATION), Delta(CONVERSATION, 1, 1)):
        agent.call(call)
    assert snapshot(redis_server) == before


def test_conversations_do_not_mix(agent: Agent) -> None:
    other = ConversationKeys.of(ACME, "_", "another")
    agent.append(Lane().append(b"one"))
    agent.append(Lane(conversation=other).append(b"two"))
    assert [entry.record for entry in agent.entries().entries] == [b"one"]
    assert [entry.record for entry in agent.entries(other).entries] == [b"two"]
