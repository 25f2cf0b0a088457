"""The one tree of exceptions that memtenant raises on purpose.

A message says what happened, to what, and what to do about it. No message carries a secret, a raw
user or session id, or a byte of a key.
"""

from __future__ import annotations

__all__ = [
    "BindingInvalid",
    "FencedOut",
    "FrameworkInvalid",
    "InvalidResource",
    "KeyInvalid",
    "KeyUnavailable",
    "MemtenantError",
    "NotProven",
    "PlaintextRefused",
    "RecordInvalid",
    "RecordKeyMismatch",
    "RecordMalformed",
    "RecordTampered",
    "ResourceConflict",
    "ResourceForbidden",
    "ResourceNotFound",
    "ResourceUnavailable",
    "StoreRefused",
    "StoreUnavailable",
    "UsageError",
]


class MemtenantError(Exception):
    """Base of every error that memtenant raises on purpose.

    ``reason`` is a CamelCase word, stable from release to release and usable as the reason of a
    Kubernetes condition. ``retryable`` says whether the same call may succeed later although
    nothing was corrected: workers back off on it; otherwise they wait for a change.
    """

    reason: str = "Error"
    retryable: bool = False

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class UsageError(MemtenantError):
    """A command was called with arguments that it cannot use."""

    reason = "Usage"


class InvalidResource(MemtenantError):
    """A declared object cannot be used as written; ``field`` is the path that must change."""

    reason = "InvalidSpec"

    def __init__(self, message: str, *, field: str = "", reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.field = field


class KeyInvalid(MemtenantError):
    """Key material has the wrong form. The message never shows a byte of it."""

    reason = "KeyInvalid"


class KeyUnavailable(MemtenantError):
    """Key material that is needed is gone or no longer opens what it once wrapped."""

    reason = "KeyUnavailable"


class FrameworkInvalid(MemtenantError):
    """A framework's data file cannot be used; the message names the file and the field."""

    reason = "FrameworkInvalid"


class RecordInvalid(MemtenantError):
    """A stored record is not what it claims to be: foreign, moved, edited or not encrypted."""

    reason = "RecordInvalid"


class RecordMalformed(RecordInvalid):
    """The bytes are no record of a format that this version reads."""

    reason = "RecordMalformed"


class PlaintextRefused(RecordInvalid):
    """A record that is not encrypted, in a tenant whose encryption is Enabled."""

    reason = "PlaintextRefused"


class RecordKeyMismatch(RecordInvalid):
    """The record names another key: it comes from another conversation, subject or tenant."""

    reason = "RecordKeyMismatch"


class RecordTampered(RecordInvalid):
    """The key is right and the tag is not: the record was edited or moved."""

    reason = "RecordTampered"


class BindingInvalid(MemtenantError):
    """A binding Secret (or its mounted folder) lacks a field or holds one that cannot be read."""

    reason = "BindingInvalid"


class StoreUnavailable(MemtenantError):
    """The Redis or Valkey server did not answer, or not in time."""

    reason = "StoreUnavailable"
    retryable = True


class StoreRefused(MemtenantError):
    """The server answered and refused: a missing permission, an unknown command, a full disk."""

    reason = "StoreRefused"


class FencedOut(MemtenantError):
    """Another operator leads this store since: nothing was written."""

    reason = "FencedOut"


class NotProven(MemtenantError):
    """The server did not show the isolation that was asked of it."""

    reason = "IsolationNotProven"
    retryable = True


class ResourceUnavailable(MemtenantError):
    """The API server (or the state folder) did not answer, or answered 429 or 5xx."""

    reason = "APIUnavailable"
    retryable = True


class ResourceNotFound(MemtenantError):
    """The object does not exist (404)."""

    reason = "NotFound"


class ResourceConflict(MemtenantError):
    """Somebody else changed or created the object first (409): read again, decide again."""

    reason = "Conflict"
    retryable = True


class ResourceForbidden(MemtenantError):
    """The operator's ServiceAccount lacks a permission (403)."""

    reason = "Forbidden"
