"""Arguments of any kind, any number of them, and hostile contents of the keys: no crash, no half.

A nil handed to the server in a Function crashed Redis 7.4 and 8.2 at the next demotion to a
replica, so the server is demoted and promoted after all this.
"""

from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtenant.errors import CallInvalid, DataError, FunctionFailed
from memtenant.functions.fcall import Word, Words
from tests.conftest import StartServer
from tests.functions.catalogue import (
    IDS,
    ROOT,
    Place,
    declared,
    epoch_of,
    every_call,
    expiring_calls,
    fill,
    name_of,
)
from tests.functions.tenants import Agent, Books, acting, in_ms, set_limits
from tests.stores.operators import ACME
from tests.support.servers import Flavour, Options, Server

PLACE = Place(ACME)
GARBAGE = st.one_of(
    st.sampled_from(
        [
            *(b"", b"nil", b"nan", b"inf", b"-1", b"0", b"1.5", b"0x10", b"1e9", b" 1", b"true"),
            *(b"9" * 15, b"9" * 400, b"\0", b"\xff" * 8, b"\0" * 44, b"x" * 16, b"x" * 4097),
        ]
    ),
    st.binary(max_size=64),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: b"%d" % value),
)
FUZZED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def server(flavour: Flavour, start_server: StartServer) -> Server:
    """A server of the test's own: it is demoted at the end."""
    return start_server(flavour, Options())


@pytest.fixture
def agent(server: Server) -> Iterator[Agent]:
    with acting(server) as agent:
        fill(agent, PLACE)
        yield agent
    with server.admin() as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        admin.execute_command("REPLICAOF", "NO", "ONE")
        assert admin.ping()


@pytest.fixture
def books(server: Server, agent: Agent) -> Iterator[Books]:
    with Books(server) as books:
        yield books


def outcome(agent: Agent, words: Words) -> DataError | None:
    """A refusal, or None; anything else that the server says is a failure."""
    try:
        agent.send(words)
    except DataError as error:
        refused: DataError = error
    except redis.exceptions.NoPermissionError:
        return CallInvalid("a key of nobody's")
    else:
        return None
    assert not isinstance(refused, FunctionFailed), (words[:2], refused)
    return refused


@FUZZED
@given(data=st.data())
def test_any_arguments_are_refused_or_done_whole(agent: Agent, books: Books, data: object) -> None:
    """Some of a good call's arguments are replaced, dropped or doubled."""
    draw = data.draw  # type: ignore[attr-defined]
    calls = every_call(PLACE, epoch_of(agent, PLACE))
    words = calls[draw(st.sampled_from(sorted(calls)))]
    start = 3 + len(declared(words))
    arguments: list[Word] = list(words[start:])
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["replace", "drop", "add", "none"]))
        if arguments and how in ("replace", "drop"):
            place = draw(st.integers(0, len(arguments) - 1))
            arguments[place : place + 1] = [draw(GARBAGE)] if how == "replace" else []
        elif how == "add":
            arguments.insert(draw(st.integers(0, len(arguments))), draw(GARBAGE))
        elif how == "none":
            arguments = []
    books.look()
    if outcome(agent, (*words[:start], *arguments)) is not None:
        assert books.unchanged()
    elif agent.client.exists(PLACE.conversation.list, PLACE.context.values) < 2:
        fill_again(agent)


@FUZZED
@given(data=st.data())
def test_any_keys_are_refused_or_the_right_ones(agent: Agent, books: Books, data: object) -> None:
    draw = data.draw  # type: ignore[attr-defined]
    calls = every_call(PLACE, epoch_of(agent, PLACE))
    words = calls[draw(st.sampled_from(sorted(calls)))]
    keys = declared(words)
    own = [key for call in calls.values() for key in declared(call)]
    prefix = st.binary(max_size=24).map(lambda end: b"mt:{support.acme}:" + end)
    chosen = draw(
        st.lists(st.one_of(st.sampled_from(own), prefix, GARBAGE), max_size=10).filter(
            lambda found: found[: len(keys)] != keys
        )
    )
    books.look()
    if outcome(agent, (*words[:2], len(chosen), *chosen, *words[3 + len(keys) :])) is not None:
        assert books.unchanged()


HOSTILE_FIELDS = ("state", "writers", "m0", "m1", "lease", "meta", "tag", "saved")
HOSTILE_SAVED = (
    *(b"c" + ROOT + b"1", b"c" + ROOT + b"9", b"e" + IDS[1], b"n" + IDS[10], b"n" + IDS[11]),
    *(b"d" + ROOT + b"2", b"w" + ROOT + b"2task 1   0", b"x", b""),
)
PACKED = st.one_of(
    GARBAGE, *(st.binary(min_size=size, max_size=size) for size in (11, 12, 15, 22, 25, 46, 50))
)
# A list that rests on itself, on another that is shorter, and one reference too many.
NODES = st.sampled_from(
    [base + kept.to_bytes(3, "big") + IDS[1] for base in IDS[10:12] for kept in (1, 4, 200_000)]
    + [b"\x10" + bytes(14) + b"\0\1n" + IDS[10], b"\x10" + bytes(14) + b"\0\2n" + IDS[10]]
)


@settings(FUZZED, max_examples=50)
@given(
    head=st.dictionaries(st.sampled_from(HOSTILE_FIELDS), PACKED, max_size=6),
    entries=st.lists(GARBAGE, max_size=3),
    usage=st.dictionaries(
        st.sampled_from(["bytes", "messages", "conversations", "rate", "dropped", "a:default"]),
        PACKED,
        max_size=4,
    ),
    versions=st.dictionaries(st.sampled_from(["#", "one", "two", "n"]), PACKED, max_size=3),
    saved=st.dictionaries(st.sampled_from(HOSTILE_SAVED), st.one_of(PACKED, NODES), max_size=4),
    front=st.booleans(),
)
def test_whatever_an_agent_wrote_around_the_functions(
    agent: Agent,
    books: Books,
    server: Server,
    head: dict[str, bytes],
    entries: list[bytes],
    usage: dict[str, bytes],
    versions: dict[str, bytes],
    saved: dict[bytes, bytes],
    front: bool,
) -> None:
    """Every key that agents may write holds rubbish of the right type."""
    mine = {key for call in every_call(PLACE, 1).values() for key in declared(call)[:2]}
    with server.admin() as admin:
        admin.delete(*(mine - {PLACE.once.limits}))
    fill_again(agent)
    calls = every_call(PLACE, epoch_of(agent, PLACE))
    talk, context = PLACE.conversation, PLACE.context
    for key, fields in (
        *((talk.head, head), (talk.checkpoints, saved)),
        *((PLACE.once.usage, usage), (context.versions, versions)),
    ):
        if fields:
            agent.client.hset(key, mapping=fields)  # type: ignore[arg-type]
    for key in (talk.list, talk.summaries, context.changes):
        for entry in entries:
            (agent.client.lpush if front else agent.client.rpush)(key, entry)
    for words in calls.values():
        books.look()
        if outcome(agent, words) is not None:
            assert books.unchanged(), words[1]
    set_limits(server, cutoff_content=in_ms() + 60_000)
    for words in expiring_calls(PLACE).values():
        books.look()
        if outcome(agent, words) is not None:
            assert books.unchanged(), words[1]
    set_limits(server, cutoff_content=None)


def fill_again(agent: Agent) -> None:
    """Fill the tenant from nothing."""
    for words in every_call(PLACE, 1).values():
        if name_of(words) in ("delete", "context_delete"):
            agent.send(words)
    talk = PLACE.conversation
    agent.client.delete(talk.head, talk.checkpoints, PLACE.context.versions)
    fill(agent, PLACE)
