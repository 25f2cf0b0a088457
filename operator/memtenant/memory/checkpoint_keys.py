"""The keys of a thread's checkpoints, and the names that are made by them.

A graph saves its whole state after every step, and most of it was there before. So each value, and
each element of a list, is kept once under an id that is a keyed MAC of its content, and checkpoints
refer to ids. The checkpoint's own record, which is sealed, says which id belongs to which channel:
ids that stand on the server in the clear cannot be exchanged unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from memtenant.crypto.primitives import SecretKey, derive, length_prefixed, mac
from memtenant.crypto.record import OVERHEAD_BYTES, Place, RecordKeys
from memtenant.errors import MessageTooLarge
from memtenant.functions.calls import MAX_RECORD_BYTES
from memtenant.memory.codec import pack, unpack

__all__ = ["CheckpointKeys", "checkpoint_kind", "namespace_alias", "value_kind", "write_kind"]

_NAMESPACE_BYTES: Final = 8
_ID_BYTES: Final = 16


@dataclass(slots=True)
class CheckpointKeys:
    """The keys of one thread for one write, or for reading: ``writer`` and ``counter`` say which
    write of which process it is."""

    records: RecordKeys
    ids: SecretKey
    writer: bytes = bytes(8)
    counter: int = 0

    @classmethod
    def of(cls, data_key: SecretKey, place: Place, records: RecordKeys) -> CheckpointKeys:
        """Derived from the subject's data key: ids of another subject's equal content differ."""
        return cls(records, derive(data_key, "memtenant/1/checkpoint", *place.fields))

    def seal(self, kind: str, content: bytes, what: str) -> bytes:
        """The record; `MessageTooLarge` names ``what``."""
        packed = pack(content)
        if len(packed) + OVERHEAD_BYTES > MAX_RECORD_BYTES:
            raise MessageTooLarge(
                f"{what} has {len(packed)} bytes, more than the "
                f"{MAX_RECORD_BYTES - OVERHEAD_BYTES} that one record may have: keep it elsewhere "
                "and a reference in the state",
                size=len(packed),
                allowed=MAX_RECORD_BYTES - OVERHEAD_BYTES,
            )
        return self.records.seal(kind, self.writer, self.counter, packed)

    def open(self, kind: str, record: bytes) -> bytes:
        """What `seal` sealed. Raises `RecordInvalid` of the kind that it is."""
        return unpack(self.records.open(kind, record).content)

    def id_of(self, what: str, namespace: str, channel: str, rest: bytes) -> bytes:
        """16 bytes that name a content of a channel, to nobody but who has the subject's key."""
        names = (one.encode("utf-8", "surrogatepass") for one in (what, namespace, channel))
        return mac(self.ids, length_prefixed(*names) + rest)[:_ID_BYTES]


def namespace_alias(name_key: SecretKey, place: Place, namespace: str) -> bytes:
    """What stands for a namespace on the server."""
    context = length_prefixed(b"memtenant/1/checkpoint", b"namespace", *place.fields)
    return mac(name_key, context + namespace.encode("utf-8", "surrogatepass"))[:_NAMESPACE_BYTES]


def checkpoint_kind(alias: bytes, name: str) -> str:
    """As what a checkpoint's record is sealed."""
    return f"checkpoint:{alias.hex()}:{name}"


def value_kind(identity: bytes) -> str:
    """As what a value or an element of a list is sealed."""
    return f"value:{identity.hex()}"


def write_kind(alias: bytes, name: str, place: bytes) -> str:
    """As what a task's write is sealed."""
    return f"write:{alias.hex()}:{place.hex()}:{name}"
