"""``memtenant plan``: what ``apply``, or the operator, would do. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer

from memtenant.api.validate import defaulted
from memtenant.cli import cluster, options, output, workspace
from memtenant.cli.diff import Change, difference
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import Given, as_stored, judge, read_inputs
from memtenant.cli.intents import Intent, Intents, cluster_intents, local_intents
from memtenant.cli.options import Kubeconfig, KubeContext, Namespace, OptionalFiles, Output, State
from memtenant.cli.output import Format
from memtenant.cli.server import Server, instances_of
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.errors import UsageError
from memtenant.reconcile.preview import Expected, PreviewResources, expect, preview_world
from memtenant.reconcile.world import InstanceHost, Timing
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import Declared, Kind, ObjectKey, Resources

__all__ = ["plan"]


@dataclass(frozen=True, slots=True)
class Planned:
    """One object: what of it changes, and what the reconcile does then."""

    key: ObjectKey
    is_new: bool
    changes: tuple[Change, ...]
    expected: Expected

    @property
    def verb(self) -> str:
        """``create``, ``change``, ``repair`` or nothing."""
        if self.is_new:
            return "create"
        if self.changes:
            return "change"
        return "repair" if self.expected.actions else ""


def plan(
    context: typer.Context,
    files: OptionalFiles = None,
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
    """Show field by field what would change, and what would be done then. Nothing is written.

    Without a cluster: what `memtenant apply` would do, also for what drifted. The embedded Valkey
    is started if it does not run. With --kubeconfig or --context: what the operator would do with
    these manifests; it reads the operator's Secrets and asks the stores, from this machine.

    Example: `memtenant plan -f tenants.yaml`

    Exit code: 0 no change, 2 changes, 1 an error or an object that cannot be as declared.
    """
    given = read_inputs(files, namespace).require_valid() if files else Given()
    for skipped in given.skipped:
        output.note(f"Skipped {skipped}: not memtenant's")
    if kubeconfig is not None or kube_context is not None:
        if options.is_typed(context, "redis"):
            raise UsageError("--redis is for work without a cluster: leave it out")
        target = cluster.Target(kubeconfig, kube_context, home)
        planned = asyncio.run(_in_cluster(given, target))
    else:
        server = options.redis_server(context, redis, redis_password_file, redis_ca)
        planned = asyncio.run(_locally(given, server, state))
    if form in (Format.JSON, Format.YAML):
        output.data({"objects": [_as_data(one) for one in planned]}, form)
    else:
        _show(planned)
    raise typer.Exit(_exit_code(planned))


def _exit_code(planned: Iterable[Planned]) -> ExitCode:
    if any(one.expected.problem for one in planned):
        return ExitCode.FAILED
    return ExitCode.CHANGES if any(one.verb for one in planned) else ExitCode.DONE


async def _locally(given: Given, server: Server | None, state: Path) -> list[Planned]:
    if not given.objects and not workspace.is_made(state):
        raise UsageError(f"nothing is declared in {state}: give manifests with -f")
    with FolderResources.open(state, writable=False) as resources:
        before = await workspace.declared_in(resources)
        judge(given, before.get).require_valid()
        intents = await local_intents(given, resources, state, server)
        timing, instances = Timing(kubelet_lag=timedelta(0)), instances_of(state)
        return await _planned(resources, before, intents, timing, instances, everything=True)


async def _in_cluster(given: Given, target: cluster.Target) -> list[Planned]:
    if not given.objects:
        raise UsageError("give manifests with -f: the operator looks after the rest by itself")
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(cluster.resources(target))
        before = await workspace.declared_in(resources)
        judge(given, before.get).require_valid()
        intents = cluster_intents(given)
        return await _planned(resources, before, intents, Timing(), None, everything=False)


async def _planned(
    resources: Resources,
    before: Mapping[ObjectKey, Declared],
    intents: Intents,
    timing: Timing,
    instances: InstanceHost | None,
    *,
    everything: bool,
) -> list[Planned]:
    """``everything``: the manifests are all that labels and annotations there are, and objects that
    are not in them are looked at too.
    """
    changes = {
        intent.key: _changes(before.get(intent.key), intent, whole=everything)
        for intent in intents.objects
    }
    laid = [
        _laid(before.get(intent.key), intent, changes[intent.key]) for intent in intents.objects
    ]
    home = await resources.get_namespace(resources.home)
    preview = PreviewResources(resources, [secret.as_stored() for secret in intents.secrets])
    with output.progress("Planning"):
        async with preview_world(
            preview,
            laid,
            installation=home.uid if home else "",
            timing=timing,
            instances=instances,
        ) as world:
            keys = set(changes)
            if everything:
                keys |= before.keys()
            for key in changes:
                if changes[key] and key.kind is Kind.POLICY:
                    keys |= world.mirror.tenants_of_policy(key.name)
                if changes[key] and key.kind is Kind.STORE:
                    keys |= world.mirror.tenants_of_store(key.name)
            expected = await expect(world, keys)
    return [
        Planned(one.key, one.key not in before, changes.get(one.key, ()), one) for one in expected
    ]


def _changes(now: Declared | None, intent: Intent, *, whole: bool) -> tuple[Change, ...]:
    """What of the object's own fields changes, as `kubectl diff` would show it."""
    found = list(difference(dict(_as_defaulted(now)) if now else {}, dict(intent.spec), "spec"))
    for part in ("labels", "annotations"):
        old = dict(getattr(now, part)) if now else {}
        new = dict(getattr(intent, part))
        if not whole:
            old = {key: old[key] for key in old.keys() & new.keys()}
        found += difference(old, new, f"metadata.{part}")
    return tuple(found)


def _as_defaulted(now: Declared) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = defaulted(as_stored(now)).get("spec") or {}
    return spec


def _laid(now: Declared | None, intent: Intent, changes: Sequence[Change]) -> Declared:
    laid = intent.laid_over(now)
    if now is None or any(change.path.startswith("spec") for change in changes):
        return laid
    return replace(laid, generation=now.generation)


def _as_data(one: Planned) -> dict[str, object]:
    return {
        "object": str(one.key),
        "change": one.verb or "none",
        "fields": [
            {"path": change.path, "before": _plain(change.before), "after": _plain(change.after)}
            for change in one.changes
        ],
        "actions": list(one.expected.actions),
        "problem": one.expected.problem,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict) else None


_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "repair": ("!", "yellow")}


def _show(planned: Sequence[Planned]) -> None:
    for one in planned:
        if not one.verb and not one.expected.problem:
            continue
        sign, style = _SIGNS.get(one.verb, ("!", "red"))
        output.line(f"{sign} {one.key}", style=style)
        for change in one.changes:
            output.line(f"    {change}")
        for action in one.expected.actions:
            output.line(f"    · {action}", style="dim")
        if one.expected.problem:
            output.line(f"    cannot be so: {one.expected.problem}", style="red")
    counts = {
        verb: sum(one.verb == verb for one in planned) for verb in ("create", "change", "repair")
    }
    unchanged = sum(not one.verb for one in planned)
    output.line(
        f"Plan: {counts['create']} to create, {counts['change']} to change, {counts['repair']} to "
        f"repair, {unchanged} unchanged",
        style="bold",
    )
