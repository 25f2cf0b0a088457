"""What a caller says of the context that a model is given: how large, and what is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from memtenant.errors import UsageError
from memtenant.memory.importance import Category, Scorer, importance
from memtenant.memory.summaries import Summariser
from memtenant.memory.tokens import ESTIMATE_MARGIN, TokenCounter, estimate_tokens

__all__ = ["ContextBudget"]

_SUMMARY_SHARE: Final = 4
_MOST_SUMMARY_TOKENS: Final = 1000


@dataclass(frozen=True, slots=True)
class ContextBudget:
    """How much of a conversation a model is given, and what is preferred.

    max_tokens: never more, by ``counter`` (else by the tenant's), the summary included. An
    estimating counter leaves room for its error: with the default one, a budget of 4,000 is filled
    to 2,985.

    trigger_tokens: up to here everything is given as it is (default: ``max_tokens``). Beyond, the
    least important goes: what ``scorer`` gives less than ``importance_threshold`` (0 to 1), except
    for the newest, and then what does not fit. ``categories`` go to the scorer.

    summariser: beyond ``trigger_tokens``, what is older than the newest messages (half of
    ``trigger_tokens``) is folded into a summary of at most ``summary_tokens`` (default: a quarter
    of ``max_tokens``, at most 1,000). What it covers comes back as it is, the most important first,
    where that leaves the whole below ``trigger_tokens``. The summariser has ``summary_timeout``
    seconds, and is given at most ``summary_input`` tokens at a time. Left out: the conversation's.
    """

    max_tokens: int
    trigger_tokens: int | None = None
    importance_threshold: float = 0.0
    categories: Sequence[Category] = ()
    scorer: Scorer = field(default=importance)
    summariser: Summariser | None = None
    summary_tokens: int | None = None
    summary_timeout: float = 30.0
    summary_input: int = 16_000
    counter: TokenCounter | None = None

    def __post_init__(self) -> None:
        for name in ("max_tokens", "trigger_tokens", "summary_tokens", "summary_input"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} of a ContextBudget is at least 1, not {value}")
        if self.trigger_tokens is not None and self.trigger_tokens > self.max_tokens:
            raise UsageError("trigger_tokens of a ContextBudget is at most max_tokens")
        if not 0 <= self.importance_threshold <= 1:
            raise UsageError("importance_threshold of a ContextBudget is from 0 to 1")
        if not 0 < self.summary_timeout <= 300:
            raise UsageError("summary_timeout of a ContextBudget is up to 300 seconds")

    def allowed(self, counter: TokenCounter) -> int:
        """What of ``max_tokens`` may be filled by this counter."""
        return _less_margin(self.max_tokens, counter)

    def calm(self, counter: TokenCounter) -> int:
        """What of ``trigger_tokens`` may be filled by this counter."""
        return _less_margin(self.trigger_tokens or self.max_tokens, counter)

    @property
    def most_summary_tokens(self) -> int:
        """How long a summary may be."""
        if self.summary_tokens is not None:
            return self.summary_tokens
        return min(max(self.max_tokens // _SUMMARY_SHARE, 1), _MOST_SUMMARY_TOKENS)


def _less_margin(tokens: int, counter: TokenCounter) -> int:
    return int(tokens / (1 + ESTIMATE_MARGIN)) if counter is estimate_tokens else tokens
