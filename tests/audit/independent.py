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


def archive(root: Path, key: str, trusted: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """How many leaves of each log are sealed, and for how many months each is kept, of an archive
    in which everything is right."""
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

    first, peaks, leaves = _log(root / "tree")
    logs: dict[str, tuple[int, list[bytes], list[bytes]]] = {}
    sealed: dict[str, int] = {}
    kept: dict[str, int] = {}
    let_go: dict[str, int] = {}
    numbers: list[int] = []
    before = bytes(32)
    stated = [str(first).encode(), base64.b64encode(_bagged(peaks))]
    passed = trusted.split(b"\n")[1:3] == stated
    for place, leaf in enumerate(leaves):
        assert leaf[0] == 0xE3
        if leaf[1] == 1:
            size, log = int.from_bytes(leaf[2:10], "big"), leaf[42:].decode()
            if log not in logs:
                logs[log] = _log(root / "logs" / log)
            begin, old, some = logs[log]
            if size < begin:
                continue
            assert size >= sealed.get(log, 0)
            assert len(some) >= size - begin
            assert _bagged(_grown(begin, old, some[: size - begin])) == leaf[10:42]
            sealed[log] = size
        elif leaf[1] == 2:
            note = notes[len(numbers)]
            root_now = _bagged(_grown(first, peaks, leaves[: place + 1]))
            size = first + place + 1
            assert note.split(b"\n")[1:3] == [str(size).encode(), base64.b64encode(root_now)]
            numbers.append(int.from_bytes(leaf[2:10], "big"))
            assert leaf[16:48] == before or (first and len(numbers) == 1)
            before = hashlib.sha256(note).digest()
            passed = passed or note == trusted
        elif leaf[1] == 3:
            let_go[leaf[42:].decode()] = int.from_bytes(leaf[2:10], "big")
        else:
            assert leaf[1] == 4
            kept[leaf[6:].decode()] = int.from_bytes(leaf[2:6], "big")
    assert passed
    assert len(numbers) == len(notes)
    assert numbers == [*range(numbers[0], numbers[0] + len(notes))]
    assert first or numbers[0] == 1
    for name, begin in (("tree", first), *((log, logs[log][0]) for log in logs)):
        assert begin <= let_go.get(name, 0)
    return sealed, kept


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


def _log(folder: Path) -> tuple[int, list[bytes], list[bytes]]:
    """The number of the first leaf that is there, the frontier of those before it, the leaves."""
    first, old, have = 0, [], []
    for head in sorted(folder.glob("*.head")):
        stated = json.loads(head.read_bytes())
        peaks = [bytes.fromhex(one) for one in stated["frontier"]]
        assert len(peaks) == stated["first"].bit_count()
        if not have and not first:
            first, old = stated["first"], peaks
        assert (stated["first"], peaks) == (first + len(have), _grown(first, old, have))
        file = head.with_suffix(".log")
        data, at = file.read_bytes() if file.exists() else b"", 0
        while at < len(data):
            length, checksum = (int.from_bytes(data[at + n : at + n + 4], "big") for n in (0, 4))
            leaf = data[at + 8 : at + 8 + length]
            assert zlib.crc32(leaf) == checksum
            have.append(leaf)
            at += 8 + length
    return first, old, have


def _grown(size: int, frontier: list[bytes], leaves: list[bytes]) -> list[bytes]:
    """The roots of the full subtrees, the largest first, once the leaves are added."""
    peaks = list(frontier)
    for leaf in leaves:
        peaks.append(hashlib.sha256(b"\0" + leaf).digest())
        size += 1
        for _ in range((size & -size).bit_length() - 1):
            right, left = peaks.pop(), peaks.pop()
            peaks.append(hashlib.sha256(b"\1" + left + right).digest())
    return peaks


def _bagged(peaks: list[bytes]) -> bytes:
    """The root of the tree that full subtrees make up."""
    if not peaks:
        return hashlib.sha256(b"").digest()
    found = peaks[-1]
    for left in reversed(peaks[:-1]):
        found = hashlib.sha256(b"\1" + left + found).digest()
    return found


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
