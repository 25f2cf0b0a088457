"""What a Strict tenant's instance consists of, on a real API server: made true, and left alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from memtenant.api.store import Dedicated
from memtenant.errors import InvalidResource, ResourceConflict
from memtenant.resources.connection import Connection, Request
from memtenant.resources.instances import ClusterInstances
from memtenant.rules.instance import Instance, claim_name
from memtenant.rules.instanceobjects import stateful_set
from memtenant.tenancy.identity import TenantId
from tests.support.controlplane.cluster import Cluster

pytestmark = pytest.mark.cluster

MIB = 1 << 20
TENANT = TenantId("health", "clinic")
TOLERATION = {"key": "memory", "value": "only", "effect": "NoSchedule"}

Object = dict[str, Any]
Action = Callable[[], Awaitable[None]]


def instance(**spec: object) -> Instance:
    template = {"image": "valkey/valkey:8.1", "tls": {"mode": "Disabled"}, **spec}
    return Instance(TENANT, "own", 64 * MIB, Dedicated.model_validate(template))


async def nothing() -> None:
    """Nobody does anything meanwhile."""


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await is_so():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.2)


class Interrupted:
    """A connection whose owner is frozen before its first write, while others go on."""

    def __init__(self, connection: Connection, meanwhile: Action) -> None:
        self._connection = connection
        self._meanwhile: Action | None = meanwhile

    async def call(self, request: Request) -> Any:
        meanwhile = self._meanwhile
        if request.method != "GET" and meanwhile is not None:
            self._meanwhile = None
            await meanwhile()
        return await self._connection.call(request)


@dataclass
class Home:
    """The operator's namespace, as its present leader and as people see it."""

    cluster: Cluster
    connection: Connection
    namespace: str

    @property
    def leader(self) -> ClusterInstances:
        return ClusterInstances(self.connection, home=self.namespace)

    def former(self, meanwhile: Action) -> ClusterInstances:
        """A leader that was frozen, while another one did something."""
        frozen = Interrupted(self.connection, meanwhile)
        return ClusterInstances(frozen, home=self.namespace)  # type: ignore[arg-type]

    async def kubectl(self, *words: str) -> str:
        return await asyncio.to_thread(self.cluster.kubectl, *words, "-n", self.namespace)

    async def objects(self) -> dict[str, Object]:
        """All that there is of instances, but the pods."""
        kinds = "statefulsets,services,networkpolicies,persistentvolumeclaims"
        selector = "memtenant.dev/component=tenant-instance"
        found = json.loads(await self.kubectl("get", kinds, "-l", selector, "-o", "json"))
        return {item["kind"]: item for item in found["items"]}

    async def uids(self) -> dict[str, str]:
        return {kind: one["metadata"]["uid"] for kind, one in (await self.objects()).items()}

    async def versions(self) -> dict[str, tuple[str, int | None]]:
        """What a write changes: of the StatefulSet, whose status others write, its generation and
        the fields that somebody applied."""
        return {
            kind: (json.dumps(applied(one)), one["metadata"].get("generation"))
            for kind, one in (await self.objects()).items()
        }

    async def until(self, kind: str, *, there: bool) -> None:
        """The claim comes and goes by the hand of controllers."""

        async def is_so() -> bool:
            return (kind in await self.objects()) is there

        await until(is_so)

    async def make(self, wanted: Instance) -> None:
        await self.leader.make(wanted, "password")
        await self.until("PersistentVolumeClaim", there=True)

    async def remove(self, *, keep_data: bool) -> None:
        await self.leader.remove(TENANT, keep_data=keep_data, still=nothing)
        for kind in ("StatefulSet", *(() if keep_data else ("PersistentVolumeClaim",))):
            await self.until(kind, there=False)


def applied(one: Object) -> list[Object]:
    entries = one["metadata"].get("managedFields", [])
    return [entry for entry in entries if entry["manager"] == "memtenant"]


@pytest.fixture
async def home(cluster: Cluster, namespace: str) -> AsyncIterator[Home]:
    """A namespace of its own."""
    async with Connection.open(kubeconfig=cluster.kubeconfig) as connection:
        yield Home(cluster, connection, namespace)


async def test_what_is_not_declared_any_more_is_taken_away_and_then_nothing_is_written(
    home: Home,
) -> None:
    placed = {"nodeSelector": {"disk": "ssd"}, "tolerations": [TOLERATION]}
    await home.make(instance(scheduling={**placed, "priorityClassName": "system-cluster-critical"}))
    (told,) = await home.leader.changes(instance())
    for field in ("nodeSelector", "tolerations", "priorityClassName"):
        assert field in told
    await home.make(instance())
    pod = (await home.objects())["StatefulSet"]["spec"]["template"]["spec"]
    assert not {"nodeSelector", "tolerations", "priorityClassName"} & pod.keys()
    before = await home.versions()
    await home.make(instance())
    assert await home.leader.changes(instance()) == ()
    assert await home.versions() == before


OPENED = {
    "egress": [{"op": "add", "path": "/spec/egress", "value": [{}]}],
    "more ports": [
        {"op": "replace", "path": "/spec/ingress/0/ports/0/port", "value": 6379},
        {"op": "add", "path": "/spec/ingress/0/ports/0/endPort", "value": 7000},
    ],
    "more pods": [{"op": "remove", "path": "/spec/ingress/0/from/1/podSelector"}],
    "everybody": [{"op": "add", "path": "/spec/ingress/-", "value": {}}],
}


async def test_a_network_policy_that_somebody_opened_is_closed_again(home: Home) -> None:
    await home.make(instance())
    closed = (await home.objects())["NetworkPolicy"]["spec"]
    for opened, patch in OPENED.items():
        words = ("patch", "networkpolicy", instance().name, "--type=json")
        await home.kubectl(*words, "-p", json.dumps(patch))
        assert (await home.objects())["NetworkPolicy"]["spec"] != closed, opened
        assert await home.leader.changes(instance()), opened
        await home.make(instance())
        assert (await home.objects())["NetworkPolicy"]["spec"] == closed, opened


@pytest.fixture
async def mutating(home: Home) -> AsyncIterator[None]:
    """A cluster that has pods' images from a registry of its own, and places them."""
    name = f"mirror-{home.namespace}"
    pod = "/spec/template/spec"
    expression = (
        f'[JSONPatch{{op: "replace", path: "{pod}/containers/0/image",'
        ' value: "registry.example/valkey:8.1"},'
        f' JSONPatch{{op: "add", path: "{pod}/nodeSelector", value: {{"pool": "memory"}}}}]'
    )
    scope = {"matchLabels": {"kubernetes.io/metadata.name": home.namespace}}
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["statefulsets"],
    }
    group = "admissionregistration.k8s.io/v1"
    home.cluster.apply(
        {
            "apiVersion": group,
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "reinvocationPolicy": "Never",
                "matchConstraints": {"namespaceSelector": scope, "resourceRules": [rule]},
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            },
        },
        {
            "apiVersion": group,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        },
    )
    probe = home.cluster.folder / f"{name}.json"
    probe.write_text(json.dumps(stateful_set(instance(), home.namespace, 1 << 30)))

    async def active() -> bool:
        create = ("create", "--dry-run=server", "-f", str(probe), "-o", "json")
        return "registry.example" in await home.kubectl(*create)

    await until(active)
    yield
    kinds = "mutatingadmissionpolicy,mutatingadmissionpolicybinding"
    await asyncio.to_thread(home.cluster.kubectl, "delete", kinds, name)


async def test_what_the_cluster_makes_otherwise_is_not_written_again_and_again(
    home: Home, mutating: None
) -> None:
    await home.make(instance())
    before = await home.versions()
    assert await home.leader.changes(instance()) == ()
    await home.make(instance())
    assert await home.versions() == before
    await home.make(instance(resources={"cpu": "2"}))
    container = (await home.objects())["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"]["cpu"] == "2"
    assert container["image"] == "registry.example/valkey:8.1"


async def test_a_former_leader_removes_nothing_of_the_next_tenant_of_that_name(home: Home) -> None:
    await home.make(instance())

    async def meanwhile() -> None:
        await home.remove(keep_data=False)
        await home.make(instance())

    former = home.former(meanwhile)
    with pytest.raises(ResourceConflict):
        await former.remove(TENANT, keep_data=False, still=nothing)
    there = await home.uids()
    assert len(there) == 4
    with pytest.raises(ResourceConflict):
        await home.leader.remove(TENANT, keep_data=False, still=gone)
    assert await home.uids() == there


async def gone() -> None:
    raise ResourceConflict("it was let go")


async def test_a_former_leader_removes_no_volume_that_was_kept_meanwhile(home: Home) -> None:
    await home.make(instance())
    before = await home.uids()

    async def meanwhile() -> None:
        await home.remove(keep_data=True)

    with pytest.raises(ResourceConflict):
        await home.former(meanwhile).remove(TENANT, keep_data=False, still=nothing)
    assert await home.uids() == {"PersistentVolumeClaim": before["PersistentVolumeClaim"]}
    await home.make(instance())  # as the next tenant of that name takes it over
    assert (await home.uids())["PersistentVolumeClaim"] == before["PersistentVolumeClaim"]


async def test_a_former_leader_makes_nothing_out_of_what_it_read_before(home: Home) -> None:
    await home.make(instance())

    async def meanwhile() -> None:
        await home.remove(keep_data=False)

    older = instance(resources={"cpu": "2"})
    with pytest.raises(ResourceConflict):
        await home.former(meanwhile).make(older, "password")
    assert await home.objects() == {}


async def test_a_volume_that_has_to_grow_and_cannot_is_told(home: Home) -> None:
    await home.make(instance())
    larger = replace(instance(), quota=1 << 30)
    told = await home.leader.changes(larger)
    assert any(words.startswith("grow claim") for words in told)
    assert any("volumeClaimTemplates" in words for words in told)
    before = await home.uids()
    with pytest.raises(InvalidResource) as failure:
        await home.leader.make(larger, "password")
    assert failure.value.reason == "VolumeCannotGrow"
    assert await home.uids() == before


async def test_a_statefulset_made_anew_around_its_pod_leaves_the_pod_seen(home: Home) -> None:
    await home.make(instance())

    async def a_pod() -> bool:
        return bool((await home.leader.look(instance())).process)

    await until(a_pod)
    seen = await home.leader.look(instance())
    await home.kubectl("delete", "statefulset", instance().name, "--cascade=orphan")
    found = await home.leader.make(instance(), "password")
    assert found.process == seen.process
    assert claim_name(TENANT) == (await home.objects())["PersistentVolumeClaim"]["metadata"]["name"]
