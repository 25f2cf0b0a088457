# Generated from _async/checkpoints.py by `make generate`: change it there.
"""A thread of a graph: its checkpoints and the writes beside them, as a framework's saver uses it.

The server keeps each value once; which of them it has already, a process knows from the checkpoint
that it read or stored before. Where that is gone meanwhile, everything is sent again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from memtenant.audit import Operation
from memtenant.crypto.record import RecordKeys
from memtenant.errors import (
    DataKeyChanged,
    KeyRetired,
    KeyUnavailable,
    MaskingRejected,
    RecordKeyMismatch,
    RecordMissing,
    VersionConflict,
)
from memtenant.functions.calls import MAX_BATCH
from memtenant.functions.checkpoint_calls import (
    MAX_LIST,
    DeleteCheckpoints,
    GetCheckpoint,
    ListCheckpoints,
    PutCheckpoint,
    PutWrites,
    Saving,
)
from memtenant.functions.checkpoint_replies import (
    CheckpointSaved,
    FoundCheckpoint,
)
from memtenant.functions.fcall import Audited
from memtenant.memory._sync.audited import AuditedStore
from memtenant.memory._sync.link import sleep
from memtenant.memory._sync.masks import Masks
from memtenant.memory.auditing import Intent, Turn
from memtenant.memory.checkpoint_keys import CheckpointKeys, namespace_alias
from memtenant.memory.checkpoint_opening import known_of, opened_checkpoint, opened_head
from memtenant.memory.checkpoint_sealing import Known, remember, sealed_parts, sealed_writes
from memtenant.memory.checkpoints import (
    Checkpoint,
    CheckpointHead,
    PendingWrite,
    StoredCheckpoint,
    check_name,
)
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.options import full_jitter
from memtenant.memory.places import ConversationPlace
from memtenant.tenancy.policy import EncryptionMode

__all__ = ["Checkpoints"]

_ATTEMPTS = 6
_PAGE = 100


class Checkpoints:
    """One thread's, from `Tenant.checkpoints`; kept while the thread is in use, it sends less."""

    def __init__(
        self,
        store: AuditedStore,
        keys: DataKeys,
        where: ConversationPlace,
        mode: EncryptionMode,
        masks: Masks,
    ) -> None:
        self._store = store
        self._masks = masks
        self._keys = keys
        self._where = where
        self._mode = mode
        self._known: OrderedDict[tuple[bytes, str], Known] = OrderedDict()
        self._indexed = not where.tag

    def put(self, checkpoint: Checkpoint, *, time: int | None = None) -> None:
        """Store a checkpoint; one of the same name and namespace is replaced.

        time: when it was stored first, in milliseconds since 1970, where it is copied. Raises
        `MessageTooLarge`, `MaskingRejected` (a tenant that masks), `QuotaExceeded`, `TenantHeld`,
        `AccessReadOnly`, `SubjectErased`, `NotDurable` and `StoreUnavailable`; after the last, and
        where the call is cancelled, it may have been stored, and storing it again is harmless.
        """
        self._check(checkpoint.name)
        alias, parent = self._alias(checkpoint.namespace), checkpoint.parent
        before = None if parent is None else self._before(alias, parent)
        for attempt in range(_ATTEMPTS):
            data_key = self._data_key()
            turn = self._store.auditor.take()
            parts = sealed_parts(checkpoint, alias, self._writing_keys(data_key, turn), before)
            call = PutCheckpoint(
                saving=self._saving(data_key, checkpoint.namespace, alias, checkpoint.name, time),
                record=parts.record,
                references=parts.references,
                lists=parts.lists,
                values=parts.values,
                relies_on="" if before is None or parent is None else parent,
            )
            records = (parts.record, *(record for _, record in parts.values))
            saved = self._save(call, records, turn, data_key, attempt)
            if saved is not None and not saved.missing:
                remember(self._known, (alias, checkpoint.name), parts.known)
                return
            before = None
        raise _restless()

    def write(
        self, namespace: str, name: str, writes: Sequence[PendingWrite], *, time: int | None = None
    ) -> None:
        """Store what tasks wrote beside a checkpoint, which may come later. Raises what `put`
        raises."""
        self._check(name)
        alias = self._alias(namespace)
        for start in range(0, len(writes), MAX_BATCH):
            batch = writes[start : start + MAX_BATCH]
            for attempt in range(_ATTEMPTS):
                data_key, turn = self._data_key(), self._store.auditor.take()
                name_key = self._store.source.current().keyring.name_key
                keys = self._writing_keys(data_key, turn)
                made = sealed_writes(name, alias, batch, keys, name_key)
                saving = self._saving(data_key, namespace, alias, name, time)
                records = [one.record for one in made]
                call = PutWrites(saving, made)
                if self._save(call, records, turn, data_key, attempt) is not None:
                    break

    def get(self, namespace: str, name: str | None = None) -> StoredCheckpoint | None:
        """A checkpoint with its channels and the writes beside it, or the newest of the namespace;
        None where there is none. Raises `RecordInvalid` of the kind that it is."""
        alias = self._alias(namespace)
        call = GetCheckpoint(self._where.keys, alias, name or "")
        for attempt in range(2):
            found, data_key = self._found(call)
            if found.entry is None:
                return None
            with self._store.opening(self._where):
                keys = self._reading_keys(data_key)
                try:
                    stored = opened_checkpoint(found, alias, keys)
                    known = known_of(found, alias, keys)
                except RecordKeyMismatch:
                    # The key may have been replaced while a copy of it was held here.
                    if attempt:
                        raise
                    self._keys.forget(self._where.alias)
                except RecordMissing:
                    # It may have been pruned between the parts of a large one.
                    if attempt:
                        raise
                else:
                    remember(self._known, (alias, found.name), known)
                    return stored
        raise AssertionError("every attempt returns or raises")

    def heads(
        self, namespace: str | None = None, *, before: str | None = None
    ) -> Iterator[CheckpointHead]:
        """Checkpoints without their channels, the newest first; of all namespaces without one.
        before: only those whose names are smaller."""
        alias = b"" if namespace is None else self._alias(namespace)
        after = b""
        while True:
            call = ListCheckpoints(self._where.keys, alias, before or "", after, _PAGE)
            page = self._store.ask_audited(call, self._reading())
            if page.found:
                keys = self._reading_keys(self._stored_key())
                for space, name, entry in page.found:
                    with self._store.opening(self._where):
                        head = opened_head(name, space, entry, keys)
                    yield head
            if not page.more:
                return
            after = page.end

    def remove(self, *checkpoints: tuple[str, str]) -> int:
        """Remove single checkpoints (namespace, name) with their writes and what only they refer
        to; returns how many there were."""
        removed = 0
        for start in range(0, len(checkpoints), MAX_BATCH):
            which = tuple(
                (self._alias(namespace), name)
                for namespace, name in checkpoints[start : start + MAX_BATCH]
            )
            call = DeleteCheckpoints(self._where.keys, self._agent, which)
            intent = Intent(Operation.CHECKPOINT_DELETE, self._where, count=len(which))
            removed += (self._store.write_audited(call, intent)).removed
        return removed

    def delete(self) -> None:
        """Remove every checkpoint of the thread; the messages of the conversation stay. Raises
        `TenantHeld` under a hold."""
        self._known.clear()
        call = DeleteCheckpoints(self._where.keys, self._agent)
        self._store.write_audited(call, Intent(Operation.CHECKPOINT_DELETE, self._where))

    def _check(self, name: str) -> None:
        check_name(name)
        if self._masks.any():
            raise MaskingRejected(
                "The tenant masks what is stored, and the state of a graph cannot be masked: "
                "nothing was stored. Keep what is said in a conversation, which is masked, and "
                "run the graph without a checkpointer",
                counts={},
            )

    def _save(
        self,
        call: PutCheckpoint | PutWrites,
        records: Sequence[bytes],
        turn: Turn,
        data_key: DataKey,
        attempt: int,
    ) -> CheckpointSaved | None:
        """None where the data key is another one meanwhile: seal again."""
        intent = Intent(
            operation=Operation.CHECKPOINT_WRITE,
            where=self._where,
            records=records,
            count=len(records),
            turn=turn,
            data_key=data_key.key,
        )
        made: Audited[CheckpointSaved] = call
        try:
            saved = self._store.write_audited(made, intent)
        except (DataKeyChanged, KeyRetired):
            self._store.forget_key(self._where)
            if attempt == _ATTEMPTS - 1:
                raise
            sleep(full_jitter(attempt))
            return None
        self._store.auditor.done(turn)
        if not saved.missing:
            self._indexed = True
            if data_key.fresh:
                self._keys.was_stored(self._where.alias)
        return saved

    def _before(self, alias: bytes, name: str) -> Known | None:
        """What the checkpoint refers to on which a new one follows; None where it is not there."""
        known = self._known.get((alias, name))
        if known is not None:
            return known
        found, data_key = self._found(GetCheckpoint(self._where.keys, alias, name, bare=True))
        if found.entry is None:
            return None
        return known_of(found, alias, self._reading_keys(data_key))

    def _found(self, call: GetCheckpoint) -> tuple[FoundCheckpoint, DataKey | None]:
        """What the call brings, with what did not fit into one reply, and the key that opens it."""
        known = self._keys.stored(self._where.alias)
        lookup = () if known else self._keys.lookup(self._where.subject.data_key)
        replies = self._store.read_audited(call, self._reading(), lookup)
        if known is None:
            known = self._keys.learn(self._where.alias, replies[:2])
        found = call.read(replies[-1])
        while found.remaining:
            asked, later = found.remaining[:MAX_LIST], found.remaining[MAX_LIST:]
            part = replace(call, checkpoint=found.name, values=asked)
            more = self._store.ask_audited(part, self._reading())
            if not more.values and not more.writes:
                break  # gone meanwhile: whoever opens the checkpoint misses them
            found = replace(
                found,
                values={**found.values, **more.values},
                writes={**found.writes, **more.writes},
                remaining=(*more.remaining, *later),
            )
        return found, known

    def _data_key(self) -> DataKey:
        known = self._keys.known(self._where.alias) or self._store.read_key(self._where)
        return known or self._keys.make(self._where.alias)

    def _stored_key(self) -> DataKey | None:
        """Never one that is made here: it would open nothing."""
        return self._keys.stored(self._where.alias) or self._store.read_key(self._where)

    def _saving(
        self, data_key: DataKey, namespace: str, alias: bytes, name: str, time: int | None
    ) -> Saving:
        return Saving(
            thread=self._where.keys,
            subject=self._where.subject,
            namespace=alias,
            checkpoint=name,
            data_key=data_key.stored,
            agent=self._agent,
            root=not namespace,
            new_data_key=data_key.fresh,
            index=not self._indexed,
            time=time,
            tag=self._where.tag,
        )

    def _reading_keys(self, data_key: DataKey | None) -> CheckpointKeys:
        if data_key is None:
            raise KeyUnavailable(
                "The thread has checkpoints, and the store has no data key of its user: the key "
                "was deleted around memtenant. Restore it from a backup, or delete the thread"
            )
        place = self._where.place
        records = RecordKeys(data_key.key, place, self._mode)
        return CheckpointKeys.of(data_key.key, place, records)

    def _writing_keys(self, data_key: DataKey, turn: Turn) -> CheckpointKeys:
        keys = self._reading_keys(data_key)
        keys.writer, keys.counter = turn.writer, turn.counter
        return keys

    def _reading(self) -> Intent:
        return Intent(Operation.CHECKPOINT_READ, self._where)

    def _alias(self, namespace: str) -> bytes:
        name_key = self._store.source.current().keyring.name_key
        return namespace_alias(name_key, self._where.place, namespace)

    @property
    def _agent(self) -> str:
        return self._store.source.current().binding.agent


def _restless() -> VersionConflict:
    return VersionConflict(
        "The thread's checkpoints were removed again and again while one was stored: store it "
        "again when nobody prunes the thread",
        current=None,
    )
