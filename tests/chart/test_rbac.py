"""What the chart grants is what the code uses, neither less nor more.

The code's own port, elector and watches run as the operator's ServiceAccount against a real API
server, and its audit log says what they asked for.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest

from memtenant.controller.events import Seen, cluster_source, secret_source
from memtenant.controller.watches import Watches
from memtenant.resources.connection import Connection
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.lease import Elector
from memtenant.resources.port import EventType, Kind, ObjectKey, Resources, SecretDraft
from tests.chart import objects
from tests.chart.conftest import TENANTS, Release
from tests.chart.rendered import HOME, RELEASE, Object

pytestmark = pytest.mark.cluster

FINALIZER = "memtenant.dev/test"
DECLARED = [
    ObjectKey(Kind.STORE, "", "rbac"),
    ObjectKey(Kind.POLICY, "", "rbac"),
    ObjectKey(Kind.TENANT, TENANTS, "rbac"),
]

USED_ELSEWHERE: dict["Right", str] = {}
"""Rights that this test cannot see used, with the reason why they are granted."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource; ``namespace`` is empty for the whole cluster."""

    namespace: str
    group: str
    resource: str
    verb: str

    @property
    def everywhere(self) -> "Right":
        """The same in the whole cluster."""
        return replace(self, namespace="")


def _granted(release: Release) -> Iterator[tuple[str, Right]]:
    """Every right of the operator's ServiceAccount, with the role that it comes from."""
    roles = {
        (role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]): role
        for role in release.cluster.get("clusterroles,roles", "-A")["items"]
    }
    for binding in release.cluster.get("clusterrolebindings,rolebindings", "-A")["items"]:
        subjects = binding.get("subjects") or []
        if not any(
            (each["kind"], each.get("namespace"), each["name"]) == ("ServiceAccount", HOME, RELEASE)
            for each in subjects
        ):
            continue
        namespace = binding["metadata"].get("namespace", "")
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        role = roles[kind, namespace if kind == "Role" else "", name]
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield name, Right(namespace, group, resource, verb)


def _requests(release: Release) -> list[Object]:
    return [
        request
        for request in release.cluster.audit()
        if request["user"]["username"] == release.operator and "objectRef" in request
    ]


def _right(request: Object) -> Right:
    what = request["objectRef"]
    resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
    return Right(what.get("namespace", ""), what.get("apiGroup", ""), resource, request["verb"])


async def _use_the_port(resources: Resources) -> set[str]:
    """Call every method of the port; returns their names."""
    for kind in Kind:
        await resources.list(kind)
    for key in DECLARED:
        declared = await resources.get(key)
        assert declared is not None
        declared = await resources.add_finalizer(declared, FINALIZER)
        await resources.remove_finalizer(declared, FINALIZER)
        await resources.write_status(declared, {"observedGeneration": declared.generation})
        await resources.emit_event(declared, EventType.NORMAL, "Tested", "by the chart's tests")
    for namespace in (HOME, TENANTS):
        assert await resources.can_read_secrets(namespace)
        draft = SecretDraft(namespace, "rbac", "tests", {"key": b"one"})
        stored = await resources.create_secret(draft)
        stored = await resources.replace_secret(stored, {"key": b"two"})
        draft = SecretDraft(namespace, "rbac", "tests", {"key": b"three"})
        stored = await resources.apply_secret(draft, current=stored)
        assert await resources.get_secret(namespace, "rbac") == stored
        await resources.list_secrets(namespace, stored.labels)
        await resources.delete_secret(stored)
    await resources.list_namespaces()
    await resources.get_namespace(HOME)
    return {
        "list", "get", "add_finalizer", "remove_finalizer", "write_status", "get_secret",
        "create_secret", "replace_secret", "apply_secret", "delete_secret", "list_secrets",
        "can_read_secrets", "list_namespaces", "get_namespace", "emit_event",
    }  # fmt: skip


async def _lead(connection: Connection) -> None:
    """Win the election, renew it once, and give it up."""
    led = asyncio.Event()

    async def leading(term: int) -> None:
        led.set()
        await asyncio.sleep(0)

    for _ in range(2):  # the Lease is made, then taken again
        led.clear()
        await Elector(connection, namespace=HOME, name="memtenant-operator", identity="tests").run(
            leading
        )
        assert led.is_set()


async def _watch() -> None:
    """Start the operator's watches and wait until each of them brought something."""
    watches = Watches()
    missing = {kind.plural for kind in Kind} | {"namespaces", "secrets"}
    complete = asyncio.Event()

    def seen(event: Seen) -> None:
        missing.discard(event.plural)
        if not missing:
            complete.set()

    async with AsyncExitStack() as stack:
        for source in (cluster_source(watches), secret_source(watches, (HOME, TENANTS))):
            source.start(seen)
            stack.push_async_callback(source.stop)
        await asyncio.wait_for(complete.wait(), timeout=60)


@pytest.fixture(scope="module")
def used(release: Release) -> list[Object]:
    """The requests of the operator's code, from the audit log."""
    cluster = release.cluster
    cluster.apply(objects.store("rbac"), objects.policy("rbac"), objects.tenant(TENANTS, "rbac"))
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "seen"}}
    for namespace in (HOME, TENANTS):
        cluster.apply(secret | {"metadata": {"name": "seen", "namespace": namespace}})
    kubeconfig = cluster.kubeconfig_for_service_account(HOME, RELEASE)

    async def operate() -> None:
        async with Connection.open(kubeconfig=kubeconfig) as connection:
            resources = KubernetesResources(connection, home=HOME, instance="tests")
            called = await _use_the_port(resources)
            assert called == {
                name for name, member in vars(Resources).items()
                if callable(member) and not name.startswith("_")
            }  # fmt: skip
            await _lead(connection)
        await _watch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        asyncio.run(operate())
    return _requests(release)


def test_nothing_that_the_code_asks_for_is_forbidden(used: list[Object]) -> None:
    refused = {_right(each) for each in used if each["responseStatus"]["code"] in (401, 403)}
    assert refused == set()


def test_all_that_the_code_uses_is_granted_by_the_chart(
    release: Release, used: list[Object]
) -> None:
    granted = {right for _, right in _granted(release)}
    rights = {_right(each) for each in used}
    assert rights
    assert {right for right in rights if not {right, right.everywhere} & granted} == set()


def test_all_that_the_chart_grants_is_used(release: Release, used: list[Object]) -> None:
    rights = {_right(each) for each in used}
    rights |= {right.everywhere for right in rights} | USED_ELSEWHERE.keys()
    idle = {f"{role}: {right}" for role, right in _granted(release) if right not in rights}
    assert idle == set()
