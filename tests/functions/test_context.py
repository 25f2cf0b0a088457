"""Shared contexts: versions, conflicts, tombstones, the log, and updates counted exactly once."""

import concurrent.futures
import secrets

import pytest

from memtenant.errors import MessageTooLarge, QuotaExceeded, VersionConflict
from memtenant.functions.context_calls import (
    ContextUpdate,
    DeleteContext,
    FieldUpdate,
    ReadChanges,
    ReadContext,
)
from memtenant.functions.context_replies import Changes, ContextConflict
from memtenant.functions.replies import Status
from memtenant.rules.acl import AccessState
from memtenant.tenancy import keys
from tests.functions.tenants import (
    AGENT,
    CONTEXT,
    CONTEXT_KEY,
    DATA_KEY,
    SUBJECT,
    Agent,
    acting,
    in_ms,
    mark,
    provision,
    set_limits,
    snapshot,
)
from tests.stores.operators import ACME
from tests.support.servers import Server

Expected = dict[str, int]


@pytest.fixture
def agent(redis_server: Server) -> Agent:
    return acting(redis_server)


def update(
    changes: dict[str, bytes | None], expected: Expected | None = None, **options: object
) -> ContextUpdate:
    fields = tuple(
        FieldUpdate(name, value, (expected or {}).get(name)) for name, value in changes.items()
    )
    return ContextUpdate(
        context=CONTEXT,
        updates=fields,
        data_key_name=CONTEXT_KEY,
        data_key=DATA_KEY,
        agent=AGENT,
        new_data_key=True,
        **{"mark": mark(), **options},  # type: ignore[arg-type]
    )


def values(agent: Agent) -> dict[str, bytes | None]:
    return {field.name: field.record for field in agent.call(ReadContext(CONTEXT)).fields}


def versions(agent: Agent) -> dict[str, int]:
    return {field.name: field.version for field in agent.call(ReadContext(CONTEXT)).fields}


def test_fields_are_set_deleted_and_read_by_name(agent: Agent) -> None:
    assert agent.call(ReadContext(CONTEXT)).revision == 0
    assert agent.call(update({"a": b"1", "b": b"2", "c": b"3"})).revision == 1
    assert agent.call(update({"b": None, "c": b"4"})).revision == 2
    assert values(agent) == {"a": b"1", "c": b"4"}
    assert versions(agent) == {"a": 1, "c": 2}
    found = agent.call(ReadContext(CONTEXT, ("c", "b", "none")))
    assert [field.name for field in found.fields] == ["c"]


def test_a_conflict_changes_nothing_and_tells_what_is_there(
    redis_server: Server, agent: Agent
) -> None:
    agent.call(update({"a": b"1", "b": b"2", "c": b"3"}))
    agent.call(update({"a": b"other", "b": None}))
    before = snapshot(redis_server)
    with pytest.raises(VersionConflict) as conflict:
        agent.call(
            update({"a": b"x", "b": b"x", "c": b"x", "d": b"x"}, {"a": 1, "b": 1, "c": 1, "d": 9})
        )
    assert snapshot(redis_server) == before
    current = conflict.value.current
    assert isinstance(current, ContextConflict)
    assert [(field.name, field.version, field.record) for field in current.fields] == [
        ("a", 2, b"other"),
        ("b", 2, None),
        ("d", 0, None),
    ]
    agent.call(update({"a": b"x", "b": b"x", "c": b"x"}, {"a": 2, "b": 0, "c": 1}))
    assert versions(agent) == {"a": 3, "b": 3, "c": 3}


def test_create_only_where_there_is_none(agent: Agent) -> None:
    agent.call(update({"a": b"1"}, expected_revision=0))
    with pytest.raises(VersionConflict):
        agent.call(update({"b": b"1"}, expected_revision=0))
    agent.call(update({"b": b"1"}, expected_revision=1))


def test_a_repeated_update_is_known_by_its_mark_even_after_others(
    redis_server: Server, agent: Agent
) -> None:
    first = update({"a": b"1"}, {"a": 0}, mark=b"m" * 16)
    done = agent.call(first)
    agent.call(update({"a": b"2"}))
    before = snapshot(redis_server)
    again = agent.call(update({"a": b"1"}, {"a": 0}, mark=b"m" * 16, retry=True))
    assert (again.duplicate, again.revision) == (True, done.revision)
    assert snapshot(redis_server) == before
    assert not agent.call(update({"a": b"3"}, retry=True)).duplicate


def test_changes_are_told_since_a_revision(agent: Agent) -> None:
    agent.call(update({"a": b"1"}))
    agent.call(update({"b": b"2", "a": None}))
    found = agent.call(ReadChanges(CONTEXT, 1))
    assert [(one.revision, one.field, one.deletes, one.agent) for one in found.changes] == [
        (2, "b", False, AGENT),
        (2, "a", True, AGENT),
    ]
    assert agent.call(ReadChanges(CONTEXT, 2)).changes == ()
    assert agent.call(ReadChanges(CONTEXT, 7)).status is Status.REWOUND


def test_the_log_keeps_a_thousand_changes_and_says_when_more_were_missed(
    redis_server: Server, agent: Agent
) -> None:
    for number in range(6):
        agent.call(update({f"f{number}-{place}": b"x" for place in range(250)}))
    with redis_server.admin() as admin:
        assert admin.llen(CONTEXT.changes) == 1000
    assert agent.call(ReadChanges(CONTEXT, 0)).status is Status.MISSED
    assert agent.call(ReadChanges(CONTEXT, 1)).status is Status.MISSED
    assert len(agent.call(ReadChanges(CONTEXT, 3)).changes) == 750


def test_an_update_that_the_log_kept_in_part_counts_as_missed(agent: Agent) -> None:
    agent.call(update({f"a{place}": b"x" for place in range(200)}))
    for number in range(4):
        agent.call(update({f"b{number}-{place}": b"x" for place in range(225)}))
    found: Changes = agent.call(ReadChanges(CONTEXT, 0))
    assert found.status is Status.MISSED
    assert agent.call(ReadChanges(CONTEXT, 1)).status is Status.OK


def test_a_deleted_context_is_gone_and_its_versions_never_come_back(
    redis_server: Server, agent: Agent
) -> None:
    agent.call(update({"a": b"1", "b": b"2"}, about=(SUBJECT.index,)))
    with redis_server.admin() as admin:
        where = b"c:YjbDGppGTepwOpzzL1xTMw"
        assert admin.lrange(SUBJECT.index, 0, -1) == [where + b":a", where + b":b"]
        assert admin.zrange(keys.conversations(ACME), 0, -1) == [where]
        assert agent.call(DeleteContext(CONTEXT, AGENT)).existed
        assert admin.exists(CONTEXT.values, CONTEXT.changes) == 0
        assert admin.zcard(keys.conversations(ACME)) == 0
        assert admin.hget(keys.usage(ACME), "bytes") == b"0"
    assert not agent.call(DeleteContext(CONTEXT, AGENT)).existed
    assert agent.call(ReadContext(CONTEXT)).deleted
    assert agent.call(ReadChanges(CONTEXT, 1)).status is Status.DELETED
    with pytest.raises(VersionConflict):
        agent.call(update({"a": b"x"}, {"a": 1}))
    agent.call(update({"a": b"new"}, expected_revision=0))
    assert versions(agent)["a"] > 1
    assert agent.call(ReadChanges(CONTEXT, 1)).status is Status.MISSED


def test_over_quota_a_context_can_be_deleted_and_not_written(
    redis_server: Server, agent: Agent
) -> None:
    agent.call(update({"a": b"1"}))
    provision(redis_server, state=AccessState(over_quota=True))
    before = snapshot(redis_server)
    for changes in ({"a": b"2"}, {"a": None}):
        with pytest.raises(QuotaExceeded):
            agent.call(update(changes))  # type: ignore[arg-type]
    assert snapshot(redis_server) == before
    assert agent.call(DeleteContext(CONTEXT, AGENT)).existed


def test_a_field_expires_by_its_own_age(redis_server: Server, agent: Agent) -> None:
    agent.call(update({"a": b"1", "b": b"2"}))
    with redis_server.admin() as admin:
        for key in (CONTEXT.values, CONTEXT.versions):
            entry = admin.hget(key, "a")
            assert isinstance(entry, bytes)
            old = (in_ms() - 1_000_000).to_bytes(6, "big")
            admin.hset(key, "a", entry[:6] + old + entry[12:])
    set_limits(redis_server, cutoff_content=in_ms() - 500_000)
    assert values(agent) == {"b": b"2"}
    agent.call(update({"a": b"again"}, {"a": 0}))
    assert versions(agent) == {"a": 2, "b": 1}


def test_a_large_context_is_read_in_parts(agent: Agent) -> None:
    whole = {f"f{place:02}": secrets.token_bytes(250_000) for place in range(40)}
    for name, value in whole.items():
        agent.call(update({name: value}))
    found = agent.call(ReadContext(CONTEXT))
    assert found.remaining
    rest = agent.call(ReadContext(CONTEXT, found.remaining))
    both = {field.name: field.record for field in (*found.fields, *rest.fields)}
    assert both == whole


def test_a_context_has_a_limit_of_fields_and_of_a_records_size(agent: Agent) -> None:
    for number in range(15):
        agent.call(update({f"f{number}-{place}": b"x" for place in range(256)}))
    agent.call(update({f"f15-{place}": b"x" for place in range(255)}))
    with pytest.raises(QuotaExceeded) as refused:
        agent.call(update({"one-more": b"x", "and-another": b"x"}))
    assert refused.value.limit == "fields"
    with pytest.raises(MessageTooLarge):
        agent.call(update({"f0-0": b"x" * (256 * 1024 + 1)}))


def test_concurrent_increments_with_lost_replies_all_count(
    redis_server: Server, agent: Agent
) -> None:
    """Each writer reads, adds one and writes back; every third reply is thrown away."""
    name = provision(redis_server).name
    agent.call(update({"n": b"0"}))

    def work(seed: int) -> None:
        with Agent(redis_server, name) as own:
            for number in range(40):
                while True:
                    (field,) = own.call(ReadContext(CONTEXT, ("n",))).fields
                    following = b"%d" % (int(field.record or b"0") + 1)
                    one, expected = mark(), {"n": field.version}
                    try:
                        own.call(update({"n": following}, expected, mark=one))
                        if (seed + number) % 3 == 0:
                            again = update({"n": following}, expected, mark=one, retry=True)
                            assert own.call(again).duplicate
                    except VersionConflict:
                        continue
                    break

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert values(agent) == {"n": b"320"}
