"""What an error reply of a Function means: which error, and what to do about it.

A refusal is ``MT_<CODE>`` and numbers; no name, id or value of a caller is in it. None of them left
anything written, but an event in the audit queue where the tenant is audited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from memtenant.errors import (
    AccessDenied,
    AccessReadOnly,
    AuditEventRequired,
    AuditUnavailable,
    CallInvalid,
    DataError,
    DataKeyChanged,
    FunctionFailed,
    FunctionsUnavailable,
    HistoryDamaged,
    KeyRetired,
    MessageNotFound,
    MessageTooLarge,
    QuotaExceeded,
    SubjectErased,
    TenantHeld,
    TenantUnprovisioned,
    WriterOutOfStep,
    WriterUnknown,
)

__all__ = ["function_is_absent", "refusal"]

_Details = Sequence[str]


def refusal(message: str) -> DataError | None:
    """The error that an error reply of FCALL means; None for one that no Function gave.

    ``message`` is the reply without its leading ``-``; clients that strip an error's code leave
    those of the Functions as they are.
    """
    if function_is_absent(message):
        return FunctionsUnavailable(
            "The store holds memtenant's Functions neither of this SDK's version nor of the one "
            "before: the operator loads them. See `kubectl get mstore`; SDK and operator may "
            "differ by one version: update the one that is behind"
        )
    code, *details = message.split()
    make = _REFUSALS.get(code.removeprefix("MT_")) if code.startswith("MT_") else None
    return make(details) if make is not None else None


def function_is_absent(message: str) -> bool:
    """Whether an error reply says that no Function has the name; nothing was done then."""
    return message.startswith(("ERR Function not found", "Function not found"))


def _number(details: _Details, place: int) -> int:
    text = details[place] if place < len(details) else ""
    return int(text) if text.isdecimal() else 0


_FREES = {
    "memory": "delete something, wait for content to expire, or have spec.quota.memory raised",
    "conversations": "delete one, wait for some to expire, or have spec.quota.conversations raised",
    "writes_per_second": "wait, or have spec.quota.writesPerSecond raised",
    "fields": "use another shared context",
    "checkpoints": "prune the thread, or delete it",
    "measured": "the operator measured it and stopped writes; they return under 95 %. Delete "
    "something (pop, clear, delete), or have the quota raised",
}


def _quota(details: _Details) -> DataError:
    limit = details[0] if details else ""
    used, allowed, wait = (_number(details, place) for place in (1, 2, 3))
    return QuotaExceeded(
        f"The tenant's quota of {limit} is used up ({used} of {allowed}): "
        f"{_FREES.get(limit, 'delete something')}",
        limit=limit,
        used=used,
        allowed=allowed,
        retry_after=wait / 1000 if wait else None,
    )


def _too_large(details: _Details) -> DataError:
    size, allowed = _number(details, 0), _number(details, 1)
    return MessageTooLarge(
        f"{size} bytes are more than the {allowed} that one record or batch may have: keep the "
        "content elsewhere and store a reference",
        size=size,
        allowed=allowed,
    )


def _retired(details: _Details) -> DataError:
    least = _number(details, 0)
    return KeyRetired(
        f"The subject's data key is wrapped under a KEK version older than {least}: read the key "
        "again, and the binding if it lacks the version",
        least=least,
    )


def _unknown_writer(details: _Details) -> DataError:
    return WriterUnknown(
        "The server does not know this writer (any more), or the clocks differ: open a new lane "
        "at the server's time. Nothing was stored by this call",
        server_time=_number(details, 0),
    )


def _out_of_step(details: _Details) -> DataError:
    last = _number(details, 0)
    return WriterOutOfStep(
        f"The writer's last stored counter is {last}, and this call does not follow it: an append "
        "before it was not stored, or another process uses the same writer",
        last=last,
    )


def _damaged(details: _Details) -> DataError:
    what = f" ({details[0]})" if details else ""
    return HistoryDamaged(
        f"A key of the tenant{what} holds what memtenant did not write there. Nothing was changed; "
        "restore the conversation from a backup, or delete it"
    )


def _denied(details: _Details) -> DataError:
    what = f" ({details[0]})" if details else ""
    return AccessDenied(
        f"The server's rules do not allow this user what the call needs{what}: the binding may be "
        "older than the operator's rules; read it again"
    )


def _invalid(details: _Details) -> DataError:
    return CallInvalid(
        f"The Function did not understand the call ({' '.join(details) or 'no detail'}): SDK and "
        "operator may be too far apart; update both"
    )


def _failed(details: _Details) -> DataError:
    where = f" (line {details[0].strip(':')})" if details else ""
    return FunctionFailed(
        f"A Function stopped at an error of its own{where}: a defect of memtenant; please report it"
    )


def _plain(kind: type[DataError], message: str) -> Callable[[_Details], DataError]:
    return lambda details: kind(message)


_REFUSALS: Mapping[str, Callable[[_Details], DataError]] = MappingProxyType(
    {
        "QUOTA": _quota,
        "TOO_LARGE": _too_large,
        "KEK": _retired,
        "WRITER": _unknown_writer,
        "COUNTER": _out_of_step,
        "TYPE": _damaged,
        "DAMAGED": _damaged,
        "DENIED": _denied,
        "ARGUMENT": _invalid,
        "ARGUMENTS": _invalid,
        "KEY": _invalid,
        "KEYS": _invalid,
        "FORMAT": _invalid,
        "INTERNAL": _failed,
        "HELD": _plain(
            TenantHeld,
            "A legal hold or a content minimum stands: content can be added, not changed or "
            "removed, until it ends",
        ),
        "READONLY": _plain(
            AccessReadOnly,
            "This agent may only read: its access is ReadOnly, or the tenant is under a hold and "
            "over its quota",
        ),
        "AUDIT_STALE": _plain(
            AuditUnavailable,
            "The tenant's policy refuses what cannot be audited, and its audit queue is not being "
            "drained: see the sealer; the call may be repeated",
        ),
        "AUDIT_EVENT": _plain(
            AuditEventRequired, "The tenant is audited: the call must bring an audit event"
        ),
        "KEY_CHANGED": _plain(
            DataKeyChanged,
            "The subject's data key was replaced or wrapped anew: read it again and seal again",
        ),
        "KEY_ABSENT": _plain(
            DataKeyChanged,
            "The subject has no data key (any more): read it again; make one only for a new "
            "subject",
        ),
        "ERASED": _plain(
            SubjectErased,
            "The subject was erased, or is being erased: nothing more can be stored about it. "
            "The mark goes two days after the erasure is done; a person who comes back then begins "
            "anew",
        ),
        "NOT_FOUND": _plain(
            MessageNotFound,
            "No message has this sequence: it was deleted, has expired, or never was",
        ),
        "UNPROVISIONED": _plain(
            TenantUnprovisioned,
            "The store holds no limits of this tenant: the operator has not provisioned it yet, "
            "or it was removed",
        ),
    }
)
