"""The audit queue: an event for what was done or refused, only where the limits say so."""

import struct
from collections.abc import Iterator

import pytest

from memtenant.errors import AuditEventRequired, AuditUnavailable, VersionConflict
from memtenant.functions import ReadRange, ReadUsage
from memtenant.tenancy import keys
from tests.functions.catalogue import (
    EVENT,
    LANES,
    Place,
    audited_calls,
    epoch_of,
    fill,
    reading_calls,
    writing_calls,
)
from tests.functions.tenants import ONCE, Agent, Lane, acting, in_ms, set_limits, snapshot
from tests.stores.operators import ACME
from tests.support.servers import Server

PLACE = Place(ACME)
TRAILER = struct.Struct(">c6s5s")


@pytest.fixture
def agent(redis_server: Server) -> Iterator[Agent]:
    with acting(redis_server) as agent:
        fill(agent, PLACE)
        yield agent


def auditing(server: Server, **further: object) -> None:
    set_limits(server, audit=1, audit_heartbeat=in_ms(), **further)


def events(server: Server) -> list[tuple[bytes, str, int, int]]:
    """The client's part, the outcome, time and sequence of each event; the queue is drained."""
    with server.admin() as admin:
        raw = [bytes(one) for one in admin.lrange(keys.audit_queue(ACME), 0, -1)]
        admin.delete(keys.audit_queue(ACME))
    found = []
    for one in raw:
        outcome, time, sequence = TRAILER.unpack(one[-TRAILER.size :])
        found.append(
            (
                one[: -TRAILER.size],
                outcome.decode(),
                int.from_bytes(time, "big"),
                int.from_bytes(sequence, "big"),
            )
        )
    return found


def test_no_event_is_written_where_nobody_asked_for_one(redis_server: Server, agent: Agent) -> None:
    for words in writing_calls(PLACE, epoch_of(agent, PLACE), EVENT).values():
        agent.send(words)
    assert events(redis_server) == []


def test_every_write_leaves_one_event_with_outcome_time_and_sequence(
    redis_server: Server, agent: Agent
) -> None:
    epoch = epoch_of(agent, PLACE)
    auditing(redis_server)
    for name, words in writing_calls(PLACE, epoch, EVENT).items():
        if name in ("lease", "summarise"):
            continue
        agent.send(words)
        ((event, outcome, time, sequence),) = events(redis_server)
        assert (event, outcome) == (EVENT, "O"), name
        assert abs(time - in_ms()) < 60_000
        assert sequence == {"append": 7, "update": 3}.get(name, sequence)


def test_a_repeated_write_leaves_no_second_event(redis_server: Server, agent: Agent) -> None:
    auditing(redis_server)
    words = writing_calls(PLACE, 1, EVENT)["append"]
    for _ in range(3):
        agent.send(words)
    assert len(events(redis_server)) == 1


def test_a_conflict_leaves_an_event(redis_server: Server, agent: Agent) -> None:
    auditing(redis_server)
    lane = Lane(PLACE.conversation, PLACE.subject, LANES[ACME], 6)
    with pytest.raises(VersionConflict):
        agent.append(lane.append(expected_last=1, event=EVENT))
    assert [one[1] for one in events(redis_server)] == ["C"]


def test_closed_refuses_while_nobody_drains_and_open_counts_what_was_dropped(
    redis_server: Server, agent: Agent
) -> None:
    calls = writing_calls(PLACE, epoch_of(agent, PLACE), EVENT)
    auditing(redis_server)
    set_limits(redis_server, audit_heartbeat=in_ms() - 61_000, on_failure="Closed")
    before = snapshot(redis_server)
    for words in (calls["append"], *audited_calls(PLACE).values()):
        with pytest.raises(AuditUnavailable) as refused:
            agent.send(words)
        assert refused.value.retryable
    assert snapshot(redis_server) == before
    set_limits(redis_server, on_failure="Open")
    for number, words in enumerate((calls["append"], *audited_calls(PLACE).values()), 1):
        agent.send(words)
        assert agent.call(ReadUsage(ONCE)).dropped_events == number
    assert events(redis_server) == []


def test_reads_are_audited_where_the_policy_says_so(redis_server: Server, agent: Agent) -> None:
    auditing(redis_server)
    for words in reading_calls(PLACE).values():
        agent.send(words)
    auditing(redis_server, audit_reads=1)
    for name, words in reading_calls(PLACE).items():
        if name != "usage":  # counters, no content
            with pytest.raises(AuditEventRequired):
                agent.send(words)
    assert events(redis_server) == []
    for words in audited_calls(PLACE).values():
        agent.send(words)
        assert [(one[0], one[1]) for one in events(redis_server)] == [(EVENT, "O")]


def test_an_audited_read_answers_as_the_other(redis_server: Server, agent: Agent) -> None:
    plain = agent.call(ReadRange(PLACE.conversation))
    auditing(redis_server)
    words = audited_calls(PLACE)["read_audited"]
    assert ReadRange(PLACE.conversation).read(agent.send(words)).entries == plain.entries
