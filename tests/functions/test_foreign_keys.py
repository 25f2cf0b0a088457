"""Every Function called live with each key that is not its own: denied, and nothing changes.

ACL DRYRUN allows FCALL on any key that the user may declare, so only a call shows what is refused.
"""

from collections.abc import Iterator

import pytest
import redis

from memtenant.errors import DataError
from memtenant.functions import Reader, ReadRange
from memtenant.functions.fcall import Words
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.functions.catalogue import (
    EVENT,
    Place,
    declared,
    epoch_of,
    every_call,
    fill,
    with_key,
)
from tests.functions.tenants import AGENT, Agent, acting, provision, snapshot
from tests.stores.operators import ACME, GLOBEX
from tests.support.servers import Server

NAMESAKE = TenantId("support", "acme2")
NEIGHBOURS = (GLOBEX, NAMESAKE)
OPERATORS = (
    keys.access(ACME).encode(),
    keys.limits(ACME).encode(),
    f"{keys.prefix(ACME)}o:holds".encode(),
    keys.STORE_EPOCH.encode(),
    keys.STORE_OWNER.encode(),
    b"somebody-elses-key",
    b"",
)


@pytest.fixture
def agent(redis_server: Server) -> Iterator[Agent]:
    """An agent of ACME; its neighbours hold the same, under their own names."""
    for neighbour in NEIGHBOURS:
        name = provision(redis_server, tenant=neighbour).name
        with Agent(redis_server, name) as other:
            fill(other, Place(neighbour))
    with redis_server.admin() as admin:
        admin.set("somebody-elses-key", "value")
        admin.hset(keys.access(ACME), "mode", "ReadWrite")
        admin.hset(f"{keys.prefix(ACME)}o:holds", "matter", "one")
    with acting(redis_server) as agent:
        fill(agent, Place(ACME))
        yield agent


def attempt(agent: Agent, words: Words) -> str:
    """How the server refused; `done` where it did not."""
    try:
        agent.send(words)
    except redis.exceptions.NoPermissionError:
        return "no permission"
    except DataError as error:
        return error.reason
    return "done"


def test_a_neighbours_keys_are_denied_in_every_place_of_every_function(
    redis_server: Server, agent: Agent
) -> None:
    own = every_call(Place(ACME), epoch_of(agent, Place(ACME)))
    before = snapshot(redis_server)
    attempts = 0
    for neighbour in NEIGHBOURS:
        theirs = every_call(Place(neighbour), 1)
        for name, words in theirs.items():
            assert attempt(agent, words) == "no permission", name
            for place, key in enumerate(declared(words)):
                attempts += 1
                mixed = with_key(own[name], place, key)
                assert attempt(agent, mixed) == "no permission", (name, key)
    assert attempts > 250
    assert snapshot(redis_server) == before


def test_operator_only_keys_are_refused_in_every_place_of_every_function(
    redis_server: Server, agent: Agent
) -> None:
    """The tenant may declare its own `o:*` keys; the Function takes no name but the right one."""
    calls = every_call(Place(ACME), epoch_of(agent, Place(ACME)))
    before = snapshot(redis_server)
    attempts = 0
    for name, words in calls.items():
        for place, own in enumerate(declared(words)):
            for key in OPERATORS:
                if key != own:
                    attempts += 1
                    outcome = attempt(agent, with_key(words, place, key))
                    assert outcome in ("no permission", "CallInvalid"), (name, place, key)
    assert attempts > 800
    assert snapshot(redis_server) == before


def test_own_keys_in_the_wrong_place_are_refused(redis_server: Server, agent: Agent) -> None:
    """A list for a head, another conversation's head, a key too many, a key too few."""
    calls = every_call(Place(ACME), epoch_of(agent, Place(ACME)))
    other = Place(ACME).conversation.head.replace(b":conversation:", b":another:")
    own = {key for words in calls.values() for key in declared(words)} | {other}
    before = snapshot(redis_server)
    for name, words in calls.items():
        right = declared(words)
        for place, key in ((place, key) for place in range(len(right)) for key in own):
            kind = key.split(b"}:")[1][:2]
            if key == right[place] or kind == right[place].split(b"}:")[1][:2] in (b"k:", b"i:"):
                continue  # another subject's key is a subject's key
            if place == 0 and key.endswith(right[0][-2:]) and kind == b"r:":
                continue
            outcome = attempt(agent, with_key(words, place, key))
            assert outcome == "CallInvalid", (name, place, key, outcome)
        count = len(right)
        least = 7 if name == "context_update" else count - 1  # it takes any number of subjects
        fewer = (words[0], words[1], least, *right[:least], *words[3 + count :])
        more = (words[0], words[1], count + 1, *right, right[0], *words[3 + count :])
        assert attempt(agent, fewer) == "CallInvalid", name
        assert attempt(agent, more) == "CallInvalid", name
    assert snapshot(redis_server) == before


def test_a_refusal_names_no_id_and_no_value(redis_server: Server, agent: Agent) -> None:
    calls = every_call(Place(ACME), epoch_of(agent, Place(ACME)))
    with redis_server.admin() as admin:
        admin.delete(keys.limits(ACME))
    for name, words in calls.items():
        with pytest.raises(DataError) as refused:
            agent.send(words)
        for secret in ("conversation:", "subject", "context:", AGENT, "record"):
            assert secret not in str(refused.value), name


def test_a_tenant_without_limits_is_refused_and_not_unlimited(
    redis_server: Server, agent: Agent
) -> None:
    with redis_server.admin() as admin:
        admin.delete(keys.limits(ACME))
    before = snapshot(redis_server)
    for name, words in every_call(Place(ACME), 1).items():
        assert attempt(agent, words) == "TenantUnprovisioned", name
    assert snapshot(redis_server) == before


def test_reads_by_fcall_ro_cannot_write(redis_server: Server, agent: Agent) -> None:
    audited = ReadRange(Place(ACME).conversation, reader=Reader(AGENT, EVENT)).words
    with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)write flag|_ro"):
        agent.client.execute_command("FCALL_RO", *audited[1:])  # type: ignore[no-untyped-call]
