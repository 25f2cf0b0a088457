"""Keyed names: what stands in a Redis key in place of an id of a user, session or context.

``HMAC-SHA256(nameKey, …)[:16]`` as 22 characters of URL-safe base64. Raw ids never reach the
server, because key names turn up in its logs (ACL LOG printed an e-mail address: measured). Ids
are taken as they are: no case folding, no Unicode normalisation.
"""

from __future__ import annotations

import base64

from memtenant.crypto.primitives import SecretKey, length_prefixed, mac

__all__ = [
    "ALIAS_CHARACTERS",
    "agents_alias",
    "context_alias",
    "session_alias",
    "subject_tag",
    "user_alias",
]

ALIAS_CHARACTERS = 22
_ALIAS_BYTES = 16
_TAG_BYTES = 8


def user_alias(name_key: SecretKey, user: str) -> str:
    """The alias of a user (a data subject): names its data key and its index."""
    return _alias(name_key, "user", user)


def session_alias(name_key: SecretKey, session: str, user: str | None = None) -> str:
    """The alias of a conversation: a session, and the user where isolation keeps users apart.

    Under Minimal isolation a session belongs to the tenant and ``user`` is None; a session
    without a user and one of the user ``""`` are two.
    """
    return _alias(name_key, "session", session, *([] if user is None else [user]))


def context_alias(name_key: SecretKey, context: str) -> str:
    """The alias of a shared context."""
    return _alias(name_key, "context", context)


def agents_alias(name_key: SecretKey) -> str:
    """The alias of the shared context in which agents describe themselves: of a kind of its own, so
    that no context of a user's has it."""
    return _alias(name_key, "agents")


def subject_tag(name_key: SecretKey, user: str) -> bytes:
    """8 bytes that mark a user's records inside a shared conversation (Minimal isolation)."""
    return _keyed(name_key, "tag", user)[:_TAG_BYTES]


def _alias(name_key: SecretKey, kind: str, *ids: str) -> str:
    digest = _keyed(name_key, kind, *ids)[:_ALIAS_BYTES]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _keyed(name_key: SecretKey, kind: str, *ids: str) -> bytes:
    # Lengths of 8 bytes: an id may be of any size. surrogatepass: any Python text has an alias.
    fields = [text.encode("utf-8", "surrogatepass") for text in ids]
    message = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
    return mac(name_key, length_prefixed(b"memtenant/1/name", kind.encode()) + message)
