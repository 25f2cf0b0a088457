"""A second reader of the audit format, written from docs/audit-format.md alone.

It imports nothing of memtenant: what it reads, another language can read. What it makes of a whole
archive is in `tests.audit.auditor`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.crypto.independent import hkdf, lp


class Touched(Exception):
    """Something is not as the page says."""


def need(holds: object, *what: object) -> None:
    if not holds:
        raise Touched(" ".join(map(str, what)))


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


def entry(data: bytes) -> tuple[bytes, str, int, int] | None:
    """The event of an entry, its outcome, the time and the sequence; None for what is malformed."""
    if len(data) < 97 or data[0] != 0xE1 or data[-12] not in b"OCR":
        return None
    if data[68] > len(data) - 97 or data[14:18] == bytes(4):
        return None
    time, sequence = (int.from_bytes(part, "big") for part in (data[-11:-5], data[-5:]))
    return data[:-12], chr(data[-12]), time, sequence


def leaf_of_log(leaf: bytes) -> dict[str, Any]:
    need(len(leaf) >= 9 and leaf[0] == 0xE2 and leaf[1] in (1, 2), "no leaf of a log")
    time = int.from_bytes(leaf[2:8], "big")
    if leaf[1] == 1:
        need(1 <= leaf[8] <= 6, "no verdict")
        return {"time": time, "verdict": leaf[8], "entry": leaf[9:]}
    need(len(leaf) >= 24, "no gap")
    first, last = (int.from_bytes(leaf[at : at + 4], "big") for at in (16, 20))
    writer = (leaf[8:16], leaf[24:].decode("ascii", "replace"))
    return {"time": time, "writer": writer, "missing": (first, last)}


@dataclass
class Grown:
    """A Merkle tree as its full subtrees, the largest first: one for each bit of the size."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        need(len(self.peaks) == self.size.bit_count(), "a frontier that does not fit its size")

    def add(self, leaf: bytes) -> None:
        self.peaks.append(hashlib.sha256(b"\0" + leaf).digest())
        self.size += 1
        for _ in range((self.size & -self.size).bit_length() - 1):
            right, left = self.peaks.pop(), self.peaks.pop()
            self.peaks.append(_node(left, right))

    @property
    def root(self) -> bytes:
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        found = self.peaks[-1]
        for left in reversed(self.peaks[:-1]):
            found = _node(left, found)
        return found


@dataclass(frozen=True)
class Note:
    """A checkpoint that is signed."""

    text: bytes
    size: int
    root: bytes


@dataclass(frozen=True)
class Key:
    """The public key of a log."""

    name: str
    id: bytes
    public: bytes

    @property
    def text(self) -> bytes:
        """As the archive has it."""
        public = base64.b64encode(b"\x01" + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{public}\n".encode()

    @classmethod
    def parse(cls, text: str) -> Key:
        name, _, rest = text.partition("+")
        key_id, _, public = rest.removesuffix("\n").partition("+")
        key = from_base64(public, 33)
        found = cls(name, hashlib.sha256(name.encode() + b"\n" + key).digest()[:4], key[1:])
        need(key[0] == 1 and key_id == found.id.hex(), "no public key")
        return found

    def note(self, text: bytes) -> Note:
        lines = text.decode("utf-8", "replace").split("\n")
        need(len(lines) == 6 and lines[3] == lines[5] == "", "no note")
        origin, size, root, _, signature, _ = lines
        need(origin == self.name, "another log's note")
        need(re.fullmatch("0|[1-9][0-9]*", size), "no size")
        need(signature.startswith(f"— {self.name} "), "a note that is signed by another")
        data = from_base64(signature.removeprefix(f"— {self.name} "), 68)
        need(data[:4] == self.id, "a note that is signed by another key")
        try:
            signed = text[: text.index(b"\n\n") + 1]
            Ed25519PublicKey.from_public_bytes(self.public).verify(data[4:], signed)
        except InvalidSignature:
            raise Touched("a signature that does not hold") from None
        return Note(text, int(size), from_base64(root, 32))

    def notes(self, data: bytes) -> tuple[list[Note], bytes]:
        """Those that stand one after another, and what is behind the last whole one."""
        lines, found = data.split(b"\n"), []
        while len(lines) > 5 and lines[4].startswith("— ".encode()):
            found.append(self.note(b"\n".join(lines[:5]) + b"\n"))
            lines = lines[5:]
        return found, b"\n".join(lines)


def from_base64(text: str, length: int | None = None) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Touched("no base64") from None
    need(base64.b64encode(data).decode() == text, "base64 that is not canonical")
    need(length in (None, len(data)), "other than", length, "bytes")
    return data


def inclusion(text: str, key: str) -> bytes:
    """The leaf of a proof that holds."""
    proof = json.loads(text)
    need((proof["format"], proof["kind"]) == (1, "inclusion"), "another kind of proof")
    leaf, root = from_base64(proof["leaf"]), from_base64(proof["logRoot"], 32)
    path = [from_base64(one, 32) for one in proof["path"]]
    need(_climb(leaf, proof["index"], proof["logSize"], path) == root, "the leaf is not in the log")
    stated = b"\xe3\x01" + proof["logSize"].to_bytes(8, "big") + root + proof["log"].encode()
    note = Key.parse(key).note(proof["checkpoint"].encode())
    path = [from_base64(one, 32) for one in proof["treePath"]]
    found = _climb(stated, proof["treeIndex"], note.size, path)
    need(found == note.root, "the root is not in the tree")
    return leaf


def consistency(text: str, key: str) -> tuple[int, int]:
    """The sizes of the two checkpoints of a proof that holds (RFC 9162, section 2.1.4.2)."""
    proof = json.loads(text)
    need((proof["format"], proof["kind"]) == (1, "consistency"), "another kind of proof")
    old, new = (Key.parse(key).note(proof[one].encode()) for one in ("old", "new"))
    path = [from_base64(one, 32) for one in proof["path"]]
    if old.size == new.size:
        need(not path and old.root == new.root, "two roots of one size")
        return old.size, new.size
    need(0 < old.size < new.size, "sizes that cannot be")
    path = [old.root, *path] if old.size.bit_count() == 1 else path
    need(path, "no path")
    index, last = old.size - 1, new.size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        need(last, "a path that is too long")
        if index & 1 or index == last:
            before, after = _node(sibling, before), _node(sibling, after)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            after = _node(after, sibling)
        index, last = index >> 1, last >> 1
    need(last == 0 and (before, after) == (old.root, new.root), "the log did not go on")
    return old.size, new.size


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _climb(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2."""
    need(0 <= index < size, "an index behind the tree")
    found, last = hashlib.sha256(b"\0" + leaf).digest(), size - 1
    for sibling in path:
        need(last > 0, "a path that is too long")
        if index & 1 or index == last:
            found = _node(sibling, found)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            found = _node(found, sibling)
        index, last = index >> 1, last >> 1
    need(last == 0, "a path that is too short")
    return found
