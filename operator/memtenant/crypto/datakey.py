"""A subject's data key (DEK) as it is stored in Redis: 44 bytes, under a version of the KEK.

The version (4 bytes, big-endian), so that a Function can refuse a wrap older than the least
version allowed, then 40 bytes of AES Key Wrap. The wrapping key is derived from the KEK with the
tenant and the subject's alias: a wrapped key copied to another subject does not open.
"""

from __future__ import annotations

from collections.abc import Iterable

from memtenant.crypto.agent_keyring import AgentKeyring, Kek
from memtenant.crypto.primitives import (
    WRAPPED_BYTES,
    SecretKey,
    WrongKey,
    derive,
    unwrap,
    wrap,
)
from memtenant.errors import RecordMalformed, RecordTampered
from memtenant.tenancy.identity import TenantId

__all__ = [
    "DATA_KEY_BYTES",
    "kek_version",
    "rewrap_data_key",
    "unwrap_data_key",
    "wrap_data_key",
]

_VERSION_BYTES = 4
DATA_KEY_BYTES = _VERSION_BYTES + WRAPPED_BYTES


def wrap_data_key(kek: Kek, tenant: TenantId, alias: str, data_key: SecretKey) -> bytes:
    """The 44 bytes that ``mt:{T}:k:<alias>`` holds."""
    wrapped = wrap(_wrapping_key(kek.key, tenant, alias), data_key)
    return kek.version.to_bytes(_VERSION_BYTES, "big") + wrapped


def unwrap_data_key(keyring: AgentKeyring, alias: str, stored: bytes) -> SecretKey:
    """The data key of a subject.

    Raises `KeyUnavailable` when the binding lacks the version, `RecordMalformed` when the bytes
    are no wrapped key, `RecordTampered` when they were made for another subject or edited (an
    agent may write a false one).
    """
    kek = keyring.kek(kek_version(stored), alias)
    try:
        return unwrap(_wrapping_key(kek, keyring.tenant, alias), stored[_VERSION_BYTES:])
    except WrongKey:
        raise RecordTampered(
            f"The data key of subject {alias} of tenant {keyring.tenant} does not open: it was "
            "edited, or copied from another subject. Restore it from a backup; without it the "
            "subject's records stay unreadable"
        ) from None


def rewrap_data_key(
    keks: Iterable[Kek], active: Kek, tenant: TenantId, alias: str, stored: bytes
) -> bytes:
    """The same data key under ``active``.

    Whichever of the versions opens it is good, also another than the one it names: nothing that
    can be read is given up. Raises `RecordMalformed` or `RecordTampered` where none does.
    """
    named = kek_version(stored)
    for kek in sorted(keks, key=lambda kek: kek.version != named):
        try:
            data_key = unwrap(_wrapping_key(kek.key, tenant, alias), stored[_VERSION_BYTES:])
        except WrongKey:
            continue
        return wrap_data_key(active, tenant, alias, data_key)
    raise RecordTampered(
        f"The data key of subject {alias} of tenant {tenant} opens with no version of its key"
    )


def kek_version(stored: bytes) -> int:
    """The version of the KEK that a stored data key is under; needs no key."""
    if len(stored) != DATA_KEY_BYTES:
        raise RecordMalformed(f"A stored data key has {DATA_KEY_BYTES} bytes; this one does not")
    return int.from_bytes(stored[:_VERSION_BYTES], "big")


def _wrapping_key(kek: SecretKey, tenant: TenantId, alias: str) -> SecretKey:
    return derive(kek, "memtenant/1/data-key", str(tenant).encode(), alias.encode())
