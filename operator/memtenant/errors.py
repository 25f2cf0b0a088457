"""The one tree of exceptions that memtenant raises on purpose, in one file: what is caught by a
name must not be found in two places, and whoever adds one sees those that there are.

A message says what happened, to what, and what to do about it. No message carries a secret, a raw
user or session id, or a byte of a key.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "AccessDenied",
    "AccessReadOnly",
    "AgentNotListed",
    "ArchiveBusy",
    "ArchiveFull",
    "ArchiveInconsistent",
    "ArchiveMalformed",
    "ArchiveUnavailable",
    "AuditEventMalformed",
    "AuditEventRequired",
    "AuditUnavailable",
    "BindingInvalid",
    "CallInvalid",
    "CheckpointInvalid",
    "ConsentRequired",
    "DataError",
    "DataKeyChanged",
    "ErasureNotPermitted",
    "FencedOut",
    "FrameworkInvalid",
    "FunctionFailed",
    "FunctionsUnavailable",
    "HistoryDamaged",
    "HistoryRewound",
    "IdempotencyConflict",
    "InvalidResource",
    "KeyInvalid",
    "KeyRetired",
    "KeyUnavailable",
    "LoginRefused",
    "MaskingRejected",
    "MemtenantError",
    "MessageInvalid",
    "MessageNotFound",
    "MessageTooLarge",
    "NotDurable",
    "NotProven",
    "PinnedTooLarge",
    "PlaintextRefused",
    "PortabilityNotPermitted",
    "ProofInvalid",
    "QuotaExceeded",
    "RecordInvalid",
    "RecordKeyMismatch",
    "RecordMalformed",
    "RecordMissing",
    "RecordReordered",
    "RecordReplayed",
    "RecordTampered",
    "ReportInvalid",
    "ResourceConflict",
    "ResourceForbidden",
    "ResourceNotFound",
    "ResourceUnavailable",
    "SignerConflict",
    "StoreRefused",
    "StoreUnavailable",
    "SubjectErased",
    "TenantHeld",
    "TenantUnprovisioned",
    "UsageError",
    "VersionConflict",
    "WriterOutOfStep",
    "WriterUnknown",
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


class ReportInvalid(MemtenantError):
    """A file is no report of this format, or no manifest of one."""

    reason = "ReportInvalid"


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


class RecordReplayed(RecordInvalid):
    """The same write of a writer stands twice in a conversation: a record was copied."""

    reason = "RecordReplayed"


class RecordReordered(RecordInvalid):
    """A writer's records do not stand in the order in which it wrote them."""

    reason = "RecordReordered"


class RecordMissing(RecordInvalid):
    """A writer's record is gone, and no deletion explains it."""

    reason = "RecordMissing"


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


class LoginRefused(MemtenantError):
    """The store refuses the binding's username or password, and no newer binding is there."""

    reason = "LoginRefused"


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


class ArchiveUnavailable(MemtenantError):
    """The archive of the audit log did not take what was written, or did not give it back."""

    reason = "ArchiveUnavailable"
    retryable = True


class ArchiveFull(ArchiveUnavailable):
    """The archive of the audit log has hardly any room left."""

    reason = "ArchiveFull"


class ArchiveBusy(MemtenantError):
    """Another process writes the archive."""

    reason = "ArchiveBusy"
    retryable = True


class ArchiveMalformed(MemtenantError):
    """A file of the archive holds what no version of memtenant that this one knows wrote."""

    reason = "ArchiveMalformed"


class ArchiveInconsistent(MemtenantError):
    """The archive is not the one that was signed before: nothing more is signed on top of it."""

    reason = "ArchiveInconsistent"


class CheckpointInvalid(MemtenantError):
    """The text is no checkpoint of a log, or not signed by its key."""

    reason = "CheckpointInvalid"


class ProofInvalid(MemtenantError):
    """The text is no proof of a log."""

    reason = "ProofInvalid"


class SignerConflict(MemtenantError):
    """Another process sealed first: this one read the state of the signer before it did."""

    reason = "SignerConflict"
    retryable = True


class DataError(MemtenantError):
    """A call on a tenant's data was refused, by the server or by what it found there."""

    reason = "DataRefused"


class QuotaExceeded(DataError):
    """A limit of the tenant is reached.

    ``limit`` is ``memory`` (bytes), ``conversations``, ``writes_per_second``, ``fields`` (of one
    shared context), ``checkpoints`` (of one thread) or ``measured`` (the operator counted and took
    the writes away). ``used`` and ``allowed`` are in the limit's unit. ``retry_after`` is in
    seconds and None where time alone frees nothing: delete something, or wait for content to
    expire.
    """

    reason = "QuotaExceeded"

    def __init__(
        self, message: str, *, limit: str, used: int, allowed: int, retry_after: float | None
    ) -> None:
        super().__init__(message)
        self.limit, self.used, self.allowed = limit, used, allowed
        self.retry_after = retry_after
        self.retryable = retry_after is not None


class MessageTooLarge(DataError):
    """A record, or a batch of them, has more bytes than one call may carry."""

    reason = "MessageTooLarge"

    def __init__(self, message: str, *, size: int, allowed: int) -> None:
        super().__init__(message)
        self.size, self.allowed = size, allowed


class VersionConflict(DataError):
    """Somebody else wrote first. ``current`` holds what stands there now: see `functions`."""

    reason = "VersionConflict"

    def __init__(self, message: str, *, current: object) -> None:
        super().__init__(message)
        self.current = current


class HistoryRewound(DataError):
    """The server holds less than this process once saw: it lost data or was restored.

    ``stored`` is the receipt of an append that met the loss and was stored all the same (it is not
    to be repeated), else None.
    """

    reason = "HistoryRewound"
    stored: object = None


class HistoryDamaged(DataError):
    """A key holds something that no Function wrote: it was written around memtenant."""

    reason = "HistoryDamaged"


class MessageInvalid(DataError):
    """A message or a value holds what JSON cannot, so that it would not come back as it was."""

    reason = "MessageInvalid"


class PinnedTooLarge(DataError):
    """The pinned messages alone have more tokens than a context budget allows."""

    reason = "PinnedTooLarge"

    def __init__(self, message: str, *, tokens: int, allowed: int) -> None:
        super().__init__(message)
        self.tokens, self.allowed = tokens, allowed


class MaskingRejected(DataError):
    """What was to be stored holds what may not be stored in any form; nothing was.

    ``counts`` has how many of each kind. Neither it nor the message tells a value.
    """

    reason = "MaskingRejected"

    def __init__(self, message: str, *, counts: Mapping[str, int]) -> None:
        super().__init__(message)
        self.counts = counts


class NotDurable(DataError):
    """A write is on the primary, and not on every replica: a failover now would lose it.

    ``acknowledged`` of ``expected`` replicas have it.
    """

    reason = "NotDurable"
    retryable = True

    def __init__(self, message: str, *, acknowledged: int, expected: int) -> None:
        super().__init__(message)
        self.acknowledged, self.expected = acknowledged, expected


class IdempotencyConflict(DataError):
    """An idempotency key was used before, for other messages."""

    reason = "IdempotencyConflict"


class MessageNotFound(DataError):
    """No message has this sequence: it was deleted, has expired, or never was."""

    reason = "MessageNotFound"


class TenantHeld(DataError):
    """A legal hold or a content minimum stands: content can be added, not changed or removed."""

    reason = "TenantHeld"


class AccessReadOnly(DataError):
    """The agent may only read: its access is ReadOnly, or the tenant is held and over quota."""

    reason = "AccessReadOnly"


class AccessDenied(DataError):
    """The server's rules do not let this user do what the call needs."""

    reason = "AccessDenied"


class AgentNotListed(DataError):
    """The tenant lists no agent of this name: nothing was sent."""

    reason = "AgentNotListed"


class AuditUnavailable(DataError):
    """What cannot be audited is refused, and nobody drains the tenant's audit queue."""

    reason = "AuditUnavailable"
    retryable = True


class AuditEventRequired(DataError):
    """The tenant is audited, and the call brought no event."""

    reason = "AuditEventRequired"


class AuditEventMalformed(DataError):
    """An entry of the audit queue is no event of a format that this version reads."""

    reason = "AuditEventMalformed"


class DataKeyChanged(DataError):
    """The subject's data key is another than the one that sealed the record, or is not there."""

    reason = "DataKeyChanged"
    retryable = True


class SubjectErased(DataError):
    """The subject was erased: nothing more is written about it under its old key."""

    reason = "SubjectErased"


class ErasureNotPermitted(DataError):
    """The agent is no Steward, or the policy does not let persons be forgotten."""

    reason = "ErasureNotPermitted"


class ConsentRequired(DataError):
    """The policy lets a person be forgotten only with a reference to their consent or request."""

    reason = "ConsentRequired"


class PortabilityNotPermitted(DataError):
    """The agent is no Steward, or the policy does not let what is kept of persons be exported."""

    reason = "PortabilityNotPermitted"


class KeyRetired(DataError):
    """The record's data key is wrapped under a KEK version that the operator has retired."""

    reason = "KeyRetired"

    def __init__(self, message: str, *, least: int) -> None:
        super().__init__(message)
        self.least = least


class WriterUnknown(DataError):
    """The server does not know the writer any more, or its clock differs: open a new lane.

    ``server_time`` is in milliseconds since 1970. Nothing was stored by this call; whether an
    earlier try of it was, the server cannot tell.
    """

    reason = "WriterUnknown"

    def __init__(self, message: str, *, server_time: int) -> None:
        super().__init__(message)
        self.server_time = server_time


class WriterOutOfStep(DataError):
    """The counter does not follow the writer's ``last``: an append before it is missing."""

    reason = "WriterOutOfStep"

    def __init__(self, message: str, *, last: int) -> None:
        super().__init__(message)
        self.last = last


class TenantUnprovisioned(DataError):
    """The store holds no limits of the tenant: it is not provisioned (yet), or was removed."""

    reason = "TenantUnprovisioned"
    retryable = True


class FunctionsUnavailable(DataError):
    """The store does not hold the Functions that this version calls."""

    reason = "FunctionsUnavailable"
    retryable = True


class CallInvalid(DataError):
    """A Function did not understand its arguments: a defect, or two versions too far apart."""

    reason = "CallInvalid"


class FunctionFailed(DataError):
    """A Function stopped at an error of its own: a defect of memtenant."""

    reason = "FunctionFailed"
