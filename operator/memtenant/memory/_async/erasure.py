"""Forgetting a person: the steps that delete, and the SDK's part of a request.

The steps take whatever can read and write the tenant: the agent's own store, or the operator's
connection. Each may be repeated: what is gone already is passed over.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from memtenant.audit import Operation
from memtenant.crypto.datakey import DATA_KEY_BYTES
from memtenant.crypto.erasure import Tombstone, new_request_id
from memtenant.errors import (
    AccessDenied,
    DataError,
    DataKeyChanged,
    KeyRetired,
    QuotaExceeded,
    RecordMalformed,
    SubjectErased,
    TenantHeld,
)
from memtenant.functions.calls import Clear, ReadRange, Remove
from memtenant.functions.checkpoint_calls import DeleteCheckpoints
from memtenant.functions.context_calls import (
    MAX_FIELD_UPDATES,
    ContextUpdate,
    DeleteContext,
    FieldUpdate,
)
from memtenant.functions.fcall import Audited, Words
from memtenant.functions.keyspace import ContextKeys
from memtenant.memory._async.audited import AuditedStore
from memtenant.memory.answers import value
from memtenant.memory.auditing import Intent
from memtenant.memory.drafts import moment
from memtenant.memory.places import ContextPlace, ConversationPlace, user_place
from memtenant.memory.source import OpenBinding
from memtenant.memory.subjects import (
    Plain,
    Subject,
    SubjectPlaces,
    check_may_forget,
    erasure_request,
    places_of,
    subject_of,
    tombstone,
)
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasurePhase, ErasureReceipt
from memtenant.tenancy.policy import Isolation

__all__ = ["Erased", "Requests", "SubjectStore", "erase", "read_places", "remove_tagged"]

R = TypeVar("R")

_ATTEMPTS = 6
_MARK_BYTES = 16

_PAGE_BYTES: Final = 32 * 1024
_REMOVED_AT_ONCE: Final = 25
"""What one call reads and removes: some tenths of a millisecond of the server, where a thousand
removals would be ten (measured)."""

_log = logging.getLogger("memtenant.memory")


class ReadStore(Protocol):
    """What reading a person's index needs of a connection to the tenant's store."""

    async def read(self, *commands: Words) -> list[object]:
        """The replies, error replies among them."""
        ...


class SubjectStore(ReadStore, Protocol):
    """What the steps need of it."""

    async def ask(self, call: Audited[R]) -> R:
        """The answer of a reading call."""
        ...

    async def write(self, call: Audited[R]) -> R:
        """The answer of a writing call that is the same in every try."""
        ...

    async def cut_out(
        self, context: ContextKeys, names: tuple[str, ...], refused: DataError
    ) -> None:
        """Remove values whose removal the Functions refuse, around them; raises ``refused`` where
        that is left to the operator."""
        ...


@dataclass(frozen=True, slots=True)
class Erased:
    """What was there and is gone."""

    messages: int = 0
    values: int = 0


async def read_places(store: ReadStore, subject: Subject) -> SubjectPlaces:
    """What the person's index names now."""
    index = keys.subject_index(subject.tenant, subject.named)
    entries = value((await store.read(("LRANGE", index, 0, -1)))[0])
    found = entries if isinstance(entries, list) else []
    return places_of(subject, [one for one in found if isinstance(one, bytes)])


async def erase(store: SubjectStore, where: SubjectPlaces, agent: str) -> Erased:
    """Delete what the index names: whole conversations with all that was derived from them (under
    Minimal, the person's messages in them), and the values about the person, also those that are
    about others too."""
    messages = values = 0
    for place in where.conversations:
        messages += await _erase_conversation(store, place, where.subject, agent)
    for context, names in where.values.items():
        values += await _erase_values(store, context, names, agent)
    return Erased(messages, values)


async def remove_tagged(
    store: SubjectStore, place: ConversationPlace, tag: bytes, agent: str
) -> int:
    """Take the messages with this tag out of a conversation that others share."""
    start, found = 1, list[int]()
    while True:
        page = await store.ask(ReadRange(place.keys, start, max_bytes=_PAGE_BYTES))
        found += [
            entry.header.sequence
            for entry in page.entries
            if entry.header.subject_tag == tag and not entry.header.tombstone
        ]
        if not page.more or not page.entries:
            break
        start = page.entries[-1].header.sequence + 1
    removed = 0
    for first in range(0, len(found), _REMOVED_AT_ONCE):
        part = tuple(found[first : first + _REMOVED_AT_ONCE])
        mark = secrets.token_bytes(_MARK_BYTES)
        removed += (await store.write(Remove(place.keys, part, agent, mark))).affected
    return removed


async def _erase_conversation(
    store: SubjectStore, place: ConversationPlace, subject: Subject, agent: str
) -> int:
    if subject.isolation is Isolation.MINIMAL:
        # A graph's state mixes what all its users said: it goes as a whole.
        await store.write(DeleteCheckpoints(place.keys, agent))
        return await remove_tagged(store, place, subject.tag, agent)
    mark = secrets.token_bytes(_MARK_BYTES)
    return (await store.write(Clear(place.keys, agent, delete=True, mark=mark))).affected


async def _erase_values(
    store: SubjectStore, context: ContextPlace, names: tuple[str, ...], agent: str
) -> int:
    erased = 0
    for first in range(0, len(names), MAX_FIELD_UPDATES):
        erased += await _erase_some(store, context, names[first : first + MAX_FIELD_UPDATES], agent)
    return erased


async def _erase_some(
    store: SubjectStore, context: ContextPlace, names: tuple[str, ...], agent: str
) -> int:
    for attempt in range(_ATTEMPTS):
        replies = await store.read(
            ("HGET", context.subject.data_key, "dek"),
            *(("HSTRLEN", context.keys.values, name) for name in names),
        )
        data_key, *sizes = (value(reply) for reply in replies)
        there = tuple(name for name, size in zip(names, sizes, strict=True) if size)
        if not there:
            return 0
        if not isinstance(data_key, bytes) or len(data_key) != DATA_KEY_BYTES:
            # Nobody can read it any more: its key was taken away around memtenant.
            await store.write(DeleteContext(context.keys, agent))
            return len(there)
        update = ContextUpdate(
            context=context.keys,
            updates=tuple(FieldUpdate(name, None) for name in there),
            mark=secrets.token_bytes(_MARK_BYTES),
            data_key_name=context.subject.data_key,
            data_key=data_key,
            agent=agent,
        )
        try:
            await store.write(update)
        except (DataKeyChanged, KeyRetired, QuotaExceeded, SubjectErased) as refused:
            # Wrapped anew in between; or an agent planted values, and a key that is refused.
            if attempt == _ATTEMPTS - 1:
                await store.cut_out(context.keys, there, refused)
                return len(there)
        else:
            return len(there)
    raise AssertionError("every attempt returns or raises")


class Requests:
    """A Steward's requests: what `Tenant.forget` and `Tenant.erasures` do."""

    def __init__(self, store: AuditedStore) -> None:
        self._store = store

    async def forget(self, user: str, consent_reference: str | None) -> ErasureReceipt:
        """See `Tenant.forget`."""
        opened = self._store.source.current(look=True)
        check_may_forget(opened.binding, consent_reference)
        subject = subject_of(opened, user)
        data_key = keys.dek(subject.tenant, subject.named)
        held, mark = (
            value(reply)
            for reply in await self._store.read(
                ("HGET", keys.limits(subject.tenant), "held"), ("HGET", data_key, "erased")
            )
        )
        if held == b"1":
            raise TenantHeld(
                "A legal hold or a content minimum stands: nobody is forgotten until it ends"
            )
        intent = await self._told(opened, user)
        request, receipt = await self._request_behind(opened, subject, mark)
        if receipt is None:
            now = time.time_ns() // 1_000_000
            asked = erasure_request(opened, subject, request, consent_reference, now)
            queue = keys.erasure_requests(subject.tenant)
            # The request first: a mark without one would keep the person out, and erase nothing.
            await self._store.write(Plain(("RPUSH", queue, asked.to_bytes())))
            await self._mark(opened, subject, request)
            receipt = _requested(asked.id, subject, opened.binding.agent, now)
        if receipt.phase is ErasurePhase.REQUESTED:
            await self._erase(subject, opened.binding.agent, intent)
        return receipt

    async def receipts(self) -> list[ErasureReceipt]:
        """What the operator wrote of all requests, oldest first."""
        tenant = self._store.source.current().binding.tenant
        replies = await self._store.read(("HGETALL", keys.erasure_receipts(tenant)))
        found = value(replies[0])
        documents = found[1::2] if isinstance(found, list) else []
        receipts = [ErasureReceipt.from_json(one) for one in documents if isinstance(one, bytes)]
        return sorted(receipts, key=lambda one: (one.requested_at, one.id))

    async def receipt(self, request: str) -> ErasureReceipt | None:
        """What the operator wrote of one request; None before it saw it."""
        tenant = self._store.source.current().binding.tenant
        replies = await self._store.read(("HGET", keys.erasure_receipts(tenant), request))
        document = value(replies[0])
        return ErasureReceipt.from_json(document) if isinstance(document, bytes) else None

    async def _request_behind(
        self, opened: OpenBinding, subject: Subject, mark: object
    ) -> tuple[bytes, ErasureReceipt | None]:
        """The id to ask with, and how far it is: an earlier call of this person is gone on with.
        A mark that is somebody else's, or false, is the operator's to judge."""
        if not isinstance(mark, bytes):
            return new_request_id(), None
        try:
            known = Tombstone.parse(mark)
        except RecordMalformed:
            return new_request_id(), None
        receipt = await self.receipt(known.id.hex())
        if receipt is not None and receipt.phase is not ErasurePhase.REFUSED:
            return known.id, receipt
        mine = known.is_sealed_by(opened.keyring.audit_key, subject.tenant, subject.named)
        return (known.id if mine else new_request_id()), None

    async def _told(self, opened: OpenBinding, user: str) -> Intent:
        """What the audit was told, for the calls that follow: once the mark is set, the person's
        key is not used any more."""
        binding = opened.binding
        name_key = opened.keyring.name_key
        where = user_place(binding.tenant, binding.policy.isolation, name_key, user, opened.owner)
        intent = Intent(Operation.FORGET, where)
        await self._store.note(intent)
        if self._store.auditor.expects(reading=False):
            intent = replace(intent, data_key=await self._store.data_key(where))
        return intent

    async def _mark(self, opened: OpenBinding, subject: Subject, request: bytes) -> None:
        name = keys.dek(subject.tenant, subject.named)
        mark = tombstone(opened, subject, request).to_bytes()
        try:
            await self._store.write(Plain(("HSETNX", name, "erased", mark)))
        except AccessDenied:
            _log.info("over quota no mark can be set: the operator sets it with the erasure")

    async def _erase(self, subject: Subject, agent: str, intent: Intent) -> None:
        """What this agent's rights allow. The operator does the rest, and all of it again."""
        store = _Telling(self._store, intent)
        try:
            await erase(store, await read_places(store, subject), agent)
        except DataError as error:
            _log.warning("left to the operator: %s", error)


class _Telling:
    """A `SubjectStore` whose calls leave the event of an intent."""

    def __init__(self, store: AuditedStore, intent: Intent) -> None:
        self._store = store
        self._intent = intent

    async def read(self, *commands: Words) -> list[object]:
        return await self._store.read(*commands)

    async def ask(self, call: Audited[R]) -> R:
        return await self._store.ask_audited(call, self._intent)

    async def write(self, call: Audited[R]) -> R:
        return await self._store.write_audited(call, self._intent)

    async def cut_out(
        self, context: ContextKeys, names: tuple[str, ...], refused: DataError
    ) -> None:
        raise refused


def _requested(request: bytes, subject: Subject, agent: str, now: int) -> ErasureReceipt:
    return ErasureReceipt(
        id=request.hex(),
        subject=subject.alias,
        phase=ErasurePhase.REQUESTED,
        agent=agent,
        requested_at=moment(now).replace(microsecond=0),
    )
