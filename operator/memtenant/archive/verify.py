"""Whether the log is what was signed: no server, no key but the public one, constant memory.

One pass over the tree. Each checkpoint has to be what the tree was at its size, each seal has to
name the checkpoint before it, each root has to be that of the log's leaves, read on from root to
root. So the signature of the last checkpoint covers every byte of leaves, heads and checkpoints.
Somebody who holds the log's key could sign another history: against that there is the checkpoint
that the verifier kept (``trusted``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from memtenant.archive.cursor import Cursor, Finding
from memtenant.archive.log import log_folder
from memtenant.archive.notes import Notes, PlacedNote
from memtenant.archive.reader import ArchiveReader
from memtenant.archive.segments import first_months, months, segment_name
from memtenant.archive.tree import KEY_FILE, TREE_FOLDER, notes_name
from memtenant.archive.windows import Window, windows
from memtenant.audit.checkpoint import Checkpoint, SignedCheckpoint
from memtenant.audit.leaf import (
    NO_CHECKPOINT,
    TREE,
    Keeping,
    LogRoot,
    Pruning,
    TreeLeaf,
)
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import KeyInvalid

__all__ = ["Result", "Verification", "VerifiedLog", "verify"]

_TO_THE_END: Final = 2**63
_TRIES: Final = 5

Progress = Callable[[int, int], None]
"""Told how many bytes of leaves were read, of how many."""


class Result(IntEnum):
    """What came out, as the exit codes of ``memtenant audit``."""

    GOOD = 0
    TAMPERED = 1
    INCOMPLETE = 2
    """Nothing wrong was found, but not everything could be looked at, or nothing anchors it."""


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """How far a log was looked at: from ``first`` (what is before was pruned, as window ``let_go``
    says) to before ``sealed`` it is what was signed; from there to before ``size`` it is not sealed
    yet. kept: the months of its period, as it was said last; 0: for ever, or never said."""

    log_id: str
    first: int
    sealed: int
    size: int
    let_go: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """checkpoint: up to which it was verified. anchored: it continues the trusted one."""

    checkpoint: SignedCheckpoint | None
    windows: int
    anchored: bool
    logs: tuple[VerifiedLog, ...]
    findings: tuple[Finding, ...]

    @property
    def result(self) -> Result:
        """Good, tampered or incomplete."""
        if any(one.tampered for one in self.findings):
            return Result.TAMPERED
        return Result.INCOMPLETE if self.findings or not self.anchored else Result.GOOD


def verify(
    reader: ArchiveReader,
    *,
    public_key: VerifyingKey | None = None,
    trusted: SignedCheckpoint | None = None,
    log_ids: Collection[str] | None = None,
    but: Collection[str] = (),
    progress: Progress | None = None,
) -> Verification:
    """Verify an archive, also while it is written: up to the checkpoint that was last at the start.
    It begins anew where old months went meanwhile: what it misses may have been let go.

    public_key: where none is given, the one that lies in the archive; then only ``trusted`` says
    that it is the right one. log_ids: only these logs, and none of ``but``; the tree always
    whole.
    """
    for _ in range(_TRIES):
        begins = first_months(reader.archive, (TREE_FOLDER, *map(log_folder, reader.logs())))
        found = _Run(reader, log_ids, but, progress).verify(public_key, trusted)
        if not found.findings or begins == first_months(reader.archive, begins):
            break
    return found


class _Run:
    """One verification."""

    def __init__(
        self,
        reader: ArchiveReader,
        log_ids: Collection[str] | None,
        but: Collection[str],
        progress: Progress | None,
    ) -> None:
        self._reader = reader
        self._archive = reader.archive
        self._log_ids = log_ids
        self._but = but
        self._progress = progress
        self._done = self._due = 0
        self._findings: list[Finding] = []
        self._cursors: dict[str, Cursor] = {}
        self._sealed: dict[str, int] = {}
        self._pruned: dict[str, int] = {}
        self._let_go: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._windows = 0
        self._anchored = False

    def verify(
        self, public_key: VerifyingKey | None, trusted: SignedCheckpoint | None
    ) -> Verification:
        """All of it."""
        notes = Notes(self._archive, self._findings)
        key = self._key(public_key)
        last = notes.last(key)
        if self._progress is not None:
            self._due = self._bytes()
        if last is not None:
            anchor = self._anchor(trusted, key, last.checkpoint)
            self._tree(iter(notes), last.checkpoint, key, anchor)
        self._ends()
        return Verification(
            last,
            self._windows,
            self._anchored,
            tuple(self._verified(log_id) for log_id in sorted(self._cursors)),
            tuple(self._findings),
        )

    def _verified(self, log_id: str) -> VerifiedLog:
        cursor, sealed = self._cursors[log_id], self._sealed.get(log_id, 0)
        size = cursor.size if cursor.finding is None else sealed
        let_go = self._let_go.get(log_id, 0)
        return VerifiedLog(log_id, cursor.first, sealed, size, let_go, self._kept.get(log_id, 0))

    def _key(self, given: VerifyingKey | None) -> VerifyingKey | None:
        try:
            there = self._reader.key()
        except KeyInvalid:
            self._findings.append(Finding(KEY_FILE, "it is no public key of a log"))
            return given
        if there is None:
            if given is None and self._archive.names("checkpoints"):
                what = "it is missing: give the public key of the log"
                self._findings.append(Finding(KEY_FILE, what, tampered=False))
            return given
        if f"{there}\n".encode() != self._archive.read(KEY_FILE):
            self._findings.append(Finding(KEY_FILE, "it is not as memtenant wrote it"))
        if given is not None and there != given:
            self._findings.append(Finding(KEY_FILE, "it is another key than the given one"))
        return given or there

    def _anchor(
        self, trusted: SignedCheckpoint | None, key: VerifyingKey | None, last: Checkpoint
    ) -> Checkpoint | None:
        """The checkpoint that the tree has to pass through."""
        if trusted is None or key is None:
            return None
        if not trusted.is_signed_by(key):
            what = "the trusted checkpoint is signed by another key than this log's"
        elif trusted.checkpoint.size > last.size:
            what = (
                f"the archive is older than the trusted checkpoint: it has {last.size} leaves of "
                f"{trusted.checkpoint.size}"
            )
        else:
            return trusted.checkpoint
        self._findings.append(Finding(TREE_FOLDER, what))
        return None

    def _tree(
        self,
        notes: Iterator[PlacedNote],
        last: Checkpoint,
        key: VerifyingKey | None,
        anchor: Checkpoint | None,
    ) -> None:
        """Window by window, up to the last checkpoint."""
        tree = Cursor(self._archive, TREE_FOLDER, self._read)
        before: _Before | None = None
        if anchor is not None and anchor.size < tree.first:
            what = f"the trusted checkpoint is older than what is kept, from leaf {tree.first} on"
            self._findings.append(Finding(TREE_FOLDER, what, leaf=anchor.size, tampered=False))
            anchor = None
        elif anchor is not None and tree.first == anchor.size:
            begin = Checkpoint(last.origin, tree.first, tree.frontier.root())
            self._pass(anchor, begin, Finding(tree.file, "", 0, tree.first))
            anchor = None
        size = tree.first
        for window in windows(tree, last):
            size = window.tree.size
            note = self._note(notes, window.tree)
            if not self._is_signed_so(window, note, last, key):
                return
            self._chain(window, before, is_first=window.first == 0)
            self._place(window, note)
            before = _Before(window.seal.window, note)
            self._windows += 1
            if anchor is not None and size >= anchor.size:
                self._pass(anchor, window.tree, window.at)
                anchor = None
            for leaf in window.leaves:
                self._leaf(leaf, window)
        if tree.finding is not None:
            self._findings.append(tree.finding)
        elif size < last.size:
            what = f"the tree ends before the last checkpoint, which is of {last.size} leaves"
            self._findings.append(Finding(tree.file, what, tree.offset, tree.size))
        else:
            more = (
                one.finding("no window ended with this checkpoint") for one in notes if one.signed
            )
            self._findings += more
        if tree.first > self._pruned.get(TREE, 0):
            self._findings.append(Finding(TREE_FOLDER, f"leaves before {tree.first} are missing"))

    def _note(self, notes: Iterator[PlacedNote], tree: Checkpoint) -> PlacedNote | None:
        """The checkpoint of a window; what does not belong there is told."""
        for note in notes:
            if note.signed is None:
                self._findings.append(note.finding("here is no checkpoint"))
                return None
            if note.signed.checkpoint.size >= tree.size:
                return note
            self._findings.append(note.finding("no window ended with this checkpoint"))
        return None

    def _is_signed_so(
        self,
        window: Window,
        note: PlacedNote | None,
        last: Checkpoint,
        key: VerifyingKey | None,
    ) -> bool:
        """Whether the tree may still be what was signed: one checkpoint that is wrong does not make
        the next ones unreadable, a tree that is wrong does."""
        tree = window.tree
        if note is None or note.signed is None:
            if tree.size == last.size:
                return self._ends_so(window, last)
            return True
        if note.signed.checkpoint == tree:
            return tree.size != last.size or self._ends_so(window, last)
        if key is not None and note.signed.is_signed_by(key):
            return self._changed(window)
        self._findings.append(note.finding("it was changed: it is not signed"))
        return tree.size != last.size or self._ends_so(window, last)

    def _ends_so(self, window: Window, last: Checkpoint) -> bool:
        return window.tree == last or self._changed(window)

    def _changed(self, window: Window) -> bool:
        what = (
            f"the tree is not what was signed: a leaf from {window.first} to {window.at.leaf} was "
            f"changed (window {window.seal.window})"
        )
        at = window.at
        self._findings.append(Finding(at.file, what, at.offset, at.leaf, at.event))
        return False

    def _chain(self, window: Window, before: _Before | None, *, is_first: bool) -> None:
        """Each seal names the checkpoint before it; windows have no gap."""
        seal, at = window.seal, window.at
        if before is None:
            if is_first and (seal.before != NO_CHECKPOINT or seal.window != 1):
                what = "the first seal is not that of a first window"
                self._findings.append(Finding(at.file, what, at.offset, at.leaf))
            return
        if seal.window != before.window + 1:
            what = f"window {seal.window} follows window {before.window}"
            self._findings.append(Finding(at.file, what, at.offset, at.leaf))
        note = before.note
        if note is None:
            what = f"the checkpoint of window {before.window} is missing"
            self._findings.append(Finding("checkpoints", what))
        elif note.signed is None or note.signed.digest != seal.before:
            self._findings.append(note.finding("it was changed: the next seal names another"))

    def _place(self, window: Window, note: PlacedNote | None) -> None:
        """A window and its checkpoint stand in the files of its month, with which they go."""
        if window.months != {window.month}:
            what = f"a window of {window.month} stands here: it was moved to another month"
            at = window.at
            self._findings.append(Finding(at.file, what, at.offset, at.leaf, at.event))
        if note is not None and note.file != notes_name(window.month):
            what = f"a checkpoint of {window.month} stands here: it was moved to another month"
            self._findings.append(note.finding(what))

    def _pass(self, anchor: Checkpoint, tree: Checkpoint, at: Finding) -> None:
        if tree == anchor:
            self._anchored = True
            return
        what = (
            f"the archive does not continue the trusted checkpoint of {anchor.size} leaves: its "
            "history is another"
        )
        self._findings.append(Finding(at.file, what, at.offset, at.leaf))

    def _leaf(self, leaf: TreeLeaf, window: Window) -> None:
        if isinstance(leaf, Keeping):
            self._kept[leaf.log_id] = leaf.months
        elif isinstance(leaf, Pruning):
            if leaf.first > self._pruned.get(leaf.log_id, 0):
                self._pruned[leaf.log_id] = leaf.first
                self._let_go[leaf.log_id] = window.seal.window
        elif self._wants(leaf.log_id):
            self._root(leaf, window.at)

    def _root(self, root: LogRoot, at: Finding) -> None:
        """Read a log on to the size of a root."""
        cursor = self._cursor(root.log_id)
        before = self._sealed.get(root.log_id, 0)
        if cursor.finding is not None or root.size < cursor.first:
            return
        if root.size < before:
            what = f"log {root.log_id} had {before} leaves before, and has {root.size} here"
            cursor.finding = Finding(at.file, what, at.offset, at.leaf)
        elif not cursor.advance(root.size):
            what = f"it ends after {cursor.size} leaves, and {root.size} were sealed"
            missing = Finding(cursor.file, what, cursor.offset, cursor.size)
            cursor.finding = cursor.finding or missing
        elif cursor.frontier.root() != root.root:
            first = max(before, cursor.first)
            what = (
                f"it is not what was sealed: a leaf from {first} to {root.size - 1}, up to this "
                "byte, was changed"
            )
            cursor.finding = Finding(cursor.file, what, cursor.offset, root.size - 1)
        else:
            self._sealed[root.log_id] = root.size

    def _cursor(self, log_id: str) -> Cursor:
        if log_id not in self._cursors:
            cursor = Cursor(self._archive, log_folder(log_id), self._read)
            self._cursors[log_id] = cursor
        return self._cursors[log_id]

    def _ends(self) -> None:
        """What is behind the last root of each log, and before its first leaf."""
        for log_id in self._reader.logs():
            if self._wants(log_id):
                self._cursor(log_id).advance(_TO_THE_END)
        for log_id, cursor in self._cursors.items():
            found = cursor.finding or cursor.torn
            if found is not None:
                self._findings.append(found)
            if cursor.first > self._pruned.get(log_id, 0):
                what = (
                    f"leaves before {cursor.first} are missing, and nothing says they were let go"
                )
                self._findings.append(Finding(log_folder(log_id), what, leaf=cursor.first))

    def _bytes(self) -> int:
        logs = [one for one in self._reader.logs() if self._wants(one)]
        return sum(
            self._archive.size(segment_name(folder, month)) or 0
            for folder in (TREE_FOLDER, *map(log_folder, logs))
            for month in months(self._archive, folder)
        )

    def _wants(self, log_id: str) -> bool:
        return log_id not in self._but and (self._log_ids is None or log_id in self._log_ids)

    def _read(self, count: int) -> None:
        if self._progress is not None:
            self._done += count
            self._progress(min(self._done, self._due), self._due)


@dataclass(frozen=True, slots=True)
class _Before:
    window: int
    note: PlacedNote | None
