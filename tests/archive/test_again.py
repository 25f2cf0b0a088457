"""A queue that comes again: a server that was rolled back, a sealer that was killed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memtenant.archive import Allowance, ArchiveFolder, Batch, Part, Taken, intake, readback
from memtenant.archive import log as logs
from memtenant.archive.again import Again
from memtenant.archive.readback import ReadBack
from memtenant.archive.segments import blocks
from memtenant.audit.leaf import EntryLeaf, Verdict
from memtenant.audit.segment import frames
from memtenant.errors import ArchiveInconsistent, ArchiveUnavailable
from tests.archive.making import LOG, NEIGHBOUR, Agent, Sealer, keys, neighbours_keys


@pytest.fixture
def sealer(tmp_path: Path) -> Iterator[Sealer]:
    made = Sealer(tmp_path)
    yield made
    made.archive.close()


def pages(queue: list[bytes], size: int) -> list[list[bytes]]:
    return [queue[start : start + size] for start in range(0, len(queue), size)]


def test_a_queue_that_comes_again_is_read_beside_the_log_and_not_judged_anew(
    sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [Agent(number=number) for number in range(5)]
    queue = [agents[place % 5].next() for place in range(300)]
    del queue[37], queue[120]  # gaps are leaves of their own
    queue.insert(60, b"nobody's event")
    for page in pages(queue[:200], 64):
        sealer.take(page)
    sealer.tick(days=2)  # the next month
    sealer.take(queue[200:])
    sealer.seal()
    sealer.reopen()
    judged = list[bytes]()
    judge = intake.verdict_of
    monkeypatch.setattr(
        intake, "verdict_of", lambda entry, macs: judged.append(entry) or judge(entry, macs)
    )
    came = [sealer.take(page) for page in pages(queue[50:], 40)]
    assert sum(duplicates for *_, duplicates in came) == 249
    assert judged == []
    assert sealer.take([agents[0].next()]) == (1, 0, 0, 0)
    assert sealer.entries()[:-1] == queue


def test_what_an_agent_hides_in_an_entry_is_no_part_of_the_log(sealer: Sealer) -> None:
    """It pushes the bytes of its own event, as they would stand in a log, within an entry that is
    no event; then the event counts as sealed to whoever does not look where frames begin."""
    agent = Agent()
    known, hidden, after = agent.some(3)
    as_if = b"".join(
        frames([EntryLeaf(0, Verdict.GOOD, one).to_bytes()]) for one in (known, hidden, after)
    )
    sealer.take([b"x" * 50 + as_if, known])
    assert sealer.take([known, hidden, after]) == (2, 0, 0, 1)
    assert sealer.entries()[1:] == [known, hidden, after]
    search = ReadBack(Again.find(sealer.archive, f"logs/{LOG}", ["2026-01"], hidden))
    assert search.goes_to_its_end(Allowance.unlimited())
    found = search.found
    assert found is not None
    assert found.offset > len(as_if)


def some(chance: random.Random, agents: list[Agent]) -> Iterator[bytes]:
    """What agents push that do not all behave: new events, events that were pushed before, others
    under their counters, refusals, some that are missing."""
    while True:
        agent = chance.choice(agents)
        old = chance.randint(1, agent.counter)
        match chance.randrange(9):
            case 0 | 1:
                yield agent.entry(old)  # the same event, at another time: other bytes
            case 2:
                yield agent.entry(old, "R")
            case 3:
                yield agent.entry(old, detail=b"another")
            case 4:
                agent.counter += 1
            case _:
                yield agent.next()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_back_in_parts_comes_to_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Also of writers that are forgotten, over the end of a month, in a queue that grows meanwhile,
    by a sealer that is killed in between."""
    monkeypatch.setattr(readback, "_LEAST", 1)
    monkeypatch.setattr(logs, "MOST_WRITERS", 6)
    chance = random.Random(seed)
    agents = [Agent(number=number) for number in range(12)]
    source, queue = some(chance, agents), list[bytes]()
    for number in range(1500):
        queue += [number.to_bytes(4, "big") * 250] if number % 2 else []  # nobody's, and large
        queue.append(next(source))
    queue += [next(source) for _ in range(200)]
    whole, parts = Sealer(tmp_path / "whole"), Sealer(tmp_path / "parts")
    for page in (queue[:1900], queue[1900:]):
        whole.take(page)
        whole.seal(days=1)
    parts.take(queue[:1900])
    parts.seal(days=1)
    left, waited = queue[1900:], 0
    while left:
        page = left[: chance.randint(30, 60)]
        (taken,) = parts.writer.take_all([Batch(LOG, page, keys)], parts.tick(), Allowance(0))
        assert isinstance(taken, Taken)
        assert taken.entries == len(page) or taken.waits or taken.entries
        waited += taken.waits
        del left[: taken.entries]
        if not chance.randrange(40):
            parts.reopen()
    parts.seal(days=1)
    assert waited > 20
    found, expected = (
        [(one.verdict, one.raw) for one in made.reader.events(LOG)] for made in (parts, whole)
    )
    assert found == expected
    assert {verdict for verdict, _ in found} == {Verdict.GOOD, Verdict.FORGED, Verdict.MALFORMED}
    parts.archive.close()
    whole.archive.close()


def test_an_entry_that_is_hidden_in_many_others_is_read_for_once(
    sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent chooses how often what looks like the entry is found before it is."""
    agent = Agent()
    old, *_ = agent.some(1)
    sealer.take([*(number.to_bytes(4, "big") + old for number in range(4000)), old])
    sealer.take(agent.some(2))
    size, read = sealer.archive.size(f"logs/{LOG}/2026-01.log"), list[int]()
    whole = ArchiveFolder.read

    def counted(archive: ArchiveFolder, *rest: Any) -> bytes:
        data = whole(archive, *rest)
        read.append(len(data))
        return data

    monkeypatch.setattr(ArchiveFolder, "read", counted)
    assert sealer.take([old]) == (0, 0, 0, 1)
    assert size is not None
    assert sum(read) < 4 * size


def test_of_logs_that_are_taken_together_one_that_was_changed_stops_no_other(
    sealer: Sealer,
) -> None:
    mine, others = Agent(), Agent(log_id=NEIGHBOUR)
    sealer.take(mine.some(3))
    sealer.seal()
    file = sealer.root / "logs" / LOG / "2026-01.log"
    file.write_bytes(file.read_bytes()[:-1])
    sealer.reopen()
    mine_too, theirs = mine.some(2), others.some(2)
    batches = [Batch(LOG, mine_too, keys), Batch(NEIGHBOUR, theirs, neighbours_keys)]
    refused, taken = sealer.writer.take_all(batches, sealer.tick())
    assert isinstance(refused, ArchiveInconsistent)
    assert not isinstance(taken, Exception)
    assert (taken.first, taken.size) == (0, 2)


def test_where_the_disk_takes_one_log_and_not_another_all_are_taken_again(
    sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = Agent().some(4), Agent(log_id=NEIGHBOUR).some(4)
    batches = [Batch(LOG, mine, keys), Batch(NEIGHBOUR, theirs, neighbours_keys)]
    sync, synced = ArchiveFolder._sync, list[int]()

    def failing(archive: ArchiveFolder, opened: int) -> None:
        synced.append(opened)
        if opened == archive._open.get(f"logs/{NEIGHBOUR}/2026-01.log"):
            raise OSError(5, "Input/output error")
        sync(archive, opened)

    monkeypatch.setattr(ArchiveFolder, "_sync", failing)
    with pytest.raises(ArchiveUnavailable, match=NEIGHBOUR):
        sealer.writer.take_all(batches, sealer.tick())
    monkeypatch.undo()
    again = sealer.writer.take_all(batches, sealer.tick())
    assert [type(one).__name__ for one in again] == ["Taken", "Taken"]
    sealer.seal()
    assert (sealer.entries(), sealer.entries(NEIGHBOUR)) == (mine, theirs)


def test_more_logs_than_files_may_be_open_are_written(tmp_path: Path) -> None:
    with ArchiveFolder.open(tmp_path, writable=True) as archive:
        names = [f"logs/sales.t{number}/2026-01.log" for number in range(300)]
        archive.append([Part(name, 0, name.encode()) for name in names])
        archive.append([Part(name, len(name), b"!") for name in names])
        assert [archive.read(name) for name in names] == [f"{name}!".encode() for name in names]


def test_where_few_writers_are_looked_for_none_of_their_leaves_is_passed_over(
    sealer: Sealer,
) -> None:
    agents = [Agent(number=number) for number in range(40)]
    for agent in agents:
        gone = agent.entry(2, detail=bytes(agent.number * 60))
        sealer.take([agent.entry(1), gone, agent.entry(4)])  # and a gap
    folder = f"logs/{LOG}"
    whole = [leaf for one in blocks(sealer.archive, folder, "2026-01") for leaf in one.leaves]
    for chunk in (64, 500, 5000):
        for word in (agents[0].writer, agents[17].writer, agents[39].writer):
            found = blocks(sealer.archive, folder, "2026-01", chunk=chunk, words=[word])
            leaves = [leaf for one in found for leaf in one.leaves]
            assert [one for one in leaves if word in one] == [one for one in whole if word in one]
            assert len([one for one in leaves if word in one]) == 4
            assert len(leaves) < len(whole)
