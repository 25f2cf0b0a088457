"""Which calls bring an audit event, and what is in it.

The server is the authority: a call without an event that it wants is answered so, nothing is done,
and the call is repeated with one. What was asked for is believed for a few minutes, so that a
switch of the tenant's audit, off or on, reaches a running agent without a new binding.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from memtenant.audit import NOBODY, Event, Failure, Operation, Reference
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import (
    KeyUnavailable,
    PlaintextRefused,
    RecordKeyMismatch,
    RecordMalformed,
    RecordMissing,
    RecordReordered,
    RecordReplayed,
    RecordTampered,
)
from memtenant.memory.locks import ShortLock
from memtenant.memory.places import ContextPlace, ConversationPlace, UserPlace
from memtenant.memory.source import BindingSource

__all__ = ["FAILURES_A_MINUTE", "Auditor", "Intent", "Turn", "failure_of"]

FAILURES_A_MINUTE: Final = 10
"""Most failed decryptions that one `Tenant` tells the audit in a minute: a loop over a damaged
conversation must not fill the queue."""

_BELIEVED_FOR = 300.0
_MOST_REFERENCES = 256
_LAST_COUNTER = 2**32 - 1

_FAILURES: tuple[tuple[type[BaseException], Failure], ...] = (
    (RecordMalformed, Failure.MALFORMED),
    (PlaintextRefused, Failure.PLAINTEXT),
    (RecordKeyMismatch, Failure.OTHER_KEY),
    (RecordTampered, Failure.TAMPERED),
    (RecordReplayed, Failure.REPLAYED),
    (RecordReordered, Failure.REORDERED),
    (RecordMissing, Failure.MISSING),
    (KeyUnavailable, Failure.KEY_UNAVAILABLE),
)


class Turn(NamedTuple):
    """The writer and counter of one call."""

    writer: bytes
    counter: int


@dataclass(frozen=True, slots=True)
class Intent:
    """What a call does, for the event that it leaves where the tenant is audited.

    where: whose data it touches. records: the sealed records that it stores, in their order.
    count: how many records, values or messages it is about. detail: by operation. turn: the writer
    and counter that the records were sealed with; without one, the event gets its own. data_key:
    the subject's, where the caller has it; else it is looked up.
    """

    operation: Operation
    where: ConversationPlace | ContextPlace | UserPlace
    records: Sequence[bytes] = ()
    count: int = 1
    detail: bytes = b""
    turn: Turn | None = None
    data_key: SecretKey | None = None


class Auditor:
    """What this process knows of its tenant's audit, and its events' writers."""

    def __init__(self, source: BindingSource) -> None:
        self._source = source
        self._believed = {False: 0.0, True: 0.0}
        self._free: list[Turn] = []
        self._process = os.getpid()
        self._references: OrderedDict[tuple[str, bytes, str, str], _Kept] = OrderedDict()
        self._told: deque[float] = deque(maxlen=FAILURES_A_MINUTE)
        self._lock = ShortLock()

    def expects(self, *, reading: bool) -> bool:
        """Whether the server asked for events of such calls in the last minutes."""
        return time.monotonic() < self._believed[reading]

    def asked(self, *, reading: bool) -> None:
        """The server wants an event of such calls."""
        with self._lock:
            # Who counted on while nothing was written would seem to miss events.
            self._free.clear()
            self._believed[reading] = time.monotonic() + _BELIEVED_FOR

    def take(self) -> Turn:
        """The turn of one call: of a writer that no other call uses at the same time."""
        with self._lock:
            if self._process != os.getpid():
                self._process = os.getpid()
                self._free.clear()  # they are the parent's
            if self._free:
                return self._free.pop()
        opened = int(time.time()).to_bytes(4, "big")
        return Turn(opened + secrets.token_bytes(4), 1)

    def done(self, turn: Turn) -> None:
        """The call was done: its writer counts on. After any other end it is not used again, so
        that within a writer no counter is missing."""
        if turn.counter < _LAST_COUNTER:
            with self._lock:
                if self._process == os.getpid():
                    self._free.append(Turn(turn.writer, turn.counter + 1))

    def event(self, intent: Intent, turn: Turn, data_key: SecretKey | None) -> tuple[str, bytes]:
        """The agent and its event."""
        opened = self._source.current()
        agent = opened.binding.agent
        reference = NOBODY if data_key is None else self._reference(intent.where, data_key)
        event = Event(
            operation=intent.operation,
            agent=agent,
            binding_version=opened.binding.version,
            writer=turn.writer,
            counter=turn.counter,
            count=intent.count,
            subject=reference.subject,
            place=reference.place,
            commitment=reference.commit(intent.records),
            detail=intent.detail,
        )
        return agent, event.to_bytes(opened.keyring.audit_key)

    def may_tell(self) -> bool:
        """Whether one more failed decryption may be told now; it counts if so."""
        now = time.monotonic()
        with self._lock:
            if len(self._told) == FAILURES_A_MINUTE and now - self._told[0] < 60:
                return False
            self._told.append(now)
            return True

    def _reference(
        self, where: ConversationPlace | ContextPlace | UserPlace, data_key: SecretKey
    ) -> Reference:
        place = where.place
        scope, conversation = ("", "") if place is None else (place.scope, place.conversation)
        name = (where.alias, where.tag, scope, conversation)
        with self._lock:
            kept = self._references.get(name)
            if kept is None or (kept.data_key is not data_key and kept.data_key != data_key):
                kept = _Kept(data_key, Reference.of(data_key, place, where.tag))
                self._references[name] = kept
                while len(self._references) > _MOST_REFERENCES:
                    self._references.popitem(last=False)
            return kept.reference


@dataclass(frozen=True, slots=True)
class _Kept:
    data_key: SecretKey
    reference: Reference


def failure_of(error: BaseException | None) -> Failure | None:
    """Which failure to open something the error is; None for any other."""
    for kind, failure in _FAILURES:
        if isinstance(error, kind):
            return failure
    return None
