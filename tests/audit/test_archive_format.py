"""The archive as docs/audit-format.md has it, and a verifier that was written from that page."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive.making import LOG, NEIGHBOUR, Agent, Sealer, pruned
from tests.audit import independent, vectors

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


def test_a_second_implementation_verifies_the_documented_archive(documented: Path) -> None:
    key = (documented / "checkpoints/key").read_text()
    trusted = (documented / "checkpoints/latest").read_bytes()
    assert independent.archive(documented, key, trusted) == ({LOG: 5}, {})
    found = vectors.documented()
    leaf = independent.leaf_of_log(independent.inclusion(found["inclusion of leaf 3"], key))
    assert (leaf["verdict"], leaf["time"]) == (1, 1769851801000)
    consistency = json.loads(found["consistency"])
    assert consistency["new"].encode() == trusted


def test_a_second_implementation_reads_each_leaf(documented: Path) -> None:
    data = bytes.fromhex(vectors.documented()[f"{_FILE}logs/{LOG}/2026-01.log"])
    leaves, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        leaves.append(independent.leaf_of_log(data[at + 8 : at + 8 + length]))
        at += 8 + length
    entry = bytes.fromhex(vectors.documented()["entry of that append"])
    assert [one.get("verdict", "gap") for one in leaves] == ["gap", 1, "gap", 1, 3]
    assert leaves[1]["entry"] == entry
    assert (leaves[0]["missing"], leaves[2]["missing"]) == ((1, 6), (9, 11))
    assert leaves[0]["writer"] == (entry[6:14], entry[69 : 69 + entry[68]].decode())
    assert leaves[4]["entry"] == b"nonsense"


def test_a_second_implementation_verifies_what_the_sealer_wrote(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path)
    agent, other = Agent(), Agent(log_id=NEIGHBOUR)
    for _ in range(5):
        sealer.take(agent.some(7))
        sealer.take(other.some(2), NEIGHBOUR)
        sealer.seal(days=12)
    trusted = next(iter(sealer.reader.checkpoints())).note
    key = (sealer.root / "checkpoints/key").read_text()
    assert independent.archive(sealer.root, key, trusted) == ({LOG: 35, NEIGHBOUR: 10}, {})
    file = sealer.root / "logs" / LOG / "2026-02.log"
    whole = file.read_bytes()
    file.write_bytes(whole[:40] + b"?" + whole[41:])
    with pytest.raises(AssertionError):
        independent.archive(sealer.root, key, trusted)


def test_a_second_implementation_verifies_what_was_let_go(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path)
    pruned(sealer)
    trusted = next(iter(sealer.reader.checkpoints())).note
    key = (sealer.root / "checkpoints/key").read_text()
    sealed, kept = independent.archive(sealer.root, key, trusted)
    assert (sealed, kept) == ({LOG: 6, NEIGHBOUR: 1}, {LOG: 1, NEIGHBOUR: 84, "tree": 2})
    months = sealer.reader.months(LOG)
    for name in (f"{months[0]}.head", f"{months[0]}.log"):
        (sealer.root / "logs" / LOG / name).unlink()
    with pytest.raises(AssertionError):
        independent.archive(sealer.root, key, trusted)


def test_a_second_implementation_tells_of_a_byte_in_any_kind_of_leaf(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path)
    pruned(sealer)
    sealer.take(Agent(number=1, counter=4).some(1))
    sealer.seal()
    trusted = next(iter(sealer.reader.checkpoints())).note
    key = (sealer.root / "checkpoints/key").read_text()
    independent.archive(sealer.root, key, trusted)
    kinds = set()
    for file in sorted(sealer.root.glob("**/*.log")):
        whole = file.read_bytes()
        for at, leaf in _frames(whole):
            kinds.add(leaf[:2].hex())
            touched = leaf[:-1] + bytes([leaf[-1] ^ 1])
            # The checksum of whoever touched it is right.
            framed = zlib.crc32(touched).to_bytes(4, "big") + touched
            copy = shutil.copytree(sealer.root, tmp_path / "touched")
            (copy / file.relative_to(sealer.root)).write_bytes(
                whole[: at + 4] + framed + whole[at + 8 + len(leaf) :]
            )
            with pytest.raises(AssertionError):
                independent.archive(copy, key, trusted)
            shutil.rmtree(copy)
    assert kinds == {"e201", "e202", "e301", "e302", "e303", "e304"}


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield at, data[at + 8 : at + 8 + length]
        at += 8 + length


def test_the_key_of_the_documented_archive_is_that_of_its_private_key() -> None:
    found = vectors.documented()
    public = bytes.fromhex(found[f"{_FILE}checkpoints/key"]).decode().strip().split("+", 2)[2]
    assert base64.b64decode(public)[:1] == b"\x01"
    assert len(bytes.fromhex(found["private key of the log"])) == 32
