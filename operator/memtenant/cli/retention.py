"""``memtenant retention``: how long records are kept, by which clause, and what would go when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from memtenant.cli import cluster, options, output, workspace
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import Given, read_inputs
from memtenant.cli.intents import Intents, cluster_intents, local_intents
from memtenant.cli.options import Kubeconfig, KubeContext, Namespace, OptionalFiles, Output, State
from memtenant.cli.output import Format
from memtenant.cli.retention_output import (
    Explained,
    expected_as_data,
    explained_as_data,
    show_expected,
    show_explained,
)
from memtenant.cli.server import Server
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.clock import rfc3339, system_clock
from memtenant.errors import InvalidResource, ResourceNotFound, UsageError
from memtenant.reconcile.policy import read_policy
from memtenant.reconcile.preview import PreviewResources, preview_world
from memtenant.reconcile.retention import Expected, expected, retention_of
from memtenant.reconcile.world import Timing, World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import Declared, Kind, ObjectKey, Resources

__all__ = ["retention"]

retention = typer.Typer(
    help="How long records are kept, by which clause, and what would go when.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Tenant = Annotated[
    str | None, typer.Argument(metavar="TENANT", help="NAME or NAMESPACE/NAME; all if left out.")
]


@retention.callback()
def _group() -> None:
    """How long records are kept, by which clause, and what would go when."""


@retention.command()
def explain(
    tenant: _Tenant = None,
    files: OptionalFiles = None,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
    kubeconfig: Kubeconfig = None,
    kube_context: KubeContext = None,
    home: options.Home = cluster.DEFAULT_HOME,
    form: Output = Format.TABLE,
) -> None:
    """Show each class of record with its period, its bounds, and the clause behind each.

    Of what is declared in the state folder or, with --kubeconfig or --context, in a cluster; with
    -f also, or only, of manifests. No store is asked.

    Examples:

        memtenant retention explain support/acme

        memtenant retention explain -f policies/ -f tenants.yaml

    Exit code: 1 where something cannot be resolved.
    """
    given = read_inputs(files, namespace).require_valid() if files else Given()
    target = _target(kubeconfig, kube_context, home)
    now = system_clock.now()
    found = asyncio.run(_explain(tenant, given, namespace, state, target))
    if form in (Format.JSON, Format.YAML):
        output.data({"objects": [explained_as_data(one, now) for one in found]}, form)
    else:
        show_explained(found, now)
    raise typer.Exit(ExitCode.FAILED if any(one.problem for one in found) else ExitCode.DONE)


@retention.command()
def preview(
    context: typer.Context,
    tenant: _Tenant = None,
    days: Annotated[
        int, typer.Option("--days", min=0, max=36_500, help="Of how many days from now.")
    ] = 30,
    namespace: Namespace = "default",
    redis: options.Redis = None,
    redis_password_file: options.RedisPasswordFile = None,
    redis_ca: options.RedisCa = None,
    state: State = DEFAULT_STATE,
    kubeconfig: Kubeconfig = None,
    kube_context: KubeContext = None,
    home: options.Home = cluster.DEFAULT_HOME,
    form: Output = Format.TABLE,
) -> None:
    """Count what would go in the next days, under which clause. Nothing is removed.

    Reads the headers of the tenants' records on their stores, in one paced pass a store: in a
    cluster from this machine, with the operator's Secrets. What is written meanwhile is not
    counted, and holds are those that stand now.

    Example: `memtenant retention preview --days 90 support/acme`

    Exit code: 1 where something cannot be told.
    """
    target = _target(kubeconfig, kube_context, home)
    if target is not None and options.is_typed(context, "redis"):
        raise UsageError("--redis is for work without a cluster: leave it out")
    server = (
        None
        if target is not None
        else options.redis_server(context, redis, redis_password_file, redis_ca)
    )
    until = system_clock.now() + timedelta(days=days)

    async def count() -> list[Expected]:
        async with _looking(None, state, target, server) as world:
            kept = [retention_of(world, one) for one in _tenants(world, tenant, namespace)]
            with output.progress("Counting") as told:
                return await expected(world, kept, until, told)

    found = asyncio.run(count())
    if form in (Format.JSON, Format.YAML):
        shown = [expected_as_data(one) for one in found]
        output.data({"until": rfc3339(until), "tenants": shown}, form)
    else:
        show_expected(found, until)
    raise typer.Exit(ExitCode.FAILED if any(one.problem for one in found) else ExitCode.DONE)


def _target(kubeconfig: Path | None, kube_context: str | None, home: str) -> cluster.Target | None:
    if kubeconfig is None and kube_context is None:
        return None
    return cluster.Target(kubeconfig, kube_context, home)


@asynccontextmanager
async def _looking(
    given: Given | None, state: Path, target: cluster.Target | None, server: Server | None = None
) -> AsyncIterator[World]:
    """What is declared, with the manifests laid over it; nothing is written. Without manifests
    (None) the stores will be asked: the embedded server is started where it does not run."""
    if target is not None:
        intents = cluster_intents(given or Given())
        async with cluster.resources(target) as there:
            before = await workspace.declared_in(there)
            async with _world(there, intents, before) as world:
                yield world
        return
    if not (given and given.objects) and not workspace.is_made(state):
        raise UsageError(f"nothing is declared in {state}: declare something with `apply`")
    with FolderResources.open(state, writable=False) as resources:
        intents = (
            await local_intents(Given(), resources, state, server, create=False)
            if given is None
            else cluster_intents(given)
        )
        # In a state folder the manifests are all that labels and annotations there are.
        before = {
            key: replace(one, labels={}, annotations={})
            for key, one in (await workspace.declared_in(resources)).items()
        }
        async with _world(resources, intents, before) as world:
            yield world


@asynccontextmanager
async def _world(
    resources: Resources, intents: Intents, before: Mapping[ObjectKey, Declared]
) -> AsyncIterator[World]:
    laid = [intent.laid_over(before.get(intent.key)) for intent in intents.objects]
    home = await resources.get_namespace(resources.home)
    async with preview_world(
        PreviewResources(resources, [secret.as_stored() for secret in intents.secrets]),
        laid,
        installation=home.uid if home else "",
        timing=Timing(),
    ) as world:
        yield world


def _tenants(world: World, tenant: str | None, namespace: str) -> list[Declared]:
    """The tenant that is named, or all."""
    if tenant is None:
        keys = sorted(world.mirror.keys(Kind.TENANT))
        return [one for key in keys if (one := world.mirror.get(key)) is not None]
    key = workspace.tenant_key(tenant, namespace)
    found = world.mirror.get(key)
    if found is None:
        raise ResourceNotFound(f"there is no {key}: see `memtenant get tenants`")
    return [found]


async def _explain(
    tenant: str | None,
    given: Given,
    namespace: str,
    state: Path,
    target: cluster.Target | None,
) -> list[Explained]:
    async with _looking(given, state, target) as world:
        tenants = _tenants(world, tenant, namespace)
        named = {manifest.key for manifest in given.objects}
        if given.objects and tenant is None:
            tenants = [
                one
                for one in tenants
                if one.key in named or ObjectKey.policy(_policy_of(one)) in named
            ]
        used = {_policy_of(one) for one in tenants}
        policies = [
            one
            for key in sorted(world.mirror.keys(Kind.POLICY))
            if (one := world.mirror.get(key)) is not None
            and tenant is None
            and key.name not in used
            and (not given.objects or key in named)
        ]
        return [
            *(_explain_policy(world, one) for one in policies),
            *(_explain_tenant(world, one) for one in tenants),
        ]


def _policy_of(declared: Declared) -> str:
    ref = declared.spec.get("retentionPolicyRef")
    return str(ref.get("name")) if isinstance(ref, dict) else ""


def _explain_policy(world: World, declared: Declared) -> Explained:
    try:
        facts = read_policy(world, declared.key.name)
    except InvalidResource as error:
        return Explained(declared.key, problem=_said(error))
    return Explained(declared.key, facts.name, facts.resolution)


def _explain_tenant(world: World, declared: Declared) -> Explained:
    try:
        kept = retention_of(world, declared)
    except InvalidResource as error:
        return Explained(declared.key, problem=_said(error))
    return Explained(declared.key, kept.policy, kept.resolution, kept)


def _said(error: InvalidResource) -> str:
    return f"{error.field}: {error}" if error.field else str(error)
