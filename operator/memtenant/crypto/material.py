"""A root key as people keep it in a Secret: 32 bytes raw, as hexadecimal or as base64."""

from __future__ import annotations

import base64
import binascii
import re

from memtenant.crypto.primitives import KEY_BYTES, SecretKey
from memtenant.errors import KeyInvalid

__all__ = ["read_root_key"]

_HEX = re.compile(rb"[0-9A-Fa-f]{64}")
_BASE64 = re.compile(rb"[0-9A-Za-z+/]{43}=|[0-9A-Za-z_-]{43}=")

_ADVICE = (
    "expected 32 bytes: raw, as 64 hexadecimal digits, or as 44 characters of base64 "
    "(make one with: openssl rand -base64 32)"
)


def read_root_key(data: bytes, source: str) -> SecretKey:
    """The key in the bytes of a Secret; ``source`` says in errors where it was read.

    By length alone: 32 bytes are the raw key, whatever they look like; 64 must be hexadecimal; 44
    must be base64, standard or URL-safe, spelled canonically. One newline may end the two texts,
    never a raw key, whose last byte may be one. `KeyInvalid` on anything else and on a key that
    is one byte repeated; the message shows nothing of it.
    """
    key = _decode(data)
    if key is None:
        raise KeyInvalid(f"{source} is not a root key: {_ADVICE}")
    if len(set(key)) == 1:
        raise KeyInvalid(f"{source} is one byte repeated, not a random key: {_ADVICE}")
    return SecretKey(key)


def _decode(data: bytes) -> bytes | None:
    if len(data) == KEY_BYTES:
        return data
    text = data.removesuffix(b"\n").removesuffix(b"\r")
    if _HEX.fullmatch(text):
        return binascii.unhexlify(text)
    if not _BASE64.fullmatch(text):
        return None
    key = base64.urlsafe_b64decode(text.translate(_URL_SAFE))
    # The last character has two bits to spare: another spelling of the same key is a typing error.
    return key if base64.urlsafe_b64encode(key) == text.translate(_URL_SAFE) else None


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
