"""What becomes of the entries of a queue: which are new, whose MAC is right, what is missing.

Pure but for the archive that it asks where memory does not say (`Ask`). 100,000 entries a second
are to go through here, so an entry is looked at as bytes and no object is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from memtenant.archive.writers import (
    LAST_COUNTER,
    MOST_PENDING,
    NEVER_HEARD,
    NUMBERS,
    SHORTEST,
    History,
    Range,
    Sighting,
    Standing,
    Writers,
    odd_id,
    sighting,
    writer_of,
)
from memtenant.audit.leaf import LONGEST_ENTRY, GapLeaf, Verdict
from memtenant.crypto.primitives import SecretKey, length_prefixed

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Ask", "Intake", "MacKeys", "Macs"]

MacKeys = Callable[[str, int], SecretKey | None]
"""The audit key of an agent and the version of its binding; None for one that there is none of."""

Ask = Callable[[Mapping[bytes, Range], Sequence[Sighting]], History | None]
"""What the archive has of these writers and counters, as far as these sightings ask for it; None
where it is not all read yet."""

_MOST_KEYS: Final = 1024
_BLOCK: Final = 64
_LABEL: Final = length_prefixed(b"memtenant/1/audit-event")
_ALL: Final = (0, 2**33)
_NO_COUNTER: Final = bytes(4)
_OUTCOMES: Final = frozenset(b"OCR")
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class _NotReadYet(Exception):
    """What the archive has of a writer is not known yet."""


class Macs:
    """HMAC-SHA256 with the two first blocks of each key hashed once: twice as fast."""

    def __init__(self, keys: MacKeys) -> None:
        self._keys = keys
        self._made: dict[bytes, tuple[_Hash, _Hash]] = {}

    def of(self, entry: bytes, end: int) -> tuple[_Hash, _Hash] | None:
        """Of the agent (its name ends at ``end``) and binding that an event names."""
        name = entry[2:6] + entry[69:end]
        made = self._made.get(name)
        return made if made is not None else self._make(name)

    def _make(self, name: bytes) -> tuple[_Hash, _Hash] | None:
        try:
            key = self._keys(name[4:].decode("ascii"), int.from_bytes(name[:4], "big"))
        except UnicodeDecodeError:
            return None
        if key is None:
            return None
        padded = key.secret.ljust(_BLOCK, b"\0")
        made = sha256(padded.translate(_INNER) + _LABEL), sha256(padded.translate(_OUTER))
        if len(self._made) >= _MOST_KEYS:
            self._made.clear()
        self._made[name] = made
        return made


def verdict_of(entry: bytes, macs: Macs) -> Verdict:
    """What the sealer says of an entry by itself."""
    length = len(entry)
    if length > LONGEST_ENTRY:
        return Verdict.OVERSIZED
    if length < SHORTEST or entry[0] != 0xE1 or entry[-12] not in _OUTCOMES:
        return Verdict.MALFORMED
    end = 69 + entry[68]
    if end + 28 > length or entry[14:18] == _NO_COUNTER:
        return Verdict.MALFORMED
    made = macs.of(entry, end)
    if made is None:
        return Verdict.UNKNOWN_BINDING
    inner, outer = made[0].copy(), made[1].copy()
    inner.update(entry[:-28])
    outer.update(inner.digest())
    if compare_digest(outer.digest()[:16], entry[-28:-12]):
        return Verdict.GOOD
    return Verdict.BAD_MAC


@dataclass(slots=True)
class Intake:
    """One batch of one queue, at one moment. ``leaves`` are to be appended in their order. Of the
    entries the first ``taken`` are dealt with; for those behind, the archive is still to be read.
    """

    writers: Writers
    ask: Ask
    now: int
    leaves: list[bytes] = field(default_factory=list)
    events: int = 0
    bad: int = 0
    gaps: int = 0
    duplicates: int = 0
    taken: int = 0
    _history: History | None = None

    def take(self, entries: Sequence[bytes], macs: Macs) -> None:
        """Judge the entries, in their order, as far as it is known what they are."""
        with suppress(_NotReadYet):
            self._take(entries, macs)
            self.taken = len(entries)
        self.writers.forget()

    def _take(self, entries: Sequence[bytes], macs: Macs) -> None:
        headers = {
            one: b"\xe2\x01" + self.now.to_bytes(6, "big") + bytes((one,)) for one in Verdict
        }
        judged = [(verdict_of(entry, macs), entry) for entry in entries]
        good, known, now = headers[Verdict.GOOD], self.writers.known, self.now
        add = self.leaves.append
        for place, (verdict, entry) in enumerate(judged):
            if verdict is not Verdict.GOOD:
                self._odd(entry, verdict, headers[verdict])
                continue
            writer = writer_of(entry)
            first, count = NUMBERS.unpack_from(entry, 14)
            before = known.get(writer)
            if before is not None and first == before[0] + 1 and entry[-12] == 0x4F:
                # As nearly all are: the next of its writer, and done.
                last = first
                if count > 1 and entry[1] == 0x01:
                    last = min(first + count - 1, LAST_COUNTER)
                del known[writer]
                known[writer] = Standing(last, entry[-28:-11], (), now)
                add(good + entry)
                self.events += 1
                if self._history is not None:
                    self._history.add(self.leaves[-1:])
                continue
            self.taken = place
            self._judge(sighting(entry), entry, before, headers, judged[place:])

    def _odd(self, entry: bytes, verdict: Verdict, header: bytes) -> None:
        if verdict is Verdict.OVERSIZED:
            entry = sha256(entry).digest() + len(entry).to_bytes(8, "big")
        mark = odd_id(entry)
        if mark in self.writers.odd:
            self.duplicates += 1
            return
        self.writers.note_odd(mark)
        self.leaves.append(header + entry)
        self.bad += 1

    def _judge(
        self,
        seen: Sighting,
        entry: bytes,
        before: Standing | None,
        headers: Mapping[Verdict, bytes],
        rest: Sequence[tuple[Verdict, bytes]],
    ) -> None:
        writer, first = seen.writer, seen.first
        if before is None:
            before = NEVER_HEARD
            if self.writers.may_be_forgotten(writer):
                before = self._asked(rest).standing(writer)
        if first <= before.top:
            verdict = self._of_old(seen, before, rest)
        elif first == before.top + 1 and self._is_pending(seen, before, rest):
            verdict = None
        else:
            verdict = Verdict.GOOD
            if first > before.top + 1:
                missing = before.top + 1, first - 1
                agent = writer[8:].decode("ascii")
                self._add(GapLeaf(self.now, writer[:8], *missing, agent).to_bytes())
                self.gaps += 1
                before = Standing(first - 1, b"", (), self.now)
        if verdict is None:
            self.duplicates += 1
            return
        self.writers.known[writer] = before
        if verdict is Verdict.GOOD:
            self.writers.advance(seen, self.now)
            self.events += 1
        else:
            self.bad += 1
        self._add(headers[verdict] + entry)

    def _is_pending(
        self, seen: Sighting, before: Standing, rest: Sequence[tuple[Verdict, bytes]]
    ) -> bool:
        """Whether the very refusal or conflict was sealed already."""
        if seen.mark in before.pending:
            return True
        return len(before.pending) >= MOST_PENDING and self._asked(rest).has(seen)

    def _of_old(
        self, seen: Sighting, before: Standing, rest: Sequence[tuple[Verdict, bytes]]
    ) -> Verdict | None:
        """What an entry is whose counter was passed: None for one that was sealed already."""
        if seen.mark == before.done:
            return None
        history = self._asked(rest)
        if history.has(seen):
            return None
        if seen.is_done and history.covers(seen):
            return Verdict.FORGED
        return Verdict.GOOD

    def _add(self, leaf: bytes) -> None:
        self.leaves.append(leaf)
        if self._history is not None:
            self._history.add((leaf,))

    def _asked(self, rest: Sequence[tuple[Verdict, bytes]]) -> History:
        """What the archive says of all writers of whom the rest of the batch has something old:
        it is read at most once for a batch. Before anything is changed by the first of them, so
        that the batch can end there."""
        if self._history is None:
            wanted: dict[bytes, Range] = {}
            asked = [sighting(entry) for verdict, entry in rest if verdict is Verdict.GOOD]
            for seen in asked:
                self._want(seen, wanted)
            history = self.ask(wanted, asked)
            if history is None:
                raise _NotReadYet
            self._history = history
            history.add(self.leaves)
        return self._history

    def _want(self, seen: Sighting, wanted: dict[bytes, Range]) -> None:
        known = self.writers.known.get(seen.writer)
        if known is None:
            if self.writers.may_be_forgotten(seen.writer):
                wanted[seen.writer] = _ALL
        elif seen.first <= known.top or known.pending:
            first, last = wanted.get(seen.writer, (seen.first, seen.last))
            wanted[seen.writer] = min(first, seen.first), max(last, seen.last)
