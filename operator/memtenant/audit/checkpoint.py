"""A checkpoint: the size and root of the tree at the end of a window, under the log's signature.

https://c2sp.org/tlog-checkpoint in a https://c2sp.org/signed-note, of the log's key alone::

    memtenant.dev/1b2c…                        the origin, which is also the key's name
    42                                         size of the tree
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   root, base64

    — memtenant.dev/1b2c… Az3grlgt…            signature: base64 of key id (4 B) and Ed25519 (64 B)
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from memtenant.audit.merkle import HASH_BYTES
from memtenant.crypto.signing import SIGNATURE_BYTES, SigningKey, VerifyingKey
from memtenant.errors import CheckpointInvalid
from memtenant.tenancy.document import from_base64, to_base64

__all__ = ["MAX_NOTE_BYTES", "Checkpoint", "SignedCheckpoint", "split_notes"]

MAX_NOTE_BYTES: Final = 64 * 1024
_MAX_SIZE: Final = 2**63 - 1
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE: Final = re.compile(r"— ([!-*,-~]{1,256}) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How large the tree of a log was, and what was in it."""

    origin: str
    size: int
    root: bytes

    @property
    def body(self) -> bytes:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n".encode()

    def sign(self, key: SigningKey) -> SignedCheckpoint:
        """The note. The same checkpoint and key give the same bytes."""
        signature = to_base64(key.public.id + key.sign(self.body))
        note = self.body + f"\n— {key.public.name} {signature}\n".encode()
        return SignedCheckpoint(self, note)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with the note that it was read from. Parsed is not verified."""

    checkpoint: Checkpoint
    note: bytes

    @property
    def digest(self) -> bytes:
        """What the next window's seal names it by."""
        return hashlib.sha256(self.note).digest()

    @classmethod
    def parse(cls, note: bytes) -> Self:
        """Raises `CheckpointInvalid` for anything that is no checkpoint in a signed note."""
        if len(note) > MAX_NOTE_BYTES:
            raise _invalid(f"it is longer than {MAX_NOTE_BYTES} bytes")
        try:
            text = note.decode()
        except UnicodeDecodeError:
            raise _invalid("it is no UTF-8 text") from None
        body, gap, signatures = text.partition("\n\n")
        lines = body.split("\n")
        if not gap or len(lines) != 3 or not signatures.endswith("\n"):
            raise _invalid("it is not three lines, an empty one, and signatures")
        if not all(_SIGNATURE.fullmatch(line) for line in signatures[:-1].split("\n")):
            raise _invalid("a line below the empty one is no signature")
        origin, size, root = lines
        if not _SIZE.fullmatch(size) or int(size) > _MAX_SIZE:
            raise _invalid("its second line is no size")
        try:
            digest = from_base64(root)
        except ValueError:
            digest = b""
        if len(digest) != HASH_BYTES:
            raise _invalid("its third line is no root in base64")
        if not origin or not origin.isprintable() or origin != origin.strip():
            raise _invalid("its first line is no origin")
        return cls(Checkpoint(origin, int(size), digest), note)

    def is_signed_by(self, key: VerifyingKey) -> bool:
        """Whether one of its signatures is this key's, over this checkpoint as it stands."""
        if self.checkpoint.origin != key.name:
            return False
        return any(
            key.verifies(signature, self.checkpoint.body) for signature in self._signatures_of(key)
        )

    def _signatures_of(self, key: VerifyingKey) -> list[bytes]:
        _, _, signatures = self.note.decode().partition("\n\n")
        found = []
        for line in signatures[:-1].split("\n"):
            parts = _SIGNATURE.fullmatch(line)
            if parts is None or parts[1] != key.name:
                continue
            try:
                data = from_base64(parts[2])
            except ValueError:
                continue
            if len(data) == len(key.id) + SIGNATURE_BYTES and data.startswith(key.id):
                found.append(data[len(key.id) :])
        return found


def split_notes(data: bytes) -> tuple[list[bytes], bytes]:
    """The notes that stand one after another, and what is left at the end: a note that was not
    written to its end, or nothing. Each is parsed on its own."""
    notes: list[bytes] = []
    start = 0
    while True:
        gap = data.find(b"\n\n", start)
        if gap < 0:
            return notes, data[start:]
        end = gap + 2
        while data.startswith("— ".encode(), end):
            newline = data.find(b"\n", end)
            if newline < 0:
                return notes, data[start:]
            end = newline + 1
        if end == gap + 2:
            return notes, data[start:]
        notes.append(data[start:end])
        start = end


def _invalid(why: str) -> CheckpointInvalid:
    return CheckpointInvalid(f"This is no checkpoint of a log: {why}")
