"""Which Events are worth writing: the same words about the same object, once in ten minutes."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

from memtenant.clock import Clock
from memtenant.resources.port import Declared

__all__ = ["LONGEST_NOTE", "EventGate", "event_name"]

LONGEST_NOTE = 1024
"""Characters of an Event's note that the API server takes."""

_QUIET_SECONDS = 600.0
_REMEMBERED = 20_000


class EventGate:
    """Remembers what was said lately; bounded, so that a storm of Events costs no memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: OrderedDict[bytes, float] = OrderedDict()

    def admit(self, declared: Declared, reason: str, message: str) -> bool:
        """Whether these words were not said about this object in the last ten minutes."""
        now = self._clock.monotonic()
        words = _digest(declared, reason, message)
        said = self._said.get(words)
        if said is not None and now - said < _QUIET_SECONDS:
            return False
        self._said[words] = now
        self._said.move_to_end(words)
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return True


def event_name(declared: Declared, reason: str, message: str, now_seconds: float) -> str:
    """The Event's name: equal for equal words within ten minutes, also from another replica."""
    period = int(now_seconds // _QUIET_SECONDS)
    return f"{declared.key.name}.{_digest(declared, reason, message).hex()[:16]}{period:x}"


def _digest(declared: Declared, reason: str, message: str) -> bytes:
    return sha256("\0".join((declared.uid, reason, message)).encode()).digest()
