"""When a conversation is due to be summarised, and which part of it."""

from __future__ import annotations

from collections.abc import Sequence

from memtenant.memory.budget import ContextBudget
from memtenant.memory.messages import StoredMessage
from memtenant.memory.summaries import Summary, SummaryRequest
from memtenant.memory.tokens import TokenCounter
from memtenant.memory.units import units_of

__all__ = ["is_due", "request_of"]


def is_due(
    stored: Sequence[StoredMessage],
    costs: Sequence[int],
    budget: ContextBudget,
    counter: TokenCounter,
    summary: Summary | None,
) -> bool:
    """Whether the summary and what it does not cover are more than the budget takes calmly."""
    covered = 0 if summary is None else summary.lineage.last
    tokens = 0 if summary is None else summary.tokens
    tokens += sum(cost for one, cost in zip(stored, costs, strict=True) if one.sequence > covered)
    return tokens > budget.calm(counter)


def request_of(
    stored: Sequence[StoredMessage],
    costs: Sequence[int],
    budget: ContextBudget,
    counter: TokenCounter,
    previous: Summary | None,
    covered: int,
) -> SummaryRequest | None:
    """The messages after sequence ``covered`` that are to be summarised next, the oldest first, and
    no tool call without its results; None where what is left is new enough to stay as it is."""
    start = next((at for at, one in enumerate(stored) if one.sequence > covered), len(stored))
    open_, costs = stored[start:], costs[start:]
    left = budget.calm(counter) // 2
    end = len(open_)
    while end > 0 and left >= costs[end - 1]:
        end -= 1
        left -= costs[end]
    taken, spent = 0, 0
    while taken < end and (not taken or spent + costs[taken] <= budget.summary_input):
        spent += costs[taken]
        taken += 1
    taken = _whole_units(open_, taken)
    if not taken:
        return None
    return SummaryRequest(tuple(open_[:taken]), previous, budget.most_summary_tokens)


def _whole_units(messages: Sequence[StoredMessage], end: int) -> int:
    """The end, moved to the front until no call is parted from a result."""
    for unit in reversed(units_of(messages, [0] * len(messages))):
        if unit.places[0] < end <= unit.places[-1]:
            end = unit.places[0]
    return end
