"""Which messages a budget takes: decided by what they are, never over the budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from memtenant.errors import PinnedTooLarge, UsageError
from memtenant.memory.budget import ContextBudget
from memtenant.memory.messages import SYSTEM, StoredMessage
from memtenant.memory.prompt import ContextStatistics, PromptContext, rendered, with_summary
from memtenant.memory.summaries import Summary
from memtenant.memory.tokens import TokenCounter, message_tokens
from memtenant.memory.units import Unit, units_of

__all__ = ["costs_of", "select"]

_CANDIDATES: Final = 2000
"""The newest messages that are weighed; of older ones, the pinned and the system's stay."""

_RECENT: Final = 0.25
"""The share of the room that goes to the newest messages, however unimportant they look."""

_LENGTH: Final = 0.8
"""To this power of its length a message has to matter more than a shorter one (chosen by
`make bench`, between 0.3 and 1)."""


def costs_of(stored: Sequence[StoredMessage], counter: TokenCounter) -> list[int]:
    """The tokens of each, by the counter that the budget is held by."""
    return [max(message_tokens(one.message, counter), 0) for one in stored]


def select(
    stored: Sequence[StoredMessage],
    costs: Sequence[int],
    budget: ContextBudget,
    counter: TokenCounter,
    summary: Summary | None = None,
) -> PromptContext:
    """What a model is given of the messages: all, or the pinned, the summary, and what is preferred
    of the rest as long as there is room. ``costs`` are `costs_of` them. Raises `PinnedTooLarge`."""
    units = [unit for unit in units_of(stored, costs) if unit.pinned or not unit.dangling]
    before, calm = sum(costs), budget.calm(counter)
    room = _Room(stored, counter, budget.allowed(counter))
    if before <= calm:
        for unit in units:
            room.take(unit)
        if len(room.taken) == len(units) and room.fits():
            return room.context(budget, before, chosen=False)
        room = _Room(stored, counter, budget.allowed(counter))
    room.require(unit for unit in units if unit.pinned)
    room.take_summary(summary)
    free = [unit for unit in units if not unit.pinned]
    covered = {unit for unit in units if room.stands_for(unit)}
    for unit in _preferred(stored, free, budget, room.room):
        if unit not in covered or room.spent + unit.tokens <= calm:
            room.take(unit)
    if covered <= set(room.taken):
        room.drop_summary()
    room.shrink()
    return room.context(budget, before, chosen=True)


class _Room:
    """The room of a budget, and what was taken into it."""

    def __init__(self, stored: Sequence[StoredMessage], counter: TokenCounter, room: int) -> None:
        self._stored, self._counter = stored, counter
        self._summary: Summary | None = None
        self._summary_tokens = 0
        self.room = room
        self.spent = 0
        self.taken: list[Unit] = []

    def take(self, unit: Unit) -> None:
        """Take it, if there is room."""
        if self.spent + unit.tokens <= self.room:
            self.taken.append(unit)
            self.spent += unit.tokens

    def require(self, units: Iterable[Unit]) -> None:
        """Take what has to be there."""
        self.taken += units
        self.spent += sum(unit.tokens for unit in self.taken)
        if self.spent > self.room or not self.fits():
            raise self._too_large()

    def take_summary(self, summary: Summary | None) -> None:
        """Take it, if there is room."""
        if summary is None:
            return
        tokens = max(message_tokens(summary.as_message(), self._counter), 0)
        if self.spent + tokens <= self.room:
            self._summary, self._summary_tokens = summary, tokens
            self.spent += tokens

    def drop_summary(self) -> None:
        """What it stands for is there itself, or there is no room after all."""
        self.spent -= self._summary_tokens
        self._summary, self._summary_tokens = None, 0

    def stands_for(self, unit: Unit) -> bool:
        """Whether the summary that was taken covers the unit."""
        if self._summary is None:
            return False
        return self._stored[unit.places[-1]].sequence <= self._summary.lineage.last

    def fits(self) -> bool:
        """Whether it fits as one text too: a counter need not find the sum of its parts."""
        return self._over() <= 0

    def shrink(self) -> None:
        """Give back what was preferred least, until it fits as one text too."""
        while (over := self._over()) > 0:
            last = self.taken[-1] if self.taken else None
            if last is None or last.pinned:
                if self._summary is None:
                    raise self._too_large()
                self.drop_summary()
                continue
            while over > 0 and self.taken and not self.taken[-1].pinned:
                unit = self.taken.pop()
                self.spent -= unit.tokens
                over -= max(unit.tokens, 1)

    def context(self, budget: ContextBudget, before: int, *, chosen: bool) -> PromptContext:
        """What was taken, in the order of the conversation."""
        messages = self._messages()
        statistics = ContextStatistics(
            messages=len(self._stored),
            kept=len(messages),
            pinned=sum(one.message.pinned for one in messages),
            tokens_before=before,
            tokens=self.spent,
            summary_tokens=self._summary_tokens,
            max_tokens=budget.max_tokens,
            allowed=self.room,
            chosen=chosen,
        )
        return PromptContext(messages, self._summary, statistics)

    def _messages(self) -> tuple[StoredMessage, ...]:
        places = sorted(place for unit in self.taken for place in unit.places)
        return tuple(self._stored[place] for place in places)

    def _over(self) -> int:
        messages = with_summary([one.message for one in self._messages()], self._summary)
        return self._counter(rendered(messages)) - self.room if messages else 0

    def _too_large(self) -> PinnedTooLarge:
        return PinnedTooLarge(
            f"The pinned messages alone have {self.spent} tokens, and the budget has room for "
            f"{self.room}: raise max_tokens, or unpin some of them (update_message)",
            tokens=self.spent,
            allowed=self.room,
        )


def _preferred(
    stored: Sequence[StoredMessage], units: Sequence[Unit], budget: ContextBudget, room: int
) -> list[Unit]:
    """What may stay, the first first: instructions, the newest, then by importance and length."""
    first = max(len(stored) - _CANDIDATES, 0)
    system = [unit for unit in units if stored[unit.places[0]].role == SYSTEM]
    others = [
        unit for unit in units if unit.places[0] >= first and stored[unit.places[0]].role != SYSTEM
    ]
    recent: list[Unit] = []
    left = room * _RECENT
    for unit in reversed(others):
        left -= unit.tokens
        if recent and left < 0:
            break
        recent.append(unit)
    weights = _weights(stored[first:], budget)
    ranked: list[tuple[float, int, Unit]] = []
    for unit in others[: len(others) - len(recent)]:
        weight = max(weights[place - first] for place in unit.places)
        if weight >= budget.importance_threshold:
            ranked.append((weight / max(unit.tokens, 1) ** _LENGTH, unit.places[-1], unit))
    ranked.sort(key=lambda one: one[:2], reverse=True)
    return [*system, *recent, *(unit for _, _, unit in ranked)]


def _weights(stored: Sequence[StoredMessage], budget: ContextBudget) -> list[float]:
    weights = [
        float(weight)
        for weight in budget.scorer([one.message for one in stored], budget.categories)
    ]
    if len(weights) != len(stored) or not all(0 <= weight <= 1 for weight in weights):
        raise UsageError(
            "The scorer of a ContextBudget returns a number from 0 to 1 for each message"
        )
    return weights
