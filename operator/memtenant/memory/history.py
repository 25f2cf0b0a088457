"""What a process knows of one conversation: its keys, where it stood, and a copy of what it read.

Entries are opened and checked here, before anybody sees them: the record by its own tag, and the
counters of each writer, which tell of records that were copied, moved or taken away.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from memtenant.crypto.header import Header
from memtenant.crypto.record import MESSAGE, RecordKeys
from memtenant.errors import RecordMissing, RecordReordered, RecordReplayed
from memtenant.functions.replies import Entry, Head
from memtenant.memory.codec import decode, unpack
from memtenant.memory.datakeys import KEPT_FOR, DataKey
from memtenant.memory.locks import ShortLock
from memtenant.memory.messages import StoredMessage
from memtenant.memory.places import ConversationPlace
from memtenant.tenancy.policy import EncryptionMode

__all__ = ["Copy", "CounterCheck", "History", "opened"]

MAX_COPY_BYTES: Final = 1024 * 1024
"""Content of a conversation above which no copy is kept: it is read anew each time."""


class CounterCheck:
    """Whether the counters of each writer follow one another, entry by entry.

    A deleted message leaves a tombstone, and messages that were removed from the end over quota
    leave a gap in the sequences: each explains one missing counter.
    """

    __slots__ = ("_holes", "_last", "_missing", "_writers")

    def __init__(self) -> None:
        self._last = 0
        self._holes = 0
        self._missing: tuple[int, int] | None = None
        self._writers: dict[bytes, tuple[int, int]] = {}

    def tombstone(self, sequence: int) -> None:
        """An entry without a record."""
        self._step(sequence)
        self._holes += 1

    def record(self, sequence: int, writer: bytes, counter: int) -> None:
        """Raises `RecordReplayed` or `RecordReordered`."""
        self._step(sequence)
        known = self._writers.get(writer)
        if known is not None:
            last, holes = known
            if counter == last:
                raise RecordReplayed(
                    f"The message at sequence {sequence} stands twice: it was copied around "
                    "memtenant. The conversation is not shown; restore it, or clear it"
                )
            if counter < last:
                raise RecordReordered(
                    f"The message at sequence {sequence} was written before those that stand "
                    "before it: somebody moved or copied it around memtenant. The conversation "
                    "is not shown; restore it, or clear it"
                )
            missing = counter - last - 1
            if missing > self._holes - holes and self._missing is None:
                # Raised at the end: one that was moved is found further on.
                self._missing = (sequence, missing)
        self._writers[writer] = (counter, self._holes)

    def finish(self) -> None:
        """After the last entry that was read: raises `RecordMissing` where one was missed."""
        if self._missing is not None:
            sequence, missing = self._missing
            raise RecordMissing(
                f"Before sequence {sequence}, {missing} message(s) of its writer are gone that "
                "nobody deleted by memtenant. The conversation is not shown; restore it, or clear "
                "it"
            )

    def _step(self, sequence: int) -> None:
        if sequence <= self._last:
            raise RecordReordered(
                f"Sequence {sequence} stands after {self._last}: the list was changed around "
                "memtenant. The conversation is not shown; restore it, or clear it"
            )
        if self._last:
            self._holes += sequence - self._last - 1
        self._last = sequence


class Kept(NamedTuple):
    """A message in a copy; ``data`` is its JSON where the message holds what a caller could
    change (mappings), so that each caller gets its own."""

    stored: StoredMessage
    time: int
    data: bytes | None

    def mine(self) -> StoredMessage:
        """The message for one caller."""
        if self.data is None:
            return self.stored
        one = self.stored
        return StoredMessage(decode(self.data), one.sequence, one.time, one.tokens)


def opened(entries: Iterable[Entry], keys: RecordKeys, check: CounterCheck) -> Iterator[Kept]:
    """The messages of the entries, in their order, each opened and checked. Tombstones only count.

    Raises `RecordInvalid` of the kind that it is.
    """
    for entry in entries:
        header = entry.header
        if header.tombstone:
            check.tombstone(header.sequence)
            continue
        record = keys.open(MESSAGE, entry.record)
        check.record(header.sequence, record.writer, record.counter)
        yield kept(header, unpack(record.content))
    check.finish()


def kept(header: Header, data: bytes) -> Kept:
    """A message with its place."""
    message = decode(data)
    stored = StoredMessage(message, header.sequence, header.written, header.tokens)
    plain = isinstance(message.content, str) and not (
        message.metadata or message.tool_calls or message.further
    )
    return Kept(stored, header.time, None if plain else data)


@dataclass(slots=True)
class Copy:
    """The whole conversation as it was read at ``head``."""

    head: Head
    check: CounterCheck = field(default_factory=CounterCheck)
    messages: list[Kept] = field(default_factory=list)
    size: int = 0
    used: float = field(default_factory=time.monotonic)


class History:
    """One conversation's state in this process; shared by all handles on it."""

    def __init__(self, where: ConversationPlace, mode: EncryptionMode) -> None:
        self.where = where
        self._mode = mode
        self._keys: tuple[DataKey, RecordKeys] | None = None
        self._copy: Copy | None = None
        self._lock = ShortLock()
        self.head = Head(0, 0)

    def record_keys(self, data_key: DataKey) -> RecordKeys:
        """What seals and opens the records under this data key."""
        known = self._keys
        if known is None or known[0].key != data_key.key:
            known = (data_key, RecordKeys(data_key.key, self.where.place, self._mode))
            self._keys = known
        return known[1]

    def saw(self, head: Head) -> None:
        """Remember how far the server acknowledged the conversation."""
        with self._lock:
            self.head = max(self.head, head)

    def rewound(self, head: Head) -> None:
        """The server lost something, and the caller is being told: go on from there."""
        with self._lock:
            self.head = head
            self._copy = None

    def take_copy(self) -> Copy | None:
        """The copy, for the caller alone until it is given back by `keep_copy`; None where there
        is none or it is older than a data key may be kept."""
        with self._lock:
            copy, self._copy = self._copy, None
        if copy is None or time.monotonic() - copy.used > KEPT_FOR:
            return None
        return copy

    def keep_copy(self, copy: Copy) -> None:
        """Keep it, unless it is too large or another was kept that is newer."""
        copy.used = time.monotonic()
        if copy.size > MAX_COPY_BYTES:
            return
        with self._lock:
            if self._copy is None or self._copy.head <= copy.head:
                self._copy = copy

    def drop_copy(self) -> None:
        """What was read is not the conversation any more."""
        with self._lock:
            self._copy = None
