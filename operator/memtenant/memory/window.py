"""Which of the newest messages a prompt can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memtenant.memory.messages import TOOL, Message, StoredMessage

__all__ = ["fitting"]


def fitting(
    messages: Sequence[StoredMessage], max_tokens: int, tokens: Callable[[Message], int]
) -> list[StoredMessage]:
    """The longest run of messages at the end that fits, without the results at its beginning whose
    call is not part of it: models refuse a result without its call."""
    start, spent = len(messages), 0
    while start > 0:
        spent += tokens(messages[start - 1].message)
        if spent > max_tokens:
            break
        start -= 1
    while start < len(messages) and messages[start].role == TOOL:
        start += 1
    return list(messages[start:])
