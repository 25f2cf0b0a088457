# Generated from _async/conversation.py by `make generate`: change it there.
"""A conversation: what an agent appends to, reads, and forgets again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from memtenant.audit import Operation, sequences_to_bytes
from memtenant.crypto.record import MESSAGE, RecordKeys
from memtenant.errors import (
    DataKeyChanged,
    HistoryRewound,
    KeyRetired,
    KeyUnavailable,
    MessageNotFound,
    QuotaExceeded,
    RecordKeyMismatch,
    UsageError,
    VersionConflict,
)
from memtenant.functions.calls import (
    MAX_BATCH,
    Audited,
    Clear,
    Delta,
    Pop,
    ReadRange,
    Remove,
    Tail,
    Update,
    Words,
)
from memtenant.functions.head import HEAD_STATE
from memtenant.functions.replies import Changed, Entries, Entry, Head, Status
from memtenant.memory._sync.audited import AuditedStore
from memtenant.memory._sync.lane import Lane
from memtenant.memory._sync.link import sleep
from memtenant.memory._sync.masks import Masks
from memtenant.memory.answers import value
from memtenant.memory.auditing import Intent
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.drafts import (
    Ticket,
    draft,
    drafts,
    fingerprint,
    idempotency_mark,
)
from memtenant.memory.heads import head_state
from memtenant.memory.history import Copy, CounterCheck, History, Kept, opened
from memtenant.memory.messages import Message, Receipt, StoredMessage
from memtenant.memory.options import full_jitter
from memtenant.memory.tokens import TokenCounter, message_tokens
from memtenant.memory.window import fitting

if TYPE_CHECKING:
    from memtenant.memory._sync.summaries import Summaries
    from memtenant.memory.budget import ContextBudget
    from memtenant.memory.prompt import PromptContext, SummaryOutcome
    from memtenant.memory.summaries import Summariser, Summary

__all__ = ["Conversation"]

_ATTEMPTS = 8
_MARK_BYTES = 16
_LOOK_BACK = 32


class Conversation:
    """A session of a user, from `Tenant.conversation`; cheap to make, safe to share."""

    def __init__(
        self,
        store: AuditedStore,
        keys: DataKeys,
        history: History,
        lane: Lane,
        counter: TokenCounter,
        masks: Masks,
        summariser: Summariser | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._history = history
        self._lane = lane
        self._counter = counter
        self._masks = masks
        self._summariser = summariser

    @property
    def version(self) -> Head:
        """Where the conversation stood when this process last heard of it: for ``expected=``."""
        return self._history.head

    def append(
        self,
        message: Message,
        *,
        idempotency_key: str | None = None,
        expected: Head | None = None,
        on_limit: Literal["raise", "wait"] = "raise",
        patience: float = 30.0,
    ) -> Receipt:
        """Store one message at the end; see `extend`."""
        return self.extend(
            (message,),
            idempotency_key=idempotency_key,
            expected=expected,
            on_limit=on_limit,
            patience=patience,
        )

    def extend(
        self,
        messages: Sequence[Message],
        *,
        idempotency_key: str | None = None,
        expected: Head | None = None,
        on_limit: Literal["raise", "wait"] = "raise",
        patience: float = 30.0,
    ) -> Receipt:
        """Store messages at the end, all or none (1 to 1,000).

        idempotency_key: a later append with the same key and the same messages is answered with
        this one's receipt, also from another process (the last 128 keys are known). expected:
        refuse (`VersionConflict`) unless the conversation stands there; ``Head(0, 0)`` for a new
        one. on_limit: ``wait`` for the tenant's write rate, up to ``patience`` seconds, instead of
        raising `QuotaExceeded`.

        Raises also `MessageTooLarge`, `MessageInvalid`, `MaskingRejected`, `IdempotencyConflict`,
        `HistoryRewound`, `NotDurable`, `TenantHeld`, `AccessReadOnly`, `SubjectErased` and
        `StoreUnavailable`. After the last, and where the call is cancelled, the messages may have
        been stored.
        """
        if not messages:
            raise ValueError("extend needs at least one message")
        messages, found = self._masks.messages(messages, self._history.where.subject.index)
        made = drafts(messages, self._counter)
        mark = print_ = b""
        if idempotency_key is not None:
            name_key = self._store.source.current().keyring.name_key
            mark = idempotency_mark(name_key, self._history.where.place, idempotency_key)
            print_ = fingerprint(messages)
        until = time.monotonic() + patience
        while True:
            try:
                return self._lane.append(Ticket(made, mark, print_, expected, found))
            except QuotaExceeded as error:
                delay = error.retry_after
                if on_limit != "wait" or delay is None:
                    raise
                delay += full_jitter(2)
                if time.monotonic() + delay > until:
                    raise
            sleep(delay)

    def messages(
        self,
        first: int = 1,
        last: int | None = None,
        *,
        roles: Collection[str] | None = None,
        since: datetime | None = None,
    ) -> list[StoredMessage]:
        """The messages from sequence ``first`` to ``last`` (both included; None: the end), oldest
        first; only those of ``roles``, and stored at or after ``since``.

        The whole conversation is kept in memory for a while: reading it again fetches only what is
        new. Raises `HistoryRewound` and `RecordInvalid` of the kind that it is.
        """
        part = first > 1 or last is not None
        with self._store.opening(self._history.where):
            found = self._range(first, last or 0) if part else self._whole()
        return [
            kept.mine()
            for kept in found
            if (roles is None or kept.stored.role in roles)
            and (since is None or kept.stored.time >= since)
        ]

    def window(self, max_tokens: int) -> list[StoredMessage]:
        """The newest messages that fit into ``max_tokens`` by the tenant's counter, oldest first.

        Reads only the tail, in one round trip (two above 1,000 messages; at most 2,000 come).
        Results of tools whose call did not fit are left out.
        """
        if max_tokens < 1:
            return []
        with self._store.opening(self._history.where):
            kept = self._newest(max_tokens)
        return fitting([one.mine() for one in kept], max_tokens, self._tokens)

    def latest(self, count: int) -> list[StoredMessage]:
        """The last ``count`` messages, oldest first; reads only the tail."""
        found = list[StoredMessage]()
        before = 0
        with self._store.opening(self._history.where):
            while len(found) < count:
                limit = min(max(count - len(found), _LOOK_BACK), MAX_BATCH)
                call = Tail(self._history.where.keys, before=before, limit=limit)
                entries, keys = self._entries(call)
                found = [*(kept.mine() for kept in _opened(entries.entries, keys)), *found]
                if not entries.more or not entries.entries:
                    break
                before = entries.entries[0].header.sequence
        return found[max(len(found) - count, 0) :] if count > 0 else []

    def context(self, budget: ContextBudget) -> PromptContext:
        """What of the conversation a model is given: within the budget, in its order, a tool's
        result with its call, the pinned always. Where that is too much and there is a summariser,
        it summarises before; what becomes of that is in the statistics, and loses no message.

        Raises `PinnedTooLarge`.
        """
        return self._summaries().context(budget)

    def summarise(self, budget: ContextBudget) -> SummaryOutcome:
        """Summarise what is old, if it is due; to be called beside the agent's work, so that
        `context` has not to wait for a model. Raises `UsageError` without a summariser."""
        return self._summaries().make(budget)

    def summary(self) -> Summary | None:
        """The summary with its lineage; None where there is none (any more)."""
        return self._summaries().read()

    def _summaries(self) -> Summaries:
        # Here, because agents without a budget need not wait for the import.
        from memtenant.memory._sync.summaries import Summaries

        return Summaries(
            self,
            self._store,
            self._keys,
            self._history,
            self._counter,
            self._masks,
            self._summariser,
        )

    def count(self) -> int:
        """How many messages there are."""
        where = self._history.where
        limits = where.keys.reading[2]
        replies = self._store.read(
            ("HGET", where.keys.head, HEAD_STATE), ("HGET", limits, "cutoff_content")
        )
        head = head_state(value(replies[0]))
        if head is None:
            return 0
        if head.count and head.oldest < _number(value(replies[1])):
            return len(self.messages())  # some have expired, and were not trimmed yet
        return head.count

    def update_message(
        self, sequence: int, message: Message, *, expected: Head | None = None
    ) -> None:
        """Put another message in the place of one; sequence and time stay.

        expected: refuse (`VersionConflict`) if anything but appends happened since. Raises
        `MessageNotFound`, and what `extend` raises.
        """
        where = self._history.where
        (message,), _ = self._masks.messages((message,), where.subject.index)
        made = draft(message, self._counter)
        for attempt in range(_ATTEMPTS):
            with self._store.opening(where):
                entry, record_keys = self._one(sequence)
                # The same writer and counter: the message stays where its writer put it.
                old = record_keys.open(MESSAGE, entry.record)
            data_key = self._keys.stored(where.alias)
            if data_key is None:
                continue  # its minutes are over just now: read it again
            record = record_keys.seal(MESSAGE, old.writer, old.counter, made.content)
            call = Update(
                conversation=where.keys,
                subject=where.subject,
                sequence=sequence,
                record=record,
                data_key=data_key.stored,
                agent=self._agent,
                tokens=made.tokens,
                tag=entry.header.subject_tag or b"",
                expected_epoch=None if expected is None else expected.epoch,
            )
            intent = Intent(Operation.UPDATE, where, records=(record,), data_key=data_key.key)
            try:
                changed = self._store.write_audited(call, intent)
            except (DataKeyChanged, KeyRetired):
                self._keys.forget(where.alias)
                self._store.source.current(look=True)
                if attempt == _ATTEMPTS - 1:
                    raise
                sleep(full_jitter(attempt))
            else:
                self._changed(changed)
                return
        raise _restless(self._history.head)

    def pop(self) -> StoredMessage | None:
        """Take the last message away and return it; None where there is none."""
        where, attempt = self._history.where, 0
        while True:
            with self._store.opening(where):
                last = self._last()
            if last is None:
                return None
            mark = secrets.token_bytes(_MARK_BYTES)
            call = Pop(where.keys, self._agent, mark, last.sequence)
            try:
                popped = self._store.write_audited(call, Intent(Operation.POP, where))
            except VersionConflict:
                # Somebody appended or popped in between.
                if attempt == _ATTEMPTS:
                    raise
                sleep(full_jitter(attempt))
                attempt += 1
            else:
                self._history.drop_copy()
                self._history.saw(Head(popped.epoch, 0))
                return last

    def remove(self, *sequences: int) -> int:
        """Take single messages away (up to 1,000); returns how many of them were there."""
        if not sequences:
            return 0
        if len(sequences) > MAX_BATCH or min(sequences) < 1:
            raise UsageError(f"remove takes 1 to {MAX_BATCH} sequences, which count from 1")
        where, mark = self._history.where, secrets.token_bytes(_MARK_BYTES)
        call = Remove(where.keys, sequences, self._agent, mark)
        detail = sequences_to_bytes(sequences)
        intent = Intent(Operation.REMOVE, where, count=len(sequences), detail=detail)
        return self._changed(self._store.write_audited(call, intent))

    def clear(self, *, expected: Head | None = None) -> int:
        """Take every message away, and what was derived from them; returns how many there were.

        Sequences go on counting. Raises `TenantHeld` under a hold.
        """
        return self._clear(delete=False, expected=expected)

    def delete(self, *, expected: Head | None = None) -> int:
        """As `clear`, and the conversation leaves the user's list."""
        return self._clear(delete=True, expected=expected)

    def _clear(self, *, delete: bool, expected: Head | None) -> int:
        epoch = None if expected is None else expected.epoch
        where, mark = self._history.where, secrets.token_bytes(_MARK_BYTES)
        call = Clear(where.keys, self._agent, delete, mark, epoch)
        intent = Intent(Operation.DELETE if delete else Operation.CLEAR, where)
        return self._changed(self._store.write_audited(call, intent))

    def _changed(self, changed: Changed) -> int:
        self._history.drop_copy()
        self._history.saw(Head(changed.epoch, 0))
        return changed.affected

    def _one(self, sequence: int) -> tuple[Entry, RecordKeys]:
        """The entry with this sequence, and the keys that open it; `MessageNotFound`."""
        call = ReadRange(self._history.where.keys, sequence, sequence)
        entries, keys = self._entries(call)
        entry = next(iter(entries.entries), None)
        if entry is None or entry.header.tombstone:
            raise MessageNotFound(
                f"No message has sequence {sequence}: it was deleted, has expired, or never was"
            )
        return entry, _required(keys)

    def _newest(self, max_tokens: int) -> list[Kept]:
        """The tail that has about so many tokens."""
        where = self._history.where.keys
        entries, keys = self._entries(Tail(where, max_tokens=max_tokens))
        found = list(entries.entries)
        spent = sum(entry.header.tokens for entry in found)
        if entries.more and len(found) == MAX_BATCH and spent < max_tokens:
            before = found[0].header.sequence
            older, keys = self._entries(Tail(where, before=before, max_tokens=max_tokens - spent))
            found = [*older.entries, *found]
        return _opened(found, keys)

    def _last(self) -> StoredMessage | None:
        """The last message that is there."""
        before = 0
        while True:
            call = Tail(self._history.where.keys, before=before, limit=_LOOK_BACK)
            entries, keys = self._entries(call)
            alive = [entry for entry in entries.entries if not entry.header.tombstone]
            if alive:
                return _opened(alive[-1:], keys)[0].mine()
            if not entries.more or not entries.entries:
                return None
            before = entries.entries[0].header.sequence

    def _range(self, first: int, last: int) -> list[Kept]:
        """What stands between two sequences, of one epoch."""
        for _ in range(_ATTEMPTS):
            start, epoch, found = max(first, 1), -1, list[Entry]()
            while True:
                entries, keys = self._entries(ReadRange(self._history.where.keys, start, last))
                if epoch not in (-1, entries.head.epoch):
                    break  # changed between two pages: all over again
                epoch = entries.head.epoch
                found.extend(entries.entries)
                if not entries.more:
                    return _opened(found, keys)
                start = found[-1].header.sequence + 1
        raise _restless(self._history.head)

    def _whole(self) -> list[Kept]:
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
                entries, keys, oldest = self._entries_and(call, cutoff)
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
        raise _restless(self._history.head)

    def _entries(self, call: Audited[Entries]) -> tuple[Entries, RecordKeys | None]:
        entries, keys, _ = self._entries_and(call)
        return entries, keys

    def _entries_and(
        self, call: Audited[Entries], *further: Words
    ) -> tuple[Entries, RecordKeys | None, object]:
        """One reading call with the keys that open what it brings, in one round trip."""
        where, seen = self._history.where, self._history.head
        known = self._keys.stored(where.alias)
        lookup = () if known else self._keys.lookup(where.subject.data_key)
        intent = Intent(Operation.READ, where)
        replies = self._store.read_audited(call, intent, lookup, further)
        entries = call.read(replies[len(lookup)])
        self._check_head(entries.head, seen)
        if known is None:
            known = self._keys.learn(where.alias, replies[:2])
        elif _is_foreign(entries, self._history.record_keys(known)):
            known = self._fresh_key()
        keys = None if known is None else self._history.record_keys(known)
        return entries, keys, replies[-1]

    def _fresh_key(self) -> DataKey | None:
        """The key as it is in the store now: it was replaced while a copy was held here."""
        where = self._history.where
        replies = self._store.read(*self._keys.lookup(where.subject.data_key))
        return self._keys.learn(where.alias, [value(reply) for reply in replies])

    def _check_head(self, head: Head, seen: Head) -> None:
        try:
            head.check_not_behind(seen)
        except HistoryRewound:
            self._history.rewound(head)
            raise
        self._history.saw(head)

    def _tokens(self, message: Message) -> int:
        return message_tokens(message, self._counter)

    @property
    def _agent(self) -> str:
        return self._store.source.current().binding.agent


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


def _restless(head: Head) -> VersionConflict:
    return VersionConflict(
        "The conversation was cleared or edited again and again while it was read: read it again "
        "when it is quiet, or a part of it",
        current=head,
    )


def _number(text: object) -> int:
    return int(text) if isinstance(text, bytes) and text.isdigit() else 0
