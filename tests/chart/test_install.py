"""The real Helm installs the chart into namespaces that enforce `restricted`."""

import json
import time

import pytest

from tests.chart.conftest import ELSEWHERE, TENANTS, Release
from tests.chart.rendered import CHART, HOME, RELEASE, of_kind
from tests.chart.rendered import objects as rendered
from tests.support import processes

pytestmark = pytest.mark.cluster


def _may(release: Release, who: str, verb: str, what: str, *where: str) -> bool:
    answer = release.cluster.try_kubectl("auth", "can-i", verb, what, "--as", who, *where)
    return answer.stdout.strip() == "yes"


def test_the_pods_are_admitted(release: Release) -> None:
    def both() -> bool:
        found = release.cluster.get("pods", "-n", HOME, "-l", "app.kubernetes.io/name=memtenant")
        return len(found["items"]) == 3

    processes.wait_until(both, what="two pods of the operator and one of the sealer")


def test_the_pods_of_the_uninstall_hook_would_be_admitted(release: Release) -> None:
    jobs = of_kind(rendered(), "Job")
    assert len(jobs) == 2
    for job in jobs:
        pod = job["spec"]["template"]
        pod["spec"]["serviceAccountName"] = "default"  # the hook's own is there with the hook alone
        metadata = pod["metadata"] | {"name": job["metadata"]["name"], "namespace": HOME}
        release.cluster.kubectl(
            *("create", "--dry-run=server", "-f", "-"),
            stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **pod, "metadata": metadata}),
        )


def test_the_notes_lead_to_a_tenant(release: Release) -> None:
    notes = release.printed
    documents = [part.split("\n  YAML\n")[0] for part in notes.split("<<YAML\n")[1:]]
    assert len(documents) == 2
    for document in documents:
        text = "\n".join(line.removeprefix("  ") for line in document.splitlines())
        release.cluster.kubectl("apply", "--dry-run=server", "-n", TENANTS, "-f", "-", stdin=text)
    assert f"-n {TENANTS} wait memorytenant/acme" in notes


def test_an_upgrade_that_changes_nothing_restarts_nothing(release: Release) -> None:
    before = release.cluster.get("deployment", RELEASE, "-n", HOME)
    release.cluster.helm("upgrade", RELEASE, str(CHART), "-n", HOME, "--reuse-values")
    after = release.cluster.get("deployment", RELEASE, "-n", HOME)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_second_manager_finds_no_difference(release: Release) -> None:
    rendering = release.cluster.helm("get", "manifest", RELEASE, "-n", HOME)

    def versions() -> list[str]:
        text = release.cluster.kubectl("get", "-f", "-", "-o", "json", stdin=rendering)
        # The Deployment's status moves on by itself.
        return [
            each["metadata"]["resourceVersion"]
            for each in json.loads(text)["items"]
            if each["kind"] != "Deployment"
        ]

    gitops = ("apply", "--server-side", "--field-manager=gitops", "-f", "-")
    release.cluster.kubectl(*gitops, stdin=rendering)
    first = versions()
    time.sleep(0.1)
    release.cluster.kubectl(*gitops, stdin=rendering)
    assert versions() == first


def test_the_operator_may_touch_secrets_at_home_and_where_tenants_are(release: Release) -> None:
    for verb in ("get", "list", "watch", "create", "patch", "delete"):
        assert _may(release, release.operator, verb, "secrets", "-n", HOME)
        assert _may(release, release.operator, verb, "secrets", "-n", TENANTS)
        assert not _may(release, release.operator, verb, "secrets", "-n", ELSEWHERE)
        assert not _may(release, release.operator, verb, "secrets", "--all-namespaces")


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("create", "memorytenants"),
        ("delete", "memorytenants"),
        ("update", "memorystores"),
        ("list", "pods"),
        ("create", "pods"),
        ("get", "configmaps"),
        ("patch", "namespaces"),
        ("escalate", "clusterroles"),
        ("impersonate", "users"),
        ("delete", "leases.coordination.k8s.io"),
    ],
)
def test_the_operator_may_not_do_more_than_its_work(release: Release, verb: str, what: str) -> None:
    assert not _may(release, release.operator, verb, what, "-n", HOME)


def test_a_team_works_with_tenants_and_not_with_stores(release: Release) -> None:
    for role in ("view", "edit", "admin"):
        release.cluster.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": TENANTS},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": role,
                },
                "subjects": [
                    {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"u-{role}"}
                ],
            }
        )

    def aggregated() -> bool:
        rights = (("view", "list"), ("edit", "create"), ("admin", "delete"))
        return all(
            _may(release, f"u-{role}", verb, "memorytenants", "-n", TENANTS)
            for role, verb in rights
        )

    processes.wait_until(aggregated, what="each role with tenants in it")
    assert not _may(release, "u-view", "delete", "memorytenants", "-n", TENANTS)
    for user in ("u-view", "u-edit", "u-admin"):
        assert not _may(release, user, "create", "memorystores")
        assert not _may(
            release, user, "patch", "memorytenants", "--subresource=status", "-n", TENANTS
        )
        assert not _may(release, user, "list", "memorytenants", "-n", ELSEWHERE)


def test_the_platforms_role_is_for_stores_and_policies(release: Release) -> None:
    release.cluster.kubectl(
        *("create", "clusterrolebinding", "platform", f"--clusterrole={RELEASE}-platform"),
        "--user=u-platform",
    )
    processes.wait_until(
        lambda: _may(release, "u-platform", "list", "memorystores"), what="the role in force"
    )
    for what in ("memorystores", "retentionpolicies"):
        for verb in ("create", "update", "patch", "delete", "list"):
            assert _may(release, "u-platform", verb, what)
    assert not _may(release, "u-platform", "create", "memorytenants", "-n", TENANTS)
    assert not _may(release, "u-platform", "patch", "memorystores", "--subresource=status")
