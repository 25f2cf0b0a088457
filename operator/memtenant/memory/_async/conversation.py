"""A conversation: what an agent appends to, reads (`transcript`), and forgets again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from memtenant.audit import Operation, sequences_to_bytes
from memtenant.crypto.record import MESSAGE
from memtenant.errors import (
    DataKeyChanged,
    KeyRetired,
    QuotaExceeded,
    UsageError,
    VersionConflict,
)
from memtenant.functions.calls import MAX_BATCH, Clear, Pop, Remove, Update
from memtenant.functions.replies import Changed, Head
from memtenant.memory._async.audited import AuditedStore
from memtenant.memory._async.lane import Lane
from memtenant.memory._async.link import sleep
from memtenant.memory._async.masks import Masks
from memtenant.memory._async.transcript import Transcript, restless
from memtenant.memory.auditing import Intent
from memtenant.memory.datakeys import DataKeys
from memtenant.memory.drafts import (
    Ticket,
    draft,
    drafts,
    fingerprint,
    idempotency_mark,
)
from memtenant.memory.history import History
from memtenant.memory.messages import Message, Receipt, StoredMessage
from memtenant.memory.options import full_jitter
from memtenant.memory.tokens import TokenCounter, message_tokens
from memtenant.memory.window import fitting

if TYPE_CHECKING:
    from memtenant.memory._async.summaries import Summaries
    from memtenant.memory.budget import ContextBudget
    from memtenant.memory.prompt import PromptContext, SummaryOutcome
    from memtenant.memory.summaries import Summariser, Summary

__all__ = ["Conversation"]

_ATTEMPTS = 8
_MARK_BYTES = 16


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
        self._transcript = Transcript(store, keys, history)

    @property
    def version(self) -> Head:
        """Where the conversation stood when this process last heard of it: for ``expected=``."""
        return self._history.head

    async def append(
        self,
        message: Message,
        *,
        idempotency_key: str | None = None,
        expected: Head | None = None,
        on_limit: Literal["raise", "wait"] = "raise",
        patience: float = 30.0,
    ) -> Receipt:
        """Store one message at the end; see `extend`."""
        return await self.extend(
            (message,),
            idempotency_key=idempotency_key,
            expected=expected,
            on_limit=on_limit,
            patience=patience,
        )

    async def extend(
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
        if not isinstance(messages, Sequence):
            raise UsageError(f"extend takes a list of messages, not {type(messages).__name__}")
        if not messages:
            raise UsageError("extend needs at least one message: there is nothing to store")
        messages, found = await self._masks.messages(messages, self._history.where.subject.index)
        made = drafts(messages, self._counter)
        mark = print_ = b""
        if idempotency_key is not None:
            name_key = self._store.source.current().keyring.name_key
            mark = idempotency_mark(name_key, self._history.where.place, idempotency_key)
            print_ = fingerprint(messages)
        until = time.monotonic() + patience
        while True:
            try:
                return await self._lane.append(Ticket(made, mark, print_, expected, found))
            except QuotaExceeded as error:
                delay = error.retry_after
                if on_limit != "wait" or delay is None:
                    raise
                delay += full_jitter(2)
                if time.monotonic() + delay > until:
                    raise
            await sleep(delay)

    async def messages(
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
        read = self._transcript
        async with self._store.opening(self._history.where):
            found = await (read.between(first, last or 0) if part else read.whole())
        return [
            kept.mine()
            for kept in found
            if (roles is None or kept.stored.role in roles)
            and (since is None or kept.stored.time >= since)
        ]

    async def window(self, max_tokens: int) -> list[StoredMessage]:
        """The newest messages that fit into ``max_tokens`` by the tenant's counter, oldest first.

        Reads only the tail, in one round trip (two above 1,000 messages; at most 2,000 come).
        Results of tools whose call did not fit are left out.
        """
        if max_tokens < 1:
            return []
        async with self._store.opening(self._history.where):
            kept = await self._transcript.newest(max_tokens)
        return fitting([one.mine() for one in kept], max_tokens, self._tokens)

    async def latest(self, count: int) -> list[StoredMessage]:
        """The last ``count`` messages, oldest first; reads only the tail."""
        async with self._store.opening(self._history.where):
            return await self._transcript.latest(count)

    async def context(self, budget: ContextBudget) -> PromptContext:
        """What of the conversation a model is given: within the budget, in its order, a tool's
        result with its call, the pinned always. Where that is too much and there is a summariser,
        it summarises before; what becomes of that is in the statistics, and loses no message.

        Raises `PinnedTooLarge`.
        """
        return await self._summaries().context(budget)

    async def summarise(self, budget: ContextBudget) -> SummaryOutcome:
        """Summarise what is old, if it is due; to be called beside the agent's work, so that
        `context` has not to wait for a model. Raises `UsageError` without a summariser."""
        return await self._summaries().make(budget)

    async def summary(self) -> Summary | None:
        """The summary with its lineage; None where there is none (any more)."""
        return await self._summaries().read()

    def _summaries(self) -> Summaries:
        # Here, because agents without a budget need not wait for the import.
        from memtenant.memory._async.summaries import Summaries

        return Summaries(
            self,
            self._store,
            self._keys,
            self._history,
            self._counter,
            self._masks,
            self._summariser,
        )

    async def count(self) -> int:
        """How many messages there are."""
        async with self._store.opening(self._history.where):
            return await self._transcript.count()

    async def update_message(
        self, sequence: int, message: Message, *, expected: Head | None = None
    ) -> None:
        """Put another message in the place of one; sequence and time stay.

        expected: refuse (`VersionConflict`) if anything but appends happened since. Raises
        `MessageNotFound`, and what `extend` raises.
        """
        where = self._history.where
        (message,), _ = await self._masks.messages((message,), where.subject.index)
        made = draft(message, self._counter)
        for attempt in range(_ATTEMPTS):
            async with self._store.opening(where):
                entry, record_keys = await self._transcript.one(sequence)
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
                changed = await self._store.write_audited(call, intent)
            except (DataKeyChanged, KeyRetired):
                self._store.forget_key(where)
                if attempt == _ATTEMPTS - 1:
                    raise
                await sleep(full_jitter(attempt))
            else:
                self._changed(changed)
                return
        raise restless(self._history.head)

    async def pop(self) -> StoredMessage | None:
        """Take the last message away and return it; None where there is none."""
        where, attempt = self._history.where, 0
        while True:
            async with self._store.opening(where):
                last = await self._transcript.last()
            if last is None:
                return None
            mark = secrets.token_bytes(_MARK_BYTES)
            call = Pop(where.keys, self._agent, mark, last.sequence)
            try:
                popped = await self._store.write_audited(call, Intent(Operation.POP, where))
            except VersionConflict:
                # Somebody appended or popped in between.
                if attempt == _ATTEMPTS:
                    raise
                await sleep(full_jitter(attempt))
                attempt += 1
            else:
                self._history.drop_copy()
                self._history.saw(Head(popped.epoch, 0))
                return last

    async def remove(self, *sequences: int) -> int:
        """Take single messages away (up to 1,000); returns how many of them were there."""
        if not sequences:
            return 0
        if len(sequences) > MAX_BATCH or min(sequences) < 1:
            raise UsageError(f"remove takes 1 to {MAX_BATCH} sequences, which count from 1")
        where, mark = self._history.where, secrets.token_bytes(_MARK_BYTES)
        call = Remove(where.keys, sequences, self._agent, mark)
        detail = sequences_to_bytes(sequences)
        intent = Intent(Operation.REMOVE, where, count=len(sequences), detail=detail)
        return self._changed(await self._store.write_audited(call, intent))

    async def clear(self, *, expected: Head | None = None) -> int:
        """Take every message away, and what was derived from them; returns how many there were.

        Sequences go on counting. Raises `TenantHeld` under a hold.
        """
        return await self._clear(delete=False, expected=expected)

    async def delete(self, *, expected: Head | None = None) -> int:
        """As `clear`, and the conversation leaves the user's list."""
        return await self._clear(delete=True, expected=expected)

    async def _clear(self, *, delete: bool, expected: Head | None) -> int:
        epoch = None if expected is None else expected.epoch
        where, mark = self._history.where, secrets.token_bytes(_MARK_BYTES)
        call = Clear(where.keys, self._agent, delete, mark, epoch)
        intent = Intent(Operation.DELETE if delete else Operation.CLEAR, where)
        return self._changed(await self._store.write_audited(call, intent))

    def _changed(self, changed: Changed) -> int:
        self._history.drop_copy()
        self._history.saw(Head(changed.epoch, 0))
        return changed.affected

    def _tokens(self, message: Message) -> int:
        return message_tokens(message, self._counter)

    @property
    def _agent(self) -> str:
        return self._store.source.current().binding.agent
