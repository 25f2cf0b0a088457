"""``memtenant validate``: the API server's verdict, offline."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from memtenant.cli import cluster, output
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import Before, Given, judge, read_inputs
from memtenant.cli.options import Files, Kubeconfig, KubeContext, Namespace, Output, State
from memtenant.cli.output import Format
from memtenant.cli.workspace import DEFAULT_STATE, objects_of
from memtenant.resources.port import RECONCILED, Kind, Resources

__all__ = ["validate"]


def validate(
    files: Files,
    namespace: Namespace = "default",
    against_state: Annotated[
        bool, typer.Option("--against-state", help="Judge updates of what --state holds.")
    ] = False,
    state: State = DEFAULT_STATE,
    kubeconfig: Kubeconfig = None,
    kube_context: KubeContext = None,
    form: Output = Format.TABLE,
) -> None:
    """Say whether an API server would take the manifests. Nothing is written.

    Each object is judged as a new one. With --against-state, --kubeconfig or --context it is judged
    as an update of the object that is there: what may not change is told too.

    Example: `memtenant validate -f tenants/ --context prod`

    Exit code: 0 if all are valid, 1 if not.
    """
    given = read_inputs(files, namespace)
    if kubeconfig is not None or kube_context is not None:
        given = asyncio.run(_judged_by_cluster(given, cluster.Target(kubeconfig, kube_context)))
    elif against_state:
        given = judge(given, objects_of(state).get)
    _show(given, form)
    if given.faults:
        raise typer.Exit(ExitCode.FAILED)


async def _judged_by_cluster(given: Given, target: cluster.Target) -> Given:
    async with cluster.resources(target) as resources:
        return judge(given, await _before(given, resources))


async def _before(given: Given, resources: Resources) -> Before:
    found = {manifest.key: await resources.get(manifest.key) for manifest in given.objects}
    return found.get


def _show(given: Given, form: Format) -> None:
    if form in (Format.JSON, Format.YAML):
        valid = not given.faults
        faults = [{"where": fault.where, "what": fault.what} for fault in given.faults]
        output.data({"valid": valid, "objects": len(given.objects), "faults": faults}, form)
        return
    for skipped in given.skipped:
        output.note(f"Skipped {skipped}: not memtenant's")
    for fault in given.faults:
        output.fail(str(fault))
    if not given.faults:
        counts = {kind: sum(m.key.kind is kind for m in given.objects) for kind in Kind}
        many = [
            f"{count} {kind.value}" for kind, count in counts.items() if count or kind in RECONCILED
        ]
        secrets = f", {len(given.secrets)} Secret" if given.secrets else ""
        output.line(f"Valid: {', '.join(many)}{secrets}", style="green")
