"""Records: how a message, a summary or a field is sealed, so that nobody else can read or move it.

Suite 1 is AES-256-GCM; suite 0 is plaintext under a keyed MAC, for tenants whose encryption is
Disabled. Both authenticate the same place: format, tenant, scope, conversation, key, kind, writer
and counter. docs/record-format.md has the bytes, and vectors that the tests recompute.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from memtenant.crypto.primitives import (
    COMMITMENT_BYTES,
    Random,
    SecretKey,
    commitment,
    derive,
    equal,
    length_prefixed,
    mac,
)
from memtenant.errors import (
    PlaintextRefused,
    RecordKeyMismatch,
    RecordMalformed,
    RecordTampered,
)
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import EncryptionMode

__all__ = [
    "MESSAGE",
    "OVERHEAD_BYTES",
    "WRITER_BYTES",
    "WRITER_LIFE",
    "Place",
    "Record",
    "RecordKeys",
    "closes_at",
    "key_ids",
    "peek_key_id",
]

WRITER_BYTES = 8
"""A writer's id: its opening time in seconds (4 bytes, big-endian) and 4 random bytes."""

WRITER_LIFE = 86_400_000
"""Milliseconds that a conversation's writer writes, by the Functions' word. So the writer, which is
authenticated, bounds how young a message can be, whatever its header says."""

MESSAGE = "message"
"""The kind of a conversation's messages. Other kinds are named by what keeps them; a record in a
field of a hash has the kind ``<what>:<field>``, so that fields cannot be exchanged."""

_MAGIC = 0xFA
"""Never occurs in UTF-8: neither text nor JSON is taken for a record."""

_VERSION = 1
_PLAIN, _GCM = 0, 1
_NONCE_BYTES = 12
_TAG_BYTES = 16

_WRITER_LENGTH, _COUNTER_LENGTH = b"\x00\x08", b"\x00\x04"
_KEY_ID = slice(2, 2 + COMMITMENT_BYTES)
_WRITER = slice(_KEY_ID.stop, _KEY_ID.stop + WRITER_BYTES)
_COUNTER = slice(_WRITER.stop, _WRITER.stop + 4)
_NONCE = slice(_COUNTER.stop, _COUNTER.stop + _NONCE_BYTES)

OVERHEAD_BYTES = _NONCE.stop + _TAG_BYTES
"""Bytes of an encrypted record beyond its content."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record belongs. ``scope`` and ``conversation`` are the parts of its Redis key: an
    agent may name one by any bytes, which come as surrogates where they are not UTF-8."""

    tenant: TenantId
    scope: str
    conversation: str

    @property
    def fields(self) -> tuple[bytes, bytes, bytes]:
        """The three as bytes, in the order that derivation and authentication use."""
        scope, conversation = (
            part.encode("utf-8", "surrogateescape") for part in (self.scope, self.conversation)
        )
        return str(self.tenant).encode(), scope, conversation


class Record(NamedTuple):
    """What a record held, and which write of which writer it was (both authenticated)."""

    content: bytes
    writer: bytes
    counter: int


def key_ids(data_key: SecretKey, place: Place) -> tuple[bytes, bytes]:
    """The key ids that records of this place have under this data key, encrypted or not: what finds
    a person's records that no index names."""
    return (
        commitment(_gcm_key(data_key, place)),
        commitment(_mac_key(data_key, place)),
    )


def peek_key_id(record: bytes) -> bytes | None:
    """Which key a record names; needs no key, and only its first 18 bytes. None: no record."""
    return bytes(record[_KEY_ID]) if len(record) >= _KEY_ID.stop and record[0] == _MAGIC else None


def closes_at(record: bytes) -> int | None:
    """When a message's writer is a day old and takes no more (milliseconds since 1970); needs no
    key. One of the first release goes on until a pass closes it. None: no record."""
    if len(record) < _COUNTER.stop or record[0] != _MAGIC or record[1] >> 4 != _VERSION:
        return None
    return int.from_bytes(record[_WRITER][:4], "big") * 1000 + WRITER_LIFE


def _gcm_key(data_key: SecretKey, place: Place) -> SecretKey:
    return derive(data_key, "memtenant/1/record", b"encrypt", *place.fields)


def _mac_key(data_key: SecretKey, place: Place) -> SecretKey:
    return derive(data_key, "memtenant/1/record", b"authenticate", *place.fields)


class RecordKeys:
    """Seals and opens the records of one conversation; to be kept while the conversation is open.

    Derived from its subject's data key. ``mode`` decides which suite seals, and whether plaintext
    is accepted: a tenant with encryption Disabled still reads what others encrypted.
    """

    __slots__ = ("_gcm", "_gcm_id", "_gcm_place", "_mac_id", "_mac_key", "_mac_place", "_mode")

    def __init__(
        self,
        data_key: SecretKey,
        place: Place,
        mode: EncryptionMode = EncryptionMode.ENABLED,
    ) -> None:
        gcm_key = _gcm_key(data_key, place)
        self._mac_key = _mac_key(data_key, place)
        self._gcm = AESGCM(gcm_key.secret)
        self._gcm_id = commitment(gcm_key)
        self._mac_id = commitment(self._mac_key)
        self._gcm_place = _authenticated_place(_GCM, place, self._gcm_id)
        self._mac_place = _authenticated_place(_PLAIN, place, self._mac_id)
        self._mode = mode

    def __repr__(self) -> str:
        return f"RecordKeys(…, {self._mode})"

    def seal(
        self,
        kind: str,
        writer: bytes,
        counter: int,
        content: bytes,
        *,
        random: Random = secrets.token_bytes,
    ) -> bytes:
        """The record: 58 bytes more than ``content``, or 46 where encryption is Disabled.

        ``writer`` has 8 bytes, ``counter`` is below 2**32, ``kind`` up to 65,535 bytes.
        """
        if len(writer) != WRITER_BYTES:
            raise ValueError(f"a writer id has {WRITER_BYTES} bytes")
        count = counter.to_bytes(4, "big")
        write = _write(kind, writer, count)
        if self._mode is EncryptionMode.DISABLED:
            start = bytes((_MAGIC, _VERSION << 4 | _PLAIN)) + self._mac_id + writer + count
            return start + content + self._tag(write, content)
        nonce = random(_NONCE_BYTES)
        start = bytes((_MAGIC, _VERSION << 4 | _GCM)) + self._gcm_id + writer + count
        return start + nonce + self._gcm.encrypt(nonce, content, self._gcm_place + write)

    def open(self, kind: str, record: bytes) -> Record:
        """What the record holds, if it was sealed with these keys for this place and kind.

        Raises `RecordMalformed` (no record of a known format), `PlaintextRefused` (suite 0 while
        encryption is Enabled), `RecordKeyMismatch` (another conversation's, subject's or tenant's)
        or `RecordTampered` (edited, or moved to another kind, writer or counter). That counters
        of a writer follow one another is the reader's to check.
        """
        suite = _suite(record)
        if suite == _PLAIN and self._mode is EncryptionMode.ENABLED:
            raise PlaintextRefused(
                "A record is not encrypted, and the tenant's encryption is Enabled: it was written "
                "around memtenant, or before encryption was switched on. It is not shown; delete "
                "it, or write it again"
            )
        expected = self._gcm_id if suite == _GCM else self._mac_id
        if not equal(record[_KEY_ID], expected):
            raise RecordKeyMismatch(
                "A record was sealed with another key: it was moved here from another "
                "conversation, user or tenant, or its data key was replaced. It is not shown"
            )
        write = _write(kind, record[_WRITER], record[_COUNTER])
        content = self._opened(write, record) if suite == _GCM else self._checked(write, record)
        return Record(content, record[_WRITER], int.from_bytes(record[_COUNTER], "big"))

    def _opened(self, write: bytes, record: bytes) -> bytes:
        try:
            return self._gcm.decrypt(record[_NONCE], record[_NONCE.stop :], self._gcm_place + write)
        except InvalidTag:
            raise _tampered() from None

    def _checked(self, write: bytes, record: bytes) -> bytes:
        content, tag = record[_COUNTER.stop : -_TAG_BYTES], record[-_TAG_BYTES:]
        if not equal(self._tag(write, content), tag):
            raise _tampered()
        return content

    def _tag(self, write: bytes, content: bytes) -> bytes:
        return mac(self._mac_key, self._mac_place + write + content)[:_TAG_BYTES]


def _authenticated_place(suite: int, place: Place, key_id: bytes) -> bytes:
    """The first half of the authenticated data; kind, writer and counter follow."""
    return length_prefixed(bytes((_VERSION << 4 | suite,)), *place.fields, key_id)


def _write(kind: str, writer: bytes, counter: bytes) -> bytes:
    """The second half: the three length-prefixed, of which only the kind's length varies."""
    return _prefixed(kind) + _WRITER_LENGTH + writer + _COUNTER_LENGTH + counter


@lru_cache(maxsize=64)
def _prefixed(kind: str) -> bytes:
    return length_prefixed(kind.encode())


def _suite(record: bytes) -> int:
    if len(record) < 2 or record[0] != _MAGIC:
        raise RecordMalformed(
            "A value is no memtenant record: it was written around memtenant. It is not shown"
        )
    version, suite = record[1] >> 4, record[1] & 0x0F
    if version != _VERSION or suite not in (_PLAIN, _GCM):
        raise RecordMalformed(
            f"A record has format {version}, suite {suite}, which this memtenant does not know: "
            "update it"
        )
    if len(record) < (OVERHEAD_BYTES if suite == _GCM else _COUNTER.stop + _TAG_BYTES):
        raise RecordMalformed("A record is cut short: it was written around memtenant")
    return suite


def _tampered() -> RecordTampered:
    return RecordTampered(
        "A record does not match its authentication tag: it was edited, or moved to another place "
        "in its conversation. It is not shown; restore it from a backup, or delete it"
    )
