"""Who may read a Secret, by what RBAC says: every binding that counts, not a question per person.

A SubjectAccessReview needs a name to ask about; here the names are what is looked for. Reading is
get, list and watch, and patch, whose answer is the whole object. Whoever may start a pod beside the
Secret, or impersonate a reader, is not found by this.

Deleting is reading too: a dry run answers with what it would delete, all of a collection, and one
object where its deletion has to wait for a finalizer (which the policy of the deletion adds).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import Connection

__all__ = ["Grants", "read_grants", "secret_readers"]

_READING = frozenset({"get", "list", "watch", "patch", "delete", "deletecollection", "*"})
_RBAC = "rbac.authorization.k8s.io/v1"

Grants = Mapping[str, tuple[Mapping[str, Any], ...]]
"""Roles and bindings as JSON, by the plural of their kind."""


async def read_grants(connection: Connection, namespace: str) -> Grants:
    """Everything in RBAC that can give access to a Secret of ``namespace``."""
    places = (
        (APIKind("ClusterRole", _RBAC, "clusterroles"), ""),
        (APIKind("ClusterRoleBinding", _RBAC, "clusterrolebindings"), ""),
        (APIKind("Role", _RBAC, "roles"), namespace),
        (APIKind("RoleBinding", _RBAC, "rolebindings"), namespace),
    )
    found: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for kind, within in places:
        pages = Collection(connection, kind, within).pages()
        found[kind.plural] = tuple([one async for page in pages for one in page["items"]])
    return found


def secret_readers(grants: Grants, secret: str) -> tuple[str, ...]:
    """The subjects that may read the Secret of that name, as ``system:serviceaccount:NS:NAME``, a
    user's name, or ``group NAME``.

    Left out are those who hold the whole cluster anyway: the group system:masters, the control
    plane's own users, and the ServiceAccounts of kube-system.
    """
    roles = {
        (kind, role["metadata"]["name"]): role.get("rules") or ()
        for kind, plural in (("ClusterRole", "clusterroles"), ("Role", "roles"))
        for role in grants[plural]
    }
    found = {
        name
        for plural in ("clusterrolebindings", "rolebindings")
        for binding in grants[plural]
        if any(_reads(rule, secret) for rule in roles.get(_role_of(binding), ()))
        for name in _subjects(binding)
    }
    return tuple(sorted(found))


def _role_of(binding: Mapping[str, Any]) -> tuple[str, str]:
    return binding["roleRef"]["kind"], binding["roleRef"]["name"]


def _reads(rule: Mapping[str, Any], secret: str) -> bool:
    named = rule.get("resourceNames") or ()
    return (
        bool({"", "*"} & set(rule.get("apiGroups") or ()))
        and bool({"secrets", "*"} & set(rule.get("resources") or ()))
        and bool(_READING & set(rule.get("verbs") or ()))
        and (not named or secret in named)
    )


def _subjects(binding: Mapping[str, Any]) -> Iterator[str]:
    for one in binding.get("subjects") or ():
        name = one["name"]
        match one["kind"]:
            case "ServiceAccount":
                namespace = one.get("namespace", "")
                if namespace != "kube-system":
                    yield f"system:serviceaccount:{namespace}:{name}"
            case "Group":
                if name not in ("system:masters", "system:serviceaccounts:kube-system"):
                    yield f"group {name}"
            case _:
                if not name.startswith(("system:kube-", "system:apiserver")):
                    yield name
