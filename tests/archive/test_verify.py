"""Verification finds whatever was changed, says where, and finds nothing where nothing was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zlib import crc32

import pytest

from memtenant.archive import (
    ArchiveReader,
    Result,
    SignedHead,
    Verification,
    VerifiedLog,
    verify,
)
from memtenant.archive.segments import Head
from memtenant.audit.checkpoint import Checkpoint, SignedCheckpoint
from memtenant.audit.merkle import Frontier, leaf_hashes
from memtenant.audit.segment import frames, split
from memtenant.crypto.signing import SigningKey
from memtenant.errors import ArchiveMalformed, ArchiveUnavailable
from tests.archive.making import (
    LOG,
    NEIGHBOUR,
    ORIGIN,
    Agent,
    Sealer,
    let_go,
    meanwhile,
    pruned,
    three_months,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    """Two logs, two months, an empty window, a gap, an entry that is no event."""
    sealer = Sealer(tmp_path_factory.mktemp("made"))
    agent, other = Agent(), Agent(log_id=NEIGHBOUR)
    sealer.take([agent.entry(1), agent.entry(3), b"nonsense"])
    sealer.seal()
    sealer.take(other.some(1), NEIGHBOUR)
    sealer.seal(days=1)
    sealer.seal()
    sealer.take([agent.entry(4)])
    sealer.seal()
    sealer.archive.close()
    return sealer


@pytest.fixture
def copy(made: Sealer, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.root, tmp_path / "copy"))


def first_checkpoint(root: Path) -> SignedCheckpoint:
    return next(iter(ArchiveReader.open(root).checkpoints()))


def verified(root: Path, trusted: SignedCheckpoint | None) -> Verification:
    return verify(ArchiveReader.open(root), trusted=trusted)


def evidence(root: Path) -> Iterator[Path]:
    for folder in ("logs", "tree", "checkpoints"):
        yield from sorted(path for path in (root / folder).rglob("*") if path.is_file())


def test_what_was_not_changed_is_good_where_a_checkpoint_anchors_it(made: Sealer) -> None:
    anchor = first_checkpoint(made.root)
    seen: list[tuple[int, int]] = []
    found = verify(made.reader, trusted=anchor, progress=lambda done, due: seen.append((done, due)))
    assert (found.result, found.findings, found.windows) == (Result.GOOD, (), 4)
    assert [(one.log_id, one.first, one.sealed, one.size) for one in found.logs] == [
        (NEIGHBOUR, 0, 1, 1),
        (LOG, 0, 5, 5),
    ]
    assert seen[-1][0] == seen[-1][1] > 0
    assert verified(made.root, None).result is Result.INCOMPLETE
    assert verify(made.reader, trusted=anchor, log_ids=[LOG]).logs[0].log_id == LOG


@pytest.mark.parametrize("at", range(12))
def test_what_is_sealed_meanwhile_changes_no_verdict(tmp_path: Path, at: int) -> None:
    sealer, agent = Sealer(tmp_path), Agent()
    for _ in range(2):
        sealer.take(agent.some(2))
        sealer.seal()
    anchor = first_checkpoint(sealer.root)

    def one_more() -> None:
        sealer.take(agent.some(1))
        sealer.seal()

    with meanwhile(sealer, at, one_more) as looks:
        found = verified(sealer.root, anchor)
    assert (found.result, found.findings) == (Result.GOOD, ())
    assert next(looks) > at


def test_what_is_let_go_meanwhile_changes_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    at = 0
    while True:
        sealer = three_months(tmp_path / str(at))
        anchor = sealer.reader.latest()
        with meanwhile(sealer, at, partial(let_go, sealer)) as looks:
            found = verified(sealer.root, anchor)
        assert (found.result, found.findings) == (Result.GOOD, ()), at
        if next(looks) <= at:
            break
        at += 1
    assert at > 20


def test_leaves_that_are_let_go_while_they_are_read_leave_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    at, told = 0, set[bool]()
    while True:
        sealer = three_months(tmp_path / str(at))
        with meanwhile(sealer, at, partial(let_go, sealer)) as looks:
            try:
                read = [one.place.index for one in sealer.reader.leaves(LOG)]
            except ArchiveUnavailable:
                told.add(True)
            else:
                told.add(False)
                assert read == list(range(read[0], 6)), at
        if next(looks) <= at:
            break
        at += 1
    assert told == {False, True}


def test_every_byte_that_is_changed_is_found(made: Sealer, copy: Path) -> None:
    anchor = first_checkpoint(made.root)
    for file in evidence(copy):
        whole = file.read_bytes()
        name = str(file.relative_to(copy))
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 1 + place % 255
            file.write_bytes(changed)
            found = verified(copy, anchor)
            assert found.result is Result.TAMPERED, (name, place)
            told = {one.file for one in found.findings}
            assert name in told, (name, place, found.findings)
        file.write_bytes(whole)
    assert verified(copy, anchor).result is Result.GOOD


def test_every_byte_of_what_was_not_let_go_counts(tmp_path: Path) -> None:
    """Where months of a log and of the tree are gone, and periods are said."""
    sealer = Sealer(tmp_path)
    pruned(sealer)
    sealer.archive.close()
    anchor = first_checkpoint(sealer.root)
    found = verified(sealer.root, anchor)
    assert (found.result, found.findings) == (Result.GOOD, ())
    first = {one.log_id: one.first for one in found.logs}
    assert first == {LOG: 2, NEIGHBOUR: 0}
    for file in evidence(sealer.root):
        whole = file.read_bytes()
        leaves = file.parent.parent.name == "logs" and file.suffix == ".log"
        for place in () if leaves else range(len(whole)):  # those are as where nothing was let go
            changed = bytearray(whole)
            changed[place] ^= 1 + place % 255
            file.write_bytes(changed)
            assert verified(sealer.root, anchor).result is Result.TAMPERED, (file.name, place)
        file.unlink()
        if file.name != "key":
            assert verified(sealer.root, anchor).result is Result.TAMPERED, file
        file.write_bytes(whole)


def test_a_file_that_is_missing_or_cut_is_found(made: Sealer, copy: Path) -> None:
    anchor = first_checkpoint(made.root)
    for file in evidence(copy):
        whole = file.read_bytes()
        file.unlink()
        result = verified(copy, anchor).result
        # Without the public key that lies there nothing can be said, unless one is given.
        assert result is (Result.INCOMPLETE if file.name == "key" else Result.TAMPERED), file
        file.write_bytes(whole[: len(whole) // 2])
        assert verified(copy, anchor).result is Result.TAMPERED, file
        file.write_bytes(whole)


def test_where_a_leaf_was_changed_is_told_with_what_it_said(made: Sealer, copy: Path) -> None:
    file = copy / "logs" / LOG / "2026-01.log"
    data = bytearray(file.read_bytes())
    last = bytes(data).rindex(b"triage")
    data[last + 30] ^= 1
    file.write_bytes(data)
    (finding,) = verified(copy, first_checkpoint(made.root)).findings
    assert finding.file == f"logs/{LOG}/2026-01.log"
    assert finding.leaf == 2
    assert finding.offset is not None
    assert finding.offset < last < finding.offset + 130
    assert finding.event.startswith("append by triage")
    assert finding.event.endswith("counter 3")
    with pytest.raises(ArchiveMalformed, match=rf"byte {finding.offset}, leaf 2"):
        list(ArchiveReader.open(copy).events(LOG))


def test_who_mends_the_checksum_is_found_by_the_tree(made: Sealer, copy: Path) -> None:
    file = copy / "logs" / LOG / "2026-01.log"
    data = bytearray(file.read_bytes())
    length = int.from_bytes(data[:4], "big")
    data[8 + length - 1] ^= 1
    data[4:8] = crc32(data[8 : 8 + length]).to_bytes(4, "big")
    file.write_bytes(data)
    (finding,) = verified(copy, first_checkpoint(made.root)).findings
    assert "a leaf from 0 to 3" in finding.what


def test_leaves_that_were_moved_to_another_month_are_found(made: Sealer, copy: Path) -> None:
    """Heads are of no tree: who reads a period reads the files of its months."""
    anchor = first_checkpoint(made.root)
    for folder in (f"logs/{LOG}", "tree"):
        first, second = sorted((copy / folder).glob("*.log"))
        before, after = first.read_bytes(), second.read_bytes()
        head = second.with_suffix(".head")
        was = head.read_bytes()
        for moved in (1, -1):
            leaves, _, _ = split(before + after)
            at = Head.parse(was).first - moved
            first.write_bytes(frames(leaves[:at]))
            second.write_bytes(frames(leaves[at:]))
            frontier = Frontier()
            frontier.extend(leaf_hashes(leaves[:at]))
            head.write_bytes(Head(frontier).to_json())
            found = verified(copy, anchor)
            assert found.result is Result.TAMPERED
            assert {"moved to another month" in one.what for one in found.findings} == {True}
        for file, data in ((first, before), (second, after), (head, was)):
            file.write_bytes(data)
    assert verified(copy, anchor).result is Result.GOOD


def test_checkpoints_that_stand_in_another_month_or_once_more_are_found(
    made: Sealer, copy: Path
) -> None:
    """They go with the month whose file they are in."""
    anchor, notes = first_checkpoint(made.root), copy / "checkpoints/2026-02.notes"
    again = notes.with_name("2026-03.notes")
    again.write_bytes(notes.read_bytes())
    found = verified(copy, anchor)
    assert {one.what for one in found.findings} == {"no window ended with this checkpoint"}
    notes.unlink()
    found = verified(copy, anchor)
    assert {"moved to another month" in one.what for one in found.findings} == {True}
    assert found.result is Result.TAMPERED


def test_a_history_that_the_key_signed_anew_is_found_by_the_trusted_checkpoint(
    made: Sealer, tmp_path: Path
) -> None:
    anchor = first_checkpoint(made.root)
    other = Sealer(tmp_path)
    other.archive.close()
    shutil.copytree(made.root.parent / "audit", tmp_path / "audit", dirs_exist_ok=True)
    (tmp_path / "audit" / "head").unlink()
    shutil.rmtree(other.root)
    other.reopen()
    for _ in range(6):
        other.seal()
    assert verified(other.root, None).result is Result.INCOMPLETE
    found = verified(other.root, anchor)
    assert found.result is Result.TAMPERED
    assert "does not continue the trusted checkpoint" in found.findings[0].what


def test_another_key_than_the_trusted_one_is_found(made: Sealer, copy: Path) -> None:
    forger = SigningKey.new(ORIGIN)
    assert verify(ArchiveReader.open(copy), public_key=forger.public).result is Result.TAMPERED
    foreign = Checkpoint(ORIGIN, 2, bytes(32)).sign(forger)
    assert verified(copy, foreign).result is Result.TAMPERED


def test_an_archive_that_is_older_than_the_trusted_checkpoint_is_found(
    made: Sealer, tmp_path: Path
) -> None:
    sealer = Sealer(tmp_path)
    sealer.take(Agent().some(2))
    sealer.seal()
    old = shutil.copytree(sealer.root, tmp_path / "old")
    sealer.seal()
    newest = sealer.reader.latest()
    found = verified(old, newest)
    assert found.result is Result.TAMPERED
    assert "older than the trusted checkpoint" in found.findings[0].what


def test_what_is_not_sealed_yet_is_counted_and_a_write_that_goes_on_is_no_tampering(
    tmp_path: Path,
) -> None:
    sealer = Sealer(tmp_path)
    agent = Agent()
    sealer.take(agent.some(2))
    sealer.seal()
    anchor = sealer.reader.latest()
    sealer.take(agent.some(3))
    found = verified(sealer.root, anchor)
    assert found.result is Result.GOOD
    assert (found.logs[0].sealed, found.logs[0].size) == (2, 5)
    file = sealer.root / "logs" / LOG / "2026-01.log"
    file.write_bytes(file.read_bytes()[:-3])
    assert verified(sealer.root, anchor).result is Result.INCOMPLETE


def test_months_that_were_let_go_are_told_apart_from_those_that_were_taken(
    tmp_path: Path,
) -> None:
    sealer = Sealer(tmp_path)
    agent = Agent()
    for _ in range(4):
        sealer.take(agent.some(5))
        sealer.seal()
        sealer.tick(days=19)
    anchor = sealer.reader.latest()
    assert sealer.reader.months(LOG) == ["2026-01", "2026-02", "2026-03"]
    sealer.writer.keep(LOG, 1)
    assert sealer.writer.prune(LOG, sealer.now.replace(month=3, day=1))
    taken = shutil.copytree(sealer.root, tmp_path / "taken")
    for name in ("2026-01.head", "2026-01.log"):
        (taken / "logs" / LOG / name).unlink()
    assert verified(taken, anchor).result is Result.TAMPERED
    sealer.seal()
    assert sealer.reader.months(LOG) == ["2026-03"]
    found = verified(sealer.root, anchor)
    assert found.result is Result.GOOD
    assert found.logs[0] == VerifiedLog(LOG, first=10, sealed=20, size=20, let_go=5, kept=1)
    sealer.reopen()
    assert sealer.take([agent.next()]) == (1, 0, 0, 0)
    sealer.writer.prune("tree", sealer.now.replace(month=3, day=1))
    sealer.seal()
    sealer.reopen()
    assert verified(sealer.root, anchor).result is Result.GOOD
    assert verified(sealer.root, None).findings == ()


def test_a_state_of_the_signer_reads_back() -> None:
    head = SignedHead(7, bytes(range(32)), 3)
    assert SignedHead.parse(head.to_json()) == head
