"""What the sealer's engine does with the entries of a queue, and what it knows after a restart."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from memtenant.archive import ArchiveFolder, FolderSigner, Result, SignedHead, verify
from memtenant.archive.segments import Head
from memtenant.audit.leaf import Verdict
from memtenant.audit.merkle import Frontier
from memtenant.errors import (
    ArchiveBusy,
    ArchiveInconsistent,
    KeyInvalid,
    KeyUnavailable,
    ResourceUnavailable,
    SignerConflict,
)
from tests.archive.making import (
    LOG,
    NEIGHBOUR,
    ORIGIN,
    Agent,
    Sealer,
    neighbours_keys,
    pruned,
)


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    return Sealer(tmp_path)


def verdicts(sealer: Sealer) -> list[Verdict]:
    return [one.verdict for one in sealer.reader.events(LOG)]


def test_what_is_taken_stands_in_the_archive_as_it_stood_in_the_queue(sealer: Sealer) -> None:
    entries = [*Agent(1).some(3), *Agent(2).some(2)]
    assert sealer.take(entries) == (5, 0, 0, 0)
    assert sealer.entries() == entries
    assert sealer.take([]) == (0, 0, 0, 0)


def test_a_queue_that_comes_again_is_sealed_once(sealer: Sealer) -> None:
    agent = Agent()
    entries = agent.some(20)
    sealer.take(entries[:10])
    assert sealer.take(entries[5:15]) == (5, 0, 0, 5)
    sealer.seal()
    sealer.reopen()
    assert sealer.take(entries) == (5, 0, 0, 15)
    assert sealer.entries() == entries


def test_the_same_event_with_a_later_time_is_the_same(sealer: Sealer) -> None:
    agent = Agent()
    first = agent.entry(1, "R")
    again = agent.entry(1, "R")
    assert first != again
    assert sealer.take([first, again, again]) == (1, 0, 0, 2)
    assert sealer.take([agent.entry(1, "C"), agent.entry(1)]) == (2, 0, 0, 0)
    sealer.reopen()
    assert sealer.take([first, agent.entry(1, "C"), agent.entry(1)]) == (0, 0, 0, 3)


def test_two_outcomes_of_one_counter_are_a_forgery(sealer: Sealer) -> None:
    agent = Agent()
    sealer.take(agent.some(5))
    forged = agent.entry(3, detail=b"\x07")
    assert sealer.take([forged]) == (0, 1, 0, 0)
    assert sealer.take([forged, agent.entry(6), agent.entry(6, detail=b"\x09")]) == (1, 1, 0, 1)
    assert verdicts(sealer)[5:] == [Verdict.FORGED, Verdict.GOOD, Verdict.FORGED]
    sealer.reopen()
    assert sealer.take([forged]) == (0, 0, 0, 1)


def test_no_agent_fills_what_is_missing_of_another(sealer: Sealer) -> None:
    """Each names the writer that it likes; its MAC proves its own name alone."""
    agent = Agent()
    other = replace(agent, name="other")
    assert sealer.take([agent.entry(1), other.entry(1), other.entry(2)]) == (3, 0, 0, 0)
    sealer.reopen()
    assert sealer.take([other.entry(3), agent.entry(4), other.entry(5)]) == (3, 0, 2, 0)
    gaps = [(gap.agent, gap.first, gap.last) for gap in sealer.reader.gaps(LOG)]
    assert gaps == [(agent.name, 2, 3), ("other", 4, 4)]
    sealer.seal()
    sealer.writer.close()
    sealer.reopen()
    assert sealer.take([agent.entry(5), other.entry(6), agent.entry(1)]) == (2, 0, 0, 1)


def test_what_is_missing_is_told_and_what_comes_late_is_taken(sealer: Sealer) -> None:
    agent = Agent()
    late = [agent.entry(counter) for counter in (4, 5)]
    assert sealer.take([agent.entry(1), agent.entry(2, count=2), agent.entry(6)]) == (3, 0, 1, 0)
    (gap,) = sealer.reader.gaps(LOG)
    assert (gap.writer, gap.first, gap.last, gap.agent) == (agent.writer, 4, 5, agent.name)
    sealer.reopen()
    assert sealer.take([*late, *late]) == (2, 0, 0, 2)
    assert verdicts(sealer) == [Verdict.GOOD] * 5


def test_what_is_no_event_of_its_agent_is_kept_with_the_verdict(sealer: Sealer) -> None:
    good = Agent().entry(1)
    foreign = Agent(log_id=NEIGHBOUR).entry(1)
    unknown = good[:2] + bytes(4) + good[6:]
    odd = [foreign, b"", b"nonsense", unknown, b"x" * 9000, good[:-12] + b"X" + good[-11:]]
    assert sealer.take([*odd, good, *odd]) == (1, 6, 0, 6)
    assert verdicts(sealer) == [
        Verdict.BAD_MAC,
        Verdict.MALFORMED,
        Verdict.MALFORMED,
        Verdict.UNKNOWN_BINDING,
        Verdict.OVERSIZED,
        Verdict.MALFORMED,
        Verdict.GOOD,
    ]
    sealer.reopen()
    assert sealer.take(odd) == (0, 0, 0, 6)


def test_a_forger_does_not_move_the_counter_of_a_writer(sealer: Sealer) -> None:
    agent, forger = Agent(), Agent(log_id=NEIGHBOUR)
    assert sealer.take([agent.entry(1), forger.entry(9), agent.entry(2)]) == (2, 1, 0, 0)


def test_each_window_has_a_checkpoint_also_an_empty_one(sealer: Sealer) -> None:
    sealer.take(Agent().some(3))
    sealer.take(Agent(log_id=NEIGHBOUR).some(2), NEIGHBOUR)
    sealer.seal()
    sealer.seal()
    sealer.reopen()
    sealer.seal()
    windows = list(sealer.reader.seals())
    checkpoints = list(sealer.reader.checkpoints())
    assert [one.seal.window for one in windows] == [1, 2, 3]
    assert [(one.seal.events, one.seal.logs) for one in windows] == [(5, 2), (0, 0), (0, 0)]
    assert [one.size for one in windows] == [one.checkpoint.size for one in checkpoints]
    assert [one.seal.before for one in windows[1:]] == [one.digest for one in checkpoints[:-1]]
    assert sealer.reader.latest() == checkpoints[-1]
    key = sealer.reader.key()
    assert key is not None
    assert all(one.is_signed_by(key) for one in checkpoints)


def test_the_months_are_files_of_their_own(sealer: Sealer) -> None:
    agent = Agent()
    january = agent.some(3)
    sealer.take(january)
    sealer.seal()
    sealer.tick(days=1)
    begin = sealer.now
    february = agent.some(2)
    sealer.take(february)
    sealer.reopen()
    sealer.take(january)
    sealer.seal()
    sealer.reopen()
    reader = sealer.reader
    assert reader.months(LOG) == ["2026-01", "2026-02"]
    assert [one.raw for one in reader.events(LOG, since=begin)] == february
    assert [one.raw for one in reader.events(LOG, until=begin)] == january
    assert [one.place.index for one in reader.events(LOG)] == [0, 1, 2, 3, 4]
    (sealer.root / "logs" / LOG / "2026-01.log").unlink()  # of a period no other month is read
    assert [one.raw for one in reader.events(LOG, since=begin)] == february


def test_an_archive_that_was_rolled_back_is_refused(sealer: Sealer) -> None:
    sealer.take(Agent().some(3))
    sealer.seal()
    sealer.archive.close()
    tree = sealer.root / "tree" / "2026-01.log"
    whole = tree.read_bytes()
    tree.write_bytes(whole[:-10])
    with pytest.raises(ArchiveInconsistent):
        sealer.open()
    tree.write_bytes(whole)
    sealer.archive.close()
    sealer.open()


def test_a_log_that_was_changed_is_refused_and_the_others_go_on(sealer: Sealer) -> None:
    sealer.take(Agent().some(3))
    sealer.take(Agent(log_id=NEIGHBOUR).some(2), NEIGHBOUR)
    sealer.seal()
    file = sealer.root / "logs" / LOG / "2026-01.log"
    file.write_bytes(file.read_bytes()[:-5])
    sealer.reopen()
    assert set(sealer.writer.refused) == {LOG}
    with pytest.raises(ArchiveInconsistent):
        sealer.take(Agent().some(4))
    assert sealer.take(Agent(1, log_id=NEIGHBOUR).some(2), NEIGHBOUR) == (2, 0, 0, 0)
    sealer.seal()


def test_two_sealers_do_not_share_an_archive(sealer: Sealer) -> None:
    with pytest.raises(ArchiveBusy):
        ArchiveFolder.open(sealer.root, writable=True)


def test_of_two_that_seal_one_wins(sealer: Sealer) -> None:
    sealer.seal()
    before = sealer.signer.load()
    sealer.signer.advance(before, SignedHead(99, bytes(32), 99))
    with pytest.raises(SignerConflict):
        sealer.seal()
    with pytest.raises(ArchiveInconsistent):
        sealer.seal()


def test_a_batch_of_nothing_but_nonsense_is_known_when_it_comes_again(sealer: Sealer) -> None:
    """As after a sealer that was killed before it shortened the queue."""
    nonsense = [number.to_bytes(4, "big") for number in range(5000)]
    assert sealer.take(nonsense) == (0, 5000, 0, 0)
    assert sealer.take(nonsense) == (0, 0, 0, 5000)
    sealer.reopen()
    assert sealer.take(nonsense) == (0, 0, 0, 5000)


def test_a_key_that_signed_and_is_gone_is_not_replaced(sealer: Sealer) -> None:
    sealer.seal()
    (sealer.signer_folder / "key").unlink()
    with pytest.raises(KeyUnavailable, match="restore it from a backup"):
        sealer.signer.key(ORIGIN)
    assert not (sealer.signer_folder / "key").exists()


@pytest.mark.parametrize("moved", [False, True])
def test_while_the_state_of_the_signer_is_away_entries_are_taken(
    sealer: Sealer, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """An API server that is away is no reason to refuse agents, whether or not it moved the state
    before it went."""
    agent = Agent()
    sealer.take(agent.some(3))
    sealer.seal()
    kept = sealer.reader.latest()
    advance = FolderSigner.advance

    def away(signer: FolderSigner, *heads: SignedHead | None) -> NoReturn:
        if moved and len(heads) == 2:
            advance(signer, *heads)
        raise ResourceUnavailable("the API server does not answer")

    sealer.take(agent.some(2))
    monkeypatch.setattr(FolderSigner, "advance", away)
    monkeypatch.setattr(FolderSigner, "load", away)
    with pytest.raises(ResourceUnavailable):
        sealer.seal()
    monkeypatch.setattr(FolderSigner, "advance", advance)
    neighbour = Agent(log_id=NEIGHBOUR)
    assert sealer.take(agent.some(2)) == (2, 0, 0, 0)
    assert sealer.take(neighbour.some(2), NEIGHBOUR) == (2, 0, 0, 0)
    with pytest.raises(ResourceUnavailable):
        sealer.seal()
    assert sealer.take(agent.some(1)) == (1, 0, 0, 0)
    monkeypatch.undo()
    sealer.seal()
    assert len(sealer.entries()) == 8
    found = verify(sealer.reader, trusted=kept)
    assert found.result is Result.GOOD
    assert [log.sealed for log in found.logs if log.log_id == LOG] == [8]


def test_without_the_state_of_the_signer_nothing_more_is_signed(sealer: Sealer) -> None:
    sealer.seal()
    sealer.archive.close()
    head = sealer.signer_folder / "head"
    kept = head.read_bytes()
    head.unlink()
    with pytest.raises(ArchiveInconsistent, match="what its key signed last is gone"):
        sealer.open()
    sealer.archive.close()
    head.write_bytes(kept[:-2])
    with pytest.raises(KeyInvalid, match="Restore it from a backup"):
        sealer.open()
    sealer.archive.close()
    head.write_bytes(kept)
    shutil.rmtree(sealer.root)
    with pytest.raises(ArchiveInconsistent, match="not the one that was signed"):
        sealer.open()


def test_what_was_remembered_of_a_log_is_not_believed_where_the_log_says_otherwise(
    sealer: Sealer,
) -> None:
    agent = Agent()
    sealer.take(agent.some(3))
    sealer.seal()
    sealer.writer.close()
    state = sealer.root / "state" / LOG
    old = state.read_bytes()
    sealer.take(agent.some(3))
    sealer.seal()
    sealer.writer.close()
    tree = sealer.root / "state" / "tree"
    peaks = json.loads(old.partition(b"\n")[0])["frontier"]
    wrong = old.replace(peaks[0].encode(), bytes(64).hex().encode()[:64])
    trees = [tree.read_bytes().replace(b'"size":4', b'"size":3'), b"{}", tree.read_bytes()]
    for text in (old, wrong, b"", old.replace(b'"size":3', b'"size":9'), b"\xff" * 100):
        state.write_bytes(text)
        tree.write_bytes(trees[len(text) % 3])
        sealer.reopen()
        assert sealer.writer.refused == {}
        assert sealer.writer.size(LOG) == 6
    sealer.seal()
    assert sealer.entries() == Agent().some(6)
    assert verify(sealer.reader, trusted=sealer.reader.latest()).result is Result.GOOD


def test_the_key_of_the_log_is_for_its_owner_alone(sealer: Sealer) -> None:
    sealer.seal()
    for name in ("key", "head", "origin"):
        assert (sealer.signer_folder / name).stat().st_mode & 0o777 == 0o600
    assert sealer.signer_folder.stat().st_mode & 0o777 == 0o700
    secret = (sealer.signer_folder / "key").read_bytes()
    for file in sealer.root.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()


@pytest.mark.parametrize("rest", range(7))
def test_nonsense_with_a_writers_name_in_it_is_no_entry_of_the_writer(
    sealer: Sealer, rest: int
) -> None:
    agent = Agent()
    entries = agent.some(3)
    sealer.take(entries)
    assert sealer.take([b"\xe1" + bytes(5) + agent.writer + bytes(rest)]) == (0, 1, 0, 0)
    sealer.reopen()
    assert sealer.take(entries[:2]) == (0, 0, 0, 2)
    assert sealer.take([agent.entry(2, "R")]) == (1, 0, 0, 0)


def test_an_agent_that_uses_up_the_counters_of_another_makes_no_forger_of_it(
    sealer: Sealer,
) -> None:
    """Who reads a conversation sees which writers its records have."""
    honest, liar = Agent(), Agent(name="liar")
    sealer.take(honest.some(3))
    sealer.take([liar.entry(4), liar.entry(5), liar.entry(2**32 - 1)])
    assert sealer.take(honest.some(3)) == (3, 0, 0, 0)
    assert sealer.take([honest.entry(4, detail=b"other")]) == (0, 1, 0, 0)


def test_what_a_removal_left_that_was_cut_off_goes_with_the_next(sealer: Sealer) -> None:
    pruned(sealer)
    folder = sealer.root / "logs" / LOG
    left = folder / "2026-01.log"
    left.write_bytes(b"let go, and its head is gone")
    first = folder / "2026-02.head"
    assert not sealer.writer.prune(LOG, sealer.now.replace(month=2, day=1))
    assert not left.exists()
    # Where nothing was let go, what lost its head is evidence that may be restored.
    neighbour = sealer.root / "logs" / NEIGHBOUR
    sealer.take([Agent(log_id=NEIGHBOUR).entry(2)], NEIGHBOUR)
    (neighbour / "2026-01.head").unlink()
    sealer.writer.prune(NEIGHBOUR, sealer.now.replace(month=2, day=1))
    assert (neighbour / "2026-01.log").exists()
    assert first.exists()


def test_where_a_log_is_gone_the_months_of_the_tree_that_tell_of_it_stay(sealer: Sealer) -> None:
    pruned(sealer)
    sealer.tick(days=60)
    shutil.rmtree(sealer.root / "logs" / LOG)
    with pytest.raises(ArchiveInconsistent, match=f"logs/{LOG} is gone"):
        sealer.writer.prune("tree", sealer.now)
    sealer.seal()


def test_a_log_that_is_new_begins_no_earlier_than_the_last_seal(sealer: Sealer) -> None:
    """Of a clock that was put back."""
    sealer.seal()
    behind = sealer.now.replace(year=2019)
    sealer.writer.take(NEIGHBOUR, Agent(log_id=NEIGHBOUR).some(1), neighbours_keys, behind)
    (leaf,) = sealer.reader.leaves(NEIGHBOUR)
    assert (leaf.sealed_at, sealer.reader.months(NEIGHBOUR)) == (sealer.now, ["2026-01"])


def test_a_head_of_a_month_to_come_takes_no_leaves(sealer: Sealer) -> None:
    """It fits, and no tree has heads."""
    agent = Agent()
    sealer.take(agent.some(2))
    sealer.seal(days=1)
    for log, head in (
        (LOG, Head(sealer.writer._log(LOG).tail.frontier)),
        (NEIGHBOUR, Head(Frontier())),
    ):
        (sealer.root / "logs" / log).mkdir(exist_ok=True)
        (sealer.root / "logs" / log / "2099-12.head").write_bytes(head.to_json())
    assert verify(sealer.reader, trusted=sealer.reader.latest()).result is Result.GOOD
    sealer.reopen()
    sealer.take(agent.some(1))
    sealer.take(Agent(log_id=NEIGHBOUR).some(1), NEIGHBOUR)
    sealer.seal()
    assert sealer.reader.months(LOG) == ["2026-01", "2026-02"]
    assert sealer.reader.months(NEIGHBOUR) == ["2026-02"]
    assert verify(sealer.reader, trusted=sealer.reader.latest()).result is Result.GOOD
