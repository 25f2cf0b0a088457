"""From an event to the mirror, and from there to the queue.

A status-only event enqueues nothing (the mirror sees to it), and an object that cannot be read is
logged and left: it never stops the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from memtenant.controller.events import NAMESPACES, SECRETS, Seen
from memtenant.controller.metrics import Metrics
from memtenant.controller.schedule import Schedule
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import (
    FIELD_MANAGER,
    MANAGED_BY_LABEL,
    MANAGED_BY_VALUE,
    Kind,
    ObjectKey,
)
from memtenant.rules.instance import INSTANCE_COMPONENT, INSTANCE_LABEL
from memtenant.rules.record import (
    LABEL_NAME,
    LABEL_NAMESPACE,
    LABEL_PHASE,
    RECORD_LABEL,
    recorded_tenant,
)

__all__ = ["Handlers"]

_log = logging.getLogger(__name__)

_KINDS = {kind.plural: kind for kind in Kind}


class Handlers:
    """The sink of all event sources. ``home`` is the namespace that stores' Secrets are in;
    ``changed`` is told of each Secret, of whomever.
    """

    def __init__(
        self,
        mirror: Mirror,
        metrics: Metrics,
        *,
        home: str,
        changed: Callable[[str, str], None] = lambda _namespace, _name: None,
    ) -> None:
        self._mirror = mirror
        self._changed = changed
        self._metrics = metrics
        self._home = home
        self._schedule: Schedule | None = None

    def lead(self, schedule: Schedule) -> None:
        """From now on have looked at what changes: a standby only takes note of it."""
        self._schedule = schedule

    def seen(self, event: Seen) -> None:
        """Take one event in."""
        try:
            keys = self._affected(event)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            _log.warning(
                "an object among the %s cannot be read and is left alone (%s)",
                event.plural,
                type(error).__name__,
            )
            self._metrics.unreadable(event.plural)
            return
        if self._schedule is not None:
            self._schedule.now(keys)

    def _affected(self, event: Seen) -> Iterable[ObjectKey]:
        if event.plural == SECRETS:
            return self._of_secret(event)
        if event.plural == NAMESPACES:
            return self._mirror.observe_namespace(event.type, event.raw)
        return self._mirror.observe(_KINDS[event.plural], event.type, event.raw)

    def _of_secret(self, event: Seen) -> set[ObjectKey]:
        """Whom a change of a Secret concerns. What the first list finds is no change."""
        if event.type is None:
            return set()
        metadata = event.raw["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        self._changed(namespace, name)
        labels: Mapping[str, str] = metadata.get("labels") or {}
        recorded = self._recorded_by(namespace, name, gone=event.type == "DELETED")
        if labels.get(MANAGED_BY_LABEL) == MANAGED_BY_VALUE:
            # Each Secret that we write is seen here too: only what others did to it needs a look.
            # Who took a label away is none of its managers.
            if event.type != "DELETED" and not _edited_by_others(metadata):
                return set() if labels.keys() >= {RECORD_LABEL, LABEL_PHASE} else recorded
            instance = self._instance_of(namespace, labels)
            return self._bound_by(namespace, name) | recorded | instance
        stores = self._mirror.referring("", name) if namespace == self._home else frozenset()
        # It may be a binding that lost its labels, or a Secret that stood in the place of one.
        named = self._bound_by(namespace, name) | recorded
        return {*self._mirror.referring(namespace, name), *stores, *named}

    def _bound_by(self, namespace: str, secret: str) -> set[ObjectKey]:
        """The tenants that a binding Secret ``<tenant>-<agent>`` can belong to, by name alone."""
        ends = (at for at, letter in enumerate(secret) if letter == "-" and at)
        named = (ObjectKey.tenant(namespace, secret[:end]) for end in ends)
        return {key for key in named if self._mirror.sight(key) is not None}

    def _instance_of(self, namespace: str, labels: Mapping[str, str]) -> set[ObjectKey]:
        """The tenant whose instance's Secret it is by its labels."""
        if namespace != self._home or labels.get(INSTANCE_LABEL) != INSTANCE_COMPONENT:
            return set()
        key = ObjectKey.tenant(labels.get(LABEL_NAMESPACE, ""), labels.get(LABEL_NAME, ""))
        return {key} if self._mirror.sight(key) is not None else set()

    def _recorded_by(self, namespace: str, secret: str, *, gone: bool) -> set[ObjectKey]:
        """The tenant whose record a Secret is by its name. Of one that is not declared the look at
        its store sees to the record, which alone says which store that is."""
        tenant = recorded_tenant(secret) if namespace == self._home else None
        if tenant is None:
            return set()
        key = ObjectKey.tenant(tenant.namespace, tenant.name)
        if self._mirror.sight(key) is not None:
            return {key}
        return set() if gone else set(self._mirror.keys(Kind.STORE))


def _edited_by_others(metadata: Mapping[str, Any]) -> bool:
    """Whether somebody else wrote a field of it that still stands."""
    return any(
        entry.get("manager") != FIELD_MANAGER for entry in metadata.get("managedFields") or ()
    )
