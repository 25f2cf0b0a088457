"""Events of a cluster: what a person sees who describes a declared object."""

from __future__ import annotations

import logging

from memtenant.clock import Clock
from memtenant.errors import MemtenantError, ResourceConflict
from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import Connection
from memtenant.resources.eventgate import LONGEST_NOTE, EventGate, event_name
from memtenant.resources.port import API_VERSION, GROUP, Declared, EventType

__all__ = ["ClusterEvents"]

_EVENT = APIKind("Event", "events.k8s.io/v1", "events")
_log = logging.getLogger(__name__)


class ClusterEvents:
    """Those that one replica writes, which ``instance`` names."""

    def __init__(self, connection: Connection, *, instance: str, clock: Clock) -> None:
        self._connection = connection
        self._instance = instance
        self._clock = clock
        self._gate = EventGate(clock)

    async def emit(
        self, declared: Declared, event_type: EventType, reason: str, message: str
    ) -> None:
        """Write an Event, once; another replica's equal one (409) serves as well."""
        if not self._gate.admit(declared, reason, message):
            return
        now = self._clock.now()
        # Events about cluster-scoped objects live in "default": the API server insists on it.
        namespace = declared.key.namespace or "default"
        event = {
            "apiVersion": _EVENT.version,
            "kind": _EVENT.name,
            "metadata": {
                "name": event_name(declared, reason, message, now.timestamp()),
                "namespace": namespace,
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": event_type.value,
            "reason": reason,
            "action": "Reconcile",
            "note": message[:LONGEST_NOTE],
            "reportingController": GROUP,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": declared.key.kind.value,
                "name": declared.key.name,
                "namespace": declared.key.namespace,
                "uid": declared.uid,
                "resourceVersion": declared.resource_version,
            },
        }
        try:
            await Collection(self._connection, _EVENT, namespace).create(event)
        except ResourceConflict:
            _log.debug("said already: %s of %s", reason, declared.key)
        except MemtenantError as error:
            _log.warning("Event %s about %s was not written: %s", reason, declared.key, error)
