"""A shared context: named values that several agents read and change, each with a version."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from memtenant.audit import Operation
from memtenant.crypto.record import RecordKeys
from memtenant.errors import (
    DataKeyChanged,
    KeyRetired,
    KeyUnavailable,
    RecordKeyMismatch,
    StoreUnavailable,
    UsageError,
    VersionConflict,
)
from memtenant.functions.context_calls import (
    ContextUpdate,
    DeleteContext,
    ReadChanges,
    ReadContext,
)
from memtenant.functions.context_replies import (
    REVISION_FIELD,
    Changes,
    ContextConflict,
    ContextFields,
    parse_changes,
    revision_of,
)
from memtenant.functions.fcall import Words
from memtenant.functions.replies import Status
from memtenant.memory._async.audited import AuditedStore
from memtenant.memory._async.link import sleep
from memtenant.memory._async.masks import Masks
from memtenant.memory.answers import value
from memtenant.memory.auditing import Intent
from memtenant.memory.contexts import (
    ChangeFn,
    ContextChange,
    ContextEvent,
    Snapshot,
    check_names,
    event_of,
    opened_fields,
    sealed_fields,
    told,
    wanted_changes,
)
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.messages import Json
from memtenant.memory.options import full_jitter
from memtenant.memory.places import ContextPlace, index_alias
from memtenant.tenancy.keys import subject_index
from memtenant.tenancy.policy import TenantPolicy

__all__ = ["SharedContext"]

_ATTEMPTS = 6
_MARK_BYTES = 16
_SLOWEST: Final = 0.25
"""Most seconds between two tries of an update that met another one."""


class SharedContext:
    """Named values, from `Tenant.shared_context`; cheap to make, safe to share.

    A version is the context's revision at which the value changed. Versions never come back.
    """

    def __init__(
        self,
        store: AuditedStore,
        keys: DataKeys,
        where: ContextPlace,
        policy: TenantPolicy,
        masks: Masks,
    ) -> None:
        self._store = store
        self._keys = keys
        self._where = where
        self._mode = policy.encryption
        self._masks = masks

    async def create(self, values: Mapping[str, Json], *, about: Collection[str] = ()) -> int:
        """Make the context with these values; returns its revision.

        Raises `VersionConflict` where it exists. ``about``: see `update`.
        """
        return await self._change(values, {}, about, revision=0)

    async def read(self, *names: str) -> Snapshot:
        """All values, or those named; a value that is not there is left out."""
        snapshot, _ = await self.read_beside(names)
        return snapshot

    async def read_beside(
        self, names: Sequence[str], *further: Words
    ) -> tuple[Snapshot, list[object]]:
        """As `read`, and the replies to further commands of the same round trip."""
        async with self._store.opening(self._where):
            found, keys, replies = await self._read(tuple(names), further)
            try:
                return self._snapshot(found, keys), replies
            except RecordKeyMismatch:
                return self._snapshot(found, await self._keys_anew()), replies

    async def update(
        self,
        changes: Mapping[str, Json] | ChangeFn,
        *,
        expected: Mapping[str, int] | None = None,
        about: Collection[str] = (),
        budget: float = 10.0,
    ) -> int:
        """Change values, all or none; None deletes one. Returns the context's revision, which is
        the version of every value that was changed.

        expected: the versions that the values must have (0: must not be there); `VersionConflict`
        otherwise, whose ``current`` is a `Snapshot` of those that differ. about: the users whom
        the values are about, so that an erasure finds them.

        With a function instead of values, it is called with the values as they are and returns
        what to change; if another update came between, both are done again, after a random pause,
        for up to ``budget`` seconds.
        """
        if not callable(changes):
            return await self._change(changes, expected or {}, about)
        if expected is not None:
            raise UsageError("expected goes with values: a function is given what is there")
        until = time.monotonic() + budget
        attempt = 0
        while True:
            snapshot = await self.read()
            wanted = wanted_changes(changes, snapshot)
            if not wanted:
                return snapshot.revision
            try:
                return await self._change(wanted, {}, about, revision=snapshot.revision)
            except VersionConflict:
                delay = full_jitter(attempt, base=0.005, most=_SLOWEST)
                attempt += 1
                if time.monotonic() + delay > until:
                    raise
            await sleep(delay)

    async def delete(self, *, expected: int | None = None) -> bool:
        """Take every value away; whether there was anything (after a lost reply, a second try finds
        nothing any more). expected: the revision it must have (`VersionConflict`)."""
        call = DeleteContext(self._where.keys, self._agent, expected)
        intent = Intent(Operation.CONTEXT_DELETE, self._where)
        try:
            return (await self._store.write_audited(call, intent)).existed
        except VersionConflict as error:
            raise _conflict(error, None) from None

    async def watch(
        self, *, interval: float = 0.5, since: int | None = None
    ) -> AsyncIterator[ContextEvent]:
        """What changes from now on, or after the revision ``since``: names and versions, no values.

        Asks every ``interval`` seconds (one read of one field where nothing changed), and goes on
        after a store that was away; what was missed meanwhile is told.
        """
        if since is None:
            since = (await self._changes(0)).revision
        gone = False
        while True:
            try:
                if await self._is_quiet(since, gone):
                    await sleep(interval)
                    continue
                found = await self._changes(since)
            except StoreUnavailable:
                await sleep(interval)
                continue
            deleted = found.status is Status.DELETED
            missed = found.status in (Status.MISSED, Status.REWOUND)
            if found.changes or missed or (deleted and not gone):
                yield event_of(found)
            gone, since = deleted, found.revision
            await sleep(interval)

    async def _changes(self, since: int) -> Changes:
        intent = Intent(Operation.CONTEXT_CHANGES, self._where)
        return await self._store.ask_audited(ReadChanges(self._where.keys, since), intent)

    async def _is_quiet(self, since: int, gone: bool) -> bool:
        """Where reads are audited: whether nothing changed, told by a number and a count. An event
        for each poll would fill the queue, so there is one for each that finds something."""
        if not self._store.auditor.expects(reading=True):
            return False
        versions = self._where.keys.versions
        replies = await self._store.read(("HGET", versions, REVISION_FIELD), ("HLEN", versions))
        revision, size = (value(reply) for reply in replies)
        return (revision_of(revision), bool(revision) and size == 1) == (since, gone)

    async def access_log(self) -> list[ContextChange]:
        """The last 1,000 changes, oldest first: who changed which value when. A convenience, which
        any agent could have written; the sealed audit is the evidence."""
        replies = await self._store.read(("LRANGE", self._where.keys.changes, 0, -1))
        parsed = parse_changes([b"ok", 0, 0, value(replies[0])])
        return [told(change) for change in parsed.changes]

    async def _change(
        self,
        changes: Mapping[str, Json],
        expected: Mapping[str, int],
        about: Collection[str],
        revision: int | None = None,
    ) -> int:
        check_names(changes)
        if unknown := expected.keys() - changes.keys():
            raise UsageError(f"expected names values that are not changed: {sorted(unknown)}")
        changes = await self._masks.values(changes, self._where.place.conversation.encode())
        mark = secrets.token_bytes(_MARK_BYTES)
        indexes = self._indexes(about)
        for attempt in range(_ATTEMPTS):
            data_key = await self._data_key()
            record_keys = self._record_keys(data_key)
            turn = self._store.auditor.take()
            updates = sealed_fields(changes, expected, record_keys, turn.writer, turn.counter)
            update = ContextUpdate(
                context=self._where.keys,
                updates=updates,
                mark=mark,
                data_key_name=self._where.subject.data_key,
                data_key=data_key.stored,
                agent=self._agent,
                new_data_key=data_key.fresh,
                about=indexes,
                expected_revision=revision,
            )

            def tried(again: bool, update: ContextUpdate = update) -> ContextUpdate:
                return replace(update, retry=again)

            intent = Intent(
                operation=Operation.CONTEXT_CREATE if revision == 0 else Operation.CONTEXT_UPDATE,
                where=self._where,
                records=[one.record for one in updates if one.record is not None],
                count=len(updates),
                turn=turn,
                data_key=data_key.key,
            )
            try:
                done = await self._store.write_made_audited(tried, intent)
            except (DataKeyChanged, KeyRetired):
                self._store.forget_key(self._where)
                if attempt == _ATTEMPTS - 1:
                    raise
                await sleep(full_jitter(attempt))
            except VersionConflict as error:
                if data_key.fresh:  # whoever was first made another key
                    self._keys.forget(self._where.alias)
                    record_keys = self._record_keys(await self._data_key())
                async with self._store.opening(self._where):
                    try:
                        conflict = _conflict(error, record_keys)
                    except RecordKeyMismatch:
                        conflict = _conflict(error, await self._keys_anew())
                raise conflict from None
            else:
                self._store.auditor.done(turn)
                if data_key.fresh:
                    self._keys.was_stored(self._where.alias)
                return done.revision
        raise AssertionError("every attempt returns or raises")

    async def _read(
        self, names: tuple[str, ...], further: Sequence[Words]
    ) -> tuple[ContextFields, RecordKeys | None, list[object]]:
        """The fields, with those that did not fit into one reply, the keys that open them, and the
        replies to further commands."""
        known = self._keys.stored(self._where.alias)
        lookup = () if known else self._keys.lookup(self._where.subject.data_key)
        call = ReadContext(self._where.keys, names)
        intent = Intent(Operation.CONTEXT_READ, self._where)
        replies = await self._store.read_audited(call, intent, lookup, further)
        if known is None:
            known = self._keys.learn(self._where.alias, replies[:2])
        found = call.read(replies[len(lookup)])
        while found.remaining:
            call = ReadContext(self._where.keys, found.remaining)
            more = await self._store.ask_audited(call, intent)
            if more.revision != found.revision:
                return await self._read(names, further)  # changed between two replies
            found = ContextFields(
                more.revision,
                more.time,
                more.deleted,
                (*found.fields, *more.fields),
                more.remaining,
            )
        keys = None if known is None else self._record_keys(known)
        return found, keys, replies[len(lookup) + 1 :]

    def _snapshot(self, found: ContextFields, keys: RecordKeys | None) -> Snapshot:
        revision = 0 if found.deleted else found.revision
        if not found.fields:
            return Snapshot(revision, {}, {})
        if keys is None:
            raise KeyUnavailable(
                "The shared context has values, and the store has no data key of it: the key was "
                "deleted around memtenant. Restore it from a backup, or delete the context"
            )
        return opened_fields(found.fields, revision, keys)

    async def _data_key(self) -> DataKey:
        known = self._keys.known(self._where.alias) or await self._store.read_key(self._where)
        return known or self._keys.make(self._where.alias)

    async def _keys_anew(self) -> RecordKeys | None:
        """As they are in the store: the key may have been replaced while a copy was held here."""
        data_key = await self._store.read_key(self._where)
        return None if data_key is None else self._record_keys(data_key)

    def _record_keys(self, data_key: DataKey) -> RecordKeys:
        return RecordKeys(data_key.key, self._where.place, self._mode)

    def _indexes(self, about: Collection[str]) -> tuple[bytes, ...]:
        if isinstance(about, str):
            # Else each of its letters would be a person, and an erasure would find none.
            raise UsageError("about is a list of users: about=['…']")
        opened = self._store.source.current()
        tenant, name_key = opened.binding.tenant, opened.keyring.name_key
        names = (index_alias(name_key, user, opened.owner) for user in about)
        return tuple(subject_index(tenant, name).encode() for name in names)

    @property
    def _agent(self) -> str:
        return self._store.source.current().binding.agent


def _conflict(error: VersionConflict, keys: RecordKeys | None) -> VersionConflict:
    """The same with what stands there in the clear: only a reader with the keys sees it."""
    current = error.current
    if not isinstance(current, ContextConflict):
        return error
    snapshot = Snapshot(current.revision, {}, {})
    if keys is not None and current.fields:
        snapshot = opened_fields(current.fields, current.revision, keys)
    return VersionConflict(str(error), current=snapshot)
