"""How many of the facts that matter a context budget keeps at 30 % of the tokens.

    python -m tests.bench.context

Beside plain truncation, which keeps the newest that fits into the same budget by the same counter.
No server and no model: the summary is the local one, which stands in for a model that fails.
"""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from memtenant import ContextBudget, Message, StoredMessage
from memtenant.memory.folding import request_of
from memtenant.memory.prompt import rendered
from memtenant.memory.selection import costs_of, select
from memtenant.memory.summaries import Fallback, Lineage, Summary, extract
from memtenant.memory.tokens import estimate_tokens, message_tokens
from memtenant.memory.window import fitting
from tests.bench.conversations import Labelled, conversations
from tests.bench.report import Row, table

SEED, EACH = 20261128, 25
SHARE = 0.3


def counter(text: str) -> int:
    """The default's count as a caller's own: without its margin, so that all have the same room."""
    return estimate_tokens(text)


def rows(seed: int = SEED, each: int = EACH) -> list[Row]:
    """The lines of the table."""
    labelled = conversations(seed, each)
    facts = sum(len(one.keys) for one in labelled)
    plain, chosen, told = (share(labelled, way) for way in (truncated, budgeted, summarised))
    return [
        Row(
            f"facts kept at {SHARE:.0%} of the tokens ({facts:,}, {len(labelled)} conversations)",
            "",
            f"{chosen:.0%}; plain truncation {plain:.0%}",
            None,
        ),
        Row("… with the local summary", "", f"{told:.0%}", None),
    ]


def share(labelled: Sequence[Labelled], way: Callable[[Labelled], str]) -> float:
    """The share of the facts whose key can still be read."""
    kept = total = 0
    for one in labelled:
        text = way(one)
        kept += sum(key in text for key in one.keys)
        total += len(one.keys)
    return kept / total


def truncated(one: Labelled) -> str:
    stored, budget = _stored(one), _budget(one)
    kept = fitting(stored, budget.max_tokens, lambda message: message_tokens(message, counter))
    return rendered([message.message for message in kept])


def budgeted(one: Labelled) -> str:
    stored, budget = _stored(one), _budget(one)
    return select(stored, costs_of(stored, counter), budget, counter).render()


def summarised(one: Labelled) -> str:
    stored, budget = _stored(one), _budget(one)
    costs = costs_of(stored, counter)
    request = request_of(stored, costs, budget, counter, None, 0)
    assert request is not None
    answer = extract(request, counter)
    assert answer is not None
    last = request.messages[-1].sequence
    summary = Summary("", answer.text, (), Lineage(1, last, 1), Fallback.FAILED, stored[0].time, 0)
    context = select(stored, costs, budget, counter, summary)
    assert counter(context.render()) <= budget.max_tokens
    return context.render()


def _stored(one: Labelled) -> list[StoredMessage]:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    return [StoredMessage(message, at, now, 0) for at, message in enumerate(one.messages, 1)]


def _budget(one: Labelled) -> ContextBudget:
    return ContextBudget(int(SHARE * sum(_tokens(message) for message in one.messages)))


def _tokens(message: Message) -> int:
    return message_tokens(message, counter)


if __name__ == "__main__":
    print(table(rows()))
    sys.exit(0)
