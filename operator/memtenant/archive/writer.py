"""The engine of the sealer: takes entries into the logs, and seals them. No Redis, no Kubernetes.

Whatever happens in between, after `LogWriter.open` the archive goes on from what was taken and what
was signed. Where something fails, what is in memory is thrown away and read anew from the disk:
there is one way to recover, and it is that of the start.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from memtenant.archive.intake import MacKeys
from memtenant.archive.log import Judged, Log, Tally, log_folder
from memtenant.archive.port import Archive
from memtenant.archive.pruning import Kept, Prunings
from memtenant.archive.readback import Allowance
from memtenant.archive.segments import month_of
from memtenant.archive.signer import SignedHead, SignerState
from memtenant.archive.tree import KEY_FILE, TREE_FOLDER, Tree, publish
from memtenant.audit.checkpoint import Checkpoint, SignedCheckpoint
from memtenant.audit.leaf import (
    NO_CHECKPOINT,
    TREE,
    Keeping,
    LogRoot,
    Pruning,
    Seal,
    is_log_id,
)
from memtenant.crypto.signing import SigningKey
from memtenant.errors import (
    ArchiveInconsistent,
    ArchiveMalformed,
    MemtenantError,
    ResourceUnavailable,
    UsageError,
)

__all__ = ["Batch", "Kept", "LogWriter", "Sealed", "Taken"]

_MOST_LOADED: Final = 250_000
"""How many writers of all logs together stay in memory from seal to seal."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of the queue of a log: a tenant's id, or `INSTALLATION_LOG`."""

    log_id: str
    entries: Sequence[bytes]
    keys: MacKeys


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the first ``entries`` of one queue. They are in the log, ``first`` to before
    ``size``. ``waits``: those behind stay in the queue, as more of the log has to be read back.

    events: new, with the right MAC. bad: new, and no event of the agent that they name, or a
    forgery. gaps: runs of counters that are missing. duplicates: sealed before, left out.
    """

    log_id: str
    first: int
    size: int
    events: int
    bad: int
    gaps: int
    duplicates: int
    entries: int
    waits: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """One window: its checkpoint is published. ``logs`` are those that have more than before."""

    window: int
    time: int
    checkpoint: SignedCheckpoint
    logs: tuple[LogRoot, ...]
    events: int
    bad: int
    gaps: int
    duplicates: int
    pruned: tuple[Pruning, ...] = ()
    kept: tuple[Keeping, ...] = ()


class LogWriter:
    """All logs of an archive. One thread at a time; every call may wait for the disk.

    ``refused`` are logs that are not what was sealed, each with the error that says how; the
    others go on.
    """

    def __init__(self, archive: Archive, key: SigningKey, state: SignerState) -> None:
        self._archive = archive
        self._key = key
        self._state = state
        self._signed: SignedHead | None = None
        self._tree: Tree | None = None
        self._logs: OrderedDict[str, Log] = OrderedDict()
        self._lost: set[str] = set()
        self._read_back: set[str] = set()
        self._prunings = Prunings(archive)
        self._unsettled: dict[str, int] = {}
        self._in_doubt = False
        self.refused: dict[str, MemtenantError] = {}

    @classmethod
    def open(cls, archive: Archive, key: SigningKey, state: SignerState) -> Self:
        """Go on where the last one ended, however it did.

        Raises `ArchiveInconsistent` where the archive is not the one that ``key`` signed last.
        """
        writer = cls(archive, key, state)
        writer._recovered()
        return writer

    @property
    def signed(self) -> SignedHead | None:
        """The last window."""
        return self._signed

    def size(self, log_id: str) -> int:
        """How many leaves a log has, those that were pruned included."""
        self._recovered()
        return self._log(log_id).tail.size

    def take(self, log_id: str, entries: Sequence[bytes], keys: MacKeys, now: datetime) -> Taken:
        """`take_all` of one queue. Raises what came of it."""
        taken = self.take_all([Batch(log_id, entries, keys)], now)[0]
        if isinstance(taken, Exception):
            raise taken
        return taken

    def take_all(
        self, batches: Sequence[Batch], now: datetime, allowance: Allowance | None = None
    ) -> list[Taken | Exception]:
        """Bring entries of queues into their logs, in their order. When it returns those that it
        tells of are durable, and may be taken from the queues. The same entries may come again.

        Of a log in which it has to look what was sealed, so much is read as the allowance says (all
        without one). Where that is not enough the entries are to be given again; it goes on then.

        What one log does not take (`ArchiveInconsistent`, or a defect) stands in its place. Raises
        `ArchiveUnavailable`: nothing is known of any of the entries, take them again.
        """
        for batch in batches:
            if not is_log_id(batch.log_id):
                raise UsageError(f"{batch.log_id!r} is no log: it is named by a tenant's id")
        if self._tree is None:
            self._recovered()
        try:
            whole = allowance or Allowance.unlimited()
            # A clock that was put back: no leaf is older than what was sealed before it.
            time = max(_milliseconds(now), self._require_tree().leaps.last)
            judged = [self._judged(batch, time, whole) for batch in batches]
            self._settle()
            done = [one for one in judged if isinstance(one, Judged)]
            self._archive.append([one.part for one in done if one.part is not None])
        except BaseException:
            for batch in batches:
                self._lose(batch.log_id)
            raise
        return [one if isinstance(one, Exception) else _taken(one) for one in judged]

    def _judged(self, batch: Batch, now: int, allowance: Allowance) -> Judged | Exception:
        self._read_back.discard(batch.log_id)
        part = allowance.part(len(self._read_back) + 1)
        try:
            judged = self._log(batch.log_id).judge(batch.entries, batch.keys, now, part)
        except (ArchiveInconsistent, ArchiveMalformed) as error:
            self._lose(batch.log_id)
            return error
        except MemtenantError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect that one entry brings out is one log's
            self._lose(batch.log_id)
            return error
        finally:
            allowance.give_back(part)
        if judged.log.is_read_back:
            self._read_back.add(batch.log_id)
        return judged

    def keep(self, log_id: str, months: int) -> None:
        """Say, with the next seal, for how many months a log is kept; 0 is for ever. What was said
        before is not said again, and what was to go before is decided anew."""
        self._recovered()
        self._prunings.keep(self._require_tree(), log_id, months)

    def kept(self) -> dict[str, Kept]:
        """For how long logs are kept, as it was said of each."""
        self._recovered()
        tree = self._require_tree()
        return {log_id: Kept(last, tree.longest[log_id]) for log_id, last in tree.kept.items()}

    def earliest(self, moment: datetime, now: datetime) -> datetime:
        """Which time a leaf has at the earliest that was sealed at ``moment``, as far as the seals
        prove it: what has another is not older."""
        self._recovered()
        leaps = self._require_tree().leaps
        found = leaps.earliest(_milliseconds(moment), _milliseconds(now))
        return datetime.fromtimestamp(max(found, 0) / 1000, UTC)

    def prune(self, log_id: str, before: datetime) -> bool:
        """Let whole months of a log (or of `TREE`) go that ended before a moment, with the next
        seal. Whether there is any.

        What is let go is told in the tree; nothing that was not sealed goes. Raises
        `ArchiveInconsistent` or `ArchiveMalformed` where it is not what was sealed: nothing goes.
        """
        self._recovered()
        tree = self._require_tree()
        is_tree = log_id == TREE
        folder = TREE_FOLDER if is_tree else log_folder(log_id)
        log = None if is_tree else self._log(log_id)
        until = month_of(_milliseconds(before))
        known = self._prunings.known(tree, folder, log_id)
        if not known or known[0] >= until:
            return False
        if is_tree:
            self._prunings.standing(tree)
        tail, sealed = (tree.tail, tree.tail.size) if log is None else (log.tail, log.sealed)
        try:
            tail.roll(until)
        except BaseException:
            self._lose(log_id)
            raise
        return self._prunings.let_go(log_id, tail, known, until, sealed)

    def seal(self, now: datetime) -> Sealed:
        """End a window: the roots of the logs that grew and a seal go into the tree, the signer's
        state is moved, and the checkpoint is published. Also where nothing was taken.

        Raises `SignerConflict` where another process sealed; the next call reads everything anew.
        Where the signer's state cannot be reached (`ResourceUnavailable`), `take` goes on.
        """
        self._recovered()
        try:
            return self._seal(_milliseconds(now))
        except BaseException:
            if not self._in_doubt:
                self._tree = None
            raise

    def close(self) -> None:
        """Write down what makes the next start fast."""
        if self._tree is not None and not self._in_doubt:
            self._tree.remember(often=True)
            for log in self._logs.values():
                log.remember()

    def _seal(self, now: int) -> Sealed:
        tree = self._require_tree()
        for log_id in sorted(self._lost - self.refused.keys()):
            self._log(log_id)
        self._settle()
        if tree.seal is not None:
            now = max(now, tree.seal.time)
        grown = [log for _, log in sorted(self._logs.items()) if not log.is_sealed]
        tally = Tally()
        for log in self._logs.values():
            tally.add(log.tally)
        roots = [log.root() for log in grown]
        prunings, keepings = self._prunings.going, self._prunings.keepings
        seal = Seal(
            (self._signed.window if self._signed is not None else 0) + 1,
            now,
            NO_CHECKPOINT if self._signed is None else self._note(self._signed).digest,
            tally.events,
            len(grown),
            tally.bad,
            tally.gaps,
            tally.duplicates,
        )
        restated = self._prunings.restated(tree, roots)
        tree.append([*roots, *restated, *keepings, *prunings, seal], now)
        after = SignedHead(tree.tail.size, tree.tail.frontier.root(), seal.window)
        self._advance(after)
        self._signed = after
        note = self._note(after)
        publish(self._archive, note, now)
        for log in self._logs.values():
            log.was_sealed()
        # The release before knows no leaf of a period: it goes on from what is remembered here.
        tree.remember(often=bool(prunings or keepings))
        self._prunings.remove()
        self._bound()
        return Sealed(
            seal.window,
            now,
            note,
            tuple(roots),
            tally.events,
            tally.bad,
            tally.gaps,
            tally.duplicates,
            tuple(prunings),
            tuple(keepings),
        )

    def _advance(self, after: SignedHead) -> None:
        try:
            self._state.advance(self._signed, after)
        except ResourceUnavailable:
            # Whether it was moved is found out before the next seal. Entries are taken meanwhile:
            # the logs are on the disk, whatever the tree says of them.
            self._in_doubt = True
            raise

    def _recovered(self) -> None:
        """Read everything anew, at the start and after something failed."""
        if self._tree is not None and not self._in_doubt:
            return
        signed = self._state.load()
        self._tree, self._in_doubt = None, False
        self._logs.clear()
        self._lost.clear()
        self._read_back.clear()
        self._prunings.clear()
        self._unsettled.clear()
        self.refused.clear()
        tree = Tree.open(self._archive, signed)
        if signed is not None and tree.seal is not None:
            publish(self._archive, self._note(signed), tree.seal.time)
        key = f"{self._key.public}\n".encode()
        if self._archive.read(KEY_FILE) != key:
            self._archive.replace(KEY_FILE, key)
        self._signed, self._tree = signed, tree
        for log_id in sorted({*filter(is_log_id, self._archive.names("logs")), *tree.logs}):
            self._lost.add(log_id)
            # What is wrong with one is told by `refused`; the others go on.
            with suppress(ArchiveInconsistent, ArchiveMalformed):
                self._log(log_id)
            self._bound()
        self._settle()

    def _settle(self) -> None:
        """Nothing is said to be taken, or sealed, that is not on the disk."""
        if self._unsettled:
            self._archive.settle(self._unsettled)
            self._unsettled.clear()

    def _log(self, log_id: str) -> Log:
        log = self._logs.get(log_id)
        if log is not None:
            self._logs.move_to_end(log_id)
            return log
        if log_id in self.refused:
            raise self.refused[log_id]
        sealed = self._require_tree().logs.get(log_id)
        try:
            log = Log.open(self._archive, log_id, sealed, self._require_tree().leaps)
        except (ArchiveInconsistent, ArchiveMalformed) as error:
            self.refused[log_id] = error
            raise
        self._logs[log_id] = log
        self._unsettled |= log.unsettled
        self._lost.discard(log_id)
        return log

    def _lose(self, log_id: str) -> None:
        """What is in memory of the log may not be on the disk."""
        if log_id == TREE:
            self._tree = None
        else:
            self._logs.pop(log_id, None)
            self._lost.add(log_id)

    def _bound(self) -> None:
        loaded = sum(len(log.writers.known) for log in self._logs.values())
        for log_id, log in list(self._logs.items()):
            if loaded <= _MOST_LOADED:
                return
            # Of one that is read back, what was read is in memory too.
            if log.is_sealed and not log.is_read_back:
                loaded -= len(log.writers.known)
                log.remember()
                del self._logs[log_id]

    def _require_tree(self) -> Tree:
        assert self._tree is not None  # noqa: S101 - every way in recovers first
        return self._tree

    def _note(self, signed: SignedHead) -> SignedCheckpoint:
        return Checkpoint(self._key.public.name, signed.size, signed.root).sign(self._key)


def _taken(judged: Judged) -> Taken:
    log, intake, first = judged.log, judged.intake, judged.log.tail.size
    log.wrote(judged)
    counts = (intake.events, intake.bad, intake.gaps, intake.duplicates)
    return Taken(log.log_id, first, log.tail.size, *counts, judged.taken, log.is_read_back)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
