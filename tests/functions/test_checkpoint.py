"""A thread's checkpoints: each value kept once, what nothing refers to removed, oldest first."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from memtenant.errors import CallInvalid, HistoryDamaged, QuotaExceeded
from memtenant.functions import Clear, ReadUsage
from memtenant.functions.checkpoint_calls import (
    DeleteCheckpoints,
    GetCheckpoint,
    ListCheckpoints,
    NewList,
    NewWrite,
    PutCheckpoint,
    PutWrites,
)
from memtenant.functions.checkpoint_replies import Reference
from memtenant.tenancy import keys
from tests.functions.catalogue import IDS, ROOT, Place, checkpoints, saving
from tests.functions.tenants import AGENT, Agent, acting, in_ms, record, set_limits
from tests.stores.operators import ACME
from tests.support.servers import Server

PLACE = Place(ACME)
THREAD = PLACE.conversation
LIST = Reference(IDS[10], is_list=True)


@pytest.fixture
def agent(redis_server: Server) -> Iterator[Agent]:
    with acting(redis_server) as agent:
        for call in checkpoints(PLACE):
            agent.send(call.words)
        yield agent


def put(name: str, *lists: NewList, values: int = 0, **options: object) -> PutCheckpoint:
    """A checkpoint of these lists; ``values`` of the ids after the ninth come along."""
    made = PutCheckpoint(
        saving(PLACE, name),
        record(),
        tuple(Reference(one.id, is_list=True) for one in lists),
        lists,
        tuple((one, record()) for one in IDS[6 : 6 + values]),
    )
    return replace(made, **options)  # type: ignore[arg-type]


def ids_of(agent: Agent, name: str) -> tuple[bytes, ...]:
    (found,) = agent.call(GetCheckpoint(THREAD, ROOT, name)).lists
    return found.ids


def names(agent: Agent, kind: bytes) -> set[bytes]:
    found: set[bytes] = set(agent.client.hkeys(THREAD.checkpoints))
    return {name[1:] for name in found if name[:1] == kind}


def test_a_list_is_what_it_adds_to_the_one_before(agent: Agent) -> None:
    assert ids_of(agent, "1") == IDS[1:4]
    assert ids_of(agent, "2") == IDS[1:6]
    cut = NewList(IDS[12], (IDS[6],), IDS[11], 2)
    assert not agent.call(put("3", cut, values=1, relies_on="2")).missing
    assert ids_of(agent, "3") == (*IDS[1:3], IDS[6])
    empty = NewList(IDS[13], ())
    assert not agent.call(put("4", empty)).missing
    found = agent.call(GetCheckpoint(THREAD, ROOT))
    assert (found.name, found.lists[0].ids, found.values) == ("4", (), {})


def test_what_comes_with_a_checkpoint_in_one_reply_fits_into_it(agent: Agent) -> None:
    found = agent.call(GetCheckpoint(THREAD, ROOT))
    assert found.name == "2"
    assert set(found.values) == {*IDS[:6]}
    assert list(found.writes) == [b"task 1   0"]
    assert found.lists[0].parts == 2
    first = agent.call(GetCheckpoint(THREAD, ROOT, max_bytes=1))
    assert len(first.values) == 1
    again = agent.call(GetCheckpoint(THREAD, ROOT, values=first.remaining))
    assert {**first.values, **again.values} == found.values
    bare = agent.call(GetCheckpoint(THREAD, ROOT, bare=True))
    assert (bare.lists, bare.values, bare.writes) == (found.lists, {}, {})


def test_nothing_is_stored_that_relies_on_what_is_gone(agent: Agent) -> None:
    grown = NewList(IDS[12], (IDS[6],), IDS[11], 5)
    before = agent.client.hgetall(THREAD.checkpoints)
    for call in (
        put("3", grown, values=1, relies_on="0"),  # no such checkpoint
        put("3", grown, values=0, relies_on="2"),  # an element that never came
        put("3", replace(grown, base=IDS[14]), values=1, relies_on="2"),
        put("3", references=(LIST, Reference(IDS[9], is_list=False))),
    ):
        assert agent.call(call).missing
    assert agent.client.hgetall(THREAD.checkpoints) == before
    assert not agent.call(put("3", grown, values=1, relies_on="2")).missing


def test_a_second_try_changes_nothing_but_the_time(agent: Agent) -> None:
    used = agent.call(ReadUsage(PLACE.once)).bytes
    for call in checkpoints(PLACE)[1:]:
        agent.send(call.words)
    assert agent.call(ReadUsage(PLACE.once)).bytes == used


def test_a_list_may_become_again_what_it_was(agent: Agent) -> None:
    """It would rest on a list that rests on itself."""
    shrunk = NewList(IDS[10], (), IDS[11], 3)
    assert not agent.call(put("3", shrunk, relies_on="2")).missing
    assert ids_of(agent, "3") == ids_of(agent, "1") == IDS[1:4]
    assert ids_of(agent, "2") == IDS[1:6]


def test_deletion_removes_what_nothing_else_refers_to(agent: Agent) -> None:
    agent.call(DeleteCheckpoints(THREAD, AGENT, ((ROOT, "1"),)))
    assert names(agent, b"n") == {IDS[10], IDS[11]}  # the first is the beginning of the second
    assert names(agent, b"e") == {*IDS[:6]}
    cut = NewList(IDS[12], (), IDS[11], 2)
    agent.call(put("3", cut, relies_on="2"))
    assert agent.call(DeleteCheckpoints(THREAD, AGENT, ((ROOT, "2"), (ROOT, "9")))).removed == 1
    assert names(agent, b"e") == {*IDS[1:3]}
    assert names(agent, b"w") == names(agent, b"d") == set()
    assert ids_of(agent, "3") == IDS[1:3]
    # A list of which a part has gone does not serve another checkpoint.
    again = NewList(IDS[11], (), IDS[12], 2)
    assert agent.call(put("4", again, relies_on="3")).missing
    whole = NewList(IDS[11], IDS[1:6])
    values = tuple((one, record()) for one in IDS[1:6])
    assert not agent.call(replace(put("4", whole), values=values)).missing
    assert ids_of(agent, "4") == IDS[1:6]


def test_whatever_is_removed_gives_its_bytes_back(agent: Agent) -> None:
    for remove in (
        DeleteCheckpoints(THREAD, AGENT),
        DeleteCheckpoints(THREAD, AGENT, ((ROOT, "1"), (ROOT, "2"))),
        Clear(THREAD, AGENT),
        Clear(THREAD, AGENT, delete=True),
    ):
        assert agent.call(ReadUsage(PLACE.once)).bytes > 0
        agent.send(remove.words)
        assert agent.call(ReadUsage(PLACE.once)).bytes == 0
        assert not agent.client.exists(THREAD.checkpoints)
        assert agent.client.zcard(keys.conversations(ACME)) == 0
        assert agent.call(DeleteCheckpoints(THREAD, AGENT)).removed == 0
        for call in checkpoints(PLACE):
            agent.send(call.words)


def test_writes_at_a_place_are_kept_once_or_replaced(agent: Agent) -> None:
    place = b"task 1   0"
    (before,) = agent.call(GetCheckpoint(THREAD, ROOT, "2")).writes.values()
    for replaces in (False, True):
        write = NewWrite(place, b"another", replaces)
        agent.call(PutWrites(saving(PLACE, "2"), (write,)))
        (after,) = agent.call(GetCheckpoint(THREAD, ROOT, "2")).writes.values()
        assert after.record == (b"another" if replaces else before.record)
    agent.call(PutWrites(saving(PLACE, "3"), (NewWrite(place, b"before its checkpoint"),)))
    agent.call(put("3"))
    assert len(agent.call(GetCheckpoint(THREAD, ROOT, "3")).writes) == 1


def test_a_page_goes_on_where_the_one_before_ended(agent: Agent) -> None:
    other = b"other-ns"
    for name in ("2", "3"):
        call = put(name)
        agent.call(replace(call, saving=replace(call.saving, namespace=other, root=False)))
    seen, page = [], agent.call(ListCheckpoints(THREAD, limit=1))
    while True:
        seen += [(space, name) for space, name, _ in page.found]
        if not page.more:
            break
        page = agent.call(ListCheckpoints(THREAD, after=page.end, limit=1))
    assert seen == [(other, "3"), (ROOT, "2"), (other, "2"), (ROOT, "1")]
    assert [name for _, name, _ in agent.call(ListCheckpoints(THREAD, ROOT)).found] == ["2", "1"]
    assert [name for _, name, _ in agent.call(ListCheckpoints(THREAD, before="2")).found] == ["1"]
    assert agent.call(GetCheckpoint(THREAD, other)).name == "3"


def test_the_newest_is_found_whatever_the_head_says(agent: Agent) -> None:
    for state in (b"", b"\0" * 6 + ROOT + b"1", b"\0" * 6 + ROOT + b"9", b"\xff" * 40):
        agent.client.hset(THREAD.head, "saved", state)
        assert agent.call(GetCheckpoint(THREAD, ROOT)).name == ("1" if state[-1:] == b"1" else "2")
    agent.call(DeleteCheckpoints(THREAD, AGENT, ((ROOT, "2"),)))
    assert agent.call(GetCheckpoint(THREAD, ROOT)).name == "1"


def test_what_is_older_than_the_cut_off_goes_and_leaves_a_tombstone_where_it_is_needed(
    redis_server: Server, agent: Agent
) -> None:
    long_ago = in_ms() - 10_000
    old = put("3", NewList(IDS[12], IDS[6:8]), values=2)
    agent.call(replace(old, saving=replace(old.saving, time=long_ago)))
    young = put("4", NewList(IDS[13], (IDS[8],), IDS[12], 2), relies_on="3")
    agent.call(replace(young, values=((IDS[8], record()),)))
    set_limits(redis_server, cutoff_content=long_ago + 1)
    assert agent.call(GetCheckpoint(THREAD, ROOT, "3")).entry is None
    for stored in (False, True):
        found = agent.call(GetCheckpoint(THREAD, ROOT, "4"))
        assert [found.values[one].header.tombstone for one in IDS[6:9]] == [True, True, False]
        lengths = {agent.client.hstrlen(THREAD.checkpoints, b"e" + one) for one in IDS[6:8]}
        assert (lengths == {15}) is stored
        agent.call(put("5"))
    assert ROOT + b"3" not in names(agent, b"c")


def test_a_thread_has_a_limit_and_a_list_that_rests_on_itself_an_end(agent: Agent) -> None:
    many = {f"x{number}": "" for number in range(32768)}
    agent.client.hset(THREAD.checkpoints, b"n" + IDS[10], IDS[10] + b"\0\0\1" + IDS[1])
    with pytest.raises(HistoryDamaged):
        agent.call(GetCheckpoint(THREAD, ROOT, "1"))
    with pytest.raises(HistoryDamaged):
        agent.call(DeleteCheckpoints(THREAD, AGENT, ((ROOT, "2"),)))
    agent.client.hset(THREAD.checkpoints, mapping=many)  # type: ignore[arg-type]
    with pytest.raises(QuotaExceeded) as refused:
        agent.call(put("3"))
    assert refused.value.limit == "checkpoints"
    agent.call(DeleteCheckpoints(THREAD, AGENT))
    assert not agent.client.exists(THREAD.checkpoints)


@pytest.mark.parametrize(
    "broken",
    [
        NewList(IDS[12], IDS[1:4], IDS[10], 0),
        NewList(IDS[12], IDS[1:4], b"", 3),
        NewList(IDS[12], (b"short",)),
        NewList(IDS[12], IDS[1:2], IDS[10], 16384),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(agent: Agent, broken: NewList) -> None:
    with pytest.raises(CallInvalid):
        agent.call(put("3", broken))
