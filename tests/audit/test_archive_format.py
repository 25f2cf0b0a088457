"""The archive as docs/audit-format.md has it, and an auditor who has that page and nothing else."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtenant.archive import ArchiveReader, verify
from memtenant.audit.checkpoint import SignedCheckpoint
from memtenant.crypto.signing import VerifyingKey
from memtenant.jobs.losses import count_changed, loss_entries, not_drained
from tests.archive.making import LOG, NEIGHBOUR, Agent, Sealer, key, pruned
from tests.audit import independent, vectors
from tests.audit.auditor import Audit, audit
from tests.audit.independent import Touched

_FILE = "archive "


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """The archive of the page, as files."""
    for name, data in vectors.documented().items():
        if name.startswith(_FILE):
            file = tmp_path / name.removeprefix(_FILE)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes.fromhex(data))
    return tmp_path


@pytest.fixture
def whole(tmp_path: Path) -> Sealer:
    """Each kind of leaf and file that the sealer writes; months of a log and the tree are gone."""
    sealer = Sealer(tmp_path)
    pruned(sealer)
    agent = Agent(number=1, counter=4)
    sealer.take([agent.entry(4), agent.entry(5, "R"), b"nonsense", agent.entry(9), bytes(9000)])
    now = int(sealer.now.timestamp() * 1000)
    lapse = not_drained(now - 3_600_000, now)
    assert lapse is not None
    losses = loss_entries([count_changed(0, 3), lapse], key(LOG, "sealer", 0), sealer.now)
    sealer.writer.take(LOG, losses, lambda name, version: key(LOG, name, version), sealer.tick())
    sealer.seal()
    sealer.take([*agent.some(1), agent.entry(4, detail=b"other")])
    sealer.seal(days=3)
    sealer.seal()
    sealer.archive.close()
    return sealer


def mac_keys(log: str, agent: str, version: int) -> bytes | None:
    return key(log, agent, version).secret


def public_key(root: Path) -> str:
    return (root / "checkpoints/key").read_text()


def notes_of(sealer: Sealer) -> list[bytes]:
    return [one.note for one in sealer.reader.checkpoints()]


def audited(sealer: Sealer, root: Path | None = None) -> Audit:
    trusted = notes_of(sealer)[-2]
    return audit(root or sealer.root, public_key(sealer.root), trusted, mac_keys)


def test_the_documented_archive_is_what_was_signed(documented: Path) -> None:
    trusted = (documented / "checkpoints/latest").read_bytes()
    given = {
        "triage": vectors.documented()["auditKey"],
        "sealer": vectors.documented()["auditKey of the sealer"],
    }
    found = audit(
        documented, public_key(documented), trusted, lambda _, name, __: bytes.fromhex(given[name])
    )
    assert (found.verdict, found.contradicted, found.sealed) == (0, [], {LOG: 7})
    leaves = found.told[LOG]
    assert [one.get("verdict", "gap") for one in leaves] == ["gap", 1, "gap", 1, 3, 1, 1]
    entry = bytes.fromhex(vectors.documented()["entry of that append"])
    assert leaves[1]["entry"] == entry
    assert (leaves[0]["missing"], leaves[2]["missing"]) == ((1, 6), (9, 11))
    assert leaves[0]["writer"] == (entry[6:14], "triage")
    assert leaves[4]["entry"] == b"nonsense"
    told = [
        independent.event(bytes.fromhex(given["sealer"]), leaf["entry"][:-12])
        for leaf in leaves[5:]
    ]
    assert [one["operation"] for one in told] == [0x62, 0x63]
    assert told[0]["detail"] == b'{"since":1769900000000,"until":1769900300000}'
    assert told[1]["detail"] == b'{"counted":7,"was":0}'


def test_the_documented_proofs_hold(documented: Path) -> None:
    found, key_text = vectors.documented(), public_key(documented)
    leaf = independent.leaf_of_log(independent.inclusion(found["inclusion of leaf 3"], key_text))
    assert (leaf["verdict"], leaf["time"]) == (1, 1769851801000)
    assert independent.consistency(found["consistency"], key_text) == (2, 6)
    other = json.loads(found["consistency"])
    other["path"].reverse()
    with pytest.raises(Touched):
        independent.consistency(json.dumps(other), key_text)


def test_what_the_sealer_wrote_is_what_it_signed(whole: Sealer) -> None:
    found = audited(whole)
    assert (found.verdict, found.touched, found.contradicted) == (0, [], [])
    assert (found.sealed[NEIGHBOUR], found.kept) == (1, {LOG: 1, NEIGHBOUR: 84, "tree": 2})
    verdicts = {one.get("verdict") for one in found.told[LOG]}
    assert verdicts == {None, 1, 3, 5, 6}
    kinds = {leaf[:2].hex() for file in whole.root.glob("**/*.log") for _, leaf in _frames(file)}
    assert kinds == {"e201", "e202", "e301", "e302", "e303", "e304"}


def test_a_checkpoint_that_was_kept_anchors_it_until_its_part_of_the_tree_is_let_go(
    tmp_path: Path,
) -> None:
    sealer = Sealer(tmp_path)
    sealer.seal()
    (held,) = notes_of(sealer)
    pruned(sealer)
    for note in notes_of(sealer):
        assert audit(sealer.root, public_key(sealer.root), note).verdict == 0
    for nothing in (held, None):
        assert audit(sealer.root, public_key(sealer.root), nothing).verdict == 2


def test_a_leaf_that_was_touched_with_its_checksum_is_found_whatever_its_kind(
    whole: Sealer,
) -> None:
    for file in sorted(whole.root.glob("**/*.log")):
        data = file.read_bytes()
        for at, leaf in _frames(file):
            touched = leaf[:-1] + bytes([leaf[-1] ^ 1])
            # The checksum of whoever touched it is right.
            framed = zlib.crc32(touched).to_bytes(4, "big") + touched
            file.write_bytes(data[: at + 4] + framed + data[at + 8 + len(leaf) :])
            assert audited(whole).verdict == 1
        file.write_bytes(data)
    assert audited(whole).verdict == 0


def test_auditor_and_audit_verify_agree_on_whatever_is_done_to_the_files(whole: Sealer) -> None:
    """And what neither of them minds is no evidence, as the page says."""
    trusted = SignedCheckpoint.parse(notes_of(whole)[-2])
    key_text = public_key(whole.root)
    passed = set()
    for what, file in _touched(whole.root):
        theirs = audit(whole.root, key_text, trusted.note).verdict
        reader, given = ArchiveReader.open(whole.root), VerifyingKey.parse(key_text)
        ours = verify(reader, public_key=given, trusted=trusted).result
        assert theirs == ours, (what, file)
        if theirs == 0:
            passed.add((what, file.parent.name, file.suffix))
    assert passed == {
        ("removed", "checkpoints", ""),  # the key
        ("once more", LOG, ".log"),  # without a head
        ("once more", NEIGHBOUR, ".log"),
        ("once more", "tree", ".log"),
        ("longer", "checkpoints", ".notes"),  # a note that is not whole
        ("longer", "tree", ".log"),  # behind what is signed
        ("once more", "tree", ".head"),
    }


def _touched(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file changed in each way, one after another."""
    files = [
        one
        for folder in ("logs", "tree", "checkpoints")
        for one in sorted((root / folder).rglob("*"))
        if one.is_file()
    ]
    for number, file in enumerate(files):
        data = file.read_bytes()
        for place in range(number % 17, len(data), 17):
            file.write_bytes(
                data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]
            )
            yield "changed", file
        for end in range(1, len(data), max(len(data) // 4, 1)):
            file.write_bytes(data[:end])
            yield "cut", file
        file.write_bytes(data + b"x" * 3)
        yield "longer", file
        other = files[number - 1]
        if other.read_bytes() != data:
            file.write_bytes(other.read_bytes())
            yield "another", file
        file.unlink()
        yield "removed", file
        file.write_bytes(data)
        if file.suffix:
            again = file.with_stem("2027-01")
            again.write_bytes(data)
            yield "once more", file
            again.unlink()


def _frames(file: Path) -> Iterator[tuple[int, bytes]]:
    data, at = file.read_bytes(), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield at, data[at + 8 : at + 8 + length]
        at += 8 + length


def test_an_archive_that_was_rolled_back_is_older_than_the_checkpoint_that_was_kept(
    tmp_path: Path,
) -> None:
    sealer = Sealer(tmp_path)
    agent = Agent()
    copies = []
    for number in range(3):
        sealer.take(agent.some(2))
        sealer.seal(days=20)
        copies.append(Path(shutil.copytree(sealer.root, tmp_path / f"copy{number}")))
    notes = notes_of(sealer)
    for number, copy in enumerate(copies):
        verdicts = [audit(copy, public_key(copy), note).verdict for note in notes]
        # Newer than what is kept: nothing in it tells that there was more.
        assert verdicts == [0 if held <= number else 1 for held in range(3)]
    older = copies[2] / "checkpoints/latest"
    older.write_bytes(notes[1])  # as between the two writes of a seal
    assert audit(copies[2], public_key(copies[2]), notes[0]).verdict == 0
    older.write_bytes(notes[0])
    assert audit(copies[2], public_key(copies[2]), notes[0]).verdict == 1


def test_the_key_of_the_documented_archive_is_that_of_its_private_key() -> None:
    found = vectors.documented()
    key_text = bytes.fromhex(found[f"{_FILE}checkpoints/key"]).decode()
    assert independent.Key.parse(key_text).text.decode() == key_text
    assert len(bytes.fromhex(found["private key of the log"])) == 32
