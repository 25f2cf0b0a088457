"""What is known of writers is exact, though only some of them are in memory."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.archive import log as logs
from memtenant.archive import verify
from memtenant.archive.intake import Intake, Macs
from memtenant.archive.memory import recall_log, remember_log
from memtenant.archive.segments import Tail
from memtenant.archive.writers import History, Standing, Writers, sighting
from memtenant.audit.leaf import EntryLeaf, Verdict
from memtenant.audit.merkle import Frontier
from tests.archive.making import LOG, Agent, Sealer, keys


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _almost(rest: bytes) -> bytes:
    entry = Agent().entry(1)
    return entry[: 97 - len(rest)] + rest + entry[97:]


class Queue:
    """Some writers, of whom more come and go than are in memory."""

    def __init__(self, sealer: Sealer, chance: random.Random) -> None:
        self.sealer, self.chance = sealer, chance
        self.agents: list[Agent] = []
        self.pushed: list[bytes] = []
        self.skipped: list[tuple[bytes, int, int]] = []

    def agent(self) -> Agent:
        if not self.agents or self.chance.random() < 0.2:
            opened = int(self.sealer.now.timestamp())
            self.agents.append(Agent(len(self.agents), opened=opened))
        return self.chance.choice(self.agents)

    def step(self) -> list[bytes]:
        """What the next look at the queue finds."""
        found: list[bytes] = []
        for _ in range(self.chance.randrange(1, 9)):
            agent, kind = self.agent(), self.chance.random()
            if kind < 0.2 and self.pushed:
                start = self.chance.randrange(len(self.pushed))
                found += self.pushed[start : start + 5]
                continue
            if kind < 0.3:
                found.append(agent.entry(agent.counter, "R"))
            elif kind < 0.4:
                many = self.chance.randrange(1, 4)
                self.skipped.append((agent.writer, agent.counter, agent.counter + many - 1))
                agent.counter += many
                found.append(agent.next())
            else:
                found.append(agent.next(self.chance.randrange(1, 4)))
            self.pushed.append(found[-1])
        return found


@pytest.mark.parametrize("seed", range(12))
def test_however_writers_come_and_go_each_event_is_sealed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(logs, "MOST_WRITERS", 6)
    chance = random.Random(seed)
    sealer = Sealer(tmp_path)
    queue = Queue(sealer, chance)
    for _ in range(40):
        sealer.take(queue.step())
        kind = chance.random()
        if kind < 0.15:
            sealer.seal()
        elif kind < 0.25:
            sealer.reopen()
        elif kind < 0.35:
            sealer.tick(days=chance.randrange(1, 20))
    events = list(sealer.reader.events(LOG))
    assert {one.verdict for one in events} == {Verdict.GOOD}
    kept = [one.raw[:-11] for one in events]
    assert len(kept) == len(set(kept))
    assert set(kept) == {entry[:-11] for entry in queue.pushed}
    gaps = [(one.writer, one.first, one.last) for one in sealer.reader.gaps(LOG)]
    assert gaps == queue.skipped


def test_a_hundred_thousand_writers_are_bounded_in_memory() -> None:
    writers = Writers(most=10_000)
    for number in range(100_000):
        writer = number.to_bytes(4, "big") + bytes(4)
        writers.note(writer, Standing(1, writer + bytes(9), (), number * 1000))
        if number % 1000 == 0:
            writers.forget()
            assert len(writers.known) <= 10_000
    # Who may have been forgotten is asked for, who cannot have been is new.
    forgotten, newest = (n.to_bytes(4, "big") + b"\1" * 4 for n in (50_000, 99_999))
    assert writers.may_be_forgotten(forgotten)
    assert not writers.may_be_forgotten(newest)


def test_what_is_remembered_reads_back_and_anything_else_is_not_believed(tmp_path: Path) -> None:
    archive = Sealer(tmp_path).archive
    writers = Writers(most=100, forgotten=17)
    writers.note(b"w" * 8, Standing(7, b"m" * 17, (), 5))
    writers.note(b"x" * 8, Standing(0, b"", (b"p" * 17, b"q" * 17), 6))
    writers.note_odd(b"o" * 8)
    data = remember_log(Tail(archive, "logs/a.b", "2026-01", 0, Frontier()), 9, writers)
    found = recall_log(data, archive, "logs/a.b", 100)
    assert found is not None
    tail, time, recalled = found
    assert (tail.month, tail.size, time, recalled.forgotten) == ("2026-01", 0, 9, 17)
    assert recalled.known == writers.known
    assert recalled.odd == writers.odd
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        other = recall_log(bytes(changed), archive, "logs/a.b", 100)
        # The header has no checksum: it is compared with what was sealed (`Log.open`).
        assert other is None or place < data.index(b"\n"), place
    assert recall_log(b"", archive, "logs/a.b", 100) is None


@pytest.mark.parametrize("seed", range(8))
def test_an_agent_that_lies_in_its_numbers_harms_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    numbers = (0, 1, 2, 3, 65_535, 2**31, 2**32 - 2, 2**32 - 1)
    sealer = Sealer(tmp_path)
    agents = [Agent(n, opened=chance.choice(numbers)) for n in range(4)]
    pushed: list[bytes] = []
    for _ in range(12):
        for _ in range(6):
            agent = chance.choice(agents)
            count = chance.choice((0, 1, 2, 65_535))
            detail = chance.choice((b"", b"", b"x"))
            outcome = chance.choice("OOCR")
            pushed.append(agent.entry(chance.choice(numbers), outcome, count, detail))
        sealer.take(chance.choices(pushed, k=9) + pushed[-6:])
        chance.choice((sealer.seal, sealer.reopen, sealer.tick))()
    sealer.take(pushed)
    sealer.writer.close()
    sealer.reopen()
    assert sealer.take(pushed)[3] == len(pushed)
    kept = [one.raw[:-11] for one in sealer.reader.events(LOG)]
    odd = [one.raw for one in sealer.reader.events(LOG) if one.verdict is Verdict.MALFORMED]
    assert all(entry[14:18] == bytes(4) for entry in odd)
    assert set(kept) == {entry[:-11] for entry in pushed}
    assert len(set(odd)) == len(odd)
    assert len(kept) - len(odd) == len(set(kept) - {one[:-11] for one in odd})
    sealer.seal()
    sealer.writer.close()
    assert verify(sealer.reader, trusted=sealer.reader.latest()).findings == ()


@given(st.lists(st.binary(max_size=200) | st.binary(max_size=20).map(_almost), max_size=20))
def test_whatever_stands_in_a_queue_is_taken(entries: list[bytes]) -> None:
    intake = Intake(Writers(most=100), lambda _, asked: History(asked), 7)
    intake.take(entries, Macs(keys))
    assert intake.events + intake.bad + intake.duplicates == len(entries)
    assert len(intake.leaves) == intake.events + intake.bad + intake.gaps


_SPANS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), max_size=12)


@given(asked=_SPANS, used=_SPANS)
def test_of_what_was_asked_it_is_known_whether_a_counter_was_used(
    asked: list[tuple[int, int]], used: list[tuple[int, int]]
) -> None:
    agent = Agent()
    seen = [sighting(agent.event(first, count) + b"O" + bytes(11)) for first, count in asked]
    history = History(seen)
    history.add(
        [
            EntryLeaf(0, Verdict.GOOD, agent.entry(first, count=count)).to_bytes()
            for first, count in used
        ]
    )
    for one in seen:
        overlaps = any(one.first < first + count and first <= one.last for first, count in used)
        assert history.covers(one) is overlaps
        assert history.has(one) is ((one.first, one.last - one.first + 1) in used)
