"""One log that is open for writing: opened after any crash, fed, counted until it is sealed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from memtenant.archive.again import Again
from memtenant.archive.intake import Intake, MacKeys, Macs
from memtenant.archive.leaps import DAY, Leaps
from memtenant.archive.memory import recall_log, remember_log, state_name
from memtenant.archive.port import Archive, Part
from memtenant.archive.readback import Allowance, ReadBack
from memtenant.archive.segments import (
    Tail,
    blocks,
    follow,
    head_name,
    month_of,
    months,
    read_head,
    segment_name,
)
from memtenant.archive.writers import (
    SHORTEST,
    History,
    Range,
    Sighting,
    Writers,
    sighting,
    sightings,
)
from memtenant.audit.leaf import LogRoot, Verdict
from memtenant.audit.merkle import Frontier
from memtenant.errors import ArchiveInconsistent

__all__ = ["MOST_WRITERS", "Judged", "Log", "Tally", "log_folder"]

MOST_WRITERS: Final = 100_000
"""How many writers of one log are in memory; about 30 MB."""

_FEW: Final = 16
_OFTEN: Final = 4096
"""Leaves after which the state is written anew: what a start reads again of each log."""


def log_folder(log_id: str) -> str:
    """Where a log is in the archive."""
    return f"logs/{log_id}"


@dataclass(slots=True)
class Tally:
    """What was taken and is not sealed yet."""

    events: int = 0
    bad: int = 0
    gaps: int = 0
    duplicates: int = 0

    def add(self, other: Tally | Intake) -> None:
        """And that, too."""
        self.events += other.events
        self.bad += other.bad
        self.gaps += other.gaps
        self.duplicates += other.duplicates

    def count(self, leaves: Iterable[bytes]) -> None:
        """And these leaves."""
        for leaf in leaves:
            if leaf[1] == 2:
                self.gaps += 1
            elif leaf[8] == Verdict.GOOD:
                self.events += 1
            else:
                self.bad += 1


@dataclass(slots=True)
class _Search:
    """Where an entry was sealed is looked for: it is the first of its queue."""

    entry: bytes
    place: ReadBack[Again | None]


@dataclass(slots=True)
class _Past:
    """What the archive has of the writers of so many entries is read: from ``first`` on, when their
    queue is read again."""

    wanted: Mapping[bytes, Range]
    history: History
    read: ReadBack[None]
    first: bytes = b""
    many: int = 0

    def tells_of(self, wanted: Mapping[bytes, Range], asked: Sequence[Sighting]) -> bool:
        """Whether all these are among what is read."""
        return self.history.tells_of(asked) and all(
            writer in self.wanted
            and self.wanted[writer][0] <= first
            and last <= self.wanted[writer][1]
            for writer, (first, last) in wanted.items()
        )


@dataclass(slots=True)
class Log:
    """One log. After an error it is to be opened anew: what is in memory may not be on the disk.

    sealed: how many of its leaves a root in the tree covers. time: of the last leaf. unsettled:
    files, and from which byte on they have leaves that may not be on the disk.
    """

    log_id: str
    tail: Tail
    writers: Writers
    sealed: int
    time: int = 0
    unsettled: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    leaps: Leaps = field(default_factory=Leaps)
    _macs: tuple[MacKeys, Macs] | None = None
    _again: Again | None = None
    _search: _Search | None = None
    _past: _Past | None = None
    _remembered: int = 0

    @classmethod
    def open(cls, archive: Archive, log_id: str, sealed: LogRoot | None, leaps: Leaps) -> Log:
        """Read how far it is; cut off what a crash tore; count what is not sealed.

        Raises `ArchiveInconsistent` where it is not the log whose root was sealed.
        """
        try:
            log = cls._open(archive, log_id, sealed, leaps)
        except ArchiveInconsistent:
            if archive.size(state_name(log_id)) is None:
                raise
            # What was remembered may be what is wrong.
            archive.remove(state_name(log_id))
            log = cls._open(archive, log_id, sealed, leaps)
        log.leaps, log.writers.earliest = leaps, leaps.earliest
        return log

    @classmethod
    def _open(cls, archive: Archive, log_id: str, sealed: LogRoot | None, leaps: Leaps) -> Log:
        folder = log_folder(log_id)
        known = _begun(archive, folder, month_of(leaps.last))
        covered = sealed.size if sealed is not None else 0
        log = cls._begin(archive, log_id, known, covered)
        if sealed is not None and log.tail.size == covered:
            log.compare(sealed)
        month, offset = log.tail.month, log.tail.offset
        for leaves in follow(log.tail, known, covered):
            log.writers.replay(leaves)
            if log.tail.size <= covered:
                month, offset = log.tail.month, log.tail.offset
            if leaves:
                log.time = max(log.time, int.from_bytes(leaves[-1][2:8], "big"))
            if log.tail.size > covered:
                log.tally.count(leaves)
            elif sealed is not None and log.tail.size == covered:
                log.compare(sealed)
        if log.tail.size < covered:
            raise ArchiveInconsistent(
                f"{folder} ends after {log.tail.size} leaves, and {covered} were sealed. Restore "
                "it from a backup: nothing is written on top of it"
            )
        log.tail.cut()
        if not log.is_sealed:
            # Nothing was sealed that was not on the disk: what is behind may have been written by a
            # process that did not come to flush it, or could not.
            log.unsettled = {
                segment_name(folder, one): offset if one == month else 0
                for one in known
                if one >= month
            }
        return log

    @classmethod
    def _begin(cls, archive: Archive, log_id: str, known: Sequence[str], covered: int) -> Log:
        """As of the state that was remembered, else of the month with the last sealed leaf."""
        folder = log_folder(log_id)
        if not known:
            return cls(
                log_id, Tail(archive, folder, "", 0, Frontier()), Writers(MOST_WRITERS), covered
            )
        recalled = recall_log(archive.read(state_name(log_id)), archive, folder, MOST_WRITERS)
        if recalled is not None and recalled[0].size <= covered and recalled[0].month in known:
            tail, time, writers = recalled
            return cls(log_id, tail, writers, covered, time, _remembered=tail.size)
        for month in reversed(known):
            frontier = read_head(archive, folder, month).frontier
            if frontier.size <= covered:
                break
        else:
            raise ArchiveInconsistent(
                f"{folder} begins after {frontier.size} leaves, and {covered} were sealed. Restore "
                "what is missing from a backup"
            )
        # Who was opened in the months that are not read may have been heard in them.
        opened = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        forgotten = int(opened.timestamp() * 1000) + DAY if frontier.size else 0
        tail = Tail(archive, folder, month, 0, frontier)
        return cls(log_id, tail, Writers(MOST_WRITERS, forgotten), covered)

    @property
    def is_sealed(self) -> bool:
        """Whether the tree covers all of it."""
        return self.tail.size == self.sealed

    def root(self) -> LogRoot:
        """The leaf that says how far it is."""
        return LogRoot(self.log_id, self.tail.size, self.tail.frontier.root())

    @property
    def is_read_back(self) -> bool:
        """Whether entries wait until enough of it was read."""
        return self._search is not None or self._past is not None

    def judge(
        self, entries: Sequence[bytes], keys: MacKeys, now: int, allowance: Allowance
    ) -> Judged:
        """What becomes of the entries. They are taken once the part is written, and `wrote` was
        called; else the log is to be opened anew. What is known of fewer than all, as so much may
        be read back and no more, goes on with the next call."""
        if self._macs is None or self._macs[0] is not keys:
            self._macs = keys, Macs(keys)
        self.time = max(self.time, now)
        past = self._past
        if past is not None and (not entries or past.first != entries[0]):
            past = self._past = None
        if past is not None:
            entries, again = entries[: past.many], 0
        elif (found := self._came_again(entries, allowance)) is not None:
            again = found
        else:
            entries, again = (), 0
        intake = Intake(
            self.writers,
            lambda wanted, asked: self._history(wanted, asked, allowance),
            self.time,
            duplicates=again,
        )
        intake.take(entries[again:], self._macs[1])
        taken = again + intake.taken
        if taken == len(entries):
            self._past = None
        elif self._past is not None:
            self._past.first, self._past.many = entries[taken], len(entries) - taken
        part = self.tail.part(intake.leaves, month_of(self.time)) if intake.leaves else None
        return Judged(self, intake, part, taken)

    def wrote(self, judged: Judged) -> None:
        """The entries are on the disk."""
        if judged.part is not None:
            self.tail.went_on(judged.part, judged.intake.leaves)
        self.tally.add(judged.intake)

    def was_sealed(self) -> None:
        """The tree covers all of it now."""
        self.sealed, self.tally = self.tail.size, Tally()
        if self.sealed - self._remembered >= _OFTEN:
            self.remember()

    def remember(self) -> None:
        """Write down what the next start need not read again."""
        if self.is_sealed and self.sealed != self._remembered:
            state = remember_log(self.tail, self.time, self.writers)
            self.tail.archive.replace(state_name(self.log_id), state, durable=False)
            self._remembered = self.sealed

    def _history(
        self, wanted: Mapping[bytes, Range], asked: Sequence[Sighting], allowance: Allowance
    ) -> History | None:
        """What the log has of these writers; None where it is not all read yet."""
        if self._past is None or not self._past.tells_of(wanted, asked):
            history = History(asked)
            self._past = _Past(wanted, history, ReadBack(self._read(wanted, history)))
        return self._past.history if self._past.read.goes_to_its_end(allowance) else None

    def _read(self, wanted: Mapping[bytes, Range], history: History) -> Generator[int, None, None]:
        """The leaves about these writers, since the first of them was opened (a clock may be a day
        ahead)."""
        if not wanted:
            return
        opened = min(int.from_bytes(writer[:4], "big") for writer in wanted)
        # Of a few, most of the log is passed over: six times as fast (measured).
        words = {writer[:8] for writer in wanted} if len(wanted) <= _FEW else ()
        for month in self._since(opened):
            for block in blocks(self.tail.archive, self.tail.folder, month, words=words):
                history.add(sightings(block.leaves, wanted))
                yield block.end - block.offset

    def _since(self, opened: int) -> Iterator[str]:
        """The months in which who was opened then may have been heard, also one that begins while
        they are read."""
        since = month_of(max(self.leaps.earliest(opened * 1000 - DAY), 0))
        known = months(self.tail.archive, self.tail.folder)
        # Of who says to be opened in a month that is still to come, the last is asked.
        ahead = [one for one in known if one >= since] or known[-1:]
        while ahead:
            yield ahead[0]
            known = months(self.tail.archive, self.tail.folder)
            ahead = [one for one in known if one > ahead[0]]

    def _came_again(self, entries: Sequence[bytes], allowance: Allowance) -> int | None:
        """How many of the entries, from the first on, are those that were sealed one after
        another before; None where that is not known yet."""
        if self._again is not None and (passed := self._again.passed(entries)):
            return passed
        self._again, search = None, self._search
        if not entries or not self._may_be_known(entries[0]):
            self._search = None
            return 0
        if search is None or search.entry != entries[0]:
            since = self._since(int.from_bytes(entries[0][6:10], "big"))
            found = Again.find(self.tail.archive, self.tail.folder, since, entries[0])
            search = self._search = _Search(entries[0], ReadBack(found))
        if not search.place.goes_to_its_end(allowance):
            return None
        self._search, self._again = None, search.place.found
        return 0 if self._again is None else self._again.passed(entries)

    def _may_be_known(self, entry: bytes) -> bool:
        if len(entry) < SHORTEST or entry[0] != 0xE1:
            return False
        seen = sighting(entry)
        known = self.writers.known.get(seen.writer)
        if known is None:
            return self.writers.may_be_forgotten(seen.writer)
        return seen.first <= known.top

    def compare(self, sealed: LogRoot) -> None:
        """Raises `ArchiveInconsistent` where the log, which is as far, has another root."""
        if self.tail.frontier.root() != sealed.root:
            raise ArchiveInconsistent(
                f"{self.tail.folder} is not the log that was sealed: its first {sealed.size} "
                "leaves have another root. `memtenant audit verify` says where it was changed; "
                "restore it from a backup: nothing is written on top of it"
            )


def _begun(archive: Archive, folder: str, until: str) -> list[str]:
    """The months that there are. A head without leaves, of a month that is later than the last
    seal, is taken away: of a write that did not come to its end, or somebody put it there, so that
    leaves would go into a month to come."""
    known = months(archive, folder)
    while known and known[-1] > until and not archive.size(segment_name(folder, known[-1])):
        if len(known) == 1 and read_head(archive, folder, known[0]).first:
            break
        archive.remove(head_name(folder, known.pop()))
    return known


@dataclass(frozen=True, slots=True)
class Judged:
    """Entries of one queue that are to be written: the first ``taken`` of those that were given.
    ``part`` is None where nothing is new."""

    log: Log
    intake: Intake
    part: Part | None
    taken: int
