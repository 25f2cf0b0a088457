"""What of a conversation can only stay or go together: a tool call with its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memtenant.memory.messages import TOOL, StoredMessage

__all__ = ["Unit", "units_of"]


@dataclass(slots=True, eq=False)
class Unit:
    """One message, or a message with tool calls and the results that answer them: their places in
    the conversation, and their tokens together.

    dangling: a result whose call is not there, which models refuse.
    """

    places: list[int] = field(default_factory=list)
    tokens: int = 0
    pinned: bool = False
    dangling: bool = False

    def add(self, place: int, one: StoredMessage, tokens: int) -> None:
        """One more message."""
        self.places.append(place)
        self.tokens += tokens
        self.pinned = self.pinned or one.message.pinned


def units_of(messages: Sequence[StoredMessage], tokens: Sequence[int]) -> list[Unit]:
    """The units in the order in which they begin. A call's id belongs to the last call that has it:
    some models begin to count anew in each turn."""
    units: list[Unit] = []
    calls: dict[str, Unit] = {}
    for place, one in enumerate(messages):
        asked = calls.get(one.message.tool_call_id or "") if one.role == TOOL else None
        unit = asked
        if unit is None:
            unit = Unit(dangling=one.role == TOOL)
            units.append(unit)
        unit.add(place, one, tokens[place])
        calls.update((call.id, unit) for call in one.message.tool_calls)
    return units
