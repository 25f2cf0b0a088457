"""A lane: one writer of one conversation. Appends that meet share a round trip.

Whoever comes first sends everything that waits; those who came meanwhile are sent by the next. The
records carry the writer's counter, which the server takes in order and once: so a lost reply is
answered by sending the same bytes again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final

from memtenant.audit import Operation
from memtenant.crypto.record import MESSAGE, WRITER_LIFE
from memtenant.errors import (
    DataKeyChanged,
    HistoryRewound,
    IdempotencyConflict,
    KeyRetired,
    MemtenantError,
    QuotaExceeded,
    RecordInvalid,
    SubjectErased,
    VersionConflict,
    WriterOutOfStep,
    WriterUnknown,
)
from memtenant.functions.calls import Append, NewRecord
from memtenant.functions.replies import Appended, Head, Marked
from memtenant.memory._async.audited import AuditedStore
from memtenant.memory._async.link import Lock, check_left, home, sleep
from memtenant.memory._async.store import Tries
from memtenant.memory.answers import value
from memtenant.memory.auditing import Intent, Turn
from memtenant.memory.codec import decode_value, encode_value, pack, unpack
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.drafts import Ticket, idempotency_mac, moment, take_batch
from memtenant.memory.history import History
from memtenant.memory.locks import ShortLock
from memtenant.memory.messages import Receipt
from memtenant.memory.options import full_jitter

__all__ = ["TITLE", "Lane"]

TITLE: Final = "conversation"
"""The kind of the record that holds a conversation's session and title."""

_ATTEMPTS = 6
_OPEN_FOR = WRITER_LIFE / 2000
"""Seconds that a writer is used; the server refuses it later on."""


class Lane:
    """Appends to one conversation, for one process."""

    def __init__(self, store: AuditedStore, keys: DataKeys, history: History, session: str) -> None:
        self._title: str | None = None
        self._store = store
        self._keys = keys
        self._history = history
        self._session = session
        self._home: object = None
        self._settling = ShortLock()
        self._waiting: list[Ticket] = []
        self._interrupted: tuple[list[Ticket], Append, Tries] | None = None
        self._titled: bool | None = None
        self._sealed_title: str | None = None
        self._epoch = 0
        self._start_over()

    def entitle(self, title: str) -> None:
        """Store this title with the next append."""
        if title != self._title:
            self._title = title
            self._titled = None

    async def append(self, ticket: Ticket) -> Receipt:
        """Store the ticket's messages. Raises what became of them."""
        self._settle()
        self._waiting.append(ticket)
        try:
            async with self._turn:
                while not ticket.settled:
                    await self._lead(ticket)
        finally:
            ticket.waiting = False
            if not ticket.settled and ticket in self._waiting:
                self._waiting.remove(ticket)
        return ticket.result()

    async def _lead(self, own: Ticket) -> None:
        """Send what an interrupted leader left, or the next batch."""
        left, self._interrupted = self._interrupted, None
        if left is not None and not any(ticket.waiting for ticket in left[0]):
            left = None
            self._renew()
        batch = take_batch(self._waiting) if left is None else left[0]
        try:
            if left is None:
                await self._commit(batch, own)
            else:
                await self._send(*left, own)
        except BaseException:
            self._put_back(batch, own)
            raise

    def _put_back(self, batch: Sequence[Ticket], own: Ticket) -> None:
        """Cancelled before all of it was sent: whoever leads next sends what others wait for."""
        sent = () if self._interrupted is None else self._interrupted[0]
        self._waiting[:0] = [
            ticket
            for ticket in batch
            if ticket.waiting and ticket is not own and not ticket.settled and ticket not in sent
        ]

    async def _commit(self, batch: list[Ticket], own: Ticket) -> None:
        """Seal the batch and send it; settles each of its tickets."""
        # By the wall clock: the other one stands still while a machine sleeps.
        if abs(time.time() - self._opened) > _OPEN_FOR:
            self._renew()
        try:
            async with self._store.opening(self._history.where):
                data_key = await self._data_key()
            call = self._sealed(batch, data_key)
        except MemtenantError as error:
            _fail(batch, error)
            return
        await self._send(batch, call, Tries(), own)

    async def _send(self, batch: list[Ticket], call: Append, tries: Tries, own: Ticket) -> None:
        seen = self._history.head
        try:
            answer = await self._store.write_audited(call, lambda: self._intent(call), tries)
        except (DataKeyChanged, KeyRetired, WriterUnknown, WriterOutOfStep) as error:
            await self._again(batch, error, tries, own)
        except QuotaExceeded as error:
            await self._apart(batch, error, own)
        except VersionConflict as error:
            _fail(batch, error)
        except MemtenantError as error:
            # An earlier try may have been stored: this writer's next counter is not known.
            if isinstance(error, SubjectErased):
                self._keys.forget(self._history.where.alias)
            self._renew()
            _fail(batch, error)
        except BaseException:
            # Cancelled in mid-flight: others who wait for this batch need the same bytes again.
            if any(ticket.waiting and ticket is not own for ticket in batch):
                self._interrupted = (batch, call, tries)
            else:
                self._renew()
            raise
        else:
            self._failures = 0
            if isinstance(answer, Marked):
                await self._marked(batch, answer, own)
            else:
                self._stored(batch, call, answer, seen)

    def _stored(self, batch: list[Ticket], call: Append, answer: Appended, seen: Head) -> None:
        self._counter += len(call.records)
        self._acknowledged = self._counter - 1
        self._indexed = True
        if call.meta:
            # Another title may have been asked for while this one was on its way.
            self._titled = self._sealed_title == self._title or None
        elif self._epoch not in (0, answer.epoch):
            self._titled = None  # it may have been deleted, and its title with it
        self._epoch = answer.epoch
        if call.new_data_key:
            self._keys.was_stored(self._history.where.alias)
        rewound: str | None = None
        if answer.first:
            try:
                Head(answer.epoch, answer.first - 1).check_not_behind(seen)
            except HistoryRewound as error:
                rewound = str(error)
                self._history.rewound(answer.head)
        self._history.saw(answer.head)
        place = answer.first
        for ticket in batch:
            count = len(ticket.drafts)
            receipt = Receipt(
                first=place,
                last=place + count - 1 if place else 0,
                time=moment(answer.time),
                version=answer.head,
                duplicate=answer.duplicate,
                memory_share=answer.memory_share / 1000,
                conversations_share=answer.conversations_share / 1000,
                masked=ticket.masked,
            )
            place += count if place else 0
            if rewound is None:
                ticket.receipt = receipt
            else:
                ticket.error = HistoryRewound(f"{rewound}. This append itself was stored")
                ticket.error.stored = receipt

    async def _marked(self, batch: list[Ticket], answer: Marked, own: Ticket) -> None:
        """One ticket's idempotency key is known, and nothing was stored: send the others."""
        place = 0
        for ticket in batch:
            place += len(ticket.drafts)
            if answer.index < place:
                break
        data_key = await self._data_key()
        mac = idempotency_mac(data_key.key, self._history.where.place, ticket)
        if secrets.compare_digest(mac, answer.mac):
            last = answer.sequence + len(ticket.drafts) - 1
            ticket.receipt = Receipt(
                first=answer.sequence,
                last=last,
                time=moment(answer.time),
                version=Head(answer.epoch, last),
                duplicate=True,
                masked=ticket.masked,
            )
        else:
            ticket.error = IdempotencyConflict(
                "The idempotency key was used before in this conversation, for other messages: "
                "use a new key for each append, and the same one only to repeat it unchanged"
            )
        others = [one for one in batch if one is not ticket]
        if others:
            await self._commit(others, own)

    async def _again(
        self, batch: list[Ticket], error: MemtenantError, tries: Tries, own: Ticket
    ) -> None:
        """Nothing was stored: the writer or the key is not what the server expects."""
        self._failures += 1
        if isinstance(error, WriterOutOfStep) and error.last < self._acknowledged:
            lost = self._acknowledged - error.last
            self._failures = 0
            self._history.rewound(Head(0, 0))
            self._renew()
            _fail(
                batch,
                HistoryRewound(
                    f"The server lost {lost} acknowledged message(s) of this process: it was "
                    "restored, or a replica that lacked them was promoted. This append was not "
                    "stored: read the conversation, append again what is missing, then this"
                ),
            )
            return
        unsure = isinstance(error, WriterUnknown) and tries.sent > 1
        if unsure or self._failures >= _ATTEMPTS:
            self._renew()
            self._failures = 0
            _fail(batch, error)
            return
        if isinstance(error, WriterUnknown):
            self._renew(error.server_time // 1000)
        elif isinstance(error, WriterOutOfStep):
            self._renew()
        else:
            self._store.forget_key(self._history.where)
            await sleep(full_jitter(self._failures))
        await self._commit(batch, own)

    async def _apart(self, batch: list[Ticket], error: QuotaExceeded, own: Ticket) -> None:
        """What is too much together may fit one by one."""
        if len(batch) == 1:
            _fail(batch, error)
            return
        for ticket in batch:
            await self._commit([ticket], own)

    async def _data_key(self) -> DataKey:
        """The subject's key, made if there is none; and at first, whether the title is there."""
        where = self._history.where
        if self._epoch and self._history.head.epoch != self._epoch:
            self._titled = None
        known = self._keys.known(where.alias)
        if known is not None and self._titled is not None:
            return known
        replies = await self._store.read(
            *self._keys.lookup(where.subject.data_key), ("HGET", where.keys.head, "meta")
        )
        key, tombstone, meta = (value(reply) for reply in replies)
        found = known or self._keys.learn(where.alias, (key, tombstone))
        self._titled = found is not None and self._is_titled(found, meta)
        return found or self._keys.make(where.alias)

    def _is_titled(self, data_key: DataKey, meta: object) -> bool:
        if not isinstance(meta, bytes):
            return False
        try:
            record = self._history.record_keys(data_key).open(TITLE, meta)
            fields = decode_value(unpack(record.content))
        except RecordInvalid:
            return False
        return isinstance(fields, dict) and self._title in (None, fields.get("title"))

    def _sealed(self, batch: Sequence[Ticket], data_key: DataKey) -> Append:
        history = self._history
        where, keys = history.where, history.record_keys(data_key)
        records: list[NewRecord] = []
        for ticket in batch:
            mark = ticket.mark
            mac = idempotency_mac(data_key.key, where.place, ticket) if mark else b""
            for draft in ticket.drafts:
                counter = self._counter + len(records)
                record = keys.seal(MESSAGE, self._writer, counter, draft.content)
                records.append(NewRecord(record, draft.tokens, mark, mac))
                mark = mac = b""  # a ticket is stored as a whole: its first record tells of it
        meta = b""
        if not self._titled:
            self._sealed_title = self._title
            title = encode_value({"session": self._session, "title": self._sealed_title})
            meta = keys.seal(TITLE, self._writer, self._counter, pack(title))
        expected = batch[0].expected
        return Append(
            conversation=where.keys,
            subject=where.subject,
            writer=self._writer,
            counter=self._counter,
            records=tuple(records),
            data_key=data_key.stored,
            agent=self._store.source.current().binding.agent,
            new_data_key=data_key.fresh,
            index=bool(where.tag) and not self._indexed,
            tag=where.tag,
            meta=meta,
            expected_epoch=None if expected is None else expected.epoch,
            expected_last=None if expected is None else expected.last,
        )

    def _intent(self, call: Append) -> Intent:
        return Intent(
            Operation.APPEND,
            self._history.where,
            records=[one.record for one in call.records],
            count=len(call.records),
            turn=Turn(call.writer, call.counter),
        )

    def _renew(self, opened: int | None = None) -> None:
        """A new writer, which the server does not know yet; ``opened`` in its seconds."""
        self._opened = time.time()
        seconds = int(self._opened) if opened is None else opened
        self._writer = seconds.to_bytes(4, "big") + secrets.token_bytes(4)
        self._counter = 1
        self._acknowledged = 0

    def _settle(self) -> None:
        """A forked child is another writer; another event loop cannot wait for this one's lock."""
        here = home()
        if self._home != here:
            with self._settling:
                if self._home not in (None, here):
                    check_left(self._home)
                    self._start_over()
                self._home = here

    def _start_over(self) -> None:
        self._turn = Lock()
        self._waiting = []
        self._interrupted = None
        self._titled = None
        self._indexed = False
        self._epoch = 0
        self._failures = 0
        self._renew()


def _fail(batch: Sequence[Ticket], error: Exception) -> None:
    for ticket in batch:
        ticket.error = error
