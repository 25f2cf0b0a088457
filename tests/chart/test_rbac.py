"""What the chart grants is what the code uses, neither less nor more.

The code's own port, elector and watches run as the operator's ServiceAccount against a real API
server, and its audit log says what they asked for.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import pytest

from memtenant.api.dedicated import Dedicated
from memtenant.api.reporting import Reporting
from memtenant.controller.events import Seen, cluster_source, secret_source
from memtenant.controller.watches import Watches
from memtenant.reconcile.world import InstanceHost
from memtenant.reports.incluster import read_public_key
from memtenant.resources.clusterreports import reports_in_cluster
from memtenant.resources.connection import Connection
from memtenant.resources.instances import ClusterInstances
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.lease import Elector
from memtenant.resources.port import RECONCILED, EventType, Kind, ObjectKey, Resources, SecretDraft
from memtenant.resources.secretreaders import read_grants
from memtenant.rules.instance import Instance, Sighting
from memtenant.rules.instanceobjects import stateful_set
from memtenant.rules.manifest import differences
from memtenant.rules.reporting import cron_job, cron_job_name
from memtenant.tenancy.identity import TenantId
from tests.chart import objects as declared
from tests.chart.conftest import TENANTS, Release
from tests.chart.rendered import HOME, RELEASE, Object, objects, of_kind, report_jobs

pytestmark = pytest.mark.cluster

FINALIZER = "memtenant.dev/test"
WATCHED = (HOME, TENANTS)
"""Where Secrets are watched."""

DECLARED = [
    ObjectKey(Kind.STORE, "", "rbac"),
    ObjectKey(Kind.POLICY, "", "rbac"),
    ObjectKey(Kind.TENANT, TENANTS, "rbac"),
]


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


_APPLIED = (
    ("apps", "statefulsets"),
    ("batch", "cronjobs"),
    ("networking.k8s.io", "networkpolicies"),
    ("", "services"),
)
USED_ELSEWHERE: dict[Right, str] = {
    Right(HOME, group, resource, "create"): "server-side apply of one that is not there yet"
    for group, resource in _APPLIED
} | {
    Right(HOME, "", "persistentvolumeclaims", "patch"): "tests/e2e/test_strict.py grows a volume",
}
"""Rights that this test cannot see used, with the reason why they are granted."""

INSTANCE = Instance(
    TenantId(TENANTS, "rbac"), "own", 1 << 24, Dedicated.model_validate({"image": "valkey/valkey"})
)


def _granted(release: Release, account: str = RELEASE) -> Iterator[tuple[str, Right]]:
    """Every right of a ServiceAccount, with the role that it comes from."""
    roles = {
        (role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]): role
        for role in release.cluster.get("clusterroles,roles", "-A")["items"]
    }
    for binding in release.cluster.get("clusterrolebindings,rolebindings", "-A")["items"]:
        subjects = binding.get("subjects") or []
        if not any(
            (each["kind"], each.get("namespace"), each["name"]) == ("ServiceAccount", HOME, account)
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


def _requests(release: Release, account: str = RELEASE) -> list[Object]:
    user = f"system:serviceaccount:{HOME}:{account}"
    return [
        request
        for request in release.cluster.audit()
        if request["user"]["username"] == user and "objectRef" in request
    ]


def _right(request: Object) -> Right:
    what = request["objectRef"]
    resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
    return Right(what.get("namespace", ""), what.get("apiGroup", ""), resource, request["verb"])


async def _use_the_port(resources: Resources) -> set[str]:
    """Call every method of the port; returns their names."""
    for kind in Kind:
        await resources.list(kind)
        assert [page async for page in resources.pages(kind)]
    for key in DECLARED:
        found = await resources.get(key)
        assert found is not None
        found = await resources.add_finalizer(found, FINALIZER)
        await resources.remove_finalizer(found, FINALIZER)
        await resources.write_status(found, {"observedGeneration": found.generation})
        await resources.emit_event(found, EventType.NORMAL, "Tested", "by the chart's tests")
    for namespace in (HOME, TENANTS):
        assert await resources.can_read_secrets(namespace)
        draft = SecretDraft(namespace, "rbac", "tests", {"key": b"one"})
        stored = await resources.create_secret(draft)
        stored = await resources.replace_secret(stored, {"key": b"two"})
        draft = SecretDraft(namespace, "rbac", "tests", {"key": b"three"})
        stored = await resources.apply_secret(draft, current=stored)
        assert await resources.get_secret(namespace, "rbac") == stored
        await resources.list_secrets(namespace, stored.labels)
        await resources.list_secrets_lacking(namespace, "rbac", {})
        await resources.delete_secret(stored)
    await resources.list_namespaces()
    await resources.get_namespace(HOME)
    await _run_reports_by_themselves(resources)
    return {
        "list", "pages", "get", "add_finalizer", "remove_finalizer", "write_status",
        "get_secret", "create_secret", "replace_secret", "apply_secret", "delete_secret",
        "list_secrets", "list_secrets_lacking", "can_read_secrets", "list_namespaces",
        "get_namespace", "emit_event",
    }  # fmt: skip


def _report_job() -> Object:
    (job,) = report_jobs(each["spec"]["template"] for each in of_kind(objects(), "Deployment"))
    return job


async def _run_reports_by_themselves(resources: Resources) -> None:
    jobs, policy = resources.cron_jobs, await resources.get(ObjectKey.policy("rbac"))
    assert jobs is not None
    assert policy is not None
    manifest = cron_job(
        *("rbac", policy.uid, Reporting(schedule="@daily"), _report_job()),
        namespace=HOME,
        since=policy.creation_timestamp,
    )
    await jobs.apply(manifest)
    there = await jobs.get(cron_job_name("rbac"))
    assert there is not None
    assert not differences(manifest, there)
    await jobs.delete(cron_job_name("rbac"), there["metadata"]["uid"])


async def _use_instances(host: InstanceHost) -> None:
    """Make an instance, look at it, restart it and remove it, by every method of the host."""
    assert await host.changes(INSTANCE)
    await host.make(INSTANCE, "password")
    seen = await _pod_of(host)
    await host.restart(INSTANCE, seen)
    await host.remove(INSTANCE.tenant, keep_data=False, still=partial(asyncio.sleep, 0))


async def _pod_of(host: InstanceHost) -> Sighting:
    async with asyncio.timeout(60):
        while not (seen := await host.look(INSTANCE)).process:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)
    return seen


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


async def _watch(resources: Resources) -> None:
    """Start the operator's watches and wait until each of them brought something: what is there,
    and of Secrets what changes."""
    watches = Watches()
    missing = {kind.plural for kind in Kind} | {"namespaces", *WATCHED}

    def seen(event: Seen) -> None:
        secret = event.plural == "secrets"
        missing.discard(event.raw["metadata"]["namespace"] if secret else event.plural)

    async with AsyncExitStack() as stack:
        for source in (cluster_source(watches), secret_source(watches, WATCHED)):
            source.start(seen)
            stack.push_async_callback(source.stop)
        async with asyncio.timeout(60):
            while missing:
                await _change_secrets(resources)
                await asyncio.sleep(0.1)


async def _change_secrets(resources: Resources) -> None:
    for namespace in WATCHED:
        draft = SecretDraft(namespace, "seen", "tests", {"key": b"one"})
        await resources.delete_secret(await resources.create_secret(draft))


@pytest.fixture(scope="module")
def used(release: Release) -> list[Object]:
    """The requests of the operator's code, from the audit log."""
    cluster = release.cluster
    cluster.apply(declared.store("rbac"), declared.policy("rbac"), declared.tenant(TENANTS, "rbac"))
    cluster.apply(declared.report(HOME, "rbac"))
    kubeconfig = cluster.kubeconfig_for_service_account(HOME, RELEASE)

    async def operate() -> None:
        async with Connection.open(kubeconfig=kubeconfig) as connection:
            resources = KubernetesResources(connection, home=HOME, instance="tests")
            called = await _use_the_port(resources)
            assert called == {
                name for name, member in vars(Resources).items()
                if callable(member) and not name.startswith("_")
            }  # fmt: skip
            await _use_instances(ClusterInstances(connection, home=HOME))
            await _lead(connection)
            await _watch(resources)

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


def test_the_operator_cannot_run_a_job_as_somebody_else(release: Release) -> None:
    reporting = Reporting(schedule="@daily")
    manifest = cron_job(
        *("other", "uid-1", reporting, _report_job()), namespace=HOME, since=datetime.now(UTC)
    )
    file = release.cluster.folder / "cronjob.json"
    create = ("create", "--dry-run=server", "-f", str(file), "--as", release.operator)
    file.write_text(json.dumps(manifest))
    assert release.cluster.try_kubectl(*create).returncode == 0

    pod = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod["serviceAccountName"] = f"{RELEASE}-sealer"
    file.write_text(json.dumps(manifest))
    answer = release.cluster.try_kubectl(*create)

    assert answer.returncode != 0
    assert "they run as memtenant-reporter" in answer.stderr


def test_the_operator_cannot_run_an_instance_as_somebody_else(release: Release) -> None:
    tenant = TenantId(TENANTS, "acme")
    instance = Instance(tenant, "strict", 64 * 1024**2, Dedicated(image="valkey:9"))
    manifest = stateful_set(instance, HOME, instance.volume)
    file = release.cluster.folder / "statefulset.json"
    create = ("create", "--dry-run=server", "-f", str(file), "--as", release.operator)
    file.write_text(json.dumps(manifest))
    answer = release.cluster.try_kubectl(*create)
    assert answer.returncode == 0, answer.stderr

    manifest["spec"]["template"]["spec"]["serviceAccountName"] = f"{RELEASE}-sealer"
    file.write_text(json.dumps(manifest))
    answer = release.cluster.try_kubectl(*create)

    assert answer.returncode != 0
    assert "under no account of memtenant's" in answer.stderr


REPORTER = f"{RELEASE}-reporter"


@pytest.fixture(scope="module")
def reported(release: Release) -> list[Object]:
    """The requests of a report job's code, as its own ServiceAccount."""
    cluster = release.cluster
    kubeconfig = cluster.kubeconfig_for_service_account(HOME, REPORTER)
    spec = declared.report(HOME, "unused")["spec"]

    async def report() -> None:
        async with Connection.open(kubeconfig=kubeconfig) as connection:
            resources = KubernetesResources(connection, home=HOME, instance="tests")
            for kind in RECONCILED:
                await resources.list(kind)
            await resources.list_namespaces()
            for namespace in (HOME, f"{HOME}-audit"):
                await read_grants(connection, namespace)
            assert await read_public_key(connection, f"{HOME}-audit") is None
            reports = reports_in_cluster(connection, HOME)
            await reports.save("rbac", "rbac-1", spec, {"madeAt": "2026-01-31T09:30:00Z"})
            (made,) = await reports.of_policy("rbac")
            assert made.status["madeAt"] == "2026-01-31T09:30:00Z"
            await reports.delete(made)
            assert await reports.of_policy("rbac") == ()

    asyncio.run(report())
    return _requests(release, REPORTER)


def test_a_report_job_may_do_what_it_does_and_nothing_else(
    release: Release, reported: list[Object]
) -> None:
    used = {_right(each) for each in reported}
    granted = {right for _, right in _granted(release, REPORTER)}

    assert not [each for each in reported if each["responseStatus"]["code"] in (401, 403)]
    assert used == granted


@pytest.mark.parametrize(
    ("verb", "what", "where"),
    [
        ("get", "secrets", HOME),
        ("list", "secrets", TENANTS),
        ("create", "pods", HOME),
        ("patch", "retentionpolicies.memtenant.dev", HOME),
        ("update", "compliancereports.memtenant.dev", HOME),
        ("create", "compliancereports.memtenant.dev", TENANTS),
        ("create", "cronjobs.batch", HOME),
    ],
)
def test_a_report_job_is_refused_everything_else(
    release: Release, verb: str, what: str, where: str
) -> None:
    user = f"system:serviceaccount:{HOME}:{REPORTER}"
    answer = release.cluster.try_kubectl("auth", "can-i", verb, what, "-n", where, "--as", user)
    assert answer.stdout.strip() == "no"
