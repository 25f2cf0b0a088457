"""Watches of Secrets, wherever and as long as the operator may read them.

They make a changed key Secret or a deleted binding noticed at once; the resync notices them too,
later. So a watch of Secrets that fails is no reason to start the operator again: access is granted
per namespace, and goes with the namespace.
"""

from __future__ import annotations

import asyncio
import logging

from memtenant.controller.events import EventSource, Sink, secret_source
from memtenant.controller.watches import Watches
from memtenant.errors import MemtenantError
from memtenant.resources.port import Resources

__all__ = ["SecretWatches"]

_log = logging.getLogger(__name__)

_LOOK_AGAIN = 60.0
"""Seconds between two looks at where access is granted."""


class SecretWatches:
    """Follows where Secrets may be read. ``namespaces`` empty means the whole cluster."""

    def __init__(
        self, resources: Resources, namespaces: tuple[str, ...], watches: Watches, sink: Sink
    ) -> None:
        self._resources = resources
        self._namespaces = namespaces
        self._watches = watches
        self._sink = sink
        self._source: EventSource | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        watched: tuple[str, ...] | None = None
        try:
            while True:
                granted = await self._granted(watched)
                if granted != watched:
                    await self._watch(granted)
                    watched = granted
                await asyncio.sleep(_LOOK_AGAIN)
        finally:
            if self._source is not None:
                self._source.abandon()

    async def _watch(self, granted: tuple[str, ...]) -> None:
        if self._source is not None:
            await self._source.stop()
            self._source = None
        if self._namespaces and not granted:
            return
        self._source = secret_source(self._watches, granted)
        self._source.start(self._sink)

    async def _granted(self, watched: tuple[str, ...] | None) -> tuple[str, ...]:
        """Where access is granted now; what cannot be asked stays as it was."""
        granted = []
        for namespace in self._namespaces:
            try:
                allowed = await self._resources.can_read_secrets(namespace)
            except MemtenantError as error:
                _log.warning("access to Secrets of %s could not be asked: %s", namespace, error)
                allowed = namespace in (watched or ())
            if allowed:
                granted.append(namespace)
            elif watched is None or namespace in watched:
                _log.warning(
                    "Secrets of namespace %s are not watched: the operator may not read them there",
                    namespace,
                )
        return tuple(granted)
