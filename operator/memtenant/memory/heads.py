"""The parts of a conversation's head that are read without a Function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from memtenant.errors import HistoryDamaged
from memtenant.functions.head import HEAD_STATE, HeadState
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.keys import own_scope, records

__all__ = ["HEAD_FIELDS", "head_state", "heads_of", "last_append"]

HEAD_FIELDS: Final = (HEAD_STATE, b"meta", b"writers")

_TIME_BYTES = 6


def head_state(field: object) -> HeadState | None:
    """The state, or None where there is none: agents may write heads, so anything may stand there,
    and the next append reads it back from the list."""
    try:
        return HeadState.parse(field) if isinstance(field, bytes) else None
    except HistoryDamaged:
        return None


def heads_of(tenant: TenantId, members: Iterable[object], owner: AgentName = "") -> list[str]:
    """The heads of the conversations among a tenant's members, only the owner's where there is one
    (Strict isolation); shared contexts have none."""
    names = (one.decode("utf-8", "replace") for one in members if isinstance(one, bytes))
    own = own_scope(owner) if owner else ""
    return [
        f"{records(tenant)}{name}:h"
        for name in names
        if not name.startswith("c:") and name.startswith(own)
    ]


def last_append(writers: object) -> int | None:
    """When the last append was, in milliseconds: the end of the last writer's entry."""
    if not isinstance(writers, bytes) or len(writers) < _TIME_BYTES:
        return None
    return int.from_bytes(writers[-_TIME_BYTES:], "big")
