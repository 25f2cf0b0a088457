"""Instances of Strict tenants in a cluster: a StatefulSet, Service and NetworkPolicy each.

Each object is read and compared first, and applied (server-side, by one field manager) only where
something of it is not as it should be. The volume's size cannot be changed in a StatefulSet: the
claim is patched, and the StatefulSet is deleted without its pod and made anew around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memtenant.api.quantity import Quantity
from memtenant.errors import InvalidResource, ResourceForbidden, ResourceNotFound
from memtenant.resources.connection import APPLY, MERGE_PATCH, Connection, Request, path
from memtenant.resources.port import FIELD_MANAGER
from memtenant.rules.instance import (
    PORT,
    Instance,
    Sighting,
    claim_name,
    differences,
    has_tls,
    headless_service,
    host_of,
    instance_labels,
    instance_name,
    is_outdated,
    mebibytes,
    network_policy,
    stateful_set,
)
from memtenant.tenancy.identity import TenantId

__all__ = ["ClusterInstances"]


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    group: tuple[str, ...]
    plural: str


_SERVICE = _Kind("Service", ("api", "v1"), "services")
_POLICY = _Kind("NetworkPolicy", ("apis", "networking.k8s.io", "v1"), "networkpolicies")
_STATEFUL_SET = _Kind("StatefulSet", ("apis", "apps", "v1"), "statefulsets")
_CLAIM = _Kind("PersistentVolumeClaim", ("api", "v1"), "persistentvolumeclaims")
_POD = _Kind("Pod", ("api", "v1"), "pods")


@dataclass(frozen=True, slots=True)
class _Found:
    """What is there: of a size that grows, the StatefulSet's and the claim's."""

    service: Mapping[str, Any] | None
    policy: Mapping[str, Any] | None
    stateful_set: Mapping[str, Any] | None
    claim: Mapping[str, Any] | None

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
            for kind, there, differing in self._differing(wanted, found, volume)
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
        for kind, there, _ in self._differing(wanted, found, volume):
            if there is not None and "deletionTimestamp" in there["metadata"]:
                continue  # its successor is made at a next look
            which = {"Service": _SERVICE, "NetworkPolicy": _POLICY, "StatefulSet": _STATEFUL_SET}
            await self._apply(which[kind], manifests[kind])
            if there is None and kind == _STATEFUL_SET.name:
                return Sighting(why="its pod is being made")
        return await self.look(wanted)

    async def look(self, wanted: Instance) -> Sighting:
        """Whether its pod is ready, and of the image that it should be."""
        pod = await self._get(_POD, f"{wanted.name}-0")
        if pod is None:
            return Sighting(why="its pod is not there yet")
        if "deletionTimestamp" in pod["metadata"]:
            return Sighting(why="its pod is ending, and comes again")
        tls, outdated = has_tls(pod), is_outdated(pod, wanted)
        status = pod.get("status", {})
        conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
        if conditions.get("Ready") != "True":
            return Sighting(why=f"its pod is not ready: {_why(status)}", outdated=outdated)
        return Sighting(host_of(wanted.tenant, self._home), PORT, tls=tls, outdated=outdated)

    async def restart(self, wanted: Instance) -> None:
        """Delete the pod; the StatefulSet makes the next one."""
        await self._delete(_POD, f"{wanted.name}-0")

    async def remove(self, tenant: TenantId, *, keep_data: bool) -> None:
        """Delete the objects, and without ``keep_data`` the claim with its volume."""
        name = instance_name(tenant)
        for kind in (_STATEFUL_SET, _SERVICE, _POLICY):
            await self._delete(kind, name)
        # Orphaned by a change of its size, it would outlive the StatefulSet.
        await self._delete(_POD, f"{name}-0")
        if not keep_data:
            await self._delete(_CLAIM, claim_name(tenant))

    async def _grow(self, wanted: Instance, found: _Found, volume: int) -> bool:
        """Make room in the volume; whether the StatefulSet went for it, without its pod."""
        now = _size_of(found.claim)
        if found.claim is not None and now is not None and now < volume:
            await self._grow_claim(claim_name(wanted.tenant), mebibytes(volume))
        template = _template_size(found.stateful_set)
        if template is None or template >= volume:
            return False
        await self._delete(_STATEFUL_SET, wanted.name, propagation="Orphan")
        return True

    async def _grow_claim(self, name: str, size: str) -> None:
        request = self._request(
            "PATCH",
            _CLAIM,
            name,
            body={"spec": {"resources": {"requests": {"storage": size}}}},
            content_type=MERGE_PATCH,
            query={"fieldManager": FIELD_MANAGER},
        )
        try:
            await self._connection.call(request)
        except (InvalidResource, ResourceForbidden) as error:
            raise InvalidResource(
                f"the volume of the tenant's instance cannot grow to {size}: {error}. Use a "
                "StorageClass with allowVolumeExpansion, or put the former quota back",
                field="spec.quota.memory",
                reason="VolumeCannotGrow",
            ) from None

    def _manifests(self, wanted: Instance, volume: int) -> dict[str, dict[str, Any]]:
        return {
            "Service": headless_service(wanted, self._home),
            "NetworkPolicy": network_policy(wanted, self._home),
            "StatefulSet": stateful_set(wanted, self._home, volume),
        }

    def _differing(
        self, wanted: Instance, found: _Found, volume: int
    ) -> list[tuple[str, Mapping[str, Any] | None, list[str]]]:
        """Kinds whose object is not as it should be: what is there, and where it differs."""
        there = {
            "Service": found.service,
            "NetworkPolicy": found.policy,
            "StatefulSet": found.stateful_set,
        }
        compared = (
            (kind, there[kind], _differences(manifest, there[kind]))
            for kind, manifest in self._manifests(wanted, volume).items()
        )
        return [one for one in compared if one[1] is None or one[2]]

    async def _find(self, tenant: TenantId) -> _Found:
        name = instance_name(tenant)
        return _Found(
            await self._ours(_SERVICE, name, tenant),
            await self._ours(_POLICY, name, tenant),
            await self._ours(_STATEFUL_SET, name, tenant),
            await self._get(_CLAIM, claim_name(tenant)),
        )

    async def _ours(self, kind: _Kind, name: str, tenant: TenantId) -> Mapping[str, Any] | None:
        """The object, which must be this tenant's: a stranger's of that name is left alone."""
        found = await self._get(kind, name)
        labels = (found or {}).get("metadata", {}).get("labels") or {}
        wanted = instance_labels(tenant)
        if found is not None and any(labels.get(key) != value for key, value in wanted.items()):
            raise InvalidResource(
                f"{kind.name} {self._home}/{name} exists and is not of the instance of {tenant}: "
                "remove it, or give the tenant another name"
            )
        return found

    async def _apply(self, kind: _Kind, manifest: Mapping[str, Any]) -> None:
        await self._connection.call(
            self._request(
                "PATCH",
                kind,
                manifest["metadata"]["name"],
                body=manifest,
                content_type=APPLY,
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
            )
        )

    async def _get(self, kind: _Kind, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = await self._connection.call(self._request("GET", kind, name))
        except ResourceNotFound:
            return None
        return found

    async def _delete(self, kind: _Kind, name: str, *, propagation: str = "Background") -> None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            await self._connection.call(self._request("DELETE", kind, name, body=options))
        except ResourceNotFound:
            return

    def _request(
        self,
        method: str,
        kind: _Kind,
        name: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Request:
        return Request(
            method,
            path(*kind.group, "namespaces", self._home, kind.plural, name),
            f"{kind.name} {self._home}/{name}",
            body=body,
            content_type=content_type,
            query=query,
        )


def _differences(manifest: Mapping[str, Any], there: Mapping[str, Any] | None) -> list[str]:
    if there is None:
        return []
    if "deletionTimestamp" in there["metadata"]:
        return ["it is being deleted, and made anew then"]
    return differences(manifest, there)


def _size_of(claim: Mapping[str, Any] | None) -> int | None:
    if claim is None:
        return None
    return Quantity.parse(claim["spec"]["resources"]["requests"]["storage"]).bytes


def _template_size(stateful_set: Mapping[str, Any] | None) -> int | None:
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
