"""Who is found to read a Secret, and who the real authorizer lets read it, are the same."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from memtenant.resources.connection import Connection, Request
from memtenant.resources.secretreaders import read_grants, secret_readers
from tests.support.controlplane.cluster import Cluster

pytestmark = pytest.mark.cluster

_SECRET = "memtenant-log"

_RULES: dict[str, dict[str, Any]] = {
    "gets": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
    "lists": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]},
    "watches": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["watch"]},
    "patches": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]},
    "everything": {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    "names-it": {
        "apiGroups": [""],
        "resources": ["secrets"],
        "verbs": ["get"],
        "resourceNames": ["other", _SECRET],
    },
    "names-another": {
        "apiGroups": [""],
        "resources": ["secrets"],
        "verbs": ["get"],
        "resourceNames": ["other"],
    },
    "deletes": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["delete"]},
    "collects": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["deletecollection"]},
    "creates": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "update"]},
    "configmaps": {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
    "another-group": {"apiGroups": ["example.org"], "resources": ["secrets"], "verbs": ["*"]},
}
_SUBJECTS = {
    "user": {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "{name}"},
    "group": {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "{name}"},
    "account": {"kind": "ServiceAccount", "name": "{name}", "namespace": "{namespace}"},
}


def _objects(namespace: str) -> Iterator[dict[str, Any]]:
    rbac = "rbac.authorization.k8s.io/v1"
    reference = {"apiGroup": "rbac.authorization.k8s.io"}
    for role, rule in _RULES.items():
        yield {
            "apiVersion": rbac,
            "kind": "Role",
            "metadata": {"name": role, "namespace": namespace},
            "rules": [rule],
        }
        for kind, subject in _SUBJECTS.items():
            named = {
                key: text.format(name=f"{role}-{kind}-{namespace}", namespace=namespace)
                for key, text in subject.items()
            }
            yield {
                "apiVersion": rbac,
                "kind": "RoleBinding",
                "metadata": {"name": f"{role}-{kind}", "namespace": namespace},
                "roleRef": {**reference, "kind": "Role", "name": role},
                "subjects": [named],
            }
    yield {
        "apiVersion": rbac,
        "kind": "RoleBinding",
        "metadata": {"name": "by-a-cluster-role", "namespace": namespace},
        "roleRef": {**reference, "kind": "ClusterRole", "name": "admin"},
        "subjects": [{**_SUBJECTS["user"], "name": f"admin-user-{namespace}"}],
    }
    yield {
        "apiVersion": rbac,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"everywhere-{namespace}"},
        "roleRef": {**reference, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{**_SUBJECTS["user"], "name": f"cluster-user-{namespace}"}],
    }


async def _may_read(connection: Connection, namespace: str, name: str, kind: str) -> bool:
    """Whether the authorizer says yes to any way of reading."""
    who = {
        "user": {"user": name},
        "group": {"user": "somebody", "groups": [name]},
        "account": {"user": f"system:serviceaccount:{namespace}:{name}"},
    }[kind]
    for verb in ("get", "list", "watch", "patch", "delete", "deletecollection"):
        named = {"name": _SECRET} if verb in ("get", "patch", "delete") else {}
        asked = {"namespace": namespace, "verb": verb, "resource": "secrets", **named}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"resourceAttributes": asked, **who},
        }
        where = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = await connection.call(Request("POST", where, "SubjectAccessReview", body=review))
        if answer["status"]["allowed"]:
            return True
    return False


async def test_those_are_found_who_may_and_no_others(cluster: Cluster, namespace: str) -> None:
    cluster.apply(*(json.dumps(one) for one in _objects(namespace)))
    async with Connection.open(kubeconfig=cluster.kubeconfig) as connection:
        found = secret_readers(await read_grants(connection, namespace), _SECRET)
        allowed = {
            (role, kind)
            for role in _RULES
            for kind in _SUBJECTS
            if await _may_read(connection, namespace, f"{role}-{kind}-{namespace}", kind)
        }
    cluster.kubectl("delete", "clusterrolebinding", f"everywhere-{namespace}")

    ours = {one for one in found if namespace in one}
    readers = (
        *("gets", "lists", "watches", "patches", "deletes", "collects"),
        *("everything", "names-it"),
    )
    assert ours == {
        *(f"{role}-user-{namespace}" for role in readers),
        *(f"group {role}-group-{namespace}" for role in readers),
        *(f"system:serviceaccount:{namespace}:{role}-account-{namespace}" for role in readers),
        *(f"admin-user-{namespace}", f"cluster-user-{namespace}"),
    }
    assert allowed == {(role, kind) for role in readers for kind in _SUBJECTS}


def test_a_deletion_that_is_only_tried_shows_what_it_would_delete(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(*(json.dumps(one) for one in _objects(namespace)))
    names = {"name": _SECRET, "namespace": namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": names, "data": {"key": "c2VhbHM="}}
    cluster.apply(json.dumps(secret))
    for role, where in (
        ("collects", "secrets?dryRun=All"),
        ("deletes", f"secrets/{_SECRET}?dryRun=All&propagationPolicy=Orphan"),
    ):
        answer = cluster.kubectl(
            *("delete", "--raw", f"/api/v1/namespaces/{namespace}/{where}"),
            *("--as", f"{role}-user-{namespace}"),
        )
        assert "c2VhbHM=" in answer, role
    cluster.kubectl("delete", "clusterrolebinding", f"everywhere-{namespace}")


async def test_those_who_hold_the_cluster_anyway_are_left_out(
    cluster: Cluster, namespace: str
) -> None:
    async with Connection.open(kubeconfig=cluster.kubeconfig) as connection:
        found = secret_readers(await read_grants(connection, namespace), _SECRET)

    assert [one for one in found if "kube-system" in one or "system:masters" in one] == []
    assert [one for one in found if one.startswith("system:kube-")] == []
