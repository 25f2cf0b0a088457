"""Each key poisoned, each permission taken, each limit reached in turn: all is written, or nothing.

Lua does not roll back, so a Function that finds out too late leaves half of its work. What is
compared is every key of the server.
"""

from collections.abc import Iterator, Mapping

import pytest
import redis

from memtenant.errors import (
    AccessDenied,
    AccessReadOnly,
    AuditEventRequired,
    AuditUnavailable,
    DataError,
    DataKeyChanged,
    FunctionFailed,
    HistoryDamaged,
    KeyRetired,
    MessageTooLarge,
    QuotaExceeded,
    SubjectErased,
    TenantHeld,
    TenantUnprovisioned,
)
from memtenant.functions.fcall import Words
from memtenant.rules.acl import AccessState, AclUser, AgentAccess
from memtenant.tenancy import keys
from tests.conftest import StartServer
from tests.functions.catalogue import (
    EVENT,
    Place,
    audited_calls,
    declared,
    epoch_of,
    every_call,
    fill,
    reading_calls,
    writing_calls,
)
from tests.functions.tenants import (
    Agent,
    Books,
    acting,
    in_ms,
    provision,
    set_limits,
    snapshot,
)
from tests.stores.operators import ACME
from tests.support.servers import Flavour, Options, Server

PLACE = Place(ACME)
DELETING = {
    *("pop", "clear", "delete", "context_delete", "checkpoint_delete"),
}
SEALING = {
    *("append", "update", "summarise", "context_update"),
    *("checkpoint_put", "checkpoint_writes"),
}


@pytest.fixture
def agent(redis_server: Server) -> Iterator[Agent]:
    with acting(redis_server) as agent:
        fill(agent, PLACE)
        yield agent


def refused(agent: Agent, words: Words) -> Exception | None:
    """What the call came to: the refusal, or None where it was done."""
    try:
        agent.send(words)
    except (DataError, redis.exceptions.ResponseError) as error:
        return error
    return None


def test_each_keys_type_poisoned_in_turn(redis_server: Server, agent: Agent) -> None:
    """Also types that no agent could make, and keys that the call would have created."""
    calls = every_call(PLACE, epoch_of(agent, PLACE))
    poisons = (
        ("SET", "text"),
        ("RPUSH", "element"),
        ("HSET", "field", "value"),
        ("SADD", "member"),
        ("ZADD", "1", "member"),
        ("XADD", "*", "field", "value"),
    )
    damaged = 0
    with Books(redis_server) as books:
        for key in {key for words in calls.values() for key in declared(words)}:
            for command, *arguments in poisons:
                poisoning = (("DEL", key), (command, key, *arguments))
                books.restore(*poisoning)
                for name, words in calls.items():
                    if key not in declared(words):
                        continue
                    error = refused(agent, words)
                    if error is None:
                        books.restore(*poisoning)
                        continue
                    assert isinstance(error, DataError), (name, poisoning, error)
                    assert not isinstance(error, FunctionFailed), (name, poisoning, error)
                    assert books.unchanged(), (name, poisoning)
                    damaged += isinstance(error, HistoryDamaged)
    assert damaged > 200


def test_each_permission_taken_in_turn(redis_server: Server, agent: Agent) -> None:
    """The user's own rules, less one command or on fewer keys."""
    user = provision(redis_server)
    calls = every_call(PLACE, epoch_of(agent, PLACE))
    denied = denied_in_turn(redis_server, agent, user, calls)
    assert denied > 200


_USED = (
    *("rpush", "hset", "hsetnx", "hincrby", "hdel", "lset", "ltrim", "rpop", "unlink", "zadd"),
    *("zrem", "persist", "pexpire", "hget", "hmget", "hgetall", "hkeys", "hlen", "hstrlen"),
    "hexists",
    *("llen", "lindex", "lrange", "zcard", "zscore", "exists", "pttl"),
)


def denied_in_turn(server: Server, agent: Agent, user: AclUser, calls: Mapping[str, Words]) -> int:
    """How many calls are refused under poorer rules: each says why, and has written nothing."""
    denied = 0
    with Books(server) as books, server.admin() as admin:
        for rules in poorer_rules(user.rules):
            admin.execute_command(
                "ACL", "SETUSER", user.name, "resetkeys", "clearselectors", *rules
            )
            for name, words in calls.items():
                error = refused(agent, words)
                if error is None:
                    books.restore()
                    continue
                denied += 1
                assert isinstance(error, DataError), (name, rules, error)
                assert not isinstance(error, FunctionFailed), (name, rules, error)
                assert books.unchanged(), (name, rules)
    return denied


def poorer_rules(rules: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The rules less one command, or with one key fewer, each in turn."""
    content = f"~{keys.records(ACME)}*"
    for place, rule in enumerate(rules):
        before, after = rules[:place], rules[place + 1 :]
        for command in _USED:
            less = _without(rule, command)
            if less != rule:
                yield (*before, *less, *after)
        if rule.startswith("~"):
            yield (*before, *after)
            yield (*before, f"%R{rule}", *after)
        if rule == content:
            for part in ("*:l", "*:h", "*:s", "*:g", "c:*", "c:*:v", "_:*"):
                narrow = f"~{keys.records(ACME)}{part}"
                yield (*before, f"%R{rule}", narrow, *after)
                yield (*before, narrow, *after)


def _without(rule: str, command: str) -> tuple[str, ...] | str:
    """The rule less the command: nothing of a plain rule, a shorter selector; itself if it has
    not got it."""
    if rule == f"+{command}":
        return ()
    if rule.startswith("(") and f"+{command}" in rule.strip("()").split():
        words = [word for word in rule.strip("()").split() if word != f"+{command}"]
        if not any(word.startswith("+") for word in words):
            return ()
        return (f"({' '.join(words)})",)
    return rule


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"memory": 1}, QuotaExceeded),
        ({"least_kek": 2}, KeyRetired),
        ({"format": None}, TenantUnprovisioned),
        ({"format": "2"}, DataError),
        ({"memory": "many"}, TenantUnprovisioned),
        ({"audit": 1, "audit_heartbeat": 0}, AuditUnavailable),
        ({"audit": 1, "on_failure": "Closed"}, AuditUnavailable),
        ({"audit": 1, "audit_heartbeat": 10**13}, AuditEventRequired),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_limit_in_turn(
    redis_server: Server, agent: Agent, limits: dict[str, object], error: type[DataError]
) -> None:
    calls = writing_calls(PLACE, epoch_of(agent, PLACE))
    set_limits(redis_server, **limits)
    refusals = {}
    with Books(redis_server) as books:
        for name, words in calls.items():
            books.restore()
            found = refused(agent, words)
            if found is not None:
                assert isinstance(found, error), (name, found)
                refusals[name] = found
                assert books.unchanged(), name
    expected = set(calls)
    if error in (QuotaExceeded, KeyRetired):
        expected = SEALING
    elif error in (AuditUnavailable, AuditEventRequired):
        expected -= {"lease"}  # says nothing about anybody's content
    assert refusals.keys() == expected


def within_a_second(books: Books, agent: Agent, call: Words) -> Exception | None:
    """What the call came to in a second of which five writes are used up."""
    while True:
        second = in_ms() // 1000
        used = second.to_bytes(6, "big") + (5).to_bytes(5, "big")
        books.restore(("HSET", keys.usage(ACME), "rate", used))
        found = refused(agent, call)
        if in_ms() // 1000 == second:
            return found


def test_the_other_limits_of_an_append(redis_server: Server, agent: Agent) -> None:
    words = writing_calls(PLACE, epoch_of(agent, PLACE))["append"]
    full = (*words[:-1], b"x" * (256 * 1024 + 1))
    for changes, call, error in (
        ({}, full, MessageTooLarge),
        ({"conversations": 1}, _elsewhere(words), QuotaExceeded),
        ({"writes_per_second": 1}, words, QuotaExceeded),
    ):
        set_limits(redis_server, conversations=1000, writes_per_second=1_000_000)
        set_limits(redis_server, **changes)
        with Books(redis_server) as books:
            found = within_a_second(books, agent, call)
            assert isinstance(found, error), (changes, found)
            assert books.unchanged(), changes
        if isinstance(found, QuotaExceeded) and found.limit == "writes_per_second":
            assert found.retryable
            assert 0 < (found.retry_after or 0) <= 1


def _elsewhere(words: Words) -> Words:
    """The same append to a conversation that does not exist, by a new lane's first counter."""
    text = tuple(
        word.replace(b":conversation:", b":another:") if isinstance(word, bytes) else word
        for word in words
    )
    return (*text[:12], 1, *text[13:])


def test_a_data_key_that_changed_or_went_or_was_erased(redis_server: Server, agent: Agent) -> None:
    calls = writing_calls(PLACE, epoch_of(agent, PLACE))
    data_keys = (PLACE.subject.data_key, PLACE.context_key)
    with Books(redis_server) as books:
        for field, error in (
            (("dek", b"\0\0\0\1" + b"z" * 40), DataKeyChanged),
            ((), DataKeyChanged),
            (("erased", b"tombstone"), SubjectErased),
        ):
            changes: list[tuple[str | bytes, ...]] = [("DEL", *data_keys)]
            changes += [("HSET", key, *field) for key in data_keys if field]
            for name in SEALING:
                books.restore(*changes)
                assert isinstance(refused(agent, calls[name]), error), name
                assert books.unchanged(), name


@pytest.mark.parametrize(
    ("state", "access", "error", "allowed"),
    [
        (AccessState(held=True), AgentAccess.READ_WRITE, TenantHeld, {"append", "lease"}),
        (
            AccessState(over_quota=True),
            AgentAccess.READ_WRITE,
            QuotaExceeded,
            {*DELETING, "lease"},
        ),
        (AccessState(over_quota=True, held=True), AgentAccess.READ_WRITE, AccessReadOnly, set()),
        (AccessState(), AgentAccess.READ_ONLY, AccessReadOnly, set()),
    ],
    ids=["held", "over-quota", "held-over-quota", "read-only"],
)
def test_each_state_of_access(
    redis_server: Server,
    agent: Agent,
    state: AccessState,
    access: AgentAccess,
    error: type[DataError],
    allowed: set[str],
) -> None:
    calls = writing_calls(PLACE, epoch_of(agent, PLACE))
    provision(redis_server, state=state, access=access)
    done = set()
    with Books(redis_server) as books:
        for name, words in calls.items():
            books.restore()
            found = refused(agent, words)
            if found is None:
                done.add(name)
            else:
                assert isinstance(found, error), (name, found)
                assert books.unchanged(), name
        assert done == {*allowed, "event"}  # what happens is told in every state
        books.restore()
        for name, words in {**reading_calls(PLACE), **audited_calls(PLACE)}.items():
            assert refused(agent, words) is None, name
        assert books.unchanged()


def test_under_a_hold_an_append_trims_nothing_and_brings_a_deleted_conversation_back(
    redis_server: Server, agent: Agent
) -> None:
    calls = writing_calls(PLACE, epoch_of(agent, PLACE))
    provision(redis_server, state=AccessState(held=True))
    set_limits(redis_server, cutoff_content=in_ms() + 60_000)
    assert refused(agent, calls["append"]) is None
    with redis_server.admin() as admin:
        assert admin.llen(PLACE.conversation.list) == 7
        provision(redis_server)
        agent.send(calls["delete"])
        provision(redis_server, state=AccessState(held=True))
        later = (*calls["append"][:12], 8, *calls["append"][13:])
        no_marks = (*later[:21], 1, b"", b"one", 1, b"", b"two")
        assert refused(agent, no_marks) is None
        assert admin.ttl(PLACE.conversation.head) == -1


def test_a_refusal_is_an_event_where_the_tenant_is_audited_and_nothing_else(
    redis_server: Server, agent: Agent
) -> None:
    epoch = epoch_of(agent, PLACE)
    set_limits(redis_server, audit=1, audit_heartbeat=in_ms() + 60_000, memory=1)
    words = writing_calls(PLACE, epoch, EVENT)["append"]
    before = snapshot(redis_server)
    assert isinstance(refused(agent, words), QuotaExceeded)
    after = snapshot(redis_server)
    queue = keys.audit_queue(ACME).encode()
    with redis_server.admin() as admin:
        (event,) = admin.lrange(queue, 0, -1)
    assert event[: len(EVENT)] == EVENT
    assert event[len(EVENT) : len(EVENT) + 1] == b"R"
    assert {key: value for key, value in after.items() if key != queue} == before


def test_without_the_queues_permission_nothing_that_is_audited_happens(
    redis_server: Server, agent: Agent
) -> None:
    user = provision(redis_server)
    epoch = epoch_of(agent, PLACE)
    set_limits(redis_server, audit=1, audit_heartbeat=in_ms() + 60_000)
    rules = [rule for rule in user.rules if not rule.startswith("(+rpush %W~")]
    with redis_server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", user.name, "resetkeys", "clearselectors", *rules)
    before = snapshot(redis_server)
    for name, words in {**writing_calls(PLACE, epoch, EVENT), **audited_calls(PLACE)}.items():
        if name != "lease":
            assert isinstance(refused(agent, words), AccessDenied), name
    assert snapshot(redis_server) == before


def test_a_full_server_refuses_writes_whole_and_still_reads_and_deletes(
    flavour: Flavour, start_server: StartServer
) -> None:
    server = start_server(flavour, Options())
    with acting(server) as agent, server.admin() as admin:
        fill(agent, PLACE)
        calls = writing_calls(PLACE, epoch_of(agent, PLACE), EVENT)
        set_limits(server, audit=1, audit_heartbeat=in_ms() + 60_000)
        admin.config_set("maxmemory", "1")
        before = snapshot(server)
        for name in SEALING:
            assert isinstance(refused(agent, calls[name]), redis.exceptions.OutOfMemoryError), name
        assert snapshot(server) == before
        for name, words in {**reading_calls(PLACE), **audited_calls(PLACE)}.items():
            assert refused(agent, words) is None, name
        for name in (
            *("pop", "remove", "context_delete", "checkpoint_delete"),
            *("clear", "delete"),
        ):
            assert refused(agent, calls[name]) is None, name
