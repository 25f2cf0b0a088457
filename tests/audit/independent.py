"""A second reader of the audit format, written from docs/audit-format.md alone.

It imports nothing of memtenant: what it reads, another language can read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.crypto.independent import hkdf, lp


def audit_key(installation_root: bytes, log: str, agent: str, binding: int) -> bytes:
    root = hkdf(installation_root, lp(b"memtenant/1/audit-root"))
    return hkdf(
        root, lp(b"memtenant/1/audit", log.encode(), agent.encode(), binding.to_bytes(8, "big"))
    )


def event(audit_key: bytes, data: bytes) -> dict[str, object]:
    """The fields of an event whose MAC is right."""
    body, tag = data[:-16], data[-16:]
    assert hmac.digest(audit_key, lp(b"memtenant/1/audit-event") + body, "sha256")[:16] == tag
    assert data[0] == 0xE1
    length = data[68]
    return {
        "operation": data[1],
        "binding": int.from_bytes(data[2:6], "big"),
        "writer": data[6:14],
        "counter": int.from_bytes(data[14:18], "big"),
        "count": int.from_bytes(data[18:20], "big"),
        "alias": data[20:36],
        "place": data[36:52],
        "commitment": data[52:68],
        "agent": data[69 : 69 + length].decode(),
        "detail": body[69 + length :],
    }


def alias(dek: bytes, tag: bytes) -> bytes:
    return hkdf(dek, lp(b"memtenant/1/audit-alias", tag))[:16]


def place(dek: bytes, tenant: str, scope: str, conversation: str) -> bytes:
    where = (tenant.encode(), scope.encode(), conversation.encode())
    return hkdf(dek, lp(b"memtenant/1/audit-place", *where))[:16]


def commitment(
    dek: bytes, tenant: str, scope: str, conversation: str, stored: list[bytes]
) -> bytes:
    where = (tenant.encode(), scope.encode(), conversation.encode())
    key = hkdf(dek, lp(b"memtenant/1/audit-commitment", *where))
    digests = b"".join(hashlib.sha256(one).digest() for one in stored)
    return hmac.digest(key, digests, "sha256")[:16]


def sequences(detail: bytes) -> list[int]:
    found, position, before = [], 0, 0
    while position < len(detail):
        distance = shift = 0
        while True:
            byte = detail[position]
            position += 1
            distance |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        before += distance
        found.append(before)
    return found


def archive(root: Path, key: str, trusted: bytes) -> dict[str, int]:
    """How many leaves of each log are sealed, of an archive in which everything is right."""
    name, _, public = key.strip().split("+", 2)
    signer = Ed25519PublicKey.from_public_bytes(base64.b64decode(public)[1:])
    notes = [note for file in sorted(root.glob("checkpoints/*.notes")) for note in _notes(file)]
    for note in (trusted, (root / "checkpoints/latest").read_bytes()):
        body, _, signature = note.partition(b"\n\n")
        words = signature.decode().split()
        assert words[:2] == ["—", name]
        data = base64.b64decode(words[2])
        assert (
            data[:4]
            == hashlib.sha256(name.encode() + b"\n" + base64.b64decode(public)).digest()[:4]
        )
        signer.verify(data[4:], body + b"\n")
    assert notes[-1] == (root / "checkpoints/latest").read_bytes()

    tree: list[bytes] = []
    logs: dict[str, list[bytes]] = {}
    sealed: dict[str, int] = {}
    window, before, passed = 0, bytes(32), False
    for leaf in _leaves(root / "tree"):
        tree.append(leaf)
        assert leaf[0] == 0xE3
        if leaf[1] == 1:
            size, log = int.from_bytes(leaf[2:10], "big"), leaf[42:].decode()
            if log not in logs:
                logs[log] = list(_leaves(root / "logs" / log))
            assert size >= sealed.get(log, 0)
            assert _root(logs[log][:size]) == leaf[10:42]
            assert len(logs[log]) >= size
            sealed[log] = size
        elif leaf[1] == 2:
            note = notes[window]
            assert note.split(b"\n")[1:3] == [
                str(len(tree)).encode(),
                base64.b64encode(_root(tree)),
            ]
            assert int.from_bytes(leaf[2:10], "big") == window + 1
            assert leaf[16:48] == before
            before, window = hashlib.sha256(note).digest(), window + 1
            passed = passed or note == trusted
    assert passed
    assert window == len(notes)
    return sealed


def leaf_of_log(leaf: bytes) -> dict[str, object]:
    assert leaf[0] == 0xE2
    time = int.from_bytes(leaf[2:8], "big")
    if leaf[1] == 2:
        first, last = (int.from_bytes(leaf[at : at + 4], "big") for at in (16, 20))
        writer = (leaf[8:16], leaf[24:].decode("ascii"))
        return {"time": time, "writer": writer, "missing": (first, last)}
    return {"time": time, "verdict": leaf[8], "entry": leaf[9:]}


def inclusion(text: str, key: str) -> bytes:
    """The leaf of a proof that holds."""
    proof = json.loads(text)
    leaf, root = (base64.b64decode(proof[name]) for name in ("leaf", "logRoot"))
    path = [base64.b64decode(one) for one in proof["path"]]
    assert _climb(leaf, proof["index"], proof["logSize"], path) == root
    stated = b"\xe3\x01" + proof["logSize"].to_bytes(8, "big") + root + proof["log"].encode()
    note = proof["checkpoint"].encode()
    _, size, tree_root = note.split(b"\n")[:3]
    path = [base64.b64decode(one) for one in proof["treePath"]]
    found = _climb(stated, proof["treeIndex"], int(size), path)
    assert found == base64.b64decode(tree_root)
    body, _, signature = note.partition(b"\n\n")
    public = base64.b64decode(key.strip().split("+", 2)[2])[1:]
    data = base64.b64decode(signature.split()[2])
    Ed25519PublicKey.from_public_bytes(public).verify(data[4:], body + b"\n")
    return leaf


def _notes(file: Path) -> Iterator[bytes]:
    lines = file.read_bytes().split(b"\n")
    for start in range(0, len(lines) - 1, 5):
        yield b"\n".join(lines[start : start + 5]) + b"\n"


def _leaves(folder: Path) -> Iterator[bytes]:
    """Of an archive in which nothing was let go."""
    have: list[bytes] = []
    for head in sorted(folder.glob("*.head")):
        stated = json.loads(head.read_bytes())
        assert stated["first"] == len(have)
        assert stated["frontier"] == [peak.hex() for peak in _peaks(have)]
        data, at = head.with_suffix(".log").read_bytes(), 0
        while at < len(data):
            length, checksum = (int.from_bytes(data[at + n : at + n + 4], "big") for n in (0, 4))
            leaf = data[at + 8 : at + 8 + length]
            assert zlib.crc32(leaf) == checksum
            have.append(leaf)
            yield leaf
            at += 8 + length


def _root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + _root(leaves[:split]) + _root(leaves[split:])).digest()


def _peaks(leaves: list[bytes]) -> Iterator[bytes]:
    while leaves:
        many = 1 << len(leaves).bit_length() - 1
        yield _root(leaves[:many])
        leaves = leaves[many:]


def _climb(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2."""
    found, last = hashlib.sha256(b"\0" + leaf).digest(), size - 1
    for sibling in path:
        assert last > 0
        if index & 1 or index == last:
            found = hashlib.sha256(b"\1" + sibling + found).digest()
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\1" + found + sibling).digest()
        index, last = index >> 1, last >> 1
    assert last == 0
    return found
