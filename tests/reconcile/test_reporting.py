"""What becomes of a policy's schedule, on a real API server and in a state folder."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memtenant.api.conditions import find, is_true
from memtenant.api.policy import RetentionPolicyStatus
from memtenant.clock import Clock, rfc3339
from memtenant.reconcile.policy import reconcile_policy
from memtenant.reconcile.world import World
from memtenant.resources.clusterreports import reports_in_cluster
from memtenant.resources.connection import Connection
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Kind, ObjectKey
from memtenant.resources.reportobjects import reports_in_folder
from memtenant.rules.reporting import cron_job_name
from tests.reconcile.conftest import Ground
from tests.support.controlplane.cluster import Cluster

_TEMPLATE = {
    "spec": {
        "activeDeadlineSeconds": 1800,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "report", "image": "example.org/shell", "args": []}],
            }
        },
    }
}
_DAILY = {"schedule": "0 3 * * *"}


def _period(until: datetime) -> dict[str, Any]:
    since = rfc3339(until - timedelta(days=1))
    return {"since": since, "until": rfc3339(until)}


def _found(at: datetime, *, fail: int = 0) -> dict[str, Any]:
    return {"madeAt": rfc3339(at), "summary": {"pass": 5, "fail": fail}}


class Policy:
    """One policy of a real API server; ``now`` is what the operator believes."""

    def __init__(self, cluster: Cluster, connection: Connection, home: str) -> None:
        self.name = f"p-{home}"
        self.now = datetime.now(UTC)
        self.cluster = cluster
        self.reports = reports_in_cluster(connection, home)
        self.resources = KubernetesResources(connection, home=home, instance="test")
        self.world = World(
            resources=self.resources,
            mirror=Mirror(),
            installation="",
            fence=lambda: 1,
            clock=Clock(now=lambda: self.now),
            report_job=_TEMPLATE,
        )

    def declare(self, **report: Any) -> None:
        """The policy with such a report section; without one where nothing is given."""
        spec = {"report": report} if report else {}
        self.cluster.apply(
            {
                "apiVersion": "memtenant.dev/v1alpha1",
                "kind": "RetentionPolicy",
                "metadata": {"name": self.name},
                "spec": spec,
            }
        )

    async def reconcile(self) -> RetentionPolicyStatus:
        """One reconcile from what the API server has now, and the status after it."""
        for kind in Kind:
            self.world.mirror.replace(kind, await self.resources.list(kind))
        declared = self.world.mirror.get(ObjectKey.policy(self.name))
        assert declared is not None
        self.outcome = await reconcile_policy(self.world, declared)
        found = await self.resources.get(ObjectKey.policy(self.name))
        return RetentionPolicyStatus.model_validate(found.status if found else {})

    async def cron_job(self) -> Any:
        """The policy's CronJob, or None."""
        return await self.resources.cron_jobs.get(cron_job_name(self.name))


@pytest.fixture(scope="module")
def kinds(cluster: Cluster, pytestconfig: pytest.Config) -> Cluster:
    """The control plane with the committed CRDs, established."""
    folder = str(pytestconfig.rootpath / "crds")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", folder)
    return cluster


@pytest.fixture
async def policy(kinds: Cluster, namespace: str) -> AsyncIterator[Policy]:
    async with Connection.open(kubeconfig=kinds.kubeconfig) as connection:
        made = Policy(kinds, connection, namespace)
        yield made
        no_finalizers = ("--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        kinds.try_kubectl("patch", "rp", made.name, *no_finalizers)
        kinds.try_kubectl("delete", "rp", made.name)


def _told(status: RetentionPolicyStatus, kind: str) -> tuple[str, str]:
    found = find(status.conditions, kind)
    return (str(found.status), found.reason) if found else ("", "")


@pytest.mark.cluster
async def test_a_cronjob_follows_the_policy_and_a_second_look_writes_nothing(
    policy: Policy,
) -> None:
    policy.declare(schedule="0 3 * * *", timeZone="Europe/Berlin")
    status = await policy.reconcile()
    made = await policy.cron_job()
    assert made["spec"]["timeZone"] == "Europe/Berlin"
    assert _told(status, "ReportScheduled") == ("True", "Scheduled")
    await policy.reconcile()
    assert not policy.outcome.changed
    assert (await policy.cron_job())["metadata"]["resourceVersion"] == made["metadata"][
        "resourceVersion"
    ]

    policy.cluster.kubectl(
        *("patch", "cronjob", made["metadata"]["name"], "-n", policy.resources.home),
        *("--type=merge", "-p", '{"spec":{"schedule":"@yearly"}}'),
    )
    await policy.reconcile()
    assert (await policy.cron_job())["spec"]["schedule"] == "0 3 * * *"

    policy.declare(schedule="0 3 * * *", suspend=True)
    assert _told(await policy.reconcile(), "ReportScheduled") == ("False", "Suspended")
    assert (await policy.cron_job())["spec"]["suspend"] is True

    policy.declare()
    assert _told(await policy.reconcile(), "ReportScheduled") == ("", "")
    assert await policy.cron_job() is None


@pytest.mark.cluster
async def test_a_report_that_does_not_come_is_told_until_one_comes(policy: Policy) -> None:
    policy.declare(**_DAILY)
    await policy.reconcile()
    policy.now += timedelta(days=1, hours=1)

    status = await policy.reconcile()
    assert is_true(status.conditions, "Stale")
    assert status.last_report is None

    about = {"policyRef": {"name": policy.name}, "period": _period(policy.now)}
    to_come = policy.now + timedelta(days=30)
    await policy.reports.save(policy.name, f"{policy.name}-0", about, _found(to_come))
    status = await policy.reconcile()
    assert is_true(status.conditions, "Stale")

    await policy.reports.save(policy.name, f"{policy.name}-1", about, _found(policy.now, fail=2))
    status = await policy.reconcile()
    assert not is_true(status.conditions, "Stale")
    assert status.last_report is not None
    assert (status.last_report.failed, status.last_report.errors) == (2, 0)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"schedule": "0 3-1 * * *"}, "InvalidSchedule"),
        ({"schedule": "@daily", "timeZone": "Europe/Atlantis"}, "UnknownTimeZone"),
    ],
)
async def test_a_schedule_that_cannot_be_read_stalls_the_policy_and_not_its_tenants(
    policy: Policy, report: dict[str, Any], reason: str
) -> None:
    policy.declare(**report)

    status = await policy.reconcile()

    assert _told(status, "ReportScheduled") == ("False", reason)
    assert _told(status, "Stalled") == ("True", reason)
    assert status.retention is not None
    assert policy.name in policy.world.policies
    policy.declare(**_DAILY)
    status = await policy.reconcile()
    assert (_told(status, "Ready")[0], _told(status, "Stalled")) == ("True", ("", ""))


@pytest.mark.cluster
async def test_a_cronjob_of_somebody_else_is_left_alone(policy: Policy) -> None:
    name, home = cron_job_name(policy.name), policy.resources.home
    job = ("--image=example.org/shell", "--schedule=@yearly")
    policy.cluster.kubectl("create", "cronjob", name, "-n", home, *job)
    policy.declare(**_DAILY)

    status = await policy.reconcile()

    assert _told(status, "ReportScheduled") == ("False", "ForeignCronJob")
    assert (await policy.cron_job())["spec"]["schedule"] == "@yearly"
    policy.declare()
    await policy.reconcile()
    assert await policy.cron_job() is not None


@pytest.mark.cluster
async def test_an_installation_that_runs_no_report_jobs_says_so_and_leaves_none(
    policy: Policy,
) -> None:
    policy.declare(**_DAILY)
    await policy.reconcile()
    assert await policy.cron_job() is not None
    policy.world.report_job = None

    assert _told(await policy.reconcile(), "ReportScheduled") == ("False", "ReportsDisabled")
    assert await policy.cron_job() is None


@pytest.mark.cluster
async def test_with_the_policy_goes_its_cronjob(policy: Policy) -> None:
    policy.declare(**_DAILY)
    await policy.reconcile()
    assert await policy.cron_job() is not None
    policy.cluster.kubectl("delete", "rp", policy.name, "--wait=false")

    await policy.reconcile()

    async with asyncio.timeout(60):
        while await policy.cron_job():  # noqa: ASYNC110 -- a collector's pace
            await asyncio.sleep(0.1)


async def test_without_a_cluster_reports_are_made_by_hand_and_told_to_tenants(
    ground: Ground,
) -> None:
    ground.policy(report=_DAILY)
    ground.tenant("acme")
    await ground.settle()
    now = datetime.now(UTC).replace(microsecond=0)
    await reports_in_folder(ground.resources).save(
        "standard",
        "standard-1",
        {"policyRef": {"name": "standard"}, "period": _period(now)},
        _found(now, fail=1),
    )

    happened = await ground.settle(ahead=timedelta(days=3))

    policy = happened[ObjectKey.policy("standard")].declared
    assert policy is not None
    status = RetentionPolicyStatus.model_validate(policy.status)
    assert _told(status, "ReportScheduled") == ("False", "ByHand")
    tenant = await ground.tenant_status("acme")
    assert tenant.last_report == status.last_report
    assert tenant.last_report is not None
    assert (tenant.last_report.name, tenant.last_report.failed) == ("standard-1", 1)
    assert not is_true(tenant.conditions, "Stale")
    again = await ground.settle(ahead=timedelta(days=3))
    assert not any(one.did for one in again.values() if one.key.kind is not Kind.STORE)
