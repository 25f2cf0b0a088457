"""The few primitives that all else is made of, with fixed sizes.

HKDF-SHA256 (RFC 5869), AES Key Wrap (RFC 3394), HMAC-SHA256 (RFC 2104); AES-256-GCM
(NIST SP 800-38D) is used where records are sealed. All of them are PyCA's; nothing is invented
but the labels.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

__all__ = [
    "COMMITMENT_BYTES",
    "KEY_BYTES",
    "WRAPPED_BYTES",
    "Random",
    "SecretKey",
    "WrongKey",
    "commitment",
    "derive",
    "equal",
    "length_prefixed",
    "mac",
    "new_key",
    "unwrap",
    "wrap",
]

KEY_BYTES = 32
COMMITMENT_BYTES = 16
WRAPPED_BYTES = KEY_BYTES + 8
"""A wrapped key: AES Key Wrap adds a block of 8 bytes that proves the wrapping key."""

Random = Callable[[int], bytes]
"""A source of that many random bytes: ``secrets.token_bytes``, or a fixed one for test vectors."""


class WrongKey(Exception):
    """A wrapped key does not open with this wrapping key. Callers say what that means."""


class SecretKey:
    """32 secret bytes that no log, traceback or ``repr`` shows.

    Equality takes constant time. Not hashable: a key is never looked up by its value.
    """

    __slots__ = ("__secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self.__secret = bytes(secret)

    @property
    def secret(self) -> bytes:
        """The key itself; it goes into a primitive or a Secret, nowhere else."""
        return self.__secret

    def __repr__(self) -> str:
        return "SecretKey(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and equal(self.secret, other.secret)

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> SecretKey:
        return self

    def __deepcopy__(self, memo: object) -> SecretKey:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled: a pickle ends up in caches and queues")


def new_key(random: Random = secrets.token_bytes) -> SecretKey:
    """A fresh random key."""
    return SecretKey(random(KEY_BYTES))


def length_prefixed(*fields: bytes) -> bytes:
    """Each field after its length as two bytes, big-endian: no two lists give the same bytes.

    Raises ``OverflowError`` for a field of more than 65,535 bytes.
    """
    return b"".join(len(field).to_bytes(2, "big") + field for field in fields)


def derive(key: SecretKey, label: str, *context: bytes) -> SecretKey:
    """HKDF-SHA256 without salt; ``info`` is the label and the context, length-prefixed."""
    return SecretKey(_hkdf(key, length_prefixed(label.encode(), *context), KEY_BYTES))


def commitment(key: SecretKey) -> bytes:
    """``HKDF-SHA256(key, info="commit")[:16]``: names a key and binds to it, without telling it.

    AES-GCM does not commit to its key: one ciphertext can open under two. The commitment does.
    """
    return _hkdf(key, b"commit", COMMITMENT_BYTES)


def _hkdf(key: SecretKey, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key.secret)


def mac(key: SecretKey, message: bytes) -> bytes:
    """HMAC-SHA256: 32 bytes."""
    return hmac.digest(key.secret, message, "sha256")


def equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(one, other)


def wrap(wrapping_key: SecretKey, key: SecretKey) -> bytes:
    """AES-256 Key Wrap: 40 bytes, deterministic."""
    return aes_key_wrap(wrapping_key.secret, key.secret)


def unwrap(wrapping_key: SecretKey, wrapped: bytes) -> SecretKey:
    """Undo `wrap`; `WrongKey` when it was another wrapping key, or the bytes were changed."""
    if len(wrapped) != WRAPPED_BYTES:
        raise WrongKey
    try:
        return SecretKey(aes_key_unwrap(wrapping_key.secret, wrapped))
    except InvalidUnwrap:
        raise WrongKey from None
