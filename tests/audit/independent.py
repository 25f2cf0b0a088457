"""A second reader of the audit format, written from docs/audit-format.md alone.

It imports nothing of memtenant: what it reads, another language can read.
"""

from __future__ import annotations

import hashlib
import hmac

from tests.crypto.independent import hkdf, lp


def audit_key(installation_root: bytes, log: str, agent: str, binding: int) -> bytes:
    root = hkdf(installation_root, lp(b"memtenant/1/audit-root"))
    return hkdf(
        root, lp(b"memtenant/1/audit", log.encode(), agent.encode(), binding.to_bytes(8, "big"))
    )


def event(audit_key: bytes, data: bytes) -> dict[str, object]:
    """The fields of an event whose MAC is right."""
    body, tag = data[:-16], data[-16:]
    assert hmac.digest(audit_key, lp(b"memtenant/1/audit-event") + body, "sha256")[:16] == tag
    assert data[0] == 0xE1
    length = data[68]
    return {
        "operation": data[1],
        "binding": int.from_bytes(data[2:6], "big"),
        "writer": data[6:14],
        "counter": int.from_bytes(data[14:18], "big"),
        "count": int.from_bytes(data[18:20], "big"),
        "alias": data[20:36],
        "place": data[36:52],
        "commitment": data[52:68],
        "agent": data[69 : 69 + length].decode(),
        "detail": body[69 + length :],
    }


def alias(dek: bytes, tag: bytes) -> bytes:
    return hkdf(dek, lp(b"memtenant/1/audit-alias", tag))[:16]


def place(dek: bytes, tenant: str, scope: str, conversation: str) -> bytes:
    where = (tenant.encode(), scope.encode(), conversation.encode())
    return hkdf(dek, lp(b"memtenant/1/audit-place", *where))[:16]


def commitment(
    dek: bytes, tenant: str, scope: str, conversation: str, stored: list[bytes]
) -> bytes:
    where = (tenant.encode(), scope.encode(), conversation.encode())
    key = hkdf(dek, lp(b"memtenant/1/audit-commitment", *where))
    digests = b"".join(hashlib.sha256(one).digest() for one in stored)
    return hmac.digest(key, digests, "sha256")[:16]


def sequences(detail: bytes) -> list[int]:
    found, position, before = [], 0, 0
    while position < len(detail):
        distance = shift = 0
        while True:
            byte = detail[position]
            position += 1
            distance |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        before += distance
        found.append(before)
    return found
