"""The data keys of subjects, unwrapped and kept for a few minutes.

A key that is not in the store yet is made here and stored by the Function that writes the first
record (HSETNX): whoever comes second is told that the key changed, and reads again. A subject's
tombstone is honoured at the latest when its key leaves this cache, and by the Function at once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from memtenant.crypto.datakey import unwrap_data_key, wrap_data_key
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.errors import SubjectErased
from memtenant.functions.fcall import Words
from memtenant.memory.locks import ShortLock
from memtenant.memory.source import BindingSource

__all__ = ["KEPT_FOR", "DataKey", "DataKeys"]

KEPT_FOR: Final = 300.0
"""Seconds that a data key is kept in memory (DATA.md, Erasure)."""

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class DataKey:
    """A subject's key. ``stored`` is what the store holds, or will hold if ``fresh``."""

    stored: bytes = field(repr=False)
    key: SecretKey
    fresh: bool
    until: float


class DataKeys:
    """The keys of the subjects that a process works with."""

    def __init__(self, source: BindingSource) -> None:
        self._source = source
        self._known: OrderedDict[str, DataKey] = OrderedDict()
        self._lock = ShortLock()

    def known(self, alias: str) -> DataKey | None:
        """The key, if it was read less than 5 minutes ago."""
        found = self._known.get(alias)
        if found is not None and time.monotonic() < found.until:
            return found
        return None

    def stored(self, alias: str) -> DataKey | None:
        """As `known`, but not one that was made here and may never get into the store."""
        found = self.known(alias)
        return None if found is None or found.fresh else found

    @staticmethod
    def lookup(name: bytes) -> tuple[Words, Words]:
        """The commands that read a subject's key and its tombstone (HGET only: one field each)."""
        return ("HGET", name, "dek"), ("HGET", name, "erased")

    def learn(self, alias: str, replies: Sequence[object]) -> DataKey | None:
        """What the replies to `lookup` say: None where the subject has no key yet.

        Raises `SubjectErased`, `KeyUnavailable` (the binding lacks the KEK version),
        `RecordMalformed` or `RecordTampered`.
        """
        stored, tombstone = replies[0], replies[1]
        if tombstone is not None:
            self.forget(alias)
            raise SubjectErased(
                "The subject was erased, or is being erased: nothing about it can be read or "
                "stored. The mark goes two days after the erasure is done; a person who comes "
                "back then begins anew"
            )
        if not isinstance(stored, bytes):
            self.forget(alias)
            return None
        keyring = self._source.current().keyring
        if all(one.version != int.from_bytes(stored[:4], "big") for one in keyring.keks):
            keyring = self._source.current(look=True).keyring
        return self._keep(alias, stored, unwrap_data_key(keyring, alias, stored), fresh=False)

    def make(self, alias: str) -> DataKey:
        """A new key for a subject that has none."""
        keyring = self._source.current().keyring
        key = new_key()
        stored = wrap_data_key(keyring.active_kek(alias), keyring.tenant, alias, key)
        return self._keep(alias, stored, key, fresh=True)

    def was_stored(self, alias: str) -> None:
        """A fresh key is in the store now."""
        with self._lock:
            found = self._known.get(alias)
            if found is not None and found.fresh:
                self._known[alias] = replace(found, fresh=False)

    def forget(self, alias: str) -> None:
        """Read it again at the next use."""
        with self._lock:
            self._known.pop(alias, None)

    def _keep(self, alias: str, stored: bytes, key: SecretKey, *, fresh: bool) -> DataKey:
        made = DataKey(stored, key, fresh, time.monotonic() + KEPT_FOR)
        with self._lock:
            if fresh:
                # Two that write at once for a new subject have to agree on one key.
                other = self._known.get(alias)
                if other is not None and time.monotonic() < other.until:
                    return other
            self._known[alias] = made
            self._known.move_to_end(alias)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return made
