"""The summary of a conversation: one process at a time makes it, outside of every append.

A lease keeps others from asking a model the same; what decides is the compare-and-set of the
Function: a summary is kept only if nothing that it was made from has changed since the lease was
taken, and the messages are read after that.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from memtenant.audit import Operation
from memtenant.errors import (
    DataError,
    DataKeyChanged,
    KeyRetired,
    KeyUnavailable,
    MemtenantError,
    MessageNotFound,
    RecordKeyMismatch,
    UsageError,
    VersionConflict,
)
from memtenant.functions.replies import Lease
from memtenant.functions.summary_calls import ReadSummaries, Summarise, TakeLease
from memtenant.memory._async.audited import AuditedStore
from memtenant.memory._async.link import aside, asked, sleep
from memtenant.memory._async.masks import Masks
from memtenant.memory.auditing import Intent
from memtenant.memory.budget import ContextBudget
from memtenant.memory.codec import encode_value, pack
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.folding import is_due, request_of
from memtenant.memory.history import History
from memtenant.memory.messages import StoredMessage
from memtenant.memory.options import full_jitter
from memtenant.memory.prompt import PromptContext, Summarising, SummaryOutcome
from memtenant.memory.selection import costs_of, select
from memtenant.memory.summaries import (
    SUMMARY,
    Answer,
    Fallback,
    Lineage,
    Summariser,
    Summary,
    SummaryRequest,
    answer_of,
    extract,
    opened_summary,
    summary_fields,
    summary_id,
)
from memtenant.memory.tokens import TokenCounter, message_tokens

if TYPE_CHECKING:
    from memtenant.memory._async.conversation import Conversation

__all__ = ["Summaries"]

_ATTEMPTS = 6
_HOLDER_BYTES = 16
_SLACK: Final = 10.0
"""Seconds of a lease beyond the time that a summariser has: for reading and keeping."""

_log = logging.getLogger("memtenant.memory")


class Summaries:
    """What is derived from one conversation."""

    def __init__(
        self,
        conversation: Conversation,
        store: AuditedStore,
        keys: DataKeys,
        history: History,
        counter: TokenCounter,
        masks: Masks,
        summariser: Summariser | None,
    ) -> None:
        self._conversation = conversation
        self._store = store
        self._keys = keys
        self._history = history
        self._counter = counter
        self._masks = masks
        self._summariser = summariser

    async def read(self) -> Summary | None:
        """The summary; None where there is none, or what it was made from has changed since."""
        async with self._store.opening(self._history.where):
            return await self._read()

    async def _read(self) -> Summary | None:
        where = self._history.where
        call = ReadSummaries(where.keys, limit=1)
        known = self._keys.stored(where.alias)
        lookup = () if known else self._keys.lookup(where.subject.data_key)
        intent = Intent(Operation.READ_SUMMARIES, where)
        replies = await self._store.read_audited(call, intent, lookup)
        entries = call.read(replies[-1]).entries
        if known is None:
            known = self._keys.learn(where.alias, replies[:2])
        if not entries:
            return None
        if known is None:
            raise KeyUnavailable(
                "The conversation has a summary, and the store has no data key of its user: the "
                "key was deleted around memtenant. Restore it from a backup, or clear the "
                "conversation"
            )
        try:
            return opened_summary(entries[-1], self._history.record_keys(known))
        except RecordKeyMismatch:
            if lookup:
                raise
            self._keys.forget(where.alias)  # it was replaced while a copy was held here
            return await self._read()

    async def context(self, budget: ContextBudget) -> PromptContext:
        """What a model is given; summarises before, where that is due."""
        counter = budget.counter or self._counter
        stored = await self._conversation.messages()
        costs = costs_of(stored, counter)
        if sum(costs) <= budget.calm(counter):
            return select(stored, costs, budget, counter)
        if budget.summariser is None and self._summariser is None:
            outcome = SummaryOutcome(Summarising.NOT_DUE, await self.read())
        else:
            outcome = await self.make(budget, stored)
        if outcome.state in (Summarising.MADE, Summarising.CHANGED):
            stored = await self._conversation.messages()
            costs = costs_of(stored, counter)
        summary = outcome.summary
        context = await aside(lambda: select(stored, costs, budget, counter, summary))
        return replace(context, statistics=replace(context.statistics, summarising=outcome))

    async def make(
        self, budget: ContextBudget, stored: Sequence[StoredMessage] | None = None
    ) -> SummaryOutcome:
        """Summarise what is old, if it is due by the messages ``stored`` (else by those that are
        there). Raises `UsageError` without a summariser."""
        counter = budget.counter or self._counter
        summariser = budget.summariser or self._summariser
        if summariser is None:
            raise UsageError(
                "Nobody is there to write a summary: give the conversation a summariser "
                "(tenant.conversation(…, summariser=…)), or the budget"
            )
        summary = await self.read()
        if stored is None:
            stored = await self._conversation.messages()
        if not is_due(stored, costs_of(stored, counter), budget, counter, summary):
            return SummaryOutcome(Summarising.NOT_DUE, summary)
        holder = secrets.token_bytes(_HOLDER_BYTES)
        keys = self._history.where.keys
        milliseconds = int((budget.summary_timeout + _SLACK) * 1000)
        try:
            lease = await self._store.write(TakeLease(keys, holder, milliseconds))
        except MessageNotFound:
            return SummaryOutcome(Summarising.NOT_DUE, None)
        except DataError as refusal:
            return SummaryOutcome(Summarising.REFUSED, summary, refusal=refusal.reason)
        if not lease.held:
            return SummaryOutcome(Summarising.BUSY, summary)
        try:
            return await self._fold(budget, counter, summariser, holder, lease)
        finally:
            with suppress(MemtenantError):  # it ends by itself
                await self._store.write(TakeLease(keys, holder, 0))

    async def _fold(
        self,
        budget: ContextBudget,
        counter: TokenCounter,
        summariser: Summariser,
        holder: bytes,
        lease: Lease,
    ) -> SummaryOutcome:
        previous = await self.read()
        if previous is not None and previous.lineage.last != lease.covered:
            return SummaryOutcome(Summarising.CHANGED, previous)
        stored = await self._conversation.messages()
        request = request_of(
            stored, costs_of(stored, counter), budget, counter, previous, lease.covered
        )
        if request is None:
            return SummaryOutcome(Summarising.NOT_DUE, previous)
        whose = self._history.where.subject.index
        request = await self._masks.request(request, whose)
        made = await self._answer(summariser, request, budget.summary_timeout, counter)
        fallback = made if isinstance(made, Fallback) else None
        answer = extract(request, counter) if isinstance(made, Fallback) else made
        if answer is None:
            return SummaryOutcome(Summarising.NOT_DUE, previous, fallback=fallback)
        answer = await self._masks.answer(answer, whose)
        try:
            summary = await self._keep(request, answer, fallback, holder, lease, counter)
        except VersionConflict:
            return SummaryOutcome(Summarising.CHANGED, await self.read(), fallback=fallback)
        except DataError as refusal:
            return SummaryOutcome(
                Summarising.REFUSED, previous, fallback=fallback, refusal=refusal.reason
            )
        return SummaryOutcome(Summarising.MADE, summary, fallback=fallback)

    async def _answer(
        self,
        summariser: Summariser,
        request: SummaryRequest,
        seconds: float,
        counter: TokenCounter,
    ) -> Answer | Fallback:
        try:
            answer = await asked(summariser, request, seconds)
        except TimeoutError:
            return Fallback.TIMED_OUT
        except Exception as error:  # noqa: BLE001 - a caller's code may raise anything
            _log.warning(
                "A summariser raised %s: its summary is made of the messages' own sentences",
                type(error).__name__,
            )
            return Fallback.FAILED
        return answer_of(answer, request.max_tokens, counter)

    async def _keep(
        self,
        request: SummaryRequest,
        answer: Answer,
        fallback: Fallback | None,
        holder: bytes,
        lease: Lease,
        counter: TokenCounter,
    ) -> Summary:
        where, previous = self._history.where, request.previous
        lineage = Lineage(
            first=request.messages[0].sequence if previous is None else previous.lineage.first,
            last=request.messages[-1].sequence,
            epoch=lease.epoch,
            folds="" if previous is None else previous.id,
        )
        content = pack(encode_value(summary_fields(answer, lineage, fallback)))
        oldest = request.messages[0].time if previous is None else previous.time
        draft = Summary("", answer.text, answer.facts, lineage, fallback, oldest, 0)
        draft = replace(draft, tokens=message_tokens(draft.as_message(), counter))
        for attempt in range(_ATTEMPTS):
            data_key = await self._data_key()
            turn = self._store.auditor.take()
            keys = self._history.record_keys(data_key)
            record = keys.seal(SUMMARY, turn.writer, turn.counter, content)
            call = Summarise(
                conversation=where.keys,
                subject=where.subject,
                holder=holder,
                epoch=lease.epoch,
                covered_before=lease.covered,
                covered=lineage.last,
                record=record,
                data_key=data_key.stored,
                agent=self._store.source.current().binding.agent,
                tokens=draft.tokens,
                folds=previous is not None,
            )
            count = len(request.messages)
            intent = Intent(Operation.SUMMARISE, where, [record], count, b"", turn, data_key.key)
            try:
                await self._store.write_audited(call, intent)
            except (DataKeyChanged, KeyRetired):
                self._store.forget_key(where)
                if attempt == _ATTEMPTS - 1:
                    raise
                await sleep(full_jitter(attempt))
            else:
                self._store.auditor.done(turn)
                return replace(draft, id=summary_id(turn.writer, turn.counter))
        raise AssertionError("every attempt returns or raises")

    async def _data_key(self) -> DataKey:
        where = self._history.where
        known = self._keys.stored(where.alias) or await self._store.read_key(where)
        if known is None:
            raise DataKeyChanged(
                "The user's data key is gone since the messages were read: nothing is summarised"
            )
        return known
