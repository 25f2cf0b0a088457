"""The tree as a verifier goes through it: window by window, each up to its seal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memtenant.archive.cursor import Cursor, Finding, described
from memtenant.archive.segments import month_of
from memtenant.audit.checkpoint import Checkpoint
from memtenant.audit.leaf import Seal, TreeLeaf, parse_tree_leaf
from memtenant.audit.merkle import leaf_hashes
from memtenant.audit.segment import FRAME_BYTES
from memtenant.errors import ArchiveMalformed

__all__ = ["Window", "windows"]


@dataclass(frozen=True, slots=True)
class Window:
    """The leaves of a window, and the tree with them. at: where the seal is. months: in whose files
    they stand."""

    leaves: list[TreeLeaf]
    seal: Seal
    first: int
    tree: Checkpoint
    at: Finding
    months: set[str]

    @property
    def month(self) -> str:
        """In which it was sealed."""
        return month_of(self.seal.time)


def windows(tree: Cursor, last: Checkpoint) -> Iterator[Window]:
    """The tree, seal by seal."""
    frontier, raws, first = tree.frontier.copy(), [], tree.first
    leaves: list[TreeLeaf] = []
    in_months: set[str] = set()
    while tree.size < last.size:
        index = tree.size
        block = tree.leaves(last.size)
        if not block:
            return
        offset = tree.offset - sum(map(len, block)) - FRAME_BYTES * len(block)
        for raw in block:
            try:
                leaf = parse_tree_leaf(raw)
            except ArchiveMalformed as error:
                tree.finding = Finding(tree.file, str(error), offset, index)
                return
            raws.append(raw)
            in_months.add(tree.month)
            if isinstance(leaf, Seal):
                frontier.extend(leaf_hashes(raws))
                at = Finding(tree.file, "", offset, index, described(raw))
                grown = Checkpoint(last.origin, frontier.size, frontier.root())
                yield Window(leaves, leaf, first, grown, at, in_months)
                raws, leaves, first, in_months = [], [], frontier.size, set()
            else:
                leaves.append(leaf)
            offset += FRAME_BYTES + len(raw)
            index += 1
