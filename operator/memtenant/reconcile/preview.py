"""What a reconcile would do, without doing it: the same `prepare`, over a port that writes nothing.

The new declarations are laid over what is there; Secrets that a first reconcile would make are
made in memory only. Stores are asked and not changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from memtenant.clock import Clock, system_clock
from memtenant.errors import InvalidResource, MemtenantError, ResourceConflict
from memtenant.jobs.measure import measure
from memtenant.reconcile.instance import InstanceNeeded, look_at_instance
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.prepare import Prepared, prepare
from memtenant.reconcile.store import look_at_store, store_specs
from memtenant.reconcile.world import InstanceHost, Timing, World, mint_password
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import (
    Declared,
    EventType,
    Kind,
    Listing,
    NamespaceInfo,
    ObjectKey,
    Resources,
    SecretDraft,
    StoredSecret,
)

__all__ = ["Expected", "PreviewResources", "expect", "preview_world"]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a reconcile of the object would do, in words and in order; ``problem`` is why it could
    not be as declared, or why that cannot be told."""

    key: ObjectKey
    actions: tuple[str, ...] = ()
    problem: str = ""


class PreviewResources(Resources):
    """Reads come from ``base``, with Secrets laid over it; no write leaves the process."""

    def __init__(self, base: Resources, secrets: Iterable[StoredSecret] = ()) -> None:
        self._base = base
        self._secrets = {(secret.namespace, secret.name): secret for secret in secrets}

    @property
    def home(self) -> str:
        """The base's."""
        return self._base.home

    @property
    def cron_jobs(self) -> None:
        """None: a plan changes nothing."""
        return None

    async def list(self, kind: Kind) -> Listing[Declared]:
        """The base's."""
        return await self._base.list(kind)

    async def get(self, key: ObjectKey) -> Declared | None:
        """The base's."""
        return await self._base.get(key)

    async def add_finalizer(self, declared: Declared, finalizer: str) -> Declared:
        """Refused."""
        raise _refused(f"a finalizer on {declared.key}")

    async def remove_finalizer(self, declared: Declared, finalizer: str) -> None:
        """Refused."""
        raise _refused(f"the finalizers of {declared.key}")

    async def write_status(self, declared: Declared, status: Mapping[str, Any]) -> str:
        """Refused."""
        raise _refused(f"the status of {declared.key}")

    async def get_secret(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret that is laid over, else the base's."""
        found = self._secrets.get((namespace, name))
        return found or await self._base.get_secret(namespace, name)

    async def create_secret(self, draft: SecretDraft) -> StoredSecret:
        """Made in memory only: the installation's root, before there is one."""
        stored = StoredSecret(
            namespace=draft.namespace,
            name=draft.name,
            uid=str(uuid4()),
            resource_version="0",
            labels=draft.all_labels,
            annotations=dict(draft.annotations),
            type=draft.type,
            data=dict(draft.data),
        )
        self._secrets[draft.namespace, draft.name] = stored
        return stored

    async def replace_secret(self, stored: StoredSecret, data: Mapping[str, bytes]) -> StoredSecret:
        """Refused."""
        raise _refused(f"Secret {stored.namespace}/{stored.name}")

    async def apply_secret(
        self, draft: SecretDraft, *, current: StoredSecret | None
    ) -> StoredSecret:
        """Refused."""
        raise _refused(f"Secret {draft.namespace}/{draft.name}")

    async def delete_secret(self, stored: StoredSecret) -> None:
        """Refused."""
        raise _refused(f"Secret {stored.namespace}/{stored.name}")

    async def list_secrets(
        self, namespace: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The base's: what is laid over has no label that anything is found by."""
        return await self._base.list_secrets(namespace, labels)

    async def list_secrets_lacking(
        self, namespace: str, label: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The base's: nothing that is laid over lost a label."""
        return await self._base.list_secrets_lacking(namespace, label, labels)

    async def can_read_secrets(self, namespace: str) -> bool:
        """The base's."""
        return await self._base.can_read_secrets(namespace)

    async def list_namespaces(self) -> Listing[NamespaceInfo]:
        """The base's."""
        return await self._base.list_namespaces()

    async def get_namespace(self, name: str) -> NamespaceInfo | None:
        """The base's."""
        return await self._base.get_namespace(name)

    async def emit_event(
        self, declared: Declared, event_type: EventType, reason: str, message: str
    ) -> None:
        """Nothing happened, so nothing is told."""


def _refused(what: str) -> ResourceConflict:
    return ResourceConflict(f"a plan writes nothing, not {what} either")


@asynccontextmanager
async def preview_world(
    resources: PreviewResources,
    declared: Iterable[Declared],
    *,
    installation: str,
    timing: Timing,
    clock: Clock = system_clock,
    instances: InstanceHost | None = None,
) -> AsyncIterator[World]:
    """A world of what is there with ``declared`` laid over it."""
    world = World(
        resources=resources,
        mirror=Mirror(),
        installation=installation,
        fence=_no_term,
        clock=clock,
        timing=timing,
        instances=instances,
    )
    try:
        world.mirror.replace_namespaces(await resources.list_namespaces())
        over = {one.key: one for one in declared}
        for kind in Kind:
            there = await resources.list(kind)
            kept = [one for one in there if one.key not in over]
            laid = [one for one in over.values() if one.key.kind is kind]
            world.mirror.replace(kind, Listing((*kept, *laid), there.resource_version))
        yield world
    finally:
        await world.close()


def _no_term() -> int:
    raise ResourceConflict("a plan writes nothing to a store")


async def expect(world: World, keys: Iterable[ObjectKey]) -> list[Expected]:
    """What a reconcile of each object would do, stores before tenants."""
    problems = await _look_at_stores(world)
    found = []
    for key in sorted(keys):
        declared = world.mirror.get(key)
        if declared is None:
            continue
        match key.kind:
            case Kind.STORE:
                found.append(Expected(key, problem=problems.get(key.name, "")))
            case Kind.POLICY:
                found.append(_policy(world, key))
            case Kind.TENANT:
                found.append(await _tenant(world, declared, problems))
    return found


async def _look_at_stores(world: World) -> dict[str, str]:
    """Make the links, measure, and tell of each store that cannot be used why not."""
    problems: dict[str, str] = {}
    templates = {name for name, spec in store_specs(world) if spec.dedicated is not None}
    for declared in world.declared_stores():
        if declared.deleting or declared.key.name in templates:
            continue
        try:
            link = await look_at_store(world, declared)
            await measure(link, world.clock)
        except MemtenantError as error:
            problems[declared.key.name] = str(error)
    return problems


def _policy(world: World, key: ObjectKey) -> Expected:
    try:
        read_policy(world, key.name)
    except InvalidResource as error:
        return Expected(key, problem=str(error))
    return Expected(key)


async def _tenant(world: World, declared: Declared, problems: Mapping[str, str]) -> Expected:
    key = declared.key
    if declared.deleting:
        return Expected(key, (f"go on with the deletion ({_deletion_policy(declared)})",))
    try:
        prepared = await _prepared(world, declared)
    except InstanceNeeded as needed:
        agents = "users and bindings of the tenant's agents follow when it runs"
        return Expected(key, (f"set instance: {'; '.join(needed.changes)}", agents))
    except InvalidResource as error:
        problem = f"{error.field}: {error}" if error.field else str(error)
        return Expected(key, problem=problem)
    except MemtenantError as error:
        refusal = getattr(error, "refusal", None)
        at = f"{refusal.field}: " if refusal is not None and refusal.field else ""
        return Expected(key, problem=f"{at}{error}")
    if prepared is None:
        why = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
        return Expected(key, problem=f"its MemoryStore cannot be used now: {why or 'not ready'}")
    withheld = prepared.withheld.refusal.message if prepared.withheld else ""
    return Expected(key, tuple(str(action) for action in prepared.plan), problem=withheld)


async def _prepared(world: World, declared: Declared) -> Prepared | None:
    """As `prepare`; an instance that runs is connected to, and one that does not stays as it is."""
    try:
        return await prepare(world, declared, mint_password)
    except InstanceNeeded as needed:
        link = await look_at_instance(world, needed.wanted)
        if link is None:
            raise
        await measure(link, world.clock)
        return await prepare(world, declared, mint_password)


def _deletion_policy(declared: Declared) -> str:
    return str(declared.spec.get("deletionPolicy", "Retain"))
