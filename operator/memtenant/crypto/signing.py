"""The key that signs checkpoints: Ed25519 (RFC 8032), named as signed notes name keys.

https://c2sp.org/signed-note: a key has a name, and an id of 4 bytes that follows from name and key.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final, NoReturn, Self

from memtenant.crypto.primitives import Random
from memtenant.errors import KeyInvalid
from memtenant.tenancy.document import from_base64, to_base64

__all__ = ["SIGNATURE_BYTES", "SigningKey", "VerifyingKey"]

SIGNATURE_BYTES: Final = 64
_KEY_BYTES: Final = 32
_ED25519: Final = b"\x01"
_LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key with the name that it signs under."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise KeyInvalid(
                f"The name of a log's key has 1 to {_LONGEST_NAME} printable ASCII characters, "
                "without a plus"
            )
        if len(self.public) != _KEY_BYTES:
            raise KeyInvalid(f"A public key of Ed25519 has {_KEY_BYTES} bytes")

    @property
    def id(self) -> bytes:
        """4 bytes that stand before each signature."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{to_base64(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<name>+<id>+<base64>``; `KeyInvalid` otherwise."""
        try:
            name, key_id, encoded = text.strip().split("+", 2)
            data = from_base64(encoded)
        except ValueError:
            name, key_id, data = "", "", b""
        if data[:1] == _ED25519:
            key = cls(name, data[1:])
            if key.id.hex() == key_id:
                return key
        raise KeyInvalid(
            "This is no public key of a log: it is written <name>+<8 hexadecimal digits>+<base64>, "
            "as `memtenant audit checkpoint --key` prints it"
        )

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key signed the message."""
        # Lazy: agents import this package, and only a log signs.
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """The private key of a log. No ``repr``, traceback or pickle shows it."""

    __slots__ = ("__secret", "_public")

    def __init__(self, name: str, secret: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(secret) != _KEY_BYTES:
            raise KeyInvalid(f"The private key of a log has {_KEY_BYTES} bytes")
        self.__secret = bytes(secret)
        public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
        self._public = VerifyingKey(name, public)

    @classmethod
    def new(cls, name: str, random: Random = secrets.token_bytes) -> Self:
        """A fresh one."""
        return cls(name, random(_KEY_BYTES))

    @property
    def public(self) -> VerifyingKey:
        """Its public key."""
        return self._public

    @property
    def secret(self) -> bytes:
        """The key itself: for the one Secret that keeps it."""
        return self.__secret

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same message gives the same."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.__secret).sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self._public.name!r}, …)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled: a pickle ends up in caches and queues")


def _is_name(text: str) -> bool:
    return (
        0 < len(text) <= _LONGEST_NAME
        and "+" not in text
        and all("!" <= letter <= "~" for letter in text)
    )
