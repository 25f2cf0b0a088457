"""What an append stores, and in what order it counts."""

from dataclasses import replace

import pytest

from memtenant.crypto.record import WRITER_LIFE
from memtenant.errors import VersionConflict, WriterOutOfStep, WriterUnknown
from memtenant.functions import Head, Marked, NewRecord, ReadUsage
from memtenant.functions.calls import MAX_BATCH
from memtenant.tenancy import keys
from tests.functions.tenants import (
    ALIAS,
    CONVERSATION,
    DATA_KEY,
    ONCE,
    Agent,
    Lane,
    acting,
    in_ms,
    mark,
    record,
    snapshot,
    writer,
)
from tests.stores.operators import ACME
from tests.support.servers import Server


@pytest.fixture
def agent(redis_server: Server) -> Agent:
    return acting(redis_server)


def test_an_append_is_read_back_with_the_servers_sequence_and_time(agent: Agent) -> None:
    before = in_ms()
    stored = agent.append(Lane().append(b"\xfafirst", b"\xfasecond", tag=b"subject!"))
    assert (stored.first, stored.last, stored.duplicate) == (1, 2, False)
    assert before <= stored.time <= in_ms()
    found = agent.entries()
    assert found.head == stored.head
    assert [entry.record for entry in found.entries] == [b"\xfafirst", b"\xfasecond"]
    assert [entry.header.sequence for entry in found.entries] == [1, 2]
    assert {entry.header.time for entry in found.entries} == {stored.time}
    assert {entry.header.subject_tag for entry in found.entries} == {b"subject!"}
    assert {entry.header.tokens for entry in found.entries} == {10}


def test_a_first_append_makes_key_index_and_membership_and_later_ones_leave_them(
    redis_server: Server, agent: Agent
) -> None:
    lane = Lane()
    first = agent.append(lane.append())
    agent.append(lane.append())
    with redis_server.admin() as admin:
        assert admin.hgetall(keys.dek(ACME, ALIAS)) == {b"dek": DATA_KEY}
        where = b"_:gvTnUlnA8Gysa7sCcDU1qw"
        assert admin.lrange(keys.subject_index(ACME, ALIAS), 0, -1) == [where]
        assert admin.zrange(keys.conversations(ACME), 0, -1, withscores=True) == [
            (where, float(first.time))
        ]
        assert admin.llen(keys.audit_queue(ACME)) == 0


def test_a_repeated_append_is_answered_as_before_and_stored_once(
    redis_server: Server, agent: Agent
) -> None:
    lane = Lane()
    agent.append(lane.append())
    call = lane.append(record(), record(), record())
    stored = agent.append(call)
    before = snapshot(redis_server)
    for _ in range(3):
        again = agent.append(call)
        assert again.duplicate
        assert (again.first, again.last, again.time) == (stored.first, stored.last, stored.time)
    assert snapshot(redis_server) == before
    part = replace(call, counter=call.counter + 1, records=call.records[1:])
    assert agent.append(part).first == stored.first + 1


def test_a_duplicate_of_long_ago_is_known_as_one(agent: Agent) -> None:
    lane = Lane()
    first = lane.append()
    agent.append(first)
    agent.append(lane.append())
    again = agent.append(first)
    assert again.duplicate
    assert (again.first, again.last) == (0, 0)
    assert len(agent.entries().entries) == 2


def test_a_counter_that_leaves_one_out_is_refused(redis_server: Server, agent: Agent) -> None:
    lane = Lane()
    with pytest.raises(WriterOutOfStep) as refused:
        agent.append(lane.append(counter=2))
    assert refused.value.last == 0
    agent.append(lane.append(counter=1))
    before = snapshot(redis_server)
    for counter, records in ((3, 1), (9, 2), (1, 2)):
        new = tuple(NewRecord(record()) for _ in range(records))
        with pytest.raises(WriterOutOfStep) as refused:
            agent.append(lane.append(counter=counter, records=new))
        assert refused.value.last == 1
    assert snapshot(redis_server) == before


def test_an_unknown_writer_that_opened_long_ago_or_in_the_future_is_refused(agent: Agent) -> None:
    now = in_ms() // 1000
    for opened in (0, now - 601, now + 120):
        with pytest.raises(WriterUnknown) as refused:
            agent.append(Lane(writer=opened.to_bytes(4, "big") + b"same").append())
        assert abs(refused.value.server_time - in_ms()) < 60_000
    agent.append(Lane(writer=(now - 500).to_bytes(4, "big") + b"same").append())


def test_a_writer_writes_for_a_day_and_what_it_stored_is_still_answered(
    redis_server: Server, agent: Agent
) -> None:
    """So the time at which it was opened says how young its messages can be."""
    lane = Lane(writer=(in_ms() // 1000 - 500).to_bytes(4, "big") + b"lane")
    agent.append(lane.append())
    opened = in_ms() // 1000 - WRITER_LIFE // 1000 - 60
    old = Lane(writer=opened.to_bytes(4, "big") + b"lane", counter=2)
    with redis_server.admin() as admin:
        kept = admin.hget(CONVERSATION.head, "writers") or b""
        admin.hset(CONVERSATION.head, "writers", old.writer + kept[8:])
        assert agent.append(replace(old).append(counter=1)).duplicate
        before = snapshot(redis_server)
        with pytest.raises(WriterUnknown) as refused:
            agent.append(old.append())
        assert abs(refused.value.server_time - in_ms()) < 60_000
        assert snapshot(redis_server) == before
        younger = (opened + 120).to_bytes(4, "big") + b"lane"
        admin.hset(CONVERSATION.head, "writers", younger + kept[8:])
        assert agent.append(Lane(writer=younger, counter=2).append()).first == 2


def test_idle_writers_leave_the_head_and_many_do_not_grow_it(
    redis_server: Server, agent: Agent
) -> None:
    start = in_ms() // 1000 - 590
    opening = (writer() for _ in range(100))
    idle = b"".join(
        one + bytes.fromhex("00000001 0001 0000000001") + (in_ms() - 600_001).to_bytes(6, "big")
        for one in opening
    )
    with redis_server.admin() as admin:
        agent.append(Lane(writer=start.to_bytes(4, "big") + b"here").append())
        kept = admin.hget(CONVERSATION.head, "writers") or b""
        admin.hset(CONVERSATION.head, "writers", idle + kept)
        for number in range(560):
            opened = (start + number).to_bytes(4, "big")
            agent.append(Lane(writer=opened + b"lane").append())
            if number == 0:
                assert len(admin.hget(CONVERSATION.head, "writers") or b"") == 2 * 25
        assert len(admin.hget(CONVERSATION.head, "writers") or b"") == 512 * 25


def test_a_writer_that_was_sent_away_to_make_room_is_not_taken_for_a_new_one(
    redis_server: Server, agent: Agent
) -> None:
    """It might have stored its first append: storing it again would double it."""
    opened = in_ms() // 1000 - 300
    first = Lane(writer=opened.to_bytes(4, "big") + b"lost").append()
    agent.append(first)
    for number in range(513):
        agent.append(
            Lane(writer=(opened + 1 + number // 2).to_bytes(4, "big") + writer()[4:]).append()
        )
    with pytest.raises(WriterUnknown):
        agent.append(first)


def test_an_idempotency_mark_answers_with_the_first_appends_mac(agent: Agent) -> None:
    key, mac = mark(), mark()
    stored = agent.append(Lane().append(records=(NewRecord(record(), 1, key, mac),)))
    other = Lane().append(records=(NewRecord(record()), NewRecord(record(), 1, key, mark())))
    answer = agent.call(other)
    assert answer == Marked(stored.epoch, 1, stored.last, stored.time, mac)
    assert len(agent.entries().entries) == 1


def test_the_last_128_marks_are_known_and_older_ones_leave(agent: Agent) -> None:
    lane = Lane()
    marks = [mark() for _ in range(300)]
    for key in marks:
        agent.append(lane.append(records=(NewRecord(record(), 1, key, key),)))
    for place, key in enumerate(marks):
        known = agent.call(Lane().append(records=(NewRecord(record(), 1, key, key),)))
        if place >= 300 - 128:
            assert isinstance(known, Marked), place
            assert known.sequence == place + 1
        elif place < 300 - 144:
            assert not isinstance(known, Marked)
            break


def test_an_expected_version_is_compared(redis_server: Server, agent: Agent) -> None:
    lane = Lane()
    stored = agent.append(lane.append(expected_epoch=0, expected_last=0))
    before = snapshot(redis_server)
    for epoch, last in ((stored.epoch, 0), (stored.epoch + 1, 1), (0, None)):
        with pytest.raises(VersionConflict) as conflict:
            agent.append(lane.append(expected_epoch=epoch, expected_last=last, counter=2))
        assert conflict.value.current == Head(stored.epoch, 1)
    assert snapshot(redis_server) == before
    agent.append(lane.append(expected_epoch=stored.epoch, expected_last=1, counter=2))


def test_the_counters_of_the_tenant_follow(agent: Agent) -> None:
    lane = Lane()
    for _ in range(3):
        agent.append(lane.append(record(), record()))
    usage = agent.call(ReadUsage(ONCE))
    assert (usage.messages, usage.conversations) == (6, 1)
    assert usage.bytes > 6 * 29
    assert usage.agents["default"].writes == 6
    assert abs(usage.agents["default"].last_update - in_ms()) < 60_000


def test_the_largest_batch_is_one_append(agent: Agent) -> None:
    stored = agent.append(Lane().append(*(b"x" * 200 for _ in range(MAX_BATCH))))
    assert stored.last == MAX_BATCH
    assert len(agent.entries().entries) == MAX_BATCH


def test_a_head_that_was_lost_is_read_from_the_list(redis_server: Server, agent: Agent) -> None:
    agent.append(Lane().append(record(), record()))
    with redis_server.admin() as admin:
        admin.delete(CONVERSATION.head)
    assert agent.append(Lane().append()).last == 3
