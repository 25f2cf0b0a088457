"""Who changed a spec is stamped on it by the API server, and by nobody else."""

import json
import time
from collections.abc import Iterator

import pytest

from memtenant.reconcile.telling import CHANGED_BY_ANNOTATION
from tests.chart.conftest import Release
from tests.chart.rendered import RELEASE, Object, objects, one
from tests.support.controlplane.cluster import Cluster

pytestmark = pytest.mark.cluster

NAME = f"{RELEASE}-changed-by"
PATIENCE = 60.0
"""Seconds within which an API server begins to apply a new admission policy."""


@pytest.fixture
def stamping(release: Release) -> Iterator[Cluster]:
    """The chart's policy, in force."""
    rendered = objects("--set", "admission.changedBy=true")
    policy = one(rendered, "MutatingAdmissionPolicy", NAME)
    binding = one(rendered, "MutatingAdmissionPolicyBinding", NAME)
    cluster = release.cluster
    cluster.apply(policy, binding)
    try:
        until = time.monotonic() + PATIENCE
        while _declare(cluster, "probe", "ada") != "ada":
            assert time.monotonic() < until, "the policy does not come into force"
            time.sleep(0.2)
        yield cluster
    finally:
        cluster.kubectl("delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", NAME)
        cluster.kubectl("delete", "retentionpolicies", "probe", "gdpr", "--ignore-not-found")


def _declare(cluster: Cluster, name: str, user: str, annotation: str = "", **spec: object) -> str:
    """Declare a policy as that user; who is stamped on it then."""
    claimed = {CHANGED_BY_ANNOTATION: annotation} if annotation else {}
    policy: Object = {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": "RetentionPolicy",
        "metadata": {"name": name, "annotations": {"note": user, **claimed}},
        "spec": spec or {"legalBasis": f"{user} {time.monotonic()}"},
    }
    flags = ("--as", user, "--as-group", "system:masters")
    cluster.kubectl("apply", "-f", "-", *flags, stdin=json.dumps(policy))
    found = cluster.get("retentionpolicy", name)
    return str(found["metadata"].get("annotations", {}).get(CHANGED_BY_ANNOTATION, ""))


def test_the_user_who_changed_the_spec_is_stamped_and_cannot_be_another(
    stamping: Cluster,
) -> None:
    assert _declare(stamping, "gdpr", "ada", legalBasis="one") == "ada"
    assert _declare(stamping, "gdpr", "bob", "ada", legalBasis="two") == "bob"
    # What is no change of the spec leaves the name as it is.
    assert _declare(stamping, "gdpr", "carol", "carol", legalBasis="two") == "bob"
    stamping.kubectl("annotate", "retentionpolicy", "gdpr", f"{CHANGED_BY_ANNOTATION}-")
    assert _declare(stamping, "gdpr", "carol", legalBasis="two") == "bob"


def test_the_operator_trusts_the_stamp_only_where_the_chart_sets_it() -> None:
    def trusts(*arguments: str) -> bool:
        deployment = one(objects(*arguments), "Deployment")
        env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        return {"name": "MEMTENANT_CHANGED_BY_STAMPED", "value": "true"} in env

    assert trusts("--set", "admission.changedBy=true")
    assert not trusts()
