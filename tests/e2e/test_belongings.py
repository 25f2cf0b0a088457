"""What a real API server holds in the operator's namespace, and who is said to own it."""

import pytest

from memtenant.api.dedicated import Dedicated
from memtenant.rules.instance import Instance, claim_name, instance_labels, instance_name
from memtenant.rules.instanceobjects import headless_service, network_policy, stateful_set
from memtenant.tenancy.identity import TenantId
from tests.e2e import belongings
from tests.e2e.api import Api
from tests.e2e.scene import Scene, eventually
from tests.e2e.witness import Json

pytestmark = pytest.mark.e2e

_MIB = 1 << 20
_OURS = {"app.kubernetes.io/managed-by": "memtenant"}


def test_what_an_instance_leaves_behind_is_told_by_name_and_not_before(scene: Scene) -> None:
    """No operator runs: its manifests are declared, and the StatefulSet's claim is made by the
    cluster."""
    team = scene.team()
    tenant = TenantId(team, "vault")
    name, claim = instance_name(tenant), claim_name(tenant)
    scene.policy()
    scene.tenant(team, tenant.name, isolation="Strict")
    template = Dedicated.model_validate({"image": "valkey/valkey:8.1"})
    instance = Instance(tenant, scene.store_name, 64 * _MIB, template)
    scene.cluster.apply(
        headless_service(instance, scene.home),
        network_policy(instance, scene.home),
        stateful_set(instance, scene.home, 1024 * _MIB),
        _secret(scene.home, name, instance_labels(tenant)),
    )
    scene.secret(scene.home, "of-people", {"password": b"of-nobody-else"})
    eventually(lambda: scene.seen(team, tenant.name), "the tenant")
    eventually(lambda: scene.at_home()["persistentvolumeclaims"], "the claim")
    assert _told(scene) == set()
    with Api.of(scene.cluster) as api:
        api.discard("memorytenants", team, tenant.name)
    scene.wait_gone(team, tenant.name)
    scene.cluster.apply(_cron_job(scene.home), _lease(scene.home))
    assert _told(scene) == {
        f"CronJob {scene.home}/left-behind belongs to nobody",
        f"Lease {scene.home}/left-behind belongs to nobody",
        f"NetworkPolicy {scene.home}/{name} belongs to nobody",
        f"PersistentVolumeClaim {scene.home}/{claim} belongs to nobody",
        f"Secret {scene.home}/{name} belongs to nobody",
        f"Service {scene.home}/{name} belongs to nobody",
        f"StatefulSet {scene.home}/{name} belongs to nobody",
    }


def _told(scene: Scene) -> set[str]:
    tenants = {
        TenantId(item["metadata"]["namespace"], item["metadata"]["name"]): item
        for item in scene.witness.all("memorytenants")
    }
    policies = scene.witness.all("retentionpolicies")
    owners = belongings.Owners(tenants, {}, policies)
    return set(belongings.without_an_owner(scene.at_home(), owners))


def _secret(home: str, name: str, labels: dict[str, str]) -> Json:
    metadata = {"name": name, "namespace": home, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}


def _lease(home: str) -> Json:
    metadata = {"name": "left-behind", "namespace": home}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}


def _cron_job(home: str) -> Json:
    pod = {"restartPolicy": "Never", "containers": [{"name": "report", "image": "memtenant"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "left-behind", "namespace": home, "labels": _OURS},
        "spec": {
            "schedule": "@yearly",
            "suspend": True,
            "jobTemplate": {"spec": {"template": {"spec": pod}}},
        },
    }
