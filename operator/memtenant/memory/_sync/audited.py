# Generated from _async/audited.py by `make generate`: change it there.
"""The tenant's store, for calls that leave an event where the tenant is audited.

Where it is not, nothing is added: no round trip and no byte.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, TypeVar

from memtenant.audit import Failure, Operation
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import (
    AuditEventRequired,
    KeyUnavailable,
    MemtenantError,
    RecordInvalid,
    SubjectErased,
)
from memtenant.functions.fcall import Audited, Words
from memtenant.functions.index_calls import LeaveEvent
from memtenant.functions.keyspace import TenantKeys
from memtenant.memory._sync.store import Store, Tries
from memtenant.memory.answers import value
from memtenant.memory.auditing import Auditor, Intent, Turn, failure_of
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.observing import Observer, observed
from memtenant.memory.options import Options
from memtenant.memory.places import ContextPlace, ConversationPlace, UserPlace
from memtenant.memory.source import BindingSource

__all__ = ["AuditedStore"]

R = TypeVar("R")
Where = ConversationPlace | ContextPlace | UserPlace

_TELLING: Final = 1.0
"""Seconds for which it is tried to tell the audit of a failure, before the failure is raised."""

_log = logging.getLogger("memtenant.memory")


class AuditedStore(Store):
    """A `Store` whose ``…_audited`` calls bring the event that the server asks for.

    An `Intent` says what the call does. Where ``onFailure`` is Closed and nobody drains the queue,
    `AuditUnavailable`: nothing was done.
    """

    def __init__(self, source: BindingSource, options: Options, keys: DataKeys) -> None:
        super().__init__(source, options)
        self.auditor = Auditor(source)
        self._keys = keys
        self._observer = options.observer

    def write_audited(
        self, call: Audited[R], intent: Intent | Callable[[], Intent], tries: Tries | None = None
    ) -> R:
        """The answer of a writing call that is the same in every try. A function gives the intent
        where there are so many calls that nobody should make it in vain."""
        return self.write_made_audited(lambda again: call, intent, tries)

    def write_made_audited(
        self,
        call: Callable[[bool], Audited[R]],
        intent: Intent | Callable[[], Intent],
        tries: Tries | None = None,
    ) -> R:
        """The answer of a writing call, as `Store.write_made`. Every try brings the same event."""
        if (observer := self._observer) is None:
            return self._written(call, intent, tries or Tries())
        told = intent if isinstance(intent, Intent) else intent()
        with self._observed(observer, told):
            return self._written(call, told, tries or Tries())

    def _written(
        self,
        call: Callable[[bool], Audited[R]],
        intent: Intent | Callable[[], Intent],
        tries: Tries,
    ) -> R:
        if not self.auditor.expects(reading=False):
            try:
                return self.write_made(call, tries)
            except AuditEventRequired:
                tries.sent -= 1  # the last one was answered, and did nothing
                self.auditor.asked(reading=False)
        told = intent if isinstance(intent, Intent) else intent()
        turn, agent, event = self._event(told)
        answer = self.write_made(lambda again: call(again).with_event(agent, event), tries)
        self._event_left(told, turn)
        return answer

    def ask_audited(self, call: Audited[R], intent: Intent) -> R:
        """The answer of one reading call."""
        return call.read((self.read_audited(call, intent))[0])

    def read_audited(
        self,
        call: Audited[R],
        intent: Intent,
        before: Sequence[Words] = (),
        after: Sequence[Words] = (),
    ) -> list[object]:
        """The replies to ``before``, to a reading call, and to ``after``, in one round trip; an
        error reply is raised as what it means."""
        if (observer := self._observer) is None:
            return self._shown(call, intent, before, after)
        with self._observed(observer, intent):
            return self._shown(call, intent, before, after)

    def _shown(
        self, call: Audited[R], intent: Intent, before: Sequence[Words], after: Sequence[Words]
    ) -> list[object]:
        if not self.auditor.expects(reading=True):
            try:
                return self._replies(*before, call.words, *after)
            except AuditEventRequired:
                self.auditor.asked(reading=True)
        turn, agent, event = self._event(intent)
        replies = self._replies(*before, call.with_event(agent, event).words, *after)
        self._event_left(intent, turn)
        return replies

    def note(self, intent: Intent) -> None:
        """Leave an event of what happens here and not in one call, where the tenant is audited."""
        self.write_audited(self._bare_event(), intent)

    def opening(self, where: Where) -> Opening:
        """Around the opening of what was read: what does not open is told to the audit."""
        return Opening(self, where)

    def tell(self, where: Where, failure: Failure) -> None:
        """Tell the audit of a failed decryption, if that can be done soon; never raises one of
        memtenant's errors, because the failure itself is what the caller has to hear of."""
        if not self.auditor.may_tell():
            return
        intent = Intent(Operation.DECRYPTION_FAILED, where, detail=bytes((failure,)))
        try:
            self.write_audited(self._bare_event(), intent, Tries(budget=_TELLING))
        except MemtenantError as error:
            _log.warning("A failed decryption could not be audited: %s", error)

    def read_key(self, where: Where) -> DataKey | None:
        """The subject's key as it is in the store now; see `DataKeys.learn`."""
        replies = self.read(*self._keys.lookup(where.subject.data_key))
        return self._keys.learn(where.alias, [value(reply) for reply in replies])

    def forget_key(self, where: Where) -> None:
        """After `DataKeyChanged` or `KeyRetired`: what the process knows of the keys is old."""
        self._keys.forget(where.alias)
        self.source.current(look=True)

    def data_key(self, where: Where) -> SecretKey | None:
        """The subject's key; None where there is none or it does not open: a call that needs it
        says so, and one that does not, such as a deletion, goes on."""
        known = self._keys.known(where.alias)
        if known is None:
            replies = self._replies(*self._keys.lookup(where.subject.data_key))
            try:
                known = self._keys.learn(where.alias, replies)
            except (KeyUnavailable, RecordInvalid, SubjectErased):
                return None
        return None if known is None else known.key

    def _event(self, intent: Intent) -> tuple[Turn, str, bytes]:
        data_key = intent.data_key or self.data_key(intent.where)
        turn = intent.turn or self.auditor.take()
        return turn, *self.auditor.event(intent, turn, data_key)

    def _replies(self, *commands: Words) -> list[object]:
        return [value(reply) for reply in self.read(*commands)]

    def _observed(self, observer: Observer, intent: Intent) -> AbstractContextManager[None]:
        binding = self.source.current().binding
        operation = intent.operation.name.lower()
        return observed(observer, operation, str(binding.tenant), binding.agent, intent.count)

    def _event_left(self, intent: Intent, turn: Turn) -> None:
        if intent.turn is None:
            self.auditor.done(turn)

    def _bare_event(self) -> LeaveEvent:
        binding = self.source.current().binding
        return LeaveEvent(TenantKeys.of(binding.tenant), binding.agent)


class Opening:
    """See `AuditedStore.opening`."""

    def __init__(self, store: AuditedStore, where: Where) -> None:
        self._store = store
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failure = failure_of(error)
        if failure is not None:
            self._store.tell(self._where, failure)
