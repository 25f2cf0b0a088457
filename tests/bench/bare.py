"""The yardstick: a loop that writes what the operator writes for a tenant, and does nothing else.

The bodies are those that the operator wrote for a sample tenant, under other names: the same sizes,
the same kinds of request, in the order in which they depend on one another.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.api import APPLY, JSON_PATCH, TENANTS, Api, Json, at_once
from tests.bench.stage import BARE, BARE_GROUP, HOME, TEAM, tenant

_TENANTS = TENANTS.replace("memtenant.dev", BARE_GROUP).format(BARE)
_SECRETS = f"/api/v1/namespaces/{BARE}/secrets"
_EVENTS = f"/apis/events.k8s.io/v1/namespaces/{BARE}/events"


@dataclass(frozen=True, slots=True)
class Sample:
    """What the operator wrote for one tenant."""

    finalizers: list[str]
    record: Json
    binding: Json
    status: Json
    events: list[Json]

    @classmethod
    async def of(cls, api: Api, name: str) -> "Sample":
        """Read it."""
        made = await api.send("GET", f"{TENANTS.format(TEAM)}/{name}")
        secrets = "/api/v1/namespaces/{}/secrets/{}"
        events = await api.send("GET", f"/apis/events.k8s.io/v1/namespaces/{TEAM}/events")
        return cls(
            made["metadata"]["finalizers"],
            await api.send("GET", secrets.format(HOME, f"{TEAM}.{name}-keyring")),
            await api.send("GET", secrets.format(TEAM, made["status"]["binding"]["name"])),
            made["status"],
            [one for one in events["items"] if one["regarding"]["name"] == name],
        )


async def make_tenants(
    api: Api,
    sample: Sample,
    prefix: str,
    count: int,
    concurrency: int,
    made: Callable[[], None] = lambda: None,
) -> float:
    """Write ``count`` tenants, so many at a time; the seconds that it took."""

    async def one(number: int) -> None:
        name = f"{prefix}-{number}"
        declared = await api.send("POST", _TENANTS, tenant(name, BARE, BARE_GROUP))
        await api.send(
            "PATCH",
            f"{_TENANTS}/{name}",
            [{"op": "add", "path": "/metadata/finalizers", "value": sample.finalizers}],
            JSON_PATCH,
        )
        await api.send("POST", _SECRETS, _secret(sample.record, f"{name}-record"))
        await api.send("POST", _SECRETS, _secret(sample.binding, f"{name}-binding", declared))
        for event in sample.events:
            await api.send("POST", _EVENTS, _event(event, declared))
        await api.send(
            "PATCH",
            f"{_TENANTS}/{name}/status?fieldManager=bare&force=true",
            {
                "apiVersion": f"{BARE_GROUP}/v1alpha1",
                "kind": "MemoryTenant",
                "metadata": {"name": name, "namespace": BARE},
                "status": sample.status,
            },
            APPLY,
        )
        made()

    return await at_once(concurrency, count, one)


def _secret(sample: Json, name: str, owner: Json | None = None) -> Json:
    metadata: Json = {"name": name, "labels": sample["metadata"].get("labels", {})}
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
            }
        ]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": sample["type"],
        "metadata": metadata,
        "data": sample["data"],
    }


def _event(sample: Json, about: Json) -> Json:
    name = about["metadata"]["name"]
    return {
        **{key: value for key, value in sample.items() if key != "metadata"},
        "metadata": {"name": f"{name}.{about['metadata']['uid'][:16]}", "namespace": BARE},
        "regarding": {
            **sample["regarding"],
            "apiVersion": about["apiVersion"],
            "name": name,
            "namespace": BARE,
            "uid": about["metadata"]["uid"],
        },
    }
