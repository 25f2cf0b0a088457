"""The list of a user's conversations, from the subject's index and the heads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from memtenant.errors import UsageError
from memtenant.memory.drafts import moment
from memtenant.memory.heads import head_state, last_append
from memtenant.memory.messages import ConversationInfo

__all__ = ["listed_as", "next_page"]


def next_page(entries: Sequence[bytes], limit: int, cursor: str | None) -> tuple[list[str], bool]:
    """The names after ``cursor`` of an index, the newest first and each once; and whether more
    follow. A conversation that began anew is as new as that."""
    names = [name.decode("utf-8", "replace") for name in reversed(entries)]
    names = list(dict.fromkeys(names))
    start = 0
    if cursor is not None:
        if cursor not in names:
            raise UsageError("The cursor is of no list of this user any more: begin anew")
        start = names.index(cursor) + 1
    return names[start : start + limit], start + limit < len(names)


def listed_as(fields: object, title: object) -> ConversationInfo | None:
    """One line of `HEAD_FIELDS`; None for a conversation that is gone. ``title`` is the record that
    was opened."""
    state, writers = (fields[0], fields[2]) if isinstance(fields, list) else (None, None)
    head = head_state(state)
    if head is None or head.gone:
        return None
    told = title if isinstance(title, dict) else {}
    return ConversationInfo(
        session=told.get("session"),
        title=told.get("title"),
        last_activity=_time(last_append(writers)),
        count=head.count,
    )


def _time(milliseconds: int | None) -> datetime | None:
    try:
        return None if milliseconds is None else moment(milliseconds)
    except (OverflowError, ValueError):
        return None  # agents may write heads: this is no time
