"""Instances of Strict tenants in a cluster: a StatefulSet, Service and NetworkPolicy each.

Each object is read and compared first, and applied (server-side, by one field manager) only where
something of it is not as it should be. The volume's size cannot be changed in a StatefulSet: the
claim is patched, and the StatefulSet is deleted without its pod and made anew around it.

A leader that was frozen goes on where it stood, long after another took over. So every change and
every deletion names the very object that was read, by its uid, and its version where that counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from memtenant.api.quantity import Quantity
from memtenant.errors import InvalidResource, ResourceForbidden
from memtenant.resources.collection import APIKind, Collection, Object, as_read
from memtenant.resources.connection import Connection
from memtenant.resources.port import FIELD_MANAGER
from memtenant.rules.instance import (
    PORT,
    Instance,
    Sighting,
    claim_name,
    host_of,
    instance_labels,
    instance_name,
    mebibytes,
)
from memtenant.rules.instanceobjects import (
    has_tls,
    headless_service,
    is_outdated,
    network_policy,
    stateful_set,
)
from memtenant.rules.manifest import differences, undeclared
from memtenant.tenancy.identity import TenantId

__all__ = ["ClusterInstances"]

_SERVICE = APIKind("Service", "v1", "services")
_POLICY = APIKind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies")
_STATEFUL_SET = APIKind("StatefulSet", "apps/v1", "statefulsets")
_CLAIM = APIKind("PersistentVolumeClaim", "v1", "persistentvolumeclaims")
_POD = APIKind("Pod", "v1", "pods")
_MADE = {kind.name: kind for kind in (_SERVICE, _POLICY, _STATEFUL_SET)}

_KEPT_FROM = "memtenant.dev/kept-from"
"""On the claim of a retained tenant: the uid of the StatefulSet that it had. It makes another
version of the claim, which a former leader's deletion does not name."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What is there: of a size that grows, the StatefulSet's and the claim's."""

    service: Object | None
    policy: Object | None
    stateful_set: Object | None
    claim: Object | None

    def volume(self, wanted: Instance) -> int:
        """Bytes that the volume should have: it never shrinks."""
        sizes = (_size_of(self.claim), _template_size(self.stateful_set), wanted.volume)
        return max(size for size in sizes if size is not None)


class ClusterInstances:
    """`memtenant.reconcile.world.InstanceHost` over an API server, in the ``home`` namespace."""

    tls = True

    def __init__(self, connection: Connection, *, home: str) -> None:
        self._connection = connection
        self._home = home

    async def changes(self, wanted: Instance) -> tuple[str, ...]:
        """What `make` would do, in words."""
        found = await self._find(wanted.tenant)
        volume = found.volume(wanted)
        said = [
            f"{'make' if there is None else 'change'} {kind} {wanted.name}"
            + ("" if there is None else f": {', '.join(differing)}")
            for kind, there, differing in await self._differing(wanted, found, volume)
        ]
        if found.claim is not None and (now := _size_of(found.claim)) is not None and now < volume:
            claim = claim_name(wanted.tenant)
            said.append(f"grow claim {claim}: {mebibytes(now)} → {mebibytes(volume)}")
        if (await self.look(wanted)).outdated:
            how = "with TLS" if wanted.tls else "without TLS"
            said.append(f"restart {wanted.name} with {wanted.template.image}, {how}, in its turn")
        return tuple(said)

    async def make(self, wanted: Instance, password: str) -> Sighting:
        """Make the objects what they should be. The pod reads the password from its Secret."""
        found = await self._find(wanted.tenant)
        volume = found.volume(wanted)
        if await self._grow(wanted, found, volume):
            found = await self._find(wanted.tenant)
        manifests = self._manifests(wanted, volume)
        for kind, there, _ in await self._differing(wanted, found, volume):
            if there is not None and "deletionTimestamp" in there["metadata"]:
                continue  # its successor is made at a next look
            await self._apply(_MADE[kind], manifests[kind], there)
        return await self.look(wanted)

    async def look(self, wanted: Instance) -> Sighting:
        """Whether its pod is ready, and of the image that it should be."""
        pod = await self._of(_POD).get(f"{wanted.name}-0")
        if pod is None:
            return Sighting(why="its pod is not there yet")
        if "deletionTimestamp" in pod["metadata"]:
            return Sighting(why="its pod is ending, and comes again")
        tls, outdated = has_tls(pod), is_outdated(pod, wanted)
        process = pod["metadata"]["uid"]
        status = pod.get("status", {})
        conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
        if conditions.get("Ready") != "True":
            why = f"its pod is not ready: {_why(status)}"
            return Sighting(why=why, outdated=outdated, process=process)
        host = host_of(wanted.tenant, self._home)
        return Sighting(host, PORT, tls=tls, outdated=outdated, process=process)

    async def restart(self, wanted: Instance, seen: Sighting) -> None:
        """Delete the pod that was seen; the StatefulSet makes the next one."""
        await self._of(_POD).delete(f"{wanted.name}-0", {"uid": seen.process})

    async def remove(
        self, tenant: TenantId, *, keep_data: bool, still: Callable[[], Awaitable[None]]
    ) -> None:
        """Delete the objects, and without ``keep_data`` the claim with its volume."""
        name = instance_name(tenant)
        # The pod too: orphaned by a change of its size, it would outlive the StatefulSet.
        named = ((_STATEFUL_SET, name), (_SERVICE, name), (_POLICY, name), (_POD, f"{name}-0"))
        there = [(kind, await self._of(kind).get(each)) for kind, each in named]
        claim = await self._of(_CLAIM).get(claim_name(tenant))
        await still()
        ours = [(kind, one["metadata"]) for kind, one in there if _is_of(one, tenant)]
        if keep_data and claim is not None and ours and ours[0][0] is _STATEFUL_SET:
            kept_from = {"annotations": {_KEPT_FROM: ours[0][1]["uid"]}}
            await self._patch_claim(claim["metadata"], {"metadata": kept_from})
        for kind, metadata in ours:
            await self._of(kind).delete(metadata["name"], {"uid": metadata["uid"]})
        if not keep_data and _is_of(claim, tenant):
            await self._of(_CLAIM).delete(claim["metadata"]["name"], as_read(claim["metadata"]))

    async def _grow(self, wanted: Instance, found: _Found, volume: int) -> bool:
        """Make room in the volume; whether the StatefulSet went for it, without its pod."""
        now = _size_of(found.claim)
        if found.claim is not None and now is not None and now < volume:
            await self._grow_claim(found.claim["metadata"], mebibytes(volume))
        template = _template_size(found.stateful_set)
        if found.stateful_set is None or template is None or template >= volume:
            return False
        metadata = found.stateful_set["metadata"]
        await self._of(_STATEFUL_SET).delete(
            metadata["name"], {"uid": metadata["uid"]}, propagation="Orphan"
        )
        return True

    async def _grow_claim(self, metadata: Object, size: str) -> None:
        try:
            await self._patch_claim(
                metadata, {"spec": {"resources": {"requests": {"storage": size}}}}
            )
        except (InvalidResource, ResourceForbidden) as error:
            raise InvalidResource(
                f"the volume of the tenant's instance cannot grow to {size}: {error}. Use a "
                "StorageClass with allowVolumeExpansion, or put the former quota back",
                field="spec.quota.memory",
                reason="VolumeCannotGrow",
            ) from None

    async def _patch_claim(self, metadata: Object, change: Mapping[str, Any]) -> None:
        guarded = {**change.get("metadata", {}), **as_read(metadata)}
        await self._of(_CLAIM).merge(metadata["name"], {**change, "metadata": guarded})

    def _manifests(self, wanted: Instance, volume: int) -> dict[str, dict[str, Any]]:
        return {
            "Service": headless_service(wanted, self._home),
            "NetworkPolicy": network_policy(wanted, self._home),
            "StatefulSet": stateful_set(wanted, self._home, volume),
        }

    async def _differing(
        self, wanted: Instance, found: _Found, volume: int
    ) -> list[tuple[str, Object | None, list[str]]]:
        """Kinds whose object is not as it should be: what is there, and where it differs."""
        there = {
            "Service": found.service,
            "NetworkPolicy": found.policy,
            "StatefulSet": found.stateful_set,
        }
        differing: list[tuple[str, Object | None, list[str]]] = []
        for kind, manifest in self._manifests(wanted, volume).items():
            one = there[kind]
            where = [] if one is None else _differences(manifest, one)
            if one is None or (where and await self._would_change(_MADE[kind], manifest, one)):
                differing.append((kind, one, where))
        return differing

    async def _would_change(self, kind: APIKind, manifest: Object, there: Object) -> bool:
        """Whether an apply would come to anything. What the cluster makes otherwise at each
        admission is no difference that can be mended, and would be written for ever."""
        if "deletionTimestamp" in there["metadata"]:
            return True
        try:
            after = await self._apply(kind, manifest, there, dry_run=True)
        except InvalidResource:
            return True  # a size that grows cannot be applied: the StatefulSet is made anew
        return _substance(after) != _substance(there)

    async def _find(self, tenant: TenantId) -> _Found:
        name = instance_name(tenant)
        return _Found(
            await self._ours(_SERVICE, name, tenant),
            await self._ours(_POLICY, name, tenant),
            await self._ours(_STATEFUL_SET, name, tenant),
            await self._of(_CLAIM).get(claim_name(tenant)),
        )

    async def _ours(self, kind: APIKind, name: str, tenant: TenantId) -> Object | None:
        """The object, which must be this tenant's: a stranger's of that name is left alone."""
        found = await self._of(kind).get(name)
        if found is not None and not _is_of(found, tenant):
            raise InvalidResource(
                f"{kind.name} {self._home}/{name} exists and is not of the instance of {tenant}: "
                "remove it, or give the tenant another name"
            )
        return found

    async def _apply(
        self, kind: APIKind, manifest: Object, there: Object | None, *, dry_run: bool = False
    ) -> Object:
        """Make what was read (None: absent) what the manifest says; as it is then."""
        metadata = manifest["metadata"]
        if there is not None:
            # By its version alone one that is gone would be made anew (measured on 1.36).
            metadata = {**metadata, **as_read(there["metadata"])}
        return await self._of(kind).apply({**manifest, "metadata": metadata}, dry_run=dry_run)

    def _of(self, kind: APIKind) -> Collection:
        return Collection(self._connection, kind, self._home)


def _differences(manifest: Object, there: Object) -> list[str]:
    if "deletionTimestamp" in there["metadata"]:
        return ["it is being deleted, and made anew then"]
    return [*differences(manifest, there), *undeclared(manifest, there, FIELD_MANAGER)]


def _substance(found: Object) -> tuple[Any, Any]:
    """What of an object its applies are about."""
    return found["spec"], found["metadata"].get("labels")


def _is_of(found: Object | None, tenant: TenantId) -> TypeGuard[Object]:
    """Whether it is there, and of this tenant's instance."""
    labels = (found or {}).get("metadata", {}).get("labels") or {}
    return all(labels.get(key) == value for key, value in instance_labels(tenant).items())


def _size_of(claim: Object | None) -> int | None:
    if claim is None:
        return None
    return Quantity.parse(claim["spec"]["resources"]["requests"]["storage"]).bytes


def _template_size(stateful_set: Object | None) -> int | None:
    if stateful_set is None:
        return None
    return _size_of(stateful_set["spec"]["volumeClaimTemplates"][0])


def _why(status: Mapping[str, Any]) -> str:
    """What the kubelet says of the container, as far as it says anything."""
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason"):
            return str(waiting["reason"])
    unscheduled = [
        one.get("message", "")
        for one in status.get("conditions", ())
        if one.get("type") == "PodScheduled" and one.get("status") == "False"
    ]
    return next(filter(None, unscheduled), "") or "it starts"
