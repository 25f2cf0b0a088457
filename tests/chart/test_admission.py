"""A store or policy that tenants use cannot be deleted; the real API server refuses it."""

import json

import pytest

from tests.chart import objects
from tests.chart.conftest import Release
from tests.support.controlplane.cluster import Cluster, KubectlFailed

pytestmark = pytest.mark.cluster

KINDS = {"memorystore": objects.store, "retentionpolicy": objects.policy}
each_kind = pytest.mark.parametrize("kind", KINDS)


def _declare(cluster: Cluster, kind: str, name: str, tenants: int | None) -> None:
    cluster.apply(KINDS[kind](name))
    if tenants is not None:
        _report(cluster, kind, name, tenants)


def _report(cluster: Cluster, kind: str, name: str, tenants: int) -> None:
    status = json.dumps({"status": {"tenants": tenants}})
    cluster.kubectl(
        *("patch", kind, name, "--subresource=status", "--type=merge", "-p", status)
    )  # fmt: skip


@each_kind
def test_what_tenants_use_is_not_deleted_and_the_message_says_what_to_do(
    release: Release, kind: str
) -> None:
    cluster = release.cluster
    _declare(cluster, kind, "used", 2)
    with pytest.raises(KubectlFailed) as refused:
        cluster.kubectl("delete", kind, "used")
    message = str(refused.value)
    assert "used is in use by 2 tenants: delete or re-create them elsewhere first" in message
    assert "kubectl get memorytenants -A" in message
    with pytest.raises(KubectlFailed, match="in use by 2 tenants"):
        cluster.kubectl("delete", kind, "--all")
    assert "deletionTimestamp" not in cluster.get(kind, "used")["metadata"]
    _report(cluster, kind, "used", 0)
    cluster.kubectl("delete", kind, "used")


@each_kind
@pytest.mark.parametrize("tenants", [None, 0])
def test_what_nobody_uses_is_deleted(release: Release, kind: str, tenants: int | None) -> None:
    _declare(release.cluster, kind, "unused", tenants)
    release.cluster.kubectl("delete", kind, "unused")


@each_kind
def test_the_command_in_the_message_shows_the_tenants(release: Release, kind: str) -> None:
    cluster = release.cluster
    _declare(cluster, kind, "asked", 1)
    tenant = objects.tenant("support", "asking")
    tenant["spec"] |= {"storeRef": {"name": "asked"}, "retentionPolicyRef": {"name": "asked"}}
    cluster.apply(tenant)
    placed = json.dumps({"status": {"store": "asked"}})
    cluster.kubectl(
        *("patch", "memorytenant", "asking", "-n", "support"),
        *("--subresource=status", "--type=merge", "-p", placed),
    )
    with pytest.raises(KubectlFailed) as refused:
        cluster.kubectl("delete", kind, "asked")
    command = str(refused.value).split("To see them: kubectl ")[1].split(" (")[0]
    assert "asking" in cluster.kubectl(*command.split())
    assert "asked" in cluster.kubectl(*command.split())
    cluster.kubectl("delete", "memorytenant", "asking", "-n", "support")
    _report(cluster, kind, "asked", 0)
    cluster.kubectl("delete", kind, "asked")


@each_kind
def test_what_is_being_deleted_already_is_not_refused_again(release: Release, kind: str) -> None:
    cluster = release.cluster
    _declare(cluster, kind, "going", None)
    finalizers = json.dumps({"metadata": {"finalizers": ["memtenant.dev/test"]}})
    cluster.kubectl("patch", kind, "going", "--type=merge", "-p", finalizers)
    cluster.kubectl("delete", kind, "going", "--wait=false")
    _report(cluster, kind, "going", 1)
    cluster.kubectl("delete", kind, "going", "--wait=false")
    cluster.kubectl(
        *("patch", kind, "going", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    )
    cluster.kubectl("wait", "--for=delete", f"{kind}/going", "--timeout=120s")


def test_tenants_are_deleted_freely(release: Release) -> None:
    release.cluster.apply(objects.tenant("support", "free"))
    release.cluster.kubectl("delete", "memorytenant", "free", "-n", "support")
