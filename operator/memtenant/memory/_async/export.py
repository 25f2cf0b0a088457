"""What is kept of a person, line by line and never more than a page at a time in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from memtenant.audit import Operation
from memtenant.crypto.record import MESSAGE, RecordKeys
from memtenant.errors import KeyUnavailable, RecordInvalid
from memtenant.functions.calls import ReadRange
from memtenant.functions.context_calls import MAX_FIELD_UPDATES, ReadContext
from memtenant.functions.fcall import Words
from memtenant.functions.replies import Entry
from memtenant.functions.summary_calls import ReadSummaries
from memtenant.memory._async.audited import AuditedStore
from memtenant.memory._async.erasure import read_places
from memtenant.memory._async.lane import TITLE
from memtenant.memory.answers import value
from memtenant.memory.auditing import Intent
from memtenant.memory.codec import decode_value, unpack
from memtenant.memory.contexts import opened_fields
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.exports import (
    ExportItem,
    ExportManifest,
    ExportWriter,
    conversation_item,
    message_item,
    summary_item,
    value_item,
)
from memtenant.memory.history import CounterCheck, Kept, kept, opened
from memtenant.memory.places import ContextPlace, ConversationPlace, user_place
from memtenant.memory.subjects import Subject, check_may_export, subject_of
from memtenant.memory.summaries import Summary, opened_summary
from memtenant.tenancy import keys
from memtenant.tenancy.policy import Isolation

__all__ = ["Exporter"]

_PAGE: Final = 256
_MOST_SUMMARIES: Final = 64
_PAGE_BYTES: Final = 1024 * 1024


class Exporter:
    """A Steward's export: what `Tenant.export` and `Tenant.exported` do."""

    def __init__(self, store: AuditedStore, keys: DataKeys) -> None:
        self._store = store
        self._keys = keys

    async def export(self, user: str, destination: Path) -> ExportManifest:
        """See `Tenant.export`."""
        subject = self._subject(user)
        writer = ExportWriter(destination)
        try:
            async for item in self._items(subject, user):
                writer.add(item)
            agent = self._store.source.current().binding.agent
            return writer.finish(subject, agent, datetime.now(UTC))
        except BaseException:
            writer.abandon()
            raise

    def items(self, user: str) -> AsyncIterator[ExportItem]:
        """See `Tenant.exported`."""
        return self._items(self._subject(user), user)

    def _subject(self, user: str) -> Subject:
        current = self._store.source.current(look=True)
        check_may_export(current.binding)
        return subject_of(current, user)

    async def _items(self, subject: Subject, user: str) -> AsyncIterator[ExportItem]:
        name_key = self._store.source.current().keyring.name_key
        person = user_place(subject.tenant, subject.isolation, name_key, user, subject.owner)
        await self._store.note(Intent(Operation.EXPORT, person))
        own = keys.dek(subject.tenant, subject.named).encode()
        replies = [value(one) for one in await self._store.read(*self._keys.lookup(own))]
        if replies[1] is not None:
            self._keys.learn(subject.named, replies)  # raises: erased, or about to be
        where = await read_places(self._store, subject)
        for place in where.conversations:
            async for item in self._conversation(place, subject):
                yield item
        for context, names in where.values.items():
            for first in range(0, len(names), MAX_FIELD_UPDATES):
                part = names[first : first + MAX_FIELD_UPDATES]
                async for item in self._values(context, part):
                    yield item

    async def _conversation(
        self, place: ConversationPlace, subject: Subject
    ) -> AsyncIterator[ExportItem]:
        alias = place.place.conversation
        start, check, begun = 1, CounterCheck(), False
        while True:
            lookup = self._keys.lookup(place.subject.data_key)
            page = ReadRange(place.keys, start, limit=_PAGE, max_bytes=_PAGE_BYTES)
            meta: Words = ("HGET", place.keys.head, "meta")
            intent = Intent(Operation.EXPORT, place)
            replies = await self._store.read_audited(page, intent, lookup, (meta,))
            found = page.read(replies[2])
            if not found.entries:
                return
            async with self._store.opening(place):
                data_key = self._keys.learn(place.alias, replies[:2])
                record_keys = self._record_keys(place, data_key)
                messages = _messages(found.entries, record_keys, check, subject)
            if not begun:
                begun = True
                yield _titled(alias, record_keys, replies[3])
            for one in messages:
                yield message_item(alias, one.stored)
            if not found.more:
                break
            start = found.entries[-1].header.sequence + 1
        if subject.isolation is not Isolation.MINIMAL:  # there, it is about others too
            for summary in await self._summaries(place):
                yield summary_item(alias, summary)

    async def _summaries(self, place: ConversationPlace) -> list[Summary]:
        lookup = self._keys.lookup(place.subject.data_key)
        call = ReadSummaries(place.keys, _MOST_SUMMARIES)
        intent = Intent(Operation.EXPORT, place)
        replies = await self._store.read_audited(call, intent, lookup)
        found = call.read(replies[2])
        if not found.entries:
            return []
        async with self._store.opening(place):
            record_keys = self._record_keys(place, self._keys.learn(place.alias, replies[:2]))
            return [opened_summary(entry, record_keys) for entry in found.entries]

    async def _values(
        self, context: ContextPlace, names: tuple[str, ...]
    ) -> AsyncIterator[ExportItem]:
        alias = context.place.conversation
        while names:
            lookup = self._keys.lookup(context.subject.data_key)
            call = ReadContext(context.keys, names)
            intent = Intent(Operation.EXPORT, context)
            replies = await self._store.read_audited(call, intent, lookup)
            found = call.read(replies[2])
            if found.fields:
                async with self._store.opening(context):
                    data_key = self._keys.learn(context.alias, replies[:2])
                    record_keys = self._record_keys(context, data_key)
                    snapshot = opened_fields(found.fields, found.revision, record_keys)
                for name, one in snapshot.values.items():
                    version, time = snapshot.versions[name], snapshot.times[name]
                    yield value_item(alias, name, version, time, one)
            names = found.remaining

    def _record_keys(
        self, where: ConversationPlace | ContextPlace, data_key: DataKey | None
    ) -> RecordKeys:
        if data_key is None:
            raise KeyUnavailable(
                "Something is kept of the person, and the store has no key of it: the key was "
                "deleted around memtenant. Restore it from a backup, or forget the person"
            )
        mode = self._store.source.current().binding.policy.encryption
        return RecordKeys(data_key.key, where.place, mode)


def _messages(
    entries: tuple[Entry, ...], keys: RecordKeys, check: CounterCheck, subject: Subject
) -> list[Kept]:
    if subject.isolation is not Isolation.MINIMAL:
        return list(opened(entries, keys, check))
    return [
        kept(entry.header, unpack(keys.open(MESSAGE, entry.record).content))
        for entry in entries
        if entry.header.subject_tag == subject.tag and not entry.header.tombstone
    ]


def _titled(alias: str, keys: RecordKeys, meta: object) -> ExportItem:
    told: object = None
    if isinstance(meta, bytes):
        try:
            told = decode_value(unpack(keys.open(TITLE, meta).content))
        except RecordInvalid:
            told = None  # written around memtenant
    known = told if isinstance(told, dict) else {}
    return conversation_item(alias, known.get("session"), known.get("title"))
