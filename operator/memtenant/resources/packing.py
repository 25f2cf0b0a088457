"""How the mirror keeps an object: as JSON bytes, about a sixth of what dicts take, and beside them
what is asked of thousands at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from sys import intern
from typing import Any

from memtenant.resources.port import Declared, Kind, ObjectKey

__all__ = ["Entry", "Sight", "packed", "unpacked"]

_POLICY_REFS = {Kind.TENANT: "retentionPolicyRef", Kind.REPORT: "policyRef"}


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of an object without unpacking it; few differ, so all share them.

    ``told``: its status speaks of some generation; ``current``: of this one. ``ready`` is the
    status of its condition Ready, Unknown where it has none.
    """

    deleting: bool
    told: bool
    current: bool
    ready: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One object, packed. ``identity`` is a hash of all but status, finalizers and
    resourceVersion; the spec is in it by its generation.
    """

    version: int
    identity: int
    finalizers: tuple[str, ...]
    sight: Sight
    policy: str | None
    stores: tuple[str, ...]
    placed: bool
    secrets: frozenset[str]
    packed: bytes
    status: bytes

    def is_news_after(self, known: Entry | None) -> bool:
        """Whether the object has to be looked at again. A status is no news, nor is one finalizer
        more: whoever added it knows, and we see our own before the answer to our request.
        """
        if known is None or known.identity != self.identity:
            return True
        return not set(known.finalizers) <= set(self.finalizers)


def packed(declared: Declared) -> Entry:
    """The object as it is kept."""
    identity = [
        declared.uid,
        declared.generation,
        declared.creation_timestamp.isoformat(),
        declared.deletion_timestamp.isoformat() if declared.deletion_timestamp else None,
        declared.labels,
        declared.annotations,
        declared.spec,
    ]
    body, status = _dumped(identity), _dumped(declared.status)
    is_tenant = declared.key.kind is Kind.TENANT
    # A report is its status: nothing else of it ever changes.
    told = status if declared.key.kind is Kind.REPORT else b""
    return Entry(
        version=int(declared.resource_version),
        identity=hash(body + told),
        finalizers=_shared(declared.finalizers),
        sight=_sight_of(declared),
        policy=_name(declared.spec.get(_POLICY_REFS.get(declared.key.kind, ""))),
        stores=_stores(declared) if is_tenant else (),
        placed=bool(declared.status.get("store")),
        secrets=frozenset(_secret_names(declared.spec)),
        packed=body,
        status=status,
    )


def unpacked(key: ObjectKey, entry: Entry) -> Declared:
    """The object as it was."""
    uid, generation, created, deleted, labels, annotations, spec = json.loads(entry.packed)
    return Declared(
        key=key,
        uid=uid,
        resource_version=str(entry.version),
        generation=generation,
        creation_timestamp=datetime.fromisoformat(created),
        deletion_timestamp=datetime.fromisoformat(deleted) if deleted else None,
        labels=labels,
        annotations=annotations,
        finalizers=entry.finalizers,
        spec=spec,
        status=json.loads(entry.status),
    )


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _stores(tenant: Declared) -> tuple[str, ...]:
    """The store that the spec asks for and the one that the status says it has."""
    asked = _name(tenant.spec.get("storeRef"))
    placed = _text(tenant.status.get("store"))
    return tuple(sorted({name for name in (asked, placed) if name}))


def _sight_of(declared: Declared) -> Sight:
    observed = declared.status.get("observedGeneration")
    conditions = declared.status.get("conditions")
    ready = "Unknown"
    for one in conditions if isinstance(conditions, list) else ():
        if isinstance(one, Mapping) and one.get("type") == "Ready":
            ready = str(one.get("status"))
    return _sight(declared.deleting, observed is not None, observed == declared.generation, ready)


@lru_cache(maxsize=64)
def _sight(deleting: bool, told: bool, current: bool, ready: str) -> Sight:
    return Sight(deleting, told, current, ready)


@lru_cache(maxsize=64)
def _shared(finalizers: tuple[str, ...]) -> tuple[str, ...]:
    return finalizers


def _secret_names(spec: Mapping[str, Any]) -> Iterator[str]:
    """The names under every ``…SecretRef`` of a spec, at any depth."""
    for field, value in spec.items():
        if not isinstance(value, Mapping):
            continue
        if field.endswith("SecretRef"):
            yield str(value.get("name"))
        else:
            yield from _secret_names(value)


def _name(reference: Any) -> str | None:
    return _text(reference.get("name")) if isinstance(reference, Mapping) else None


def _text(value: Any) -> str | None:
    return intern(value) if isinstance(value, str) and value else None
