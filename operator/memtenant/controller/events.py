"""kopf as the source of events, and as nothing else.

Every handler is a low-level `on.event` that hands the object on. There is no `on.delete`, timer
or daemon, so kopf adds no finalizer, keeps no progress and writes nothing (measured: 0 API writes
for 1,200 objects, against two each and 0.3 MB of memory).

kopf runs in a thread and an event loop of its own. When it ends, it cancels every task of its event
loop that is younger than itself: in the same loop it would take running reconciles along. And one
watch that fails for good ends all of kopf, or worse: the other watches, which wait for a login that
does not come any more, swallow their cancellation, and kopf hangs for ever (measured on 1.45.2 with
an ERROR event of 500). So refused and unanswered requests are repeated without end, and an operator
that begins to end is given a few seconds, left behind with its event loop, and replaced.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, ClassVar

import kopf
from kopf._cogs.structs.bodies import RawBody
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from memtenant.controller.backoff import Backoff
from memtenant.controller.login import session_for
from memtenant.controller.watches import Watches
from memtenant.resources.port import GROUP, VERSION, Kind

__all__ = [
    "NAMESPACES",
    "SECRETS",
    "EventSource",
    "HandOver",
    "Seen",
    "Sink",
    "cluster_source",
    "secret_source",
]

NAMESPACES = "namespaces"
SECRETS = "secrets"

_log = logging.getLogger(__name__)

_FIRST_RESTART = 1.0
_LONGEST_RESTART = 30.0
_RAN_WELL = 60.0
_FAREWELL = 5.0
"""Seconds for a kopf operator to end after it began to."""

_HANDED_ON_AT_ONCE = 50
"""Events that are handed on before the event loop of the workers does something else."""

_REQUEST_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)
_LONGEST_REQUEST_DELAY = 15.0


class _Backoffs:
    """Seconds between the tries of one request of kopf's, with jitter and without end."""

    def __iter__(self) -> Iterator[float]:
        for whole in chain(_REQUEST_DELAYS, repeat(_LONGEST_REQUEST_DELAY)):
            yield whole * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load, hides nothing


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as it came.

    ``plural`` names the resource, ``type`` is ADDED, MODIFIED, DELETED, or None for what a list
    found, and ``raw`` is the object's JSON: of namespaces and Secrets the metadata alone.
    """

    plural: str
    type: str | None
    raw: Mapping[str, Any]


Sink = Callable[[Seen], None]


class HandOver:
    """From kopf's thread to the event loop of ``sink``, in order.

    To wake that loop is a system call, and a wait for the interpreter's lock: it is made for as
    many events as have come until then.
    """

    def __init__(self, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._sink = sink
        self._loop = loop
        self._events: deque[Seen] = deque()
        self._announced = False

    def put(self, event: Seen) -> None:
        """Called in kopf's thread."""
        self._events.append(event)
        if not self._announced:
            self._announced = True
            self._loop.call_soon_threadsafe(self._hand_on)

    def _hand_on(self) -> None:
        self._announced = False  # first: what comes from here on is announced again
        for _ in range(_HANDED_ON_AT_ONCE):
            if not self._events:
                return
            self._sink(self._events.popleft())
        self._loop.call_soon(self._hand_on)


class EventSource:
    """One kopf operator in a thread of its own, started again whenever it ends by itself.

    ``sink`` is called in the event loop that called `start`, one event after the other.
    """

    def __init__(
        self,
        name: str,
        resources: Iterable[tuple[str, str, str]],
        *,
        namespaces: tuple[str, ...],
        watches: Watches,
        expected: Iterable[str],
        vital: bool,
    ) -> None:
        self._name = name
        self._resources = tuple(resources)
        self._namespaces = namespaces
        self._watches = watches
        self._expected = tuple(expected)
        self._vital = vital
        self._thread: threading.Thread | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = threading.Event()
        self._listed: dict[str, str] = {}

    def start(self, sink: Sink, listed: Mapping[str, str] | None = None) -> None:
        """Begin to watch. From now on each watch must be heard of.

        ``listed`` are the resourceVersions of lists that were made already, by plural: of these
        resources only what came later is seen.
        """
        loop = asyncio.get_running_loop()
        self._listed = dict(listed or {})
        self._watches.expect(self._expected, vital=self._vital)
        self._thread = threading.Thread(
            target=self._run,
            args=(HandOver(sink, loop),),
            name=f"kopf-{self._name}",
            daemon=True,
        )
        self._thread.start()

    def alive(self) -> bool:
        """Whether the thread that keeps kopf running is there."""
        return self._thread is not None and self._thread.is_alive()

    async def stop(self) -> None:
        """End the watches and wait until their thread has ended."""
        self._watches.dismiss(self._expected)
        self.abandon()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def abandon(self) -> None:
        """End the watches without waiting."""
        self._stopping.set()
        own_loop, stop = self._own_loop, self._stop
        if own_loop is not None and stop is not None and not own_loop.is_closed():
            own_loop.call_soon_threadsafe(stop.set)

    def _run(self, events: HandOver) -> None:
        backoff: Backoff[str] = Backoff(first=_FIRST_RESTART, longest=_LONGEST_RESTART)
        while not self._stopping.is_set():
            started = time.monotonic()
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(self._operate(events))
            except Exception as error:  # noqa: BLE001 -- whatever ended it, it is started again
                if not self._stopping.is_set():
                    _log.warning(
                        "the watches of %s ended (%s: %s) and will be started again",
                        self._name,
                        type(error).__name__,
                        error,
                    )
            finally:
                _leave(loop)
            if time.monotonic() - started > _RAN_WELL:
                backoff.forget(self._name)
            self._stopping.wait(backoff.failed(self._name))

    async def _operate(self, events: HandOver) -> None:
        """One life of a kopf operator."""
        self._stop = asyncio.Event()
        self._own_loop = asyncio.get_running_loop()
        if self._stopping.is_set():
            return
        ending = asyncio.Event()
        begins_to_end = asyncio.create_task(ending.wait())
        operator = asyncio.create_task(
            kopf.operator(
                registry=self._registry(events, ending),
                settings=_settings(),
                memories=_NoMemories(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._stop,
            )
        )
        await asyncio.wait({operator, begins_to_end}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({operator}, timeout=_FAREWELL)
        begins_to_end.cancel()
        if not operator.done():
            raise TimeoutError("kopf did not end in time")
        await operator

    def _registry(self, events: HandOver, ending: asyncio.Event) -> kopf.OperatorRegistry:
        async def end(**_: Any) -> None:
            ending.set()

        registry = kopf.OperatorRegistry()
        kopf.on.cleanup(registry=registry)(end)
        needed: defaultdict[str, set[str]] = defaultdict(set)
        for group, version, plural in self._resources:
            if group:
                needed[f"{group}/{version}"].add(plural)
        login = session_for(
            self._watches,
            {name: frozenset(all_) for name, all_ in needed.items()},
            self._listed,
        )
        kopf.on.login(registry=registry)(login)
        for group, version, plural in self._resources:
            kopf.on.event(group, version, plural, registry=registry)(_handler(plural, events))
        return registry


def _handler(plural: str, events: HandOver) -> Callable[..., Any]:
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        events.put(Seen(plural, event["type"], event["object"]))

    return seen


def cluster_source(watches: Watches) -> EventSource:
    """The watches that the operator cannot do without: its own kinds, and namespaces."""
    own = [(GROUP, VERSION, kind.plural) for kind in Kind]
    return EventSource(
        "declared objects",
        [*own, ("", "v1", NAMESPACES)],
        namespaces=(),
        watches=watches,
        expected=[*(kind.plural for kind in Kind), NAMESPACES],
        vital=True,
    )


def secret_source(watches: Watches, namespaces: tuple[str, ...]) -> EventSource:
    """Watches of Secrets in ``namespaces`` (none: in the whole cluster)."""
    names = [f"{SECRETS}@{namespace}" for namespace in namespaces] or [SECRETS]
    return EventSource(
        "Secrets",
        [("", "v1", SECRETS)],
        namespaces=namespaces,
        watches=watches,
        expected=names,
        vital=False,
    )


def _leave(loop: asyncio.AbstractEventLoop) -> None:
    """Close an event loop, whatever in it does not heed its cancellation."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    # What is still there would be mourned in the log when its memory is freed.
    loop.set_exception_handler(lambda _, context: _log.debug("left behind: %s", context))
    loop.close()


class _NothingRemembered(kopf.DiffBaseStorage):
    """kopf compares what it handled last with what it sees; with `on.event` alone nobody asks.

    The default would copy every object twice an event for it.
    """

    _NOTHING: ClassVar[kopf.BodyEssence] = kopf.BodyEssence()

    def build(self, **_: Any) -> kopf.BodyEssence:
        return self._NOTHING

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoMemories(ResourceMemories):
    """kopf keeps some kilobytes for each object that it has ever seen, until that is deleted; with
    `on.event` alone nothing is in them.
    """

    async def recall(
        self,
        raw_body: RawBody,
        *,
        memobase: Any = None,
        noticed_by_listing: bool = False,
        ephemeral: bool = False,
    ) -> ResourceMemory:
        return await super().recall(
            raw_body, memobase=memobase, noticed_by_listing=noticed_by_listing, ephemeral=True
        )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # Nothing of kopf's is ever written on an object. Should that change by accident, it is under
    # names of our own, and none of them is the finalizer that the reconcile sets.
    settings.persistence.finalizer = f"{GROUP}/kopf-never-used"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(
        prefix=f"kopf.{GROUP}", v1=False
    )
    settings.persistence.diffbase_storage = _NothingRemembered()
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.chunk_size = 500
    settings.queueing.worker_limit = None
    settings.queueing.exit_timeout = 5
    settings.posting.enabled = False
    settings.posting.level = logging.WARNING
    settings.execution.default_backoff = 15
    settings.process.ultimate_exiting_timeout = None
    # Without it kopf wants to list and watch all CustomResourceDefinitions.
    settings.scanning.disabled = True
    return settings
