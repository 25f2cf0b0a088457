"""The messages of a conversation as the store has them: read, opened, checked, kept as a copy."""

from __future__ import annotations

from collections.abc import Sequence

from memtenant.audit import Operation
from memtenant.crypto.record import MESSAGE, RecordKeys
from memtenant.errors import (
    HistoryRewound,
    KeyUnavailable,
    MessageNotFound,
    RecordKeyMismatch,
    VersionConflict,
)
from memtenant.functions.calls import MAX_BATCH, Delta, ReadRange, Tail
from memtenant.functions.fcall import Audited, Words
from memtenant.functions.head import HEAD_STATE
from memtenant.functions.replies import Entries, Entry, Head, Status
from memtenant.memory._async.audited import AuditedStore
from memtenant.memory.answers import value
from memtenant.memory.auditing import Intent
from memtenant.memory.datakeys import DataKeys
from memtenant.memory.heads import head_state
from memtenant.memory.history import Copy, CounterCheck, History, Kept, opened
from memtenant.memory.messages import StoredMessage

__all__ = ["Transcript", "restless"]

_ATTEMPTS = 8
_LOOK_BACK = 32


class Transcript:
    """Reads one conversation, from what the process has read of it already on.

    Every call opens records, so it stands in `AuditedStore.opening`.
    """

    def __init__(self, store: AuditedStore, keys: DataKeys, history: History) -> None:
        self._store = store
        self._keys = keys
        self._history = history

    async def count(self) -> int:
        """How many messages there are."""
        where = self._history.where
        limits = where.keys.reading[2]
        replies = await self._store.read(
            ("HGET", where.keys.head, HEAD_STATE), ("HGET", limits, "cutoff_content")
        )
        head = head_state(value(replies[0]))
        if head is None:
            return 0
        if head.count and head.oldest < _number(value(replies[1])):
            return len(await self.whole())  # some have expired, and were not trimmed yet
        return head.count

    async def latest(self, count: int) -> list[StoredMessage]:
        """The last ``count`` messages, oldest first; reads only the tail."""
        found = list[StoredMessage]()
        before = 0
        while len(found) < count:
            limit = min(max(count - len(found), _LOOK_BACK), MAX_BATCH)
            call = Tail(self._history.where.keys, before=before, limit=limit)
            entries, keys = await self._entries(call)
            found = [*(kept.mine() for kept in _opened(entries.entries, keys)), *found]
            if not entries.more or not entries.entries:
                break
            before = entries.entries[0].header.sequence
        return found[max(len(found) - count, 0) :] if count > 0 else []

    async def one(self, sequence: int) -> tuple[Entry, RecordKeys]:
        """The entry with this sequence, and the keys that open it; `MessageNotFound`."""
        call = ReadRange(self._history.where.keys, sequence, sequence)
        entries, keys = await self._entries(call)
        entry = next(iter(entries.entries), None)
        if entry is None or entry.header.tombstone:
            raise MessageNotFound(
                f"No message has sequence {sequence}: it was deleted, has expired, or never was"
            )
        return entry, _required(keys)

    async def newest(self, max_tokens: int) -> list[Kept]:
        """The tail that has about so many tokens."""
        where = self._history.where.keys
        entries, keys = await self._entries(Tail(where, max_tokens=max_tokens))
        found = list(entries.entries)
        spent = sum(entry.header.tokens for entry in found)
        if entries.more and len(found) == MAX_BATCH and spent < max_tokens:
            before = found[0].header.sequence
            older, keys = await self._entries(
                Tail(where, before=before, max_tokens=max_tokens - spent)
            )
            found = [*older.entries, *found]
        return _opened(found, keys)

    async def last(self) -> StoredMessage | None:
        """The last message that is there."""
        before = 0
        while True:
            call = Tail(self._history.where.keys, before=before, limit=_LOOK_BACK)
            entries, keys = await self._entries(call)
            alive = [entry for entry in entries.entries if not entry.header.tombstone]
            if alive:
                return _opened(alive[-1:], keys)[0].mine()
            if not entries.more or not entries.entries:
                return None
            before = entries.entries[0].header.sequence

    async def between(self, first: int, last: int) -> list[Kept]:
        """What stands between two sequences, of one epoch."""
        for _ in range(_ATTEMPTS):
            start, epoch, found = max(first, 1), -1, list[Entry]()
            while True:
                entries, keys = await self._entries(
                    ReadRange(self._history.where.keys, start, last)
                )
                if epoch not in (-1, entries.head.epoch):
                    break  # changed between two pages: all over again
                epoch = entries.head.epoch
                found.extend(entries.entries)
                if not entries.more:
                    return _opened(found, keys)
                start = found[-1].header.sequence + 1
        raise restless(self._history.head)

    async def whole(self) -> list[Kept]:
        """The whole conversation: the copy, and what came since."""
        keys_of = self._history.where.keys
        cutoff: Words = ("HGET", keys_of.reading[2], "cutoff_content")
        for _ in range(_ATTEMPTS):
            copy = self._history.take_copy() or Copy(Head(0, 0))
            while True:
                since = copy.head
                call: Audited[Entries] = (
                    Delta(keys_of, since.epoch, since.last) if since.epoch else ReadRange(keys_of)
                )
                entries, keys, oldest = await self._entries_and(call, cutoff)
                if entries.status is Status.STALE:
                    break
                if entries.status is Status.REWOUND:
                    self._history.rewound(entries.head)
                    entries.head.check_not_behind(since)
                _extend(copy, entries, keys)
                if not entries.more:
                    _expire(copy, _number(oldest))
                    found = list(copy.messages)
                    self._history.keep_copy(copy)
                    return found
        raise restless(self._history.head)

    async def _entries(self, call: Audited[Entries]) -> tuple[Entries, RecordKeys | None]:
        entries, keys, _ = await self._entries_and(call)
        return entries, keys

    async def _entries_and(
        self, call: Audited[Entries], *further: Words
    ) -> tuple[Entries, RecordKeys | None, object]:
        """One reading call with the keys that open what it brings, in one round trip."""
        where, seen = self._history.where, self._history.head
        known = self._keys.stored(where.alias)
        lookup = () if known else self._keys.lookup(where.subject.data_key)
        intent = Intent(Operation.READ, where)
        replies = await self._store.read_audited(call, intent, lookup, further)
        entries = call.read(replies[len(lookup)])
        self._check_head(entries.head, seen)
        if known is None:
            known = self._keys.learn(where.alias, replies[:2])
        elif _is_foreign(entries, self._history.record_keys(known)):
            known = await self._store.read_key(where)  # it was replaced, and a copy was held here
        keys = None if known is None else self._history.record_keys(known)
        return entries, keys, replies[-1]

    def _check_head(self, head: Head, seen: Head) -> None:
        try:
            head.check_not_behind(seen)
        except HistoryRewound:
            self._history.rewound(head)
            raise
        self._history.saw(head)


def _opened(entries: Sequence[Entry], keys: RecordKeys | None) -> list[Kept]:
    if all(entry.header.tombstone for entry in entries):
        return []
    return list(opened(entries, _required(keys), CounterCheck()))


def _extend(copy: Copy, entries: Entries, keys: RecordKeys | None) -> None:
    new = entries.entries
    if keys is None and all(entry.header.tombstone for entry in new):
        new = ()
    if new:
        copy.messages.extend(opened(new, _required(keys), copy.check))
        copy.size += sum(len(entry.record) for entry in new)
    last = new[-1].header.sequence if entries.more and new else entries.head.last
    copy.head = Head(entries.head.epoch, last)


def _expire(copy: Copy, cutoff: int) -> None:
    if copy.messages and copy.messages[0].time < cutoff:
        copy.messages = [kept for kept in copy.messages if kept.time >= cutoff]


def _is_foreign(entries: Entries, keys: RecordKeys) -> bool:
    """Whether the newest record was sealed under another data key."""
    for entry in reversed(entries.entries):
        if not entry.header.tombstone:
            try:
                keys.open(MESSAGE, entry.record)
            except RecordKeyMismatch:
                return True
            return False
    return False


def _required(keys: RecordKeys | None) -> RecordKeys:
    if keys is None:
        raise KeyUnavailable(
            "The conversation has messages, and the store has no data key of its user: the key "
            "was deleted around memtenant. Restore it from a backup; without it the messages stay "
            "unreadable"
        )
    return keys


def restless(head: Head) -> VersionConflict:
    """What is raised where every attempt found the conversation changed."""
    return VersionConflict(
        "The conversation was cleared or edited again and again while it was read: read it again "
        "when it is quiet, or a part of it",
        current=head,
    )


def _number(text: object) -> int:
    return int(text) if isinstance(text, bytes) and text.isdigit() else 0
