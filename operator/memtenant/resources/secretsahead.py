"""Secrets that a list brought before they were asked for: for a first look at thousands of tenants.

At a start every tenant's record and bindings are read. A request for each of them costs the API
server and the operator more than everything else about a tenant with which nothing is to be done;
a page of a list brings hundreds. So lists run a little ahead of the reconciles, in the order in
which these are made, and each Secret is handed out once: a second look reads for itself. What lies
here for long, or was seen to change, is not handed out; and whoever writes on the strength of it
writes guarded by its resourceVersion, as ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass

from memtenant.clock import Clock, system_clock
from memtenant.errors import MemtenantError
from memtenant.resources.port import Resources, StoredSecret

__all__ = ["Pages", "SecretsAhead"]

_log = logging.getLogger(__name__)

_AHEAD = 300
"""Secrets of one list that may lie here before its next page is read."""

_LONGEST = 20.0
"""Seconds after which a Secret that nobody asked for is not handed out any more."""

_LOOK_AGAIN = 1.0

Pages = Callable[[str, Mapping[str, str]], AsyncIterator[tuple[StoredSecret, ...]]]
"""The Secrets of a namespace that carry all of the labels, page by page, in the order of names."""

_Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Found:
    secret: StoredSecret
    until: float
    by: str


class SecretsAhead:
    """What the lists brought and nobody has asked for yet, of ``resources``."""

    def __init__(self, resources: Resources, *, clock: Clock = system_clock) -> None:
        self._resources = resources
        self._clock = clock
        self._found: dict[_Place, _Found] = {}
        self._waiting: Counter[str] = Counter()
        self._taken = asyncio.Event()

    async def get(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret, as a list brought it a moment ago or as it is now; or None."""
        found = self._pop((namespace, name))
        if found is not None and self._clock.monotonic() < found.until:
            return found.secret
        return await self._resources.get_secret(namespace, name)

    def changed(self, namespace: str, name: str) -> None:
        """The Secret is not what it was."""
        self._pop((namespace, name))

    async def run(
        self, pages: Pages, whose: str, lists: Iterable[tuple[str, Mapping[str, str]]]
    ) -> None:
        """Read these lists, each of a namespace and by labels, one after the other. One that may
        not be made costs nothing but the requests that it would have spared. ``whose`` tells one
        run from another.
        """
        for namespace, labels in lists:
            try:
                async for page in pages(namespace, labels):
                    until = self._clock.monotonic() + _LONGEST
                    for secret in page:
                        self.changed(namespace, secret.name)
                        self._found[namespace, secret.name] = _Found(secret, until, whose)
                    self._waiting[whose] += len(page)
                    await self._used_up(whose)
            except MemtenantError as error:
                _log.info("Secrets of %s are read one by one: %s", namespace, error)
        await asyncio.sleep(_LONGEST)
        self._forget_old()

    async def _used_up(self, whose: str) -> None:
        while self._waiting[whose] > _AHEAD:
            self._taken.clear()
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._taken.wait()
            except TimeoutError:
                self._forget_old()

    def _pop(self, place: _Place) -> _Found | None:
        found = self._found.pop(place, None)
        if found is not None:
            self._waiting[found.by] -= 1
            self._taken.set()
        return found

    def _forget_old(self) -> None:
        now = self._clock.monotonic()
        for place in [place for place, found in self._found.items() if found.until <= now]:
            self._pop(place)
