"""The checkpoints of an archive as a verifier finds them: each with its place, none believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from memtenant.archive.cursor import Finding
from memtenant.archive.port import Archive
from memtenant.archive.segments import months
from memtenant.archive.tree import LATEST, TREE_FOLDER, notes_name
from memtenant.audit.checkpoint import SignedCheckpoint, split_notes
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import CheckpointInvalid

__all__ = ["Notes", "PlacedNote"]

_SUFFIX: Final = ".notes"


@dataclass(frozen=True, slots=True)
class PlacedNote:
    """A note, where it is, and the checkpoint in it; None where it is none."""

    file: str
    offset: int
    note: bytes
    signed: SignedCheckpoint | None

    def finding(self, what: str) -> Finding:
        """Something is wrong with it."""
        return Finding(self.file, what, self.offset)


@dataclass(slots=True)
class Notes:
    """As they are at the start; what is published meanwhile is not looked at. Those of months that
    the tree has no more are no evidence: a removal was cut off, or goes on."""

    archive: Archive
    findings: list[Finding]
    _ends: list[tuple[str, int]] = field(default_factory=list)
    _latest: bytes = b""

    def __post_init__(self) -> None:
        # Before the others: a checkpoint goes among them first, and here behind it.
        self._latest = self.archive.read(LATEST)
        begin = "".join(map(notes_name, months(self.archive, TREE_FOLDER)[:1]))
        for name in self.archive.names("checkpoints"):
            file = f"checkpoints/{name}"
            if name.endswith(_SUFFIX) and file >= begin:
                self._ends.append((file, self.archive.size(file) or 0))

    def __iter__(self) -> Iterator[PlacedNote]:
        for file, end in self._ends:
            yield from self._of(file, end)

    def last(self, key: VerifyingKey | None) -> SignedCheckpoint | None:
        """The newest that is signed, of those at the end and ``latest``."""
        near = [note for file, end in self._ends[-2:] for note in self._of(file, end)][-2:]
        raw = self._latest
        latest = PlacedNote(LATEST, 0, raw, _parsed(raw)) if raw else None
        if not near and latest is None:
            what = "there is no checkpoint: nothing was sealed yet"
            self.findings.append(Finding(LATEST, what, tampered=False))
            return None
        self._compare(near, latest)
        usable = [
            one.signed
            for one in (*near[-1:], *([latest] if latest else []))
            if one.signed is not None and (key is None or self._is_signed(one, key))
        ]
        return max(usable, key=lambda one: one.checkpoint.size, default=None)

    def _compare(self, near: list[PlacedNote], latest: PlacedNote | None) -> None:
        """``latest`` is the last of the notes; between the two writes, the one before it."""
        if latest is None:
            if len(near) > 1:
                self.findings.append(Finding(LATEST, "it is missing"))
        elif not near or latest.note not in [one.note for one in near]:
            newest = near[-1].signed if near else None
            if latest.signed is None:
                self.findings.append(latest.finding("it is no checkpoint"))
            elif newest is None or latest.signed.checkpoint.size > newest.checkpoint.size:
                self.findings.append(latest.finding("it is not among the checkpoints of its month"))
            else:
                self.findings.append(latest.finding("it is not the last of the checkpoints"))

    def _is_signed(self, one: PlacedNote, key: VerifyingKey) -> bool:
        if one.signed is not None and one.signed.is_signed_by(key):
            return True
        self.findings.append(one.finding(f"the checkpoint is not signed by the key {key.name}"))
        return False

    def _of(self, file: str, end: int) -> Iterator[PlacedNote]:
        whole, torn = split_notes(self.archive.read(file, 0, end))
        offset = 0
        for note in whole:
            yield PlacedNote(file, offset, note, _parsed(note))
            offset += len(note)
        if torn:
            yield PlacedNote(file, offset, torn, None)


def _parsed(note: bytes) -> SignedCheckpoint | None:
    try:
        return SignedCheckpoint.parse(note)
    except CheckpointInvalid:
        return None
