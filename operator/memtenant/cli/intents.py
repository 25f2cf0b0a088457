"""What is to be declared, from manifests and the local server; ``plan`` and ``apply`` share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from memtenant.api.validate import defaulted, require_valid
from memtenant.cli import output, server
from memtenant.cli.inputs import Given, Manifest
from memtenant.cli.server import LOCAL_SECRET, LOCAL_STORE, STAND_IN, Server
from memtenant.clock import system_clock
from memtenant.errors import InvalidResource, UsageError
from memtenant.reconcile.prepare import ROTATE_ANNOTATION, ROTATE_KEYS_ANNOTATION
from memtenant.resources.port import (
    API_VERSION,
    Declared,
    Kind,
    ObjectKey,
    Resources,
    StoredSecret,
)

__all__ = ["Intent", "Intents", "SecretIntent", "cluster_intents", "local_intents"]


@dataclass(frozen=True, slots=True)
class Intent:
    """One object as it shall be declared, with defaults filled in."""

    key: ObjectKey
    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def laid_over(self, now: Declared | None) -> Declared:
        """The object as it would be once it is declared: what stands there of labels and
        annotations stays, as on an API server."""
        if now is None:
            return Declared(
                key=self.key,
                uid=str(uuid4()),
                resource_version="1",
                generation=1,
                creation_timestamp=system_clock.now(),
                labels=self.labels,
                annotations=self.annotations,
                spec=self.spec,
            )
        return replace(
            now,
            generation=now.generation + 1,
            labels={**now.labels, **self.labels},
            annotations={**now.annotations, **self.annotations},
            spec=self.spec,
        )


@dataclass(frozen=True, slots=True)
class SecretIntent:
    """One Secret that a person declares."""

    namespace: str
    name: str
    data: Mapping[str, bytes] = field(repr=False)
    type: str = "Opaque"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def as_stored(self) -> StoredSecret:
        """As it would be read once it is declared."""
        return StoredSecret(
            namespace=self.namespace,
            name=self.name,
            uid=str(uuid4()),
            resource_version="0",
            labels=self.labels,
            annotations=self.annotations,
            type=self.type,
            data=self.data,
        )


@dataclass(frozen=True, slots=True)
class Intents:
    """All that one command declares."""

    objects: tuple[Intent, ...]
    secrets: tuple[SecretIntent, ...]


def cluster_intents(given: Given) -> Intents:
    """The manifests as an API server would store them."""
    return Intents(tuple(_intent(manifest) for manifest in given.objects), ())


async def local_intents(
    given: Given, resources: Resources, state: Path, redis: Server | None, *, create: bool = True
) -> Intents:
    """The manifests, with the local server where it stands in (`memtenant.cli.server`).

    Starts the embedded server where one is needed and ``redis`` names none. ``create``: declare
    the MemoryStore `LOCAL_STORE` where there is none.
    """
    before = {declared.key: declared for kind in Kind for declared in await resources.list(kind)}
    intents = {manifest.key: _intent(manifest, before) for manifest in given.objects}
    secrets = [
        SecretIntent(one.namespace, one.name, one.data, one.type, one.labels, one.annotations)
        for one in given.secrets
    ]
    standing = await _stand_ins(intents, before, secrets, resources)
    stores = {key.name for key in (*intents, *before) if key.kind is Kind.STORE}
    if not stores and create:
        key = ObjectKey.store(LOCAL_STORE)
        standing[key] = Intent(key, {"default": True})
    if not standing:
        if redis is not None and stores:
            raise UsageError(
                "--redis says where the MemoryStores are whose admin Secret is not at hand, and "
                f"{', '.join(sorted(stores))} have theirs: leave --redis out"
            )
        return Intents(tuple(intents.values()), tuple(secrets))
    local = redis or await _known_server(standing, before, resources)
    if local is None:
        local, started = await server.embedded_server(state)
        if started:
            output.note(f"Started the embedded Valkey of {state} on {local.endpoint}")
    _check_move(standing, before, local)
    for key, intent in standing.items():
        intents[key] = _stood_in(intent, local)
    secrets.append(SecretIntent(resources.home, LOCAL_SECRET, local.secret_data()))
    return Intents(tuple(intents.values()), tuple(secrets))


def _intent(manifest: Manifest, before: Mapping[ObjectKey, Declared] | None = None) -> Intent:
    stored = defaulted(manifest.raw)
    metadata = stored["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    now = (before or {}).get(manifest.key)
    for name in (ROTATE_ANNOTATION, ROTATE_KEYS_ANNOTATION):
        if now is not None and name in now.annotations:
            # Set by `memtenant rotate`; a manifest that does not speak of it does not take it back.
            annotations.setdefault(name, now.annotations[name])
    return Intent(
        manifest.key, stored.get("spec") or {}, dict(metadata.get("labels") or {}), annotations
    )


async def _stand_ins(
    intents: Mapping[ObjectKey, Intent],
    before: Mapping[ObjectKey, Declared],
    secrets: Iterable[SecretIntent],
    resources: Resources,
) -> dict[ObjectKey, Intent]:
    """The MemoryStores that the local server stands in for, of this run and of earlier ones."""
    at_hand = {one.name for one in secrets if one.namespace == resources.home}
    found: dict[ObjectKey, Intent] = {}
    for key, intent in intents.items():
        if key.kind is not Kind.STORE:
            continue
        if "dedicated" in intent.spec:
            continue  # no server to stand in for: each of its tenants gets one
        name = intent.spec["adminSecretRef"]["name"]
        if name in at_hand:
            continue
        if name == LOCAL_SECRET or await resources.get_secret(resources.home, name) is None:
            found[key] = intent
    for key, declared in before.items():
        if key not in intents and STAND_IN in declared.annotations and not declared.deleting:
            found[key] = Intent(key, declared.spec, declared.labels, declared.annotations)
    return found


async def _known_server(
    standing: Iterable[ObjectKey], before: Mapping[ObjectKey, Declared], resources: Resources
) -> Server | None:
    """The server that ``--redis`` named in an earlier run."""
    secret = await resources.get_secret(resources.home, LOCAL_SECRET)
    for key in standing:
        declared = before.get(key)
        if declared and secret and declared.annotations.get(STAND_IN) == "given":
            return server.stored_server(declared, secret.data)
    return None


def _check_move(
    standing: Iterable[ObjectKey], before: Mapping[ObjectKey, Declared], local: Server
) -> None:
    """Tenants do not follow when another server stands in for theirs."""
    placed = {declared.status.get("store") for declared in before.values()}
    for key in standing:
        declared = before.get(key)
        if declared is None or STAND_IN not in declared.annotations or key.name not in placed:
            continue
        there = declared.spec["standalone"]["endpoint"]
        was_embedded = declared.annotations[STAND_IN] == "embedded"
        if was_embedded and local.embedded:
            continue
        if there != local.endpoint or was_embedded or local.embedded:
            raise UsageError(
                f"the memory of the tenants on {key} is on "
                f"{'the embedded Valkey' if was_embedded else there}: delete them first, or use "
                "another state folder (--state) for the other server"
            )


def _stood_in(intent: Intent, local: Server) -> Intent:
    annotations = {**intent.annotations, STAND_IN: "embedded" if local.embedded else "given"}
    raw = {
        "apiVersion": API_VERSION,
        "kind": Kind.STORE.value,
        "metadata": {"name": intent.key.name},
        "spec": server.stood_in(intent.spec, local),
    }
    try:
        require_valid(raw)
    except InvalidResource as error:
        raise UsageError(f"--redis cannot be used: {error}") from None
    return Intent(intent.key, defaulted(raw)["spec"], intent.labels, annotations)
