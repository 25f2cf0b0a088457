"""What a model is given of a conversation, and what it cost to choose it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from memtenant.memory.messages import SYSTEM, Message, StoredMessage
from memtenant.memory.summaries import Fallback, Summary

__all__ = [
    "ContextStatistics",
    "PromptContext",
    "Summarising",
    "SummaryOutcome",
    "rendered",
    "with_summary",
]


class Summarising(StrEnum):
    """What became of a summary.

    NOT_DUE: too little is old enough, or there is no summariser. BUSY: another process is at it.
    CHANGED: what it read was edited or cleared meanwhile, so that it was not kept. REFUSED: the
    tenant may not store it.
    """

    MADE = "Made"
    NOT_DUE = "NotDue"
    BUSY = "Busy"
    CHANGED = "Changed"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class SummaryOutcome:
    """``summary`` is the one that there is now. fallback: why the summariser's answer was not used.
    refusal: the reason of the error that kept it from being stored."""

    state: Summarising
    summary: Summary | None
    fallback: Fallback | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class ContextStatistics:
    """In tokens of the budget's counter, and in messages.

    allowed: what the budget leaves after the margin of an estimating counter. chosen: whether
    anything had to go (else everything is there). summarising: what became of a summary, where
    there was too much to be given as it is.
    """

    messages: int
    kept: int
    pinned: int
    tokens_before: int
    tokens: int
    summary_tokens: int
    max_tokens: int
    allowed: int
    chosen: bool
    summarising: SummaryOutcome | None = None

    @property
    def left_out(self) -> int:
        """Messages that are not there themselves; a summary may stand for them."""
        return self.messages - self.kept

    @property
    def saved(self) -> float:
        """The share of the tokens that is not sent, from 0.0."""
        return 1 - self.tokens / self.tokens_before if self.tokens_before else 0.0


@dataclass(frozen=True, slots=True)
class PromptContext:
    """The messages of a conversation that a budget takes, in their order, and the summary."""

    messages: tuple[StoredMessage, ...]
    summary: Summary | None
    statistics: ContextStatistics

    def as_messages(self) -> list[Message]:
        """All of it for a model that takes messages: the summary stands behind the system messages
        at the beginning."""
        return with_summary([one.message for one in self.messages], self.summary)

    def render(self) -> str:
        """All of it as one text. A message begins at the start of a line with its role; the lines
        that follow are indented, so that no text in a message looks like another message."""
        return rendered(self.as_messages())


def with_summary(messages: Sequence[Message], summary: Summary | None) -> list[Message]:
    """The messages, the summary among them."""
    if summary is None:
        return list(messages)
    start = next((at for at, one in enumerate(messages) if one.role != SYSTEM), len(messages))
    return [*messages[:start], summary.as_message(), *messages[start:]]


def rendered(messages: Iterable[Message]) -> str:
    """The messages as one text."""
    return "\n".join(line for message in messages for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    name = f" {_word(message.name)}" if message.name else ""
    text = message.text if isinstance(message.content, str) else _parts(message)
    first, *more = text.splitlines() or [""]
    yield f"{_word(message.role)}{name}: {first}"
    yield from (f"  {line}" for line in more)
    for call in message.tool_calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False, default=str)
        yield f"  -> {_word(call.name)} {arguments}"


def _parts(message: Message) -> str:
    """Text as it is; other parts by their kind."""
    texts = []
    for part in message.content:
        if isinstance(part, str):
            continue
        text = part.get("text")
        texts.append(text if isinstance(text, str) else f"[{_word(str(part.get('type', 'part')))}]")
    return "\n".join(texts)


def _word(text: str) -> str:
    return " ".join(text.split())
