"""``memtenant detach``: let declared objects go where no operator runs any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated

import typer

from memtenant.cli import cluster, output, workspace
from memtenant.cli.options import Kubeconfig, KubeContext, Namespace
from memtenant.errors import ResourceConflict, ResourceNotFound, UsageError
from memtenant.reconcile.world import FINALIZER
from memtenant.resources.port import Declared, Kind, ObjectKey, Resources

__all__ = ["detach"]

_TRIES = 5


def detach(
    tenants: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TENANT]...", help="NAME or NAMESPACE/NAME."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All tenants, stores and policies of the cluster.")
    ] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    kube_context: KubeContext = None,
) -> None:
    """Take memtenant's finalizers off, so that deletions do not wait for an operator that is gone.

    Stop the operator first: it would put them back. Users, data and keys stay as they are, and an
    operator that is installed again takes over from there. May be repeated. In a pod with a
    ServiceAccount it needs no options: `helm uninstall` runs it so.

    Example: `memtenant detach --all`
    """
    if everything is bool(tenants):
        raise UsageError("name the tenants to detach, or give --all")
    keys = [workspace.tenant_key(text, namespace) for text in tenants or ()]
    asyncio.run(_detach(keys, cluster.Target(kubeconfig, kube_context)))


async def _detach(keys: Iterable[ObjectKey], target: cluster.Target) -> None:
    async with cluster.resources(target) as resources:
        found = await _named(keys, resources) if keys else await _all(resources)
        bound = [declared for declared in found if FINALIZER in declared.finalizers]
        with output.progress("Detaching") as told:
            for done, declared in enumerate(bound, start=1):
                await _let_go(declared.key, resources)
                output.line(f"{declared.key} detached")
                told(done, len(bound))
    output.line(f"{len(bound)} detached, {len(found) - len(bound)} had no finalizer of memtenant")


async def _named(keys: Iterable[ObjectKey], resources: Resources) -> list[Declared]:
    found = []
    for key in keys:
        declared = await resources.get(key)
        if declared is None:
            raise ResourceNotFound(f"there is no {key} in the cluster: nothing was detached")
        found.append(declared)
    return found


async def _all(resources: Resources) -> list[Declared]:
    """Every declared object, of the kinds that are still defined: tenants first, because a store
    or policy without finalizer could go before they do."""
    found: list[Declared] = []
    for kind in (Kind.TENANT, Kind.STORE, Kind.POLICY):
        try:
            found += await resources.list(kind)
        except ResourceNotFound:
            output.note(f"{kind.value} is not defined in this cluster")
    return found


async def _let_go(key: ObjectKey, resources: Resources) -> None:
    """Others may change the finalizers at the same moment: read again then."""
    for attempt in range(_TRIES):
        declared = await resources.get(key)
        if declared is None or FINALIZER not in declared.finalizers:
            return
        try:
            await resources.remove_finalizer(declared, FINALIZER)
        except ResourceNotFound:
            return
        except ResourceConflict:
            if attempt + 1 == _TRIES:
                raise
        else:
            return
