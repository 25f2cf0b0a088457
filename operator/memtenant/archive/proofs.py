"""Proofs that stand alone: with the public key, nobody needs the archive to check one.

An inclusion is in two steps: the leaf in its log, whose root is a leaf of the tree, which a
checkpoint signs. A consistency says that the tree of one checkpoint went on as that of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from memtenant.archive.log import log_folder
from memtenant.archive.port import Archive
from memtenant.archive.reader import ArchiveReader
from memtenant.archive.segments import blocks, first_months, months, read_head
from memtenant.archive.tree import TREE_FOLDER
from memtenant.audit.checkpoint import MAX_NOTE_BYTES, SignedCheckpoint
from memtenant.audit.leaf import LogRoot, is_log_id, parse_tree_leaf
from memtenant.audit.merkle import (
    HASH_BYTES,
    Frontier,
    Range,
    consistency_ranges,
    inclusion_ranges,
    is_consistent,
    is_included,
    leaf_hash,
    leaf_hashes,
    roots_of,
)
from memtenant.audit.segment import MAX_LEAF_BYTES
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import (
    ArchiveInconsistent,
    ArchiveMalformed,
    ArchiveUnavailable,
    CheckpointInvalid,
    ProofInvalid,
    UsageError,
)
from memtenant.tenancy.document import (
    DocumentInvalid,
    Fields,
    canonical_json,
    from_base64,
    read_json,
    to_base64,
)

__all__ = ["ConsistencyProof", "InclusionProof", "parse_proof", "prove", "prove_consistency"]

_FORMAT: Final = 1
_MOST: Final = 64
_LARGEST: Final = 512 * 1024
_TRIES: Final = 5

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That ``leaf`` is number ``index`` of a log, as of a checkpoint.

    root: how far the log was when it was sealed; it is leaf ``place`` of the tree.
    """

    leaf: bytes
    index: int
    root: LogRoot
    path: tuple[bytes, ...]
    place: int
    tree_path: tuple[bytes, ...]
    checkpoint: SignedCheckpoint

    def problem(self, key: VerifyingKey) -> str:
        """Why it proves nothing; empty where it does."""
        signed, root = self.checkpoint.checkpoint, self.root
        if not self.checkpoint.is_signed_by(key):
            return f"its checkpoint is not signed by the key {key.name}"
        hashed = leaf_hash(self.leaf)
        if not is_included(hashed, self.index, root.size, root.root, self.path):
            return f"the leaf is not number {self.index} of log {root.log_id}"
        hashed = leaf_hash(root.to_bytes())
        if not is_included(hashed, self.place, signed.size, signed.root, self.tree_path):
            return f"the root of log {root.log_id} is not in the tree that the checkpoint signs"
        return ""

    def to_json(self) -> bytes:
        """Canonical."""
        return canonical_json(
            {
                "format": _FORMAT,
                "kind": "inclusion",
                "leaf": to_base64(self.leaf),
                "index": self.index,
                "log": self.root.log_id,
                "logSize": self.root.size,
                "logRoot": to_base64(self.root.root),
                "path": _shown(self.path),
                "treeIndex": self.place,
                "treePath": _shown(self.tree_path),
                "checkpoint": self.checkpoint.note.decode(),
            }
        )

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """Read the fields of `to_json`."""
        log_id = fields.text("log", 128)
        if not is_log_id(log_id):
            raise fields.wrong("log", "the name of a log")
        return cls(
            _octets(fields, "leaf", MAX_LEAF_BYTES),
            fields.integer("index"),
            LogRoot(log_id, fields.integer("logSize", 1), fields.octets("logRoot", HASH_BYTES)),
            _path(fields, "path"),
            fields.integer("treeIndex"),
            _path(fields, "treePath"),
            _checkpoint(fields, "checkpoint"),
        )


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That the tree of checkpoint ``new`` begins as that of ``old``."""

    old: SignedCheckpoint
    new: SignedCheckpoint
    path: tuple[bytes, ...]

    def problem(self, key: VerifyingKey) -> str:
        """Why it proves nothing; empty where it does."""
        old, new = self.old.checkpoint, self.new.checkpoint
        for name, signed in (("first", self.old), ("second", self.new)):
            if not signed.is_signed_by(key):
                return f"its {name} checkpoint is not signed by the key {key.name}"
        if not is_consistent(old.size, new.size, old.root, new.root, self.path):
            return f"the tree of {new.size} leaves does not go on from that of {old.size}"
        return ""

    def to_json(self) -> bytes:
        """Canonical."""
        return canonical_json(
            {
                "format": _FORMAT,
                "kind": "consistency",
                "old": self.old.note.decode(),
                "new": self.new.note.decode(),
                "path": _shown(self.path),
            }
        )

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """Read the fields of `to_json`."""
        old, new = _checkpoint(fields, "old"), _checkpoint(fields, "new")
        return cls(old, new, _path(fields, "path"))


def parse_proof(data: bytes) -> InclusionProof | ConsistencyProof:
    """Read a proof from whoever it comes; `ProofInvalid` for anything that is none."""
    try:
        fields = read_json(data, limit=_LARGEST)
        fields.integer("format", _FORMAT, _FORMAT)
        kind = fields.text("kind", 16)
        if kind not in ("inclusion", "consistency"):
            raise fields.wrong("kind", "inclusion or consistency")
        proof = (InclusionProof if kind == "inclusion" else ConsistencyProof).of(fields)
        fields.no_more()
    except (DocumentInvalid, CheckpointInvalid) as error:
        raise ProofInvalid(f"This is no proof of a log: {error}") from None
    return proof


def prove(reader: ArchiveReader, log_id: str, index: int) -> InclusionProof:
    """The proof that a leaf of a log is under the last checkpoint.

    Raises `UsageError` where it is not sealed yet, was let go, or never was; `ArchiveInconsistent`
    where the archive is not what was signed. It begins anew where old months went meanwhile.
    """
    folders = (TREE_FOLDER, log_folder(log_id))
    return _beside_a_sealer(reader, folders, lambda: _prove(reader, log_id, index))


def _prove(reader: ArchiveReader, log_id: str, index: int) -> InclusionProof:
    latest = reader.latest()
    if latest is None:
        raise UsageError("Nothing was sealed yet: there is no checkpoint to prove anything under")
    found = _root_over(reader.archive, log_id, index, latest.checkpoint.size)
    if found is None:
        raise UsageError(
            f"Leaf {index} of log {log_id} is not sealed: there is none, or the next seal covers it"
        )
    place, root = found
    folder = log_folder(log_id)
    leaf, path = _inclusion(reader.archive, folder, index, root.size)
    _, tree_path = _inclusion(reader.archive, TREE_FOLDER, place, latest.checkpoint.size)
    return InclusionProof(leaf, index, root, path, place, tree_path, latest)


def prove_consistency(
    reader: ArchiveReader, old: SignedCheckpoint, new: SignedCheckpoint | None = None
) -> ConsistencyProof:
    """The proof that the tree of ``new`` (the last, if there is none) begins as that of ``old``.

    Raises as `prove`; `ArchiveUnavailable` where what ``old`` is of was let go.
    """
    return _beside_a_sealer(
        reader, (TREE_FOLDER,), lambda: _prove_consistency(reader, old, new or reader.latest())
    )


def _beside_a_sealer(reader: ArchiveReader, folders: Sequence[str], make: Callable[[], P]) -> P:
    for _ in range(_TRIES - 1):
        begins = first_months(reader.archive, folders)
        try:
            return make()
        except (ArchiveInconsistent, ArchiveMalformed, UsageError):
            if begins == first_months(reader.archive, folders):
                raise
    return make()


def _prove_consistency(
    reader: ArchiveReader, old: SignedCheckpoint, new: SignedCheckpoint | None
) -> ConsistencyProof:
    if new is None:
        raise UsageError("Nothing was sealed yet: there is no checkpoint to compare with")
    if old.checkpoint.size > new.checkpoint.size:
        raise UsageError(
            f"The first checkpoint is of {old.checkpoint.size} leaves, the second only of "
            f"{new.checkpoint.size}: give the older one first"
        )
    known = months(reader.archive, TREE_FOLDER)
    first = read_head(reader.archive, TREE_FOLDER, known[0]).first if known else 0
    if old.checkpoint.size < first:
        raise ArchiveUnavailable(
            f"The first checkpoint is of {old.checkpoint.size} leaves, and of the tree what is "
            f"before leaf {first} was let go: keep a later one"
        )
    ranges = consistency_ranges(old.checkpoint.size, new.checkpoint.size)
    path = _roots(reader.archive, TREE_FOLDER, ranges, new.checkpoint.size)
    return ConsistencyProof(old, new, path)


def _root_over(archive: Archive, log_id: str, index: int, size: int) -> tuple[int, LogRoot] | None:
    """The first root of a log that covers a leaf, and its place in the tree."""
    place = None
    for number, leaf in _leaves(archive, TREE_FOLDER, 0):
        if number >= size:
            break
        parsed = parse_tree_leaf(leaf)
        if isinstance(parsed, LogRoot) and parsed.log_id == log_id and parsed.size > index:
            place = number, parsed
            break
    return place


def _inclusion(
    archive: Archive, folder: str, index: int, size: int
) -> tuple[bytes, tuple[bytes, ...]]:
    leaf = next((raw for number, raw in _leaves(archive, folder, index) if number == index), None)
    if leaf is None:
        raise UsageError(f"Leaf {index} is not in {folder} any more: its period has passed")
    return leaf, _roots(archive, folder, inclusion_ranges(index, size), size)


def _roots(archive: Archive, folder: str, ranges: Sequence[Range], size: int) -> tuple[bytes, ...]:
    known = months(archive, folder)
    before = read_head(archive, folder, known[0]).frontier if known else Frontier()
    try:
        return tuple(roots_of(ranges, before, _hashes(archive, folder, size)))
    except ValueError:
        raise ArchiveInconsistent(
            f"{folder} does not have the leaves that the proof needs: `memtenant audit verify` "
            "says what is missing"
        ) from None


def _hashes(archive: Archive, folder: str, size: int) -> Iterator[bytes]:
    for month in months(archive, folder):
        first = read_head(archive, folder, month).first
        for block in blocks(archive, folder, month):
            yield from leaf_hashes(block.leaves[: max(size - first, 0)])
            first += len(block.leaves)


def _leaves(archive: Archive, folder: str, index: int) -> Iterator[tuple[int, bytes]]:
    """The leaves from the month on that has number ``index``."""
    known = months(archive, folder)
    firsts = [read_head(archive, folder, month).first for month in known]
    for place, (month, first) in enumerate(zip(known, firsts, strict=True)):
        if place + 1 < len(known) and firsts[place + 1] <= index:
            continue
        for block in blocks(archive, folder, month):
            yield from enumerate(block.leaves, first)
            first += len(block.leaves)


def _shown(path: Sequence[bytes]) -> list[str]:
    return [to_base64(one) for one in path]


def _path(fields: Fields, name: str) -> tuple[bytes, ...]:
    try:
        found = tuple(from_base64(one) for one in fields.texts(name, _MOST, 44))
    except ValueError:
        raise fields.wrong(name, "a list of hashes") from None
    if any(len(one) != HASH_BYTES for one in found):
        raise fields.wrong(name, "a list of hashes")
    return found


def _octets(fields: Fields, name: str, most: int) -> bytes:
    try:
        return from_base64(fields.text(name, most * 2))
    except ValueError:
        raise fields.wrong(name, "base64") from None


def _checkpoint(fields: Fields, name: str) -> SignedCheckpoint:
    return SignedCheckpoint.parse(fields.text(name, MAX_NOTE_BYTES).encode())
