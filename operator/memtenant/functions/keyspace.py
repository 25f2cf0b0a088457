"""The keys that a call declares, as bytes, made once and kept while a conversation is open.

All keys of one call share the tenant's hash tag, and so one slot of a Cluster. The Functions take
keys by their place and refuse any other name there. Agents may name a key by any bytes: those that
are not UTF-8 come as Python's surrogates, and go back to the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["ContextKeys", "ConversationKeys", "SubjectKeys", "TenantKeys"]


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """The keys that a tenant has once."""

    limits: bytes
    usage: bytes
    conversations: bytes
    queue: bytes

    @classmethod
    def of(cls, tenant: TenantId) -> TenantKeys:
        """The tenant's."""
        return cls(
            keys.limits(tenant).encode(),
            keys.usage(tenant).encode(),
            keys.conversations(tenant).encode(),
            keys.audit_queue(tenant).encode(),
        )


@dataclass(frozen=True, slots=True)
class SubjectKeys:
    """One subject's data key and its index."""

    data_key: bytes
    index: bytes

    @classmethod
    def of(cls, tenant: TenantId, data_key: str, index: str | None = None) -> SubjectKeys:
        """By alias. ``index`` differs from ``data_key`` where one data key serves all subjects
        (Minimal isolation)."""
        return cls(
            keys.dek(tenant, data_key).encode(),
            keys.subject_index(tenant, data_key if index is None else index).encode(),
        )


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """One conversation's: ``reading`` and ``writing`` are KEYS in their order."""

    list: bytes
    head: bytes
    summaries: bytes
    checkpoints: bytes
    reading: tuple[bytes, ...]
    writing: tuple[bytes, ...]

    @classmethod
    def of(cls, tenant: TenantId, scope: str, conversation: str) -> ConversationKeys:
        """The conversation with this alias in this scope; neither may hold a colon, and the scope
        ``c`` belongs to shared contexts (`ValueError`)."""
        if ":" in scope + conversation or not scope or not conversation or scope == "c":
            raise ValueError("a scope and a conversation's alias are not empty and hold no colon")
        base = f"{keys.records(tenant)}{scope}:{conversation}:"
        once = TenantKeys.of(tenant)
        content, head = _encoded(f"{base}l"), _encoded(f"{base}h")
        reading = (content, head, once.limits)
        return cls(
            list=content,
            head=head,
            summaries=_encoded(f"{base}s"),
            checkpoints=_encoded(f"{base}g"),
            reading=reading,
            writing=(*reading, once.usage, once.conversations, once.queue),
        )


@dataclass(frozen=True, slots=True)
class ContextKeys:
    """One shared context's: ``reading`` and ``writing`` are KEYS in their order."""

    values: bytes
    versions: bytes
    changes: bytes
    reading: tuple[bytes, ...]
    writing: tuple[bytes, ...]

    @classmethod
    def of(cls, tenant: TenantId, context: str) -> ContextKeys:
        """The context with this alias (no colon: `ValueError`)."""
        if ":" in context or not context:
            raise ValueError("a context's alias is not empty and holds no colon")
        base = f"{keys.records(tenant)}c:{context}"
        once = TenantKeys.of(tenant)
        three = (_encoded(base), _encoded(f"{base}:v"), _encoded(f"{base}:log"))
        reading = (*three, once.limits)
        return cls(*three, reading, (*reading, once.usage, once.conversations, once.queue))


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
