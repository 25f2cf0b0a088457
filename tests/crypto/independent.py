"""A second reader of the record format, written from docs/record-format.md alone.

It imports nothing of memtenant: what it reads, another language can read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap


def lp(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(2, "big") + field for field in fields)


def hkdf(key: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869 in the one case that is needed: no salt, at most 32 bytes."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)[:length]


def data_key(kek: bytes, tenant: str, alias: str, stored: bytes) -> tuple[int, bytes]:
    wrapping = hkdf(kek, lp(b"memtenant/1/data-key", tenant.encode(), alias.encode()))
    return int.from_bytes(stored[:4], "big"), aes_key_unwrap(wrapping, stored[4:])


def record(
    dek: bytes, tenant: str, scope: str, conversation: str, kind: str, sealed: bytes
) -> bytes:
    place = (tenant.encode(), scope.encode(), conversation.encode())
    magic, suite = sealed[0], sealed[1]
    key_id, writer, counter = sealed[2:18], sealed[18:26], sealed[26:30]
    purpose = {0x11: b"encrypt", 0x10: b"authenticate"}[suite]
    key = hkdf(dek, lp(b"memtenant/1/record", purpose, *place))
    assert magic == 0xFA
    assert key_id == hkdf(key, b"commit", 16)
    aad = lp(bytes([suite]), *place, key_id, kind.encode(), writer, counter)
    if suite == 0x11:
        return AESGCM(key).decrypt(sealed[30:42], sealed[42:], aad)
    content, tag = sealed[30:-16], sealed[-16:]
    assert hmac.digest(key, aad + content, "sha256")[:16] == tag
    return content


def alias(name_key: bytes, kind: str, *ids: str) -> str:
    message = lp(b"memtenant/1/name", kind.encode())
    for text in ids:
        message += len(text.encode()).to_bytes(8, "big") + text.encode()
    digest = hmac.digest(name_key, message, "sha256")
    return base64.urlsafe_b64encode(digest[:16]).decode().rstrip("=")


def kek(root: bytes, tenant: str, version: int, wrapped: bytes) -> bytes:
    role = f"kek/{version}".encode()
    return aes_key_unwrap(hkdf(root, lp(b"memtenant/1/keyring", tenant.encode(), role)), wrapped)


def erasure_request(audit_key: bytes, tenant: str, data: bytes) -> dict[str, object]:
    assert data[0] & 0xFE == 0x10
    consent = data[53:69] if data[0] & 1 else b""
    end = 53 + len(consent)
    length = data[end + 4]
    assert len(data) == end + 5 + length + 16
    label = lp(b"memtenant/1/erasure", tenant.encode())
    assert hmac.digest(audit_key, label + data[:-16], "sha256")[:16] == data[-16:]
    return {
        "id": data[1:17],
        "time": int.from_bytes(data[17:23], "big"),
        "alias": data[23:45].decode(),
        "tag": data[45:53],
        "consent": consent,
        "version": int.from_bytes(data[end : end + 4], "big"),
        "agent": data[end + 5 : end + 5 + length].decode(),
    }


def erased(key: bytes, tenant: str, subject: str, data: bytes) -> bytes:
    """The id of the request, after the MAC was compared."""
    label = lp(b"memtenant/1/tombstone", tenant.encode(), subject.encode())
    assert hmac.digest(key, label + data[:-16], "sha256")[:16] == data[-16:]
    return data[1:17]
