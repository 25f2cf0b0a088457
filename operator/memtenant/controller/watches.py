"""The pulse of every watch: when the API server was last heard on it.

A watch that died looks like a quiet one from where the handlers are, because kopf keeps bookmarks
to itself. So the pulse is taken below kopf, where the bytes arrive: the API server sends a
bookmark about once a minute on a watch on which nothing else happens, kopf asks for them, and
each piece of a watch's body that kopf reads counts. No object is made or touched for it, and what
ends the reading ends the pulse: a connection that is half open, a proxy that swallows events,
requests that are refused, a task of kopf's that died. (Answering a request is no pulse: a server
that accepts watches and never sends anything is dead too.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from urllib.parse import unquote

__all__ = ["Watches", "watch_name"]


class Watches:
    """The last time in monotonic seconds that each expected watch brought anything.

    Written by the thread that kopf runs in, read by the health server's: every method is one
    operation on one dict entry.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._vital: set[str] = set()

    def expect(self, names: Iterable[str], *, vital: bool) -> None:
        """From now on these watches must be heard of; the operator cannot do without vital ones."""
        for name in names:
            self._heard[name] = self._clock()
            if vital:
                self._vital.add(name)

    def dismiss(self, names: Iterable[str]) -> None:
        """Nothing is expected of these watches any more."""
        for name in names:
            self._heard.pop(name, None)

    def heard(self, name: str) -> None:
        """The API server sent something on this watch; no news unless it is expected."""
        if name in self._heard:
            self._heard[name] = self._clock()

    def ages(self) -> dict[str, float]:
        """Seconds since each expected watch was heard."""
        now = self._clock()
        return {name: now - heard for name, heard in self._heard.copy().items()}

    def silent(self, longest: float) -> list[str]:
        """The vital watches that were not heard for more than ``longest`` seconds."""
        ages = self.ages()
        return sorted(name for name in self._vital if ages.get(name, 0.0) > longest)


def watch_name(path: str) -> str:
    """What a URL path watches: ``memorytenants``, or ``secrets@support`` within a namespace."""
    parts = unquote(path).strip("/").split("/")
    plural = parts[-1]
    if len(parts) > 3 and parts[-3] == "namespaces":
        return f"{plural}@{parts[-2]}"
    return plural
