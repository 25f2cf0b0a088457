"""Records opened with a tenant's keys: how a report looks at what is encrypted, if it may.

Only a run that was given the keys does that, and only of a sample, whose size it tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.datakey import unwrap_data_key
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import Place, RecordKeys
from memtenant.errors import MemtenantError
from memtenant.memory.codec import unpack
from memtenant.reports.evidence import Opened
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.keys import shared_alias
from memtenant.tenancy.policy import EncryptionMode

__all__ = ["Sample", "open_sample", "sample_size"]

_MOST, _LEAST, _IN_ALL = 1000, 20, 50_000
_RECORD: Final = 4096
_EVERY: Final = 8


def sample_size(tenants: int) -> int:
    """How many records of each are picked: what is picked is held until its keys were seen, of all
    tenants of a store at once."""
    return max(_LEAST, min(_MOST, _IN_ALL // max(tenants, 1)))


@dataclass(slots=True)
class Sample:
    """Records picked from a pass, with what it takes to open them. Up to ``most``, and 4 KiB for
    each of these: the first ones, then each eighth takes the place of an earlier one, so that later
    pages have their turn."""

    most: int = _MOST
    records: list[tuple[bytes, str, bytes]] = field(default_factory=list)
    data_keys: dict[str, bytes] = field(default_factory=dict)
    owners: dict[bytes, str] = field(default_factory=dict)
    seen: int = 0
    _size: int = 0

    def offer(self, part: bytes, kind: str, record: bytes) -> None:
        """A record that was seen."""
        self.seen += 1
        room = self.most * _RECORD - self._size - len(record)
        if len(self.records) < self.most and room >= 0:
            self.records.append((part, kind, record))
            self._size += len(record)
        elif self.records and self.seen % _EVERY == 0:
            place = (self.seen // _EVERY) % len(self.records)
            earlier = len(self.records[place][2])
            if room + earlier >= 0:
                self.records[place] = (part, kind, record)
                self._size += len(record) - earlier


def open_sample(
    tenant: TenantId,
    sample: Sample,
    keyrings: Sequence[AgentKeyring],
    mode: EncryptionMode,
    read: Callable[[bytes, bytes], None],
) -> Opened:
    """Open what was picked; ``read`` gets the key's name and the clear content of each."""
    opened, failures = 0, Counter[str]()
    keys = _Keys(tenant, sample, keyrings, mode)
    for part, kind, record in sample.records:
        try:
            content = keys.opened(part, kind, record)
        except MemtenantError as error:
            failures[error.reason] += 1
            continue
        opened += 1
        read(part, content)
    return Opened(opened, len(sample.records), sample.seen, dict(failures), opened)


class _Keys:
    """The data keys of a tenant, as far as any of its agents can unwrap them."""

    def __init__(
        self,
        tenant: TenantId,
        sample: Sample,
        keyrings: Sequence[AgentKeyring],
        mode: EncryptionMode,
    ) -> None:
        self._tenant = tenant
        self._sample = sample
        self._keyrings = keyrings
        self._mode = mode
        self._known: dict[tuple[str, bytes], RecordKeys] = {}

    def opened(self, part: bytes, kind: str, record: bytes) -> bytes:
        """The clear content. Raises what kept it from being opened."""
        _, scope, alias, *_ = part.decode().split(":")
        failure: MemtenantError | None = None
        for subject in _subjects(self._sample, scope, alias):
            if subject not in self._sample.data_keys:
                continue
            try:
                keys = self._keys(subject, part, Place(self._tenant, scope, alias))
                return unpack(keys.open(kind, record).content)
            except MemtenantError as error:
                failure = failure or error
        raise failure or MemtenantError("no data key is there for it", reason="DataKeyMissing")

    def _keys(self, subject: str, part: bytes, place: Place) -> RecordKeys:
        known = self._known.get((subject, part))
        if known is None:
            known = RecordKeys(self._data_key(subject), place, self._mode)
            self._known[subject, part] = known
        return known

    def _data_key(self, subject: str) -> SecretKey:
        failure: MemtenantError | None = None
        for keyring in self._keyrings:
            try:
                return unwrap_data_key(keyring, subject, self._sample.data_keys[subject])
            except MemtenantError as error:
                failure = failure or error
        assert failure is not None  # noqa: S101 - there is a keyring at least
        raise failure


def _subjects(sample: Sample, scope: str, alias: str) -> list[str]:
    """Whose data key it may be under: the index names it; a context has one of its own, and under
    Minimal isolation there is one for all."""
    if scope == "c":
        return [alias, shared_alias(alias), *_one_for_all(sample)]
    return [sample.owners.get(f"{scope}:{alias}".encode(), alias), *_one_for_all(sample)]


def _one_for_all(sample: Sample) -> list[str]:
    return list(sample.data_keys) if len(sample.data_keys) == 1 else []
