"""Old months that go: what the next seal says of them, and their removal behind it.

What is let go is told in the tree before it is removed, so that a verifier tells it from what was
taken away. Nothing goes that was not sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from memtenant.archive.log import log_folder
from memtenant.archive.port import Archive
from memtenant.archive.segments import Tail, head_name, months, read_head, segment_name
from memtenant.archive.tree import TREE_FOLDER, Tree, notes_name
from memtenant.audit.leaf import TREE, Keeping, LogRoot, Pruning, TreeLeaf
from memtenant.errors import ArchiveInconsistent

__all__ = ["Kept", "Prunings"]


class Kept(NamedTuple):
    """Months for which a log is kept, as it was said last, and the most that was ever said; 0 is
    for ever, and no number."""

    last: int
    longest: int


class Prunings:
    """What the next seal says of periods and of months that go. After it, `remove`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._going: dict[str, Pruning] = {}
        self._keepings: dict[str, Keeping] = {}

    @property
    def going(self) -> list[Pruning]:
        """What is let go, by the names of the logs."""
        return [one for _, one in sorted(self._going.items())]

    @property
    def keepings(self) -> list[Keeping]:
        """The periods that are said, by the names of the logs."""
        return [one for _, one in sorted(self._keepings.items())]

    def clear(self) -> None:
        """Nothing of it was said."""
        self._going.clear()
        self._keepings.clear()

    def keep(self, tree: Tree, log_id: str, for_months: int) -> None:
        """Say a period, if it is another than the tree says; what was to go before is decided
        anew."""
        self._going.pop(log_id, None)
        if tree.kept.get(log_id) != for_months:
            self._keepings[log_id] = Keeping(log_id, for_months)
        else:
            self._keepings.pop(log_id, None)

    def known(self, tree: Tree, folder: str, log_id: str) -> list[str]:
        """The months that there are of a log. Those that a removal left which was cut off are taken
        away: they were let go, and have no head."""
        known, pruned = months(self._archive, folder), tree.pruned.get(log_id, 0)
        if pruned and known and read_head(self._archive, folder, known[0]).first <= pruned:
            self._sweep(folder, ".log", known[0])
            if log_id == TREE:
                self._sweep("checkpoints", ".notes", known[0])
        return known

    def _sweep(self, folder: str, suffix: str, before: str) -> None:
        for name in self._archive.names(folder):
            if name.endswith(suffix) and name < f"{before}{suffix}":
                self._archive.remove(f"{folder}/{name}")

    def let_go(
        self, log_id: str, tail: Tail, known: Sequence[str], until: str, sealed: int
    ) -> bool:
        """Let the months go that are before ``until``; whether they are sealed. The log has begun
        that month or a later one."""
        folder = tail.folder
        first = next(month for month in (*known, until) if month >= until)
        going = [month for month in known if month < first]
        frontier = [read_head(self._archive, folder, one).frontier for one in (*going, first)][-1]
        if frontier.size > sealed:
            return False
        self._going[log_id] = Pruning(log_id, frontier.size, frontier.root())
        return True

    def restated(self, tree: Tree, roots: Sequence[LogRoot]) -> list[TreeLeaf]:
        """Where months of the tree go: what they said of logs that are idle since."""
        if TREE not in self._going:
            return []
        told = {root.log_id for root in roots}
        idle = [root for log_id, root in sorted(tree.logs.items()) if log_id not in told]
        return [*idle, *self.standing(tree), *tree.periods()]

    def standing(self, tree: Tree) -> list[Pruning]:
        """What was let go of each log before, said anew."""
        found = []
        for log_id in sorted(tree.pruned.keys() - self._going.keys() - {TREE}):
            known = months(self._archive, log_folder(log_id))
            if not known:
                raise ArchiveInconsistent(
                    f"{log_folder(log_id)} is gone. Restore it from a backup: what was let go of "
                    "it has to be said anew before months of the tree go"
                )
            frontier = read_head(self._archive, log_folder(log_id), known[0]).frontier
            found.append(Pruning(log_id, frontier.size, frontier.root()))
        return found

    def remove(self) -> None:
        """It was said, and signed: what was let go is removed."""
        self._keepings.clear()
        for log_id, pruning in list(self._going.items()):
            folder = TREE_FOLDER if log_id == TREE else log_folder(log_id)
            for month, after in pairwise(months(self._archive, folder)):
                if read_head(self._archive, folder, after).first > pruning.first:
                    break
                # The head first: a segment without one is nobody's.
                self._archive.remove(head_name(folder, month))
                self._archive.remove(segment_name(folder, month))
                if log_id == TREE:
                    self._archive.remove(notes_name(month))
            del self._going[log_id]
