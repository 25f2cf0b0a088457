"""Reading the archive: the events of a period, the seals, the checkpoints. It verifies nothing.

A period is of sealing, not of the events' own time: what was sealed in a month stays what it is,
however late an event came. Memory does not grow with the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from memtenant.archive.folder import ArchiveFolder
from memtenant.archive.log import log_folder
from memtenant.archive.port import Archive
from memtenant.archive.segments import (
    blocks,
    head_name,
    month_of,
    months,
    read_head,
    segment_name,
)
from memtenant.archive.tree import KEY_FILE, LATEST, TREE_FOLDER
from memtenant.audit.checkpoint import SignedCheckpoint, split_notes
from memtenant.audit.event import Entry, Event
from memtenant.audit.leaf import (
    EntryLeaf,
    GapLeaf,
    LogRoot,
    Pruning,
    Seal,
    Verdict,
    is_log_id,
    parse_log_leaf,
    parse_tree_leaf,
)
from memtenant.audit.segment import FRAME_BYTES, Damage
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import ArchiveMalformed, ArchiveUnavailable, KeyInvalid

__all__ = ["ArchiveReader", "Place", "SealedEntry", "SealedGap", "SealedWindow"]

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a leaf is: its number in the log, the file, and the byte at which its frame begins."""

    log_id: str
    index: int
    file: str
    offset: int

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset}, leaf {self.index}"


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """An entry of a queue, as it stood there, and what the sealer found of it."""

    place: Place
    sealed_at: datetime
    verdict: Verdict
    raw: bytes

    def entry(self) -> Entry:
        """The event's bytes, the outcome, the server's time. `AuditEventMalformed` for what is no
        event: the verdict says so before."""
        return Entry.parse(self.raw)

    def event(self) -> Event:
        """What the agent said. `AuditEventMalformed`, as `entry`."""
        return Event.parse(self.entry().event)


@dataclass(frozen=True, slots=True)
class SealedGap:
    """Counters of an agent's writer that nothing told."""

    place: Place
    sealed_at: datetime
    writer: bytes
    first: int
    last: int
    agent: str


@dataclass(frozen=True, slots=True)
class SealedWindow:
    """A window: its seal, and the roots and prunings that it sealed. ``size`` is that of the tree
    with it: what its checkpoint says."""

    size: int
    seal: Seal
    logs: tuple[LogRoot, ...]
    pruned: tuple[Pruning, ...]

    @property
    def time(self) -> datetime:
        """When it was sealed."""
        return _moment(self.seal.time)


class ArchiveReader:
    """An archive, for reading; also while it is written."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @classmethod
    def open(cls, root: Path) -> Self:
        """The archive in a folder; `ArchiveUnavailable` where there is none."""
        return cls(ArchiveFolder.open(root, writable=False))

    @classmethod
    def named(cls, root: Path) -> Self:
        """As `open`; `ArchiveUnavailable` also where the folder has nothing of an archive: a name
        that was mistyped is not taken for a log that is gone."""
        reader = cls.open(root)
        if not any(reader.archive.names(one) for one in ("checkpoints", TREE_FOLDER, "logs")):
            raise ArchiveUnavailable(
                f"{root} holds no archive: it has neither checkpoints/ nor tree/ nor logs/. Name "
                "the folder that `memtenant seal` or the sealer writes"
            )
        return reader

    @property
    def archive(self) -> Archive:
        """The port to its files."""
        return self._archive

    def logs(self) -> list[str]:
        """The ids of all logs, sorted."""
        return [name for name in self._archive.names("logs") if is_log_id(name)]

    def months(self, log_id: str) -> list[str]:
        """The months that there are of a log, as ``2026-11``."""
        return months(self._archive, log_folder(log_id))

    def leaves(
        self, log_id: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[SealedEntry | SealedGap]:
        """What was sealed of a log from ``since`` to before ``until``, in its order, and what is to
        be sealed. Raises `ArchiveMalformed` where it is damaged, `ArchiveUnavailable` where months
        went while they were read."""
        first, last = _milliseconds(since or _EARLIEST), _milliseconds(until)
        for place, leaf in self._raw(log_folder(log_id), log_id, first, last):
            sealed_at = int.from_bytes(leaf[2:8], "big")
            if sealed_at < first:
                continue
            if sealed_at >= last:
                return
            parsed = _parsed(leaf, place)
            if isinstance(parsed, EntryLeaf):
                moment = _moment(sealed_at)
                yield SealedEntry(place, moment, parsed.verdict, parsed.entry)
            else:
                gap = (parsed.writer, parsed.first, parsed.last, parsed.agent)
                yield SealedGap(place, _moment(sealed_at), *gap)

    def events(
        self, log_id: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[SealedEntry]:
        """`leaves` that are entries, whatever their verdict."""
        return (one for one in self.leaves(log_id, since, until) if isinstance(one, SealedEntry))

    def gaps(
        self, log_id: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[SealedGap]:
        """`leaves` that are gaps."""
        return (one for one in self.leaves(log_id, since, until) if isinstance(one, SealedGap))

    def seals(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[SealedWindow]:
        """The windows that were sealed from ``since`` to before ``until``."""
        first, last = _milliseconds(since or _EARLIEST), _milliseconds(until)
        roots: list[LogRoot] = []
        pruned: list[Pruning] = []
        for place, raw in self._raw(TREE_FOLDER, TREE_FOLDER, first, last):
            try:
                leaf = parse_tree_leaf(raw)
            except ArchiveMalformed as error:
                raise ArchiveMalformed(f"{place}: {error}") from None
            if isinstance(leaf, LogRoot):
                roots.append(leaf)
            elif isinstance(leaf, Pruning):
                pruned.append(leaf)
            elif isinstance(leaf, Seal):
                if first <= leaf.time < last:
                    yield SealedWindow(place.index + 1, leaf, tuple(roots), tuple(pruned))
                roots, pruned = [], []

    def latest(self) -> SignedCheckpoint | None:
        """The last checkpoint that was published; None before the first. Raises
        `CheckpointInvalid`."""
        note = self._archive.read(LATEST)
        return SignedCheckpoint.parse(note) if note else None

    def checkpoints(self) -> Iterator[SignedCheckpoint]:
        """All checkpoints, in their order. Raises `CheckpointInvalid`."""
        for name in self._archive.names("checkpoints"):
            if name.endswith(".notes"):
                for note in split_notes(self._archive.read(f"checkpoints/{name}"))[0]:
                    yield SignedCheckpoint.parse(note)

    def key(self) -> VerifyingKey | None:
        """The public key that lies in the archive; None before the first start. Whoever can change
        the archive can change it: the key to trust comes from elsewhere. Raises `KeyInvalid`."""
        text = self._archive.read(KEY_FILE)
        try:
            return VerifyingKey.parse(text.decode("ascii")) if text else None
        except UnicodeDecodeError:
            raise KeyInvalid(f"{KEY_FILE} of the archive is no public key") from None

    def _raw(
        self, folder: str, log_id: str, first: int, last: int
    ) -> Iterator[tuple[Place, bytes]]:
        """The leaves of the months from ``first`` to ``last``."""
        known, begun = months(self._archive, folder), False
        begin, end = month_of(first), month_of(min(last - 1, _LAST_MOMENT))
        for month in known:
            if not begin <= month <= end:
                continue
            try:
                for found in self._month(folder, log_id, month, is_last=month == known[-1]):
                    begun = True
                    yield found
            except ArchiveMalformed:
                if not self._is_gone(folder, month):
                    raise
            if begun and self._is_gone(folder, month):
                raise ArchiveUnavailable(
                    f"Months of {folder} were let go while they were read: begin anew"
                )

    def _is_gone(self, folder: str, month: str) -> bool:
        """Whether a month that was there was let go meanwhile."""
        return self._archive.size(head_name(folder, month)) is None

    def _month(
        self, folder: str, log_id: str, month: str, *, is_last: bool
    ) -> Iterator[tuple[Place, bytes]]:
        index = read_head(self._archive, folder, month).first
        name = segment_name(folder, month)
        for block in blocks(self._archive, folder, month):
            offset = block.offset
            for leaf in block.leaves:
                yield Place(log_id, index, name, offset), leaf
                offset += FRAME_BYTES + len(leaf)
                index += 1
            # What is cut off at the very end is written just now.
            if isinstance(block.fault, Damage) or (block.fault and not is_last):
                what = getattr(block.fault, "what", "a leaf is cut off")
                raise ArchiveMalformed(
                    f"{name}, byte {block.end}, leaf {index}: {what}. `memtenant audit verify` "
                    "says what else was changed"
                )


_LAST_MOMENT = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)


def _parsed(leaf: bytes, place: Place) -> EntryLeaf | GapLeaf:
    try:
        return parse_log_leaf(leaf)
    except ArchiveMalformed as error:
        raise ArchiveMalformed(f"{place}: {error}") from None


def _milliseconds(moment: datetime | None) -> int:
    return _LAST_MOMENT if moment is None else int(moment.timestamp() * 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(min(milliseconds, _LAST_MOMENT) / 1000, UTC)
