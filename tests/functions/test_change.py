"""Pop, remove, update, clear, delete: what goes, what stays; a second try does no harm."""

import time

import pytest

from memtenant.errors import MessageNotFound, QuotaExceeded, VersionConflict, WriterOutOfStep
from memtenant.functions import (
    Call,
    Changed,
    Clear,
    Pop,
    Popped,
    ReadRange,
    ReadUsage,
    Remove,
    Update,
)
from memtenant.functions.summary_calls import ReadSummaries, Summarise, TakeLease
from memtenant.rules.acl import AccessState
from tests.functions.tenants import (
    AGENT,
    CONVERSATION,
    DATA_KEY,
    ONCE,
    SUBJECT,
    Agent,
    Lane,
    acting,
    in_ms,
    mark,
    provision,
    record,
    set_limits,
    snapshot,
)
from tests.support.servers import Server

OVER = AccessState(over_quota=True)


@pytest.fixture
def agent(redis_server: Server) -> Agent:
    return acting(redis_server)


def filled(agent: Agent, count: int = 5) -> Lane:
    lane = Lane()
    agent.append(lane.append(*(b"number %d" % number for number in range(1, count + 1))))
    return lane


def alive(agent: Agent) -> list[bytes]:
    return [entry.record for entry in agent.entries().entries if not entry.header.tombstone]


def update(sequence: int, text: bytes = b"changed", **options: object) -> Update:
    return Update(CONVERSATION, SUBJECT, sequence, text, DATA_KEY, AGENT, **options)  # type: ignore[arg-type]


def told(answer: Popped | Changed) -> int:
    """Which message it took, or how many."""
    return answer.sequence if isinstance(answer, Popped) else answer.affected


def test_pop_takes_the_last_message_and_its_sequence_is_not_used_again(agent: Agent) -> None:
    lane = filled(agent)
    popped = agent.call(Pop(CONVERSATION, AGENT))
    assert popped.entry is not None
    assert (popped.entry.record, popped.sequence) == (b"number 5", 5)
    assert popped.epoch == popped.epoch_before + 1
    assert agent.call(Pop(CONVERSATION, AGENT)).sequence == 4
    assert alive(agent) == [b"number 1", b"number 2", b"number 3"]
    assert agent.append(lane.append()).last == 6
    assert agent.call(ReadUsage(ONCE)).messages == 4


def test_pop_of_nothing_changes_nothing(redis_server: Server, agent: Agent) -> None:
    filled(agent, 1)
    agent.call(Pop(CONVERSATION, AGENT))
    before = snapshot(redis_server)
    assert agent.call(Pop(CONVERSATION, AGENT)).entry is None
    assert snapshot(redis_server) == before


def test_a_second_try_of_a_marked_change_does_nothing_more(
    redis_server: Server, agent: Agent
) -> None:
    lane = filled(agent)
    calls: tuple[Call[Popped | Changed], ...] = (
        Pop(CONVERSATION, AGENT, mark()),
        Remove(CONVERSATION, (2,), AGENT, mark()),
        Clear(CONVERSATION, AGENT, mark=mark()),
        Clear(CONVERSATION, AGENT, delete=True, mark=mark()),
    )
    for call in calls:
        agent.append(lane.append())
        first = agent.call(call)
        assert not first.duplicate
        agent.append(lane.append(b"by somebody else, meanwhile"))
        before = snapshot(redis_server)
        again = agent.call(call)
        assert again.duplicate
        assert told(again) == told(first)
        assert snapshot(redis_server) == before


def test_pop_of_another_message_than_expected_is_a_conflict(agent: Agent) -> None:
    filled(agent)
    with pytest.raises(VersionConflict):
        agent.call(Pop(CONVERSATION, AGENT, expected_sequence=4))
    assert agent.call(Pop(CONVERSATION, AGENT, expected_sequence=5)).sequence == 5


def test_over_quota_pop_clear_and_delete_work_and_one_in_the_middle_does_not(
    redis_server: Server, agent: Agent
) -> None:
    filled(agent)
    agent.call(Pop(CONVERSATION, AGENT))
    provision(redis_server, state=OVER)
    with pytest.raises(QuotaExceeded, match="measured"):
        agent.call(Remove(CONVERSATION, (2,), AGENT))
    popped = agent.call(Pop(CONVERSATION, AGENT))
    assert popped.entry is not None
    assert popped.entry.record == b"number 4"
    with redis_server.admin() as admin:
        assert admin.llen(CONVERSATION.list) == 3  # the tombstone behind it went too
    provision(redis_server)
    lane = Lane()
    assert agent.append(lane.append(b"number 6")).last == 6
    agent.append(lane.append(b"number 7"))
    assert agent.call(ReadRange(CONVERSATION, 3, 6)).entries[-1].record == b"number 6"
    agent.call(update(6))
    assert alive(agent)[-2:] == [b"changed", b"number 7"]
    provision(redis_server, state=OVER)
    for sequence in (7, 6, 3, 2, 1):
        assert agent.call(Pop(CONVERSATION, AGENT)).sequence == sequence
    assert agent.call(ReadUsage(ONCE)).conversations == 0
    provision(redis_server)
    agent.append(lane.append())
    provision(redis_server, state=OVER)
    assert agent.call(Clear(CONVERSATION, AGENT)).affected == 1
    assert agent.call(Clear(CONVERSATION, AGENT, delete=True)).epoch > 0


def test_removed_messages_leave_tombstones_with_sequence_and_time(agent: Agent) -> None:
    filled(agent)
    before = agent.entries()
    changed = agent.call(Remove(CONVERSATION, (2, 4, 99), AGENT))
    assert changed.affected == 2
    after = agent.entries()
    assert [entry.header.tombstone for entry in after.entries] == [False, True] * 2 + [False]
    for old, new in zip(before.entries, after.entries, strict=True):
        assert (old.header.sequence, old.header.time) == (new.header.sequence, new.header.time)
    assert agent.call(Remove(CONVERSATION, (2, 4), AGENT)).affected == 0


def test_an_update_keeps_sequence_and_time_and_a_second_try_is_known(
    redis_server: Server, agent: Agent
) -> None:
    filled(agent)
    before = agent.entries().entries[2].header
    call = update(3, tokens=77)
    first = agent.call(call)
    assert (first.epoch, first.duplicate) == (first.epoch_before + 1, False)
    stored = snapshot(redis_server)
    assert agent.call(call).duplicate
    assert snapshot(redis_server) == stored
    entry = agent.entries().entries[2]
    assert entry.record == b"changed"
    assert (entry.header.sequence, entry.header.time) == (before.sequence, before.time)
    assert entry.header.tokens == 77


def test_what_is_gone_cannot_be_updated(redis_server: Server, agent: Agent) -> None:
    filled(agent)
    agent.call(Remove(CONVERSATION, (2,), AGENT))
    for sequence in (2, 6):
        with pytest.raises(MessageNotFound):
            agent.call(update(sequence))
    set_limits(redis_server, cutoff_content=in_ms() + 60_000)
    with pytest.raises(MessageNotFound):
        agent.call(update(3))


def test_an_update_of_another_epoch_is_a_conflict(agent: Agent) -> None:
    filled(agent)
    epoch = agent.entries().head.epoch
    agent.call(update(1, expected_epoch=epoch))
    with pytest.raises(VersionConflict):
        agent.call(update(2, expected_epoch=epoch))


def test_clear_takes_everything_and_sequences_go_on(redis_server: Server, agent: Agent) -> None:
    lane = filled(agent)
    with redis_server.admin() as admin:
        admin.rpush(CONVERSATION.summaries, b"summary")
        admin.hset(CONVERSATION.checkpoints, "a", "b")
        cleared = agent.call(Clear(CONVERSATION, AGENT))
        assert (cleared.affected, cleared.epoch) == (5, cleared.epoch_before + 1)
        left = [CONVERSATION.list, CONVERSATION.summaries, CONVERSATION.checkpoints]
        assert admin.exists(*left) == 0
        assert admin.zcard("mt:{support.acme}:x") == 0
    usage = agent.call(ReadUsage(ONCE))
    assert (usage.messages, usage.conversations, usage.bytes) == (0, 0, 0)
    assert agent.append(lane.append()).first == 6


def test_a_deleted_conversation_leaves_its_head_for_late_retries_and_then_nothing(
    redis_server: Server, agent: Agent
) -> None:
    lane = filled(agent, 1)
    late = lane.append(record(), meta=b"title")
    agent.append(late)
    deleted = agent.call(Clear(CONVERSATION, AGENT, delete=True))
    assert agent.append(late).duplicate
    with redis_server.admin() as admin:
        assert not admin.hexists(CONVERSATION.head, "meta")
        assert 0 < admin.pttl(CONVERSATION.head) <= 900_000
        stored = agent.append(lane.append())
        assert admin.pttl(CONVERSATION.head) == -1
        assert (stored.epoch, stored.first) == (deleted.epoch, 3)
        agent.call(Clear(CONVERSATION, AGENT, delete=True))
        admin.delete(CONVERSATION.head)  # as its time to live would
    time.sleep(0.05)  # epochs begin as the time: the 15 minutes of the head's life, in short
    assert agent.append(Lane().append()).epoch > deleted.epoch + 1
    with pytest.raises(WriterOutOfStep):
        agent.append(lane.append())


def test_a_clear_of_another_epoch_is_a_conflict(agent: Agent) -> None:
    filled(agent)
    epoch = agent.entries().head.epoch
    agent.call(Pop(CONVERSATION, AGENT))
    with pytest.raises(VersionConflict):
        agent.call(Clear(CONVERSATION, AGENT, expected_epoch=epoch))


def summary(
    agent: Agent, before: int, covered: int, *, epoch: int | None = None, folds: bool = False
) -> Summarise:
    return Summarise(
        CONVERSATION,
        SUBJECT,
        b"h" * 16,
        agent.entries().head.epoch if epoch is None else epoch,
        before,
        covered,
        record(),
        DATA_KEY,
        AGENT,
        folds=folds,
    )


def test_one_summariser_at_a_time(agent: Agent) -> None:
    filled(agent)
    assert agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000)).held
    assert agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000)).held
    assert not agent.call(TakeLease(CONVERSATION, b"o" * 16, 60_000)).held
    agent.call(TakeLease(CONVERSATION, b"h" * 16, 0))
    assert agent.call(TakeLease(CONVERSATION, b"o" * 16, 60_000)).held


def test_a_summary_is_kept_if_nothing_changed_and_is_as_old_as_its_oldest_source(
    agent: Agent,
) -> None:
    filled(agent)
    oldest = agent.entries().entries[0].header.time
    with pytest.raises(VersionConflict):
        agent.call(summary(agent, 0, 3))  # without the lease
    agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000))
    call = summary(agent, 0, 3)
    assert agent.call(call).covered == 3
    assert agent.call(call).duplicate
    for before, covered, epoch in ((0, 4, None), (3, 6, None), (3, 4, 7)):
        with pytest.raises(VersionConflict):
            agent.call(summary(agent, before, covered, epoch=epoch))
    agent.call(summary(agent, 3, 5, folds=True))
    (kept,) = agent.call(ReadSummaries(CONVERSATION)).entries
    assert (kept.header.sequence, kept.header.time) == (5, oldest)


@pytest.mark.parametrize("how", ["pop", "remove", "update"])
def test_a_summary_goes_with_any_of_its_sources(agent: Agent, how: str) -> None:
    filled(agent)
    agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000))
    agent.call(summary(agent, 0, 3))
    agent.call(Remove(CONVERSATION, (4,), AGENT))
    assert len(agent.call(ReadSummaries(CONVERSATION)).entries) == 1
    if how == "pop":
        agent.call(Pop(CONVERSATION, AGENT))
        agent.call(Pop(CONVERSATION, AGENT))
    elif how == "remove":
        agent.call(Remove(CONVERSATION, (5, 2), AGENT))
    else:
        agent.call(update(1))
    assert agent.call(ReadSummaries(CONVERSATION)).entries == ()
    assert agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000)).covered == 0


def test_a_summary_expires_with_derived_data(redis_server: Server, agent: Agent) -> None:
    filled(agent)
    agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000))
    agent.call(summary(agent, 0, 3))
    set_limits(redis_server, cutoff_derived=in_ms() + 60_000)
    assert agent.call(ReadSummaries(CONVERSATION)).entries == ()
    assert len(agent.entries().entries) == 5
    # What is left of its sources is covered by the next one, which takes its place.
    assert agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000)).covered == 0
    agent.call(summary(agent, 0, 4))
    set_limits(redis_server, cutoff_derived=0)
    (kept,) = agent.call(ReadSummaries(CONVERSATION)).entries
    assert kept.header.sequence == 4


def test_the_bytes_of_a_summary_are_given_back(agent: Agent) -> None:
    filled(agent)
    agent.call(update(1))
    without = agent.call(ReadUsage(ONCE)).bytes
    agent.call(TakeLease(CONVERSATION, b"h" * 16, 60_000))
    agent.call(summary(agent, 0, 3))
    agent.call(summary(agent, 3, 5, folds=True))
    assert agent.call(ReadUsage(ONCE)).bytes > without
    agent.call(update(1, b"another"))
    assert agent.call(ReadUsage(ONCE)).bytes == without
    agent.call(Clear(CONVERSATION, AGENT))
    assert agent.call(ReadUsage(ONCE)).bytes == 0
