"""May the operator touch Secrets where a tenant is? Asked before anything is made for it.

Under ``secretAccess: Namespaced`` access to Secrets is granted namespace by namespace. A tenant in
another one would get users and keys and then no binding, so it is told first, with the command that
grants it.
"""

from __future__ import annotations

from memtenant.reconcile.world import World
from memtenant.resources.port import SECRET_ACCESS_MISSING
from memtenant.rules.placement import Refusal

__all__ = ["LOOK_AGAIN", "missing_secret_access"]

LOOK_AGAIN = 30.0
"""Seconds between two looks at a tenant that waits for a grant: no event tells of a RoleBinding."""


async def missing_secret_access(
    world: World, namespace: str, *, again: bool = False
) -> Refusal | None:
    """Why a tenant in ``namespace`` cannot be served, or None where Secrets may be touched.

    A grant is asked for once a namespace; ``again`` asks anew, where one may have been withdrawn.
    """
    if namespace in world.secret_namespaces and not again:
        return None
    if await world.resources.can_read_secrets(namespace):
        world.secret_namespaces.add(namespace)
        return None
    world.secret_namespaces.discard(namespace)
    account, home = world.service_account, world.resources.home
    return Refusal(
        SECRET_ACCESS_MISSING,
        "",
        f"The operator may not touch Secrets in namespace {namespace}, where this tenant's "
        f"bindings would be. Grant it: kubectl -n {namespace} create rolebinding {account}-secrets "
        f"--clusterrole={account}-secrets --serviceaccount={home}:{account}. Or add {namespace} to "
        "the chart's tenantNamespaces",
        retryable=True,
    )
