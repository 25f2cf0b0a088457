"""The tree of the installation that is open for writing: roots of logs, seals, and their signature.

What counts is what was signed (`SignedHead`). Leaves behind it are of a seal that did not come to
its end, and are cut off; a tree that does not begin with what was signed is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from memtenant.archive.leaps import Leaps
from memtenant.archive.memory import recall_tail, state_name, tail_document
from memtenant.archive.port import Archive, Part
from memtenant.archive.segments import (
    Tail,
    follow,
    head_name,
    month_of,
    months,
    read_head,
    segment_name,
)
from memtenant.archive.signer import SignedHead
from memtenant.audit.checkpoint import SignedCheckpoint, split_notes
from memtenant.audit.leaf import Keeping, LogRoot, Pruning, Seal, TreeLeaf, parse_tree_leaf
from memtenant.audit.merkle import Frontier
from memtenant.errors import ArchiveInconsistent, ArchiveMalformed
from memtenant.tenancy.document import DocumentInvalid, canonical_json, read_json

__all__ = ["KEY_FILE", "LATEST", "TREE_FOLDER", "Tree", "notes_name", "publish"]

TREE_FOLDER: Final = "tree"
LATEST: Final = "checkpoints/latest"
KEY_FILE: Final = "checkpoints/key"
_LARGEST_STATE: Final = 2**28
_OFTEN: Final = 4096


def notes_name(month: str) -> str:
    """The file of a month's checkpoints."""
    return f"checkpoints/{month}.notes"


@dataclass(slots=True)
class Tree:
    """As of what was signed last. logs: how far each is sealed. pruned: where each begins. kept:
    for how many months each is kept, longest: the most that it ever was. leaps: what the times of
    its seals leave open."""

    tail: Tail
    logs: dict[str, LogRoot] = field(default_factory=dict)
    pruned: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    longest: dict[str, int] = field(default_factory=dict)
    seal: Seal | None = None
    leaps: Leaps = field(default_factory=Leaps)
    _remembered: int = 0

    @classmethod
    def open(cls, archive: Archive, signed: SignedHead | None) -> Tree:
        """Read it, and cut it to what was signed. Raises `ArchiveInconsistent`."""
        if signed is None:
            return cls._first(archive, months(archive, TREE_FOLDER))
        try:
            return cls._open(archive, signed)
        except ArchiveInconsistent:
            if archive.size(state_name(TREE_FOLDER)) is None:
                raise
            # What was remembered may be what is wrong.
            archive.remove(state_name(TREE_FOLDER))
            return cls._open(archive, signed)

    @classmethod
    def _open(cls, archive: Archive, signed: SignedHead) -> Tree:
        known = months(archive, TREE_FOLDER)
        tree = cls._begin(archive, known, signed)
        if tree.tail.size < signed.size:
            for leaves in follow(tree.tail, known, signed.size):
                tree.learn(leaves)
                if tree.tail.size >= signed.size:
                    break
        if tree.tail.size != signed.size or tree.tail.frontier.root() != signed.root:
            raise ArchiveInconsistent(
                f"The archive is not the one that was signed: its tree of {tree.tail.size} leaves "
                f"does not fit the {signed.size} that the log's key signed last. Restore the "
                "archive from a backup that is newer; nothing is signed on top of this one"
            )
        for month in reversed([month for month in known if month > tree.tail.month]):
            archive.remove(segment_name(TREE_FOLDER, month))
            archive.remove(head_name(TREE_FOLDER, month))
        tree.tail.cut()
        return tree

    @classmethod
    def _first(cls, archive: Archive, known: Sequence[str]) -> Tree:
        if archive.size(LATEST) is not None:
            raise ArchiveInconsistent(
                "The archive has checkpoints, and what its key signed last is gone. Restore the "
                "Secret (or the folder) of the log's key; without it nothing more is signed"
            )
        for month in reversed(known):
            archive.remove(segment_name(TREE_FOLDER, month))
            archive.remove(head_name(TREE_FOLDER, month))
        return cls(Tail(archive, TREE_FOLDER, "", 0, Frontier()))

    @classmethod
    def _begin(cls, archive: Archive, known: Sequence[str], signed: SignedHead) -> Tree:
        recalled = cls._recall(archive)
        if (
            recalled is not None
            and recalled.tail.size <= signed.size
            and recalled.tail.month in known
        ):
            return recalled
        # Roots of logs that are idle may be in any month: all of them are read.
        if not known:
            return cls(Tail(archive, TREE_FOLDER, "", 0, Frontier()))
        frontier = read_head(archive, TREE_FOLDER, known[0]).frontier
        return cls(Tail(archive, TREE_FOLDER, known[0], 0, frontier))

    def learn(self, leaves: Iterable[bytes]) -> None:
        """What leaves of the tree say."""
        for raw in leaves:
            leaf = parse_tree_leaf(raw)
            if isinstance(leaf, LogRoot):
                self.logs[leaf.log_id] = leaf
            elif isinstance(leaf, Pruning):
                self.pruned[leaf.log_id] = max(leaf.first, self.pruned.get(leaf.log_id, 0))
            elif isinstance(leaf, Keeping):
                self.kept[leaf.log_id] = leaf.months
                self.longest[leaf.log_id] = max(leaf.months, self.longest.get(leaf.log_id, 0))
            else:
                self.seal = leaf
                self.leaps.seal(leaf.time)

    def periods(self) -> list[Keeping]:
        """What says anew for how long each log is kept, and was at most."""
        return [
            Keeping(log_id, months)
            for log_id, last in sorted(self.kept.items())
            for months in dict.fromkeys((self.longest[log_id], last))
        ]

    def append(self, leaves: Sequence[TreeLeaf | Seal], now: int) -> None:
        """Durable when it returns."""
        written = [leaf.to_bytes() for leaf in leaves]
        self.tail.append(written, month_of(now))
        self.learn(written)

    def remember(self, *, often: bool = False) -> None:
        """Write down what the next start need not read again."""
        if self.tail.size - self._remembered < (1 if often else _OFTEN):
            return
        document = tail_document(self.tail) | {
            "logs": [one.to_bytes().hex() for _, one in sorted(self.logs.items())],
            "pruned": [f"{first} {log_id}" for log_id, first in sorted(self.pruned.items())],
            "kept": [one.to_bytes().hex() for one in self.periods()],
            "seal": "" if self.seal is None else self.seal.to_bytes().hex(),
            "leaps": self.leaps.to_texts(),
        }
        archive = self.tail.archive
        archive.replace(state_name(TREE_FOLDER), canonical_json(document), durable=False)
        self._remembered = self.tail.size

    @classmethod
    def _recall(cls, archive: Archive) -> Tree | None:
        try:
            fields = read_json(archive.read(state_name(TREE_FOLDER)), limit=_LARGEST_STATE)
            tree = cls(recall_tail(fields, archive, TREE_FOLDER))
            for name in ("logs", "kept"):
                tree.learn(bytes.fromhex(one) for one in fields.texts(name, 10**7, 1024))
            for one in fields.texts("pruned", 10**7, 1024):
                first, _, log_id = one.partition(" ")
                tree.pruned[log_id] = int(first)
            seal = bytes.fromhex(fields.text("seal"))
            tree.learn([seal] if seal else [])
            tree.leaps = Leaps.from_texts(fields.texts("leaps", 10**7, 64))
        except (DocumentInvalid, ArchiveMalformed, ValueError):
            return None
        tree._remembered = tree.tail.size
        return tree


def publish(archive: Archive, signed: SignedCheckpoint, time: int) -> None:
    """Put a checkpoint where readers find it, if it is not there yet."""
    name = notes_name(month_of(time))
    end = archive.size(name) or 0
    if archive.read(name, max(end - len(signed.note), 0)) != signed.note:
        whole, torn = split_notes(archive.read(name))
        if torn:
            archive.cut(name, end - len(torn))
        if not whole or whole[-1] != signed.note:
            archive.append([Part(name, end - len(torn), signed.note)])
    if archive.read(LATEST) != signed.note:
        archive.replace(LATEST, signed.note)
